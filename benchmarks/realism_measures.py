# SPDX-License-Identifier: Apache-2.0
"""Measures of one crop, and of two crops of one person: `realism.py` compares worlds by them.

Filmed and rendered crops are measured by the same functions at the same height, and the person and
the parts of the body are found by the pose model in both, so that both have the same errors. The
parts are small and simple, to be right rather than complete:

- upper: the quadrilateral of shoulders and hips and a band along the spine, without its ends;
- lower: bands along the thighs, because shorts and skirts leave the shanks bare;
- hair: of what is above the shoulders, the 35 % that is farthest from the hips; a cap counts;
- skin: a disc around the nose of a person who faces the camera.

All without the outermost pixel of the person. The bag, the arm or the coat before a part counts,
and so does the error of the pose model, which grows with the elevation: above about 60 degrees the
parts are often wrong. The elevations of filmed crops are unknown and may be lower than a world's.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from viewsynth.bodies import KEYPOINTS
from viewsynth.metrics import colours
from viewsynth.reconstruct.parse import INDEX, Parse, middle

HEIGHT = 128  # pixels: of every image that is measured
PERSON, BACKGROUND = 0.7, 0.1  # alpha above and below which a pixel is the person's, the ground's
SURE = 0.3  # presence of a person, below which an image is left out
LEAST = 20  # pixels of a part, with fewer of which it is not measured
RIM = 0.03  # share of the height that `look` leaves out: crops of figures have frames
BAND = 0.16  # half the width of the band along the spine, in lengths of the spine
THIGH = 0.2  # half the width of the band along a thigh, in lengths of the thigh
HAIR = 65  # percentile of the distance from the hips, above which a head is hair
PATTERN = 20.0  # L*: range without shading, above which a pattern is strong
CLIPPED = 99.0  # L*
HEAD = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
BORDER = 2  # pixels of the person at one border of the image, from which on it is cut


def scaled(image: np.ndarray, height: int = HEIGHT) -> np.ndarray:
    """An image of a common height: Lanczos if it becomes smaller, else bicubic.

    Args:
        image: sRGB.  uint8 [h, w, 3]
        height: Of the result, pixels.

    Returns:
        uint8 [height, W, 3]
    """
    size = max(round(image.shape[1] * height / image.shape[0]), 16), height
    way = Image.Resampling.LANCZOS if image.shape[0] > height else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(image).resize(size, way))


# ---- parts of the body ---------------------------------------------------------------------------


def regions(found: Parse) -> dict[str, np.ndarray]:
    """Where the parts of the body are, bool [H, W] each.

    Args:
        found: Of the pose model.
    """
    person = found.mask > PERSON
    inner = ndimage.binary_erosion(person)
    points = found.points.astype(np.float64)
    corners = [INDEX[p] for p in ("left_shoulder", "right_shoulder", "right_hip", "left_hip")]
    top, bottom = middle(points, "shoulder"), middle(points, "hip")
    along, across = _along(person.shape, top, bottom)
    upper = (_polygon(person.shape, points[corners]) | (across < BAND)) & _between(along, 0.15, 0.9)
    lower = np.zeros_like(person)
    for side in ("left", "right"):
        ends = points[INDEX[f"{side}_hip"]], points[INDEX[f"{side}_knee"]]
        share, away = _along(person.shape, *ends)
        lower |= _between(share, 0.2, 1.0) & (away < THIGH)
    head = _head(found, along) & inner
    hair = head & (along < (np.percentile(along[head], 100 - HAIR) if head.any() else 0))
    nose = np.zeros_like(person)
    if found.front:
        nose = _distance(person.shape, points[INDEX["nose"]]) < 0.03 * found.height
    return {
        "person": person,
        "background": found.mask < BACKGROUND,
        "upper": upper & inner,
        "lower": lower & inner & ~upper,
        "hair": hair,
        "skin": nose & inner,
    }


def _head(found: Parse, along: np.ndarray) -> np.ndarray:
    """What is above the shoulders and near the landmarks of the head."""
    at = found.points[[INDEX[name] for name in HEAD]].mean(0)
    near = _distance(along.shape, at) < max(0.14 * found.height, 6)
    return near & (along < -0.1)


def _distance(shape: tuple[int, int], point: np.ndarray) -> np.ndarray:
    """Of each pixel to a point (x, y), pixels."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    return np.hypot(columns - point[0], rows - point[1])


def _along(shape: tuple[int, int], start, end) -> tuple[np.ndarray, np.ndarray]:
    """Share of the way from `start` to `end` of each pixel, and its distance, in lengths of it."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    way = np.asarray(end) - start
    length = max(float(np.hypot(*way)), 1.0)
    x, y = (columns - start[0]) / length, (rows - start[1]) / length
    unit = way / length
    return x * unit[0] + y * unit[1], np.abs(x * unit[1] - y * unit[0])


def _between(share: np.ndarray, low: float, high: float) -> np.ndarray:
    return (share >= low) & (share <= high)


def _polygon(shape: tuple[int, int], corners: np.ndarray) -> np.ndarray:
    """The inside of a polygon, bool [H, W]."""
    image = Image.new("1", shape[::-1])
    ImageDraw.Draw(image).polygon([tuple(map(float, one)) for one in corners], fill=1)
    return np.asarray(image, bool)


# ---- one crop ------------------------------------------------------------------------------------


def measure(image: np.ndarray, found: Parse) -> dict[str, float]:
    """All figures of one crop.

    Args:
        image: sRGB, of the common height.  uint8 [H, W, 3]
        found: What the pose model finds in it.

    Returns:
        Figures by name, NaN where a part is too small: colours and lightness are CIELAB; lengths
        are shares of the crop. Empty if there is no person.
    """
    if found.presence < SURE or (found.mask > PERSON).sum() < LEAST:
        return {}
    lab, parts = colours.lab(image), regions(found)
    bend = np.abs(ndimage.laplace(lab[..., 0], mode="nearest"))
    figures = _look(lab, bend) | framing(found.mask) | hidden(found)
    for name, where in parts.items():
        for key, value in zip("Lab", _median(lab, where), strict=True):
            figures[f"{name}.{key}"] = value
    for name in ("upper", "lower"):
        figures |= _garment(name, lab, bend, parts[name])
    return figures


def _median(lab: np.ndarray, where: np.ndarray) -> tuple[float, float, float]:
    """The median colour of a part."""
    least = LEAST // 2 if where.sum() < 100 else LEAST
    return tuple(map(float, np.median(lab[where], 0))) if where.sum() >= least else (np.nan,) * 3


def _garment(name: str, lab, bend, where: np.ndarray) -> dict[str, float]:
    """Colour and contrast of a garment."""
    keys = ("chroma", "dark", "grey", "white", "blue", "saturated")
    keys += ("range", "texture", "laplacian", "pattern")
    if where.sum() < LEAST:
        return {f"{name}.{key}": np.nan for key in keys}
    light, a, b = np.median(lab[where], 0)
    chroma, hue = float(np.hypot(a, b)), float(np.degrees(np.arctan2(b, a)) % 360)
    dull = light >= 30 and chroma < 10
    low, high = np.percentile(lab[where][:, 0], (10, 90))
    texture = detail(lab[..., 0], where)
    values = (
        *(chroma, light < 30, dull and light < 70, dull and light >= 70),
        *(light >= 30 and chroma >= 10 and 220 <= hue < 310, chroma > 30),
        *(high - low, texture, bend[where].mean(), texture > PATTERN),
    )
    return {f"{name}.{key}": float(v) for key, v in zip(keys, values, strict=True)}


def detail(light: np.ndarray, where: np.ndarray) -> float:
    """Range of lightness from 10 % to 90 % of a part after its shading is taken away.

    The shading is the quadratic surface that fits best; a pattern, a print, folds and a bag stay.

    Args:
        light: L*.  [H, W]
        where: The part, of at least six pixels.  bool [H, W]
    """
    rows, columns = (values / HEIGHT for values in np.nonzero(where))
    one = np.ones_like(rows)
    basis = np.stack([one, rows, columns, rows**2, rows * columns, columns**2], 1)
    values = light[where]
    rest = values - basis @ np.linalg.lstsq(basis, values, rcond=None)[0]
    low, high = np.percentile(rest, (10, 90))
    return float(high - low)


def _look(lab: np.ndarray, bend: np.ndarray) -> dict[str, float]:
    """What the eye compares first, in the whole image but its rim."""
    rim = round(RIM * lab.shape[0])
    inner = slice(rim, lab.shape[0] - rim), slice(rim, lab.shape[1] - rim)
    light = lab[inner][..., 0]
    low, middle_, high = np.percentile(light, (2, 50, 98))
    return {
        "look.low": float(low),
        "look.light": float(middle_),
        "look.high": float(high),
        "look.range": float(high - low),
        "look.clipped": float((light > CLIPPED).mean()),
        "look.chroma": float(np.hypot(lab[inner][..., 1], lab[inner][..., 2]).mean()),
        "look.laplacian": float(bend[inner].mean()),
    }


def framing(mask: np.ndarray) -> dict[str, float]:
    """Size and place of the person's box in the crop, and whether a border cuts the person.

    Args:
        mask: Alpha of the person.  [H, W]
    """
    person = mask > 0.5
    rows, columns = (np.flatnonzero(person.any(axis)) for axis in (1, 0))
    height, width = mask.shape
    borders = {
        "top": person[0],
        "bottom": person[-1],
        "side": np.concatenate([person[:, 0], person[:, -1]]),
    }
    cut = {f"framing.cut.{key}": float(line.sum() > BORDER) for key, line in borders.items()}
    across = (columns[0] + columns[-1] + 1) / 2 / width - 0.5
    down = (rows[0] + rows[-1] + 1) / 2 / height - 0.5
    return cut | {
        "framing.tall": (rows[-1] - rows[0] + 1) / height,
        "framing.wide": (columns[-1] - columns[0] + 1) / width,
        "framing.aspect": height / width,
        "framing.offset": float(np.hypot(across, down)),
        "framing.cut": max(cut.values()),
    }


def hidden(found: Parse) -> dict[str, float]:
    """Share of the landmarks outside the crop, and of those inside that are not on the person.

    Args:
        found: Of the pose model.
    """
    height, width = found.mask.shape
    at = np.floor(found.points).astype(int)
    inside = ((at >= 0) & (at < [width, height])).all(1)
    on = ndimage.binary_dilation(found.mask > 0.5, iterations=2)[at[inside, 1], at[inside, 0]]
    off = float(1 - on.mean()) if inside.any() else np.nan
    return {"hidden.outside": float(1 - inside.sum() / len(KEYPOINTS)), "hidden.off": off}


# ---- two crops of one person ---------------------------------------------------------------------


def differences(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    """How far two crops of one person are apart, all >= 0.

    Args:
        one: Of `measure`.
        other: Likewise.
    """
    keys = {
        "person.L": "person.L",
        "background.L": "background.L",
        "background.a": "background.a",
        "background.b": "background.b",
        "range": "look.range",
        "low": "look.low",
        "chroma": "look.chroma",
        "tall": "framing.tall",
    }
    found = {name: abs(one[key] - other[key]) for name, key in keys.items()}
    for axis in "Lab":
        apart = [abs(one[f"{p}.{axis}"] - other[f"{p}.{axis}"]) for p in ("upper", "lower")]
        found[f"garments.{axis}"] = mean(apart)
    found["garments.delta_e"] = mean([float(apart_in(one, other, p)) for p in ("upper", "lower")])
    found["sharpness"] = abs(np.log2(one["look.laplacian"] / other["look.laplacian"]))
    return {name: float(value) for name, value in found.items()}


def apart_in(one: dict[str, float], other: dict[str, float], part: str) -> np.ndarray:
    """CIEDE2000 between the median colours of a part in two crops."""
    return colours.delta_e(*(np.array([f[f"{part}.{k}"] for k in "Lab"]) for f in (one, other)))


def mean(values: list[float]) -> float:
    """The mean without NaN; NaN if there is no value."""
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")


def sharing(upper: np.ndarray, lower: np.ndarray, limit: float = 12.0) -> np.ndarray:
    """Of each person, the share of the others with the colours of both garments alike.

    Args:
        upper: Median colour of each person's upper garment, CIELAB.  [P, 3]
        lower: Of the lower garment.  [P, 3]
        limit: CIEDE2000, up to which two colours are alike.

    Returns:
        NaN for a person without a colour.  float64 [P]
    """
    known = ~np.isnan(np.concatenate([upper, lower], 1)).any(1)
    alike = np.ones((len(upper), len(upper)), bool)
    for part in (upper, lower):
        alike &= colours.delta_e(part[:, None], part[None]) <= limit
    alike[~known] = alike[:, ~known] = False
    np.fill_diagonal(alike, False)
    others = max(known.sum() - 1, 1)
    return np.where(known & (known.sum() > 1), alike.sum(1) / others, np.nan)
