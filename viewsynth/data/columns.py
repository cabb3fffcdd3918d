# SPDX-License-Identifier: Apache-2.0
"""What only a whole column of metadata can tell: the form of its boxes, the sign and unit of its
elevations. A column in another form than was asked for is an error with the option that reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from viewsynth.data import images

FIT = (-10.0, 60.0)  # degrees: the elevations of ground pictures that a reconstruction knows
LEVEL = -5.0  # degrees: a camera above the person may look up so far
SIGN = -30.0  # nobody photographs from so far below: it is a sign
SLACK = 2.0  # pixels that a box may lead out of its picture by rounding
PERSON = (1.0, 7.0)  # height / width of most boxes of people
RIGHT = 1.6  # radians: just above a right angle
LOOK = 2000  # boxes whose pictures' sizes are looked up to tell the form
FORMS = {
    "xywh": "x, y, width, height (COCO's form)",
    "fraction": "left, top, right, bottom in fractions of the picture",
}
READ = {
    "horizon": "degrees above the horizon",
    "pitch": "a camera's pitch",
    "nadir": "degrees from straight down",
}
MEANS = (
    "elevation here is degrees above the horizon, 90 = straight down from above; a drone's pitch "
    "is negative when it looks down: --data.elevation pitch reads it (elevation = -pitch); "
    "--data.elevation nadir reads degrees from straight down (elevation = 90 - value)"
)
Box = tuple[float, float, float, float]


@dataclass
class Row:
    """A row that can be read.

    Args:
        where: File and line.
        paths: Its picture, video or frames.
        fields: Of `Sample`, as far as the row has them; `elevation` and `box` as written, until
            the columns were looked at.
    """

    where: str
    paths: tuple[Path, ...]
    fields: dict

    @property
    def flies(self) -> bool:
        """Whether its camera is above the person for sure: an aerial picture, or a drone's."""
        return self.fields.get("view") == "aerial" or self.fields.get("platform") == "drone"


Bad = list[tuple[Row, str]]  # rows that cannot be used, and why


# ---- elevation -----------------------------------------------------------------------------------


def elevations(rows: list[Row], form: str, warnings: list[str]) -> Bad:
    """Bring the column to degrees above the horizon, and look whether it can be that.

    Args:
        form: How it is written, see `READ`.
        warnings: Get what the reconstruction will not believe.
    Raises: ValueError: if the column is written in another form.
    """
    told = [row for row in rows if "elevation" in row.fields]
    values = {row.where: row.fields["elevation"] for row in told}
    for row in told:
        row.fields["elevation"] = _above(values[row.where], form)
    bad: Bad = []
    air = [row for row in told if row.flies]
    ground = [row for row in told if not row.flies]
    for some, least, doubted, what in (
        (air, 0.0, 0.0, "a picture from above"),
        (ground, SIGN, FIT[0], "a picture from the ground"),
    ):
        low = [row for row in some if row.fields["elevation"] < least]
        reasons = [
            f"elevation {values[row.where]:g} of {what}, read as {READ[form]}, is "
            f"{-row.fields['elevation']:g} degrees below the horizon: {MEANS}"
            for row in low
        ]
        found = [row.fields["elevation"] for row in some]
        doubtful = sum(value < doubted for value in found)
        level = low and min(found) >= LEVEL and max(found) > 0
        if low and not level and 2 * doubtful >= len(some):
            raise ValueError(f"{low[0].where} and {len(low) - 1} more of {len(some)}: {reasons[0]}")
        bad += zip(low, reasons, strict=True)
    _radians(air)
    warnings += _unknown_to_the_fit([row for row in told if row.fields.get("view") != "aerial"])
    return bad


def _above(value: float, form: str) -> float:
    return value if form == "horizon" else 90 - value if form == "nadir" else 0.0 - value


def _radians(air: list[Row]) -> None:
    """Refuse a column of drones that all fly as low as no drone does."""
    values = [row.fields["elevation"] for row in air]
    small = all(0 < value < RIGHT for value in values)
    if len(values) > 1 and small and any(value % 1 for value in values):
        raise ValueError(
            f"{air[0].where} and all others from above: elevation {values[0]:g} looks like "
            "radians; write degrees above the horizon, 90 = straight down from above"
        )


def _unknown_to_the_fit(ground: list[Row]) -> Iterable[str]:
    low = [row for row in ground if SIGN <= row.fields["elevation"] < FIT[0]]
    below = [row for row in ground if SIGN <= row.fields["elevation"] < 0]
    high = [row for row in ground if row.fields["elevation"] > FIT[1]]
    if below and (low or len(below) == len(ground) > 1):
        yield (
            f"{below[0].where} and {len(below) - 1} more: an elevation below the horizon, "
            f"{below[0].fields['elevation']:g}, of a picture from the ground; a reconstruction "
            f"knows {FIT[0]:g} to {FIT[1]:g} and estimates it instead: {MEANS}"
        )
    if high:
        yield (
            f"{high[0].where} and {len(high) - 1} more: an elevation of "
            f"{high[0].fields['elevation']:g} of a picture from the ground; a reconstruction "
            f"knows {FIT[0]:g} to {FIT[1]:g} and estimates it instead: {MEANS}; of a drone's "
            "picture the view is aerial"
        )


# ---- boxes ---------------------------------------------------------------------------------------


def boxes(rows: list[Row], form: str, warnings: list[str]) -> Bad:
    """Bring the column to left, top, right, bottom in pixels.

    Args:
        form: xyxy, xywh, fraction; auto takes it for xyxy unless the column says otherwise.
        warnings: Get a doubt that is no proof.
    Raises: ValueError: if the column is written in another form.
    """
    told = [row for row in rows if "box" in row.fields]
    if not told:
        return []
    size = cache(images.size)
    if form == "auto":
        form = "xyxy"
        _recognise(told, size, warnings)
    if form == "fraction":
        _no_fractions_of_sides(told)
    if form == "xywh":
        _no_corners(told, size)
    bad: Bad = []
    for row in told:
        box = row.fields["box"]
        try:
            row.fields["box"] = _pixels(box, form, row.paths[0], size)
        except ValueError as error:
            bad.append((row, f"{error}; got {_said(box)}"))
    return bad


def _said(box: Box) -> str:
    return " ".join(f"{value:g}" for value in box)


def _pixels(box: Box, form: str, path: Path, size: Callable) -> tuple[int, int, int, int]:
    """A box in pixels. Raises ValueError if it is none in that form."""
    one, two, three, four = box
    if form == "xyxy":
        found = tuple(round(value) for value in box)
        if not (0 <= found[0] < found[2] and 0 <= found[1] < found[3]):
            raise ValueError(
                "box must be left, top, right, bottom in pixels, or --data.box must be "
                f"xywh for {FORMS['xywh']}"
            )
        return found
    width, height = size(path)
    if form == "fraction":
        if not (0 <= one < three <= 1 and 0 <= two < four <= 1):
            raise ValueError("box must be left, top, right, bottom in fractions, from 0 to 1")
        return _corners(one * width, two * height, three * width, four * height)
    if three <= 0 or four <= 0:
        raise ValueError("box must be x, y, width, height in pixels, the sides above 0")
    if not _inside(*box, width, height):
        raise ValueError(f"box leads out of its picture of {width}x{height} pixels")
    return _corners(max(one, 0), max(two, 0), one + three, two + four)


def _corners(left: float, top: float, right: float, bottom: float) -> tuple[int, int, int, int]:
    """Rounded, at least a pixel each way."""
    left, top = round(left), round(top)
    return left, top, max(round(right), left + 1), max(round(bottom), top + 1)


def _recognise(rows: list[Row], size: Callable, warnings: list[str]) -> None:
    """Raise ValueError if a column that should be xyxy is in another form."""
    found = [row.fields["box"] for row in rows]
    if all(0 <= value <= 1 for box in found for value in box):
        _no_fractions_of_sides(rows)
        raise _other_form(rows, 0, "fraction", "all values are between 0 and 1")
    turned = [k for k, box in enumerate(found) if box[2] <= box[0] or box[3] <= box[1]]
    corners = sum(_upright(box[2] - box[0], box[3] - box[1]) for box in found)
    sides = sum(_upright(box[2], box[3]) for box in found)
    if not turned:
        if len(found) > 2 and 2 * corners < len(found) == sides:
            warnings.append(
                f"{rows[0].where} and others: most boxes are wider than high; if they are "
                f"{FORMS['xywh']}, give --data.box xywh"
            )
        return
    mistakes = 50 * len(turned) < len(found) < 1.1 * corners
    if mistakes or sides < corners or (sides == corners and (sides or len(found) == 1)):
        return  # of single rows, which are rejected
    shapes = [(box, _size(row, size)) for box, row in zip(found[:LOOK], rows, strict=False)]
    known = [(box, shape) for box, shape in shapes if shape]
    why = "a right edge lies left of its left one, or a bottom above its top"
    if all(_inside(box[0], box[1], *box[2:], *shape) for box, shape in known):
        raise _other_form(rows, turned[0], "xywh", why)
    if all(_inside(x - w / 2, y - h / 2, w, h, *shape) for (x, y, w, h), shape in known):
        raise ValueError(
            f"{rows[turned[0]].where}: box {_said(found[turned[0]])} and the others are centre x, "
            "centre y, width, height (YOLO's form); write left, top, right, bottom in pixels"
        )


def _inside(x: float, y: float, w: float, h: float, width: int, height: int) -> bool:
    within = x >= -SLACK and y >= -SLACK and x + w <= width + SLACK and y + h <= height + SLACK
    return w > 0 and h > 0 and within


def _upright(width: float, height: float) -> bool:
    return width > 0 and PERSON[0] < height / width < PERSON[1]


def _size(row: Row, size: Callable) -> tuple[int, int] | None:
    try:
        return size(row.paths[0])
    except images.ImageError:
        return None  # told when it is read


def _other_form(rows: list[Row], at: int, form: str, why: str) -> ValueError:
    return ValueError(
        f"{rows[at].where}: box {_said(rows[at].fields['box'])}: the column is {FORMS[form]}, as "
        f"{why}; --data.box {form} reads it (--data.box xyxy: left, top, right, bottom in pixels "
        "all the same)"
    )


def _no_corners(rows: list[Row], size: Callable) -> None:
    """Raise ValueError if most boxes, read as x, y, width, height, lead out of their pictures."""
    shapes = [(row, shape) for row in rows if (shape := _size(row, size))]
    outside = [row for row, shape in shapes if not _inside(*row.fields["box"], *shape)]
    if 2 * len(outside) > len(shapes):
        raise ValueError(
            f"{outside[0].where}: box {_said(outside[0].fields['box'])}, read as x, y, width, "
            f"height, leads out of its picture, as {len(outside)} of {len(rows)} do; --data.box "
            "xyxy reads left, top, right, bottom"
        )


def _no_fractions_of_sides(rows: list[Row]) -> None:
    """Raise ValueError for fractions that are no corners."""
    found = [row.fields["box"] for row in rows]
    turned = [k for k, box in enumerate(found) if box[2] <= box[0] or box[3] <= box[1]]
    if turned and 4 * len(turned) >= len(found):
        raise ValueError(
            f"{rows[turned[0]].where}: box {_said(found[turned[0]])}: the column is x, y, width, "
            "height or centre x, centre y, width, height (YOLO's form) in fractions, which is not "
            f"read; write {FORMS['fraction']}, which --data.box fraction reads"
        )
