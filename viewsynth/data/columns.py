# SPDX-License-Identifier: Apache-2.0
"""Checks of whole metadata columns: the form of boxes, and the sign and unit of elevations.

A single cell cannot tell these apart. If a column has another form than the options say, the error
names the option that reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from viewsynth.data import images

FIT = (-10.0, 60.0)  # degrees: elevations of ground images that the reconstruction accepts
LEVEL = -5.0  # degrees: a camera above the person may measure down to this
SIGN = -30.0  # degrees: no ground image is taken from lower, so the sign must be wrong
SLACK = 2.0  # pixels by which rounding may move a box out of its image
PERSON = (1.0, 7.0)  # height / width of most boxes of people
RIGHT_ANGLE = 1.6  # radians: just above 90 degrees
LOOK = 2000  # boxes whose image sizes are read to recognise the form
BOX_FORMS = {
    "xywh": "x, y, width, height (COCO format)",
    "fraction": "left, top, right, bottom as fractions of the image",
}
ELEVATION_FORMS = {
    "horizon": "degrees above the horizon",
    "pitch": "camera pitch",
    "nadir": "degrees from straight down",
}
CONVENTION = (
    "elevation here is degrees above the horizon, 90 = straight down from above; a drone's pitch "
    "is negative when it looks down: --data.elevation pitch reads it (elevation = -pitch); "
    "--data.elevation nadir reads degrees from straight down (elevation = 90 - value)"
)
Box = tuple[float, float, float, float]


@dataclass
class Row:
    """A metadata row with valid cells.

    Args:
        where: File and line.
        paths: Its image, video or frames.
        fields: Fields of `Sample` that the row has; `elevation` and `box` are as written until the
            columns have been checked.
    """

    where: str
    paths: tuple[Path, ...]
    fields: dict

    @property
    def from_above(self) -> bool:
        """Whether its camera is certainly above the person: an aerial view, or a drone."""
        return self.fields.get("view") == "aerial" or self.fields.get("platform") == "drone"


Bad = list[tuple[Row, str]]  # rows that cannot be used, each with its reason


# ---- elevation -----------------------------------------------------------------------------------


def elevations(rows: list[Row], form: str, warnings: list[str]) -> Bad:
    """Convert the column to degrees above the horizon, and check that the result is plausible.

    Args:
        rows: All rows of one table; their `elevation` is replaced.
        form: How the column is written, a key of `ELEVATION_FORMS`.
        warnings: Get the elevations that the reconstruction will not use.

    Returns:
        Rows with an impossible elevation.

    Raises:
        ValueError: if the column seems to have another form.
    """
    given = [row for row in rows if "elevation" in row.fields]
    values = {row.where: row.fields["elevation"] for row in given}
    for row in given:
        row.fields["elevation"] = _above_horizon(values[row.where], form)
    bad: Bad = []
    above = [row for row in given if row.from_above]
    ground = [row for row in given if not row.from_above]
    for some, lowest, doubtful_below, what in (
        (above, 0.0, 0.0, "an image from above"),
        (ground, SIGN, FIT[0], "an image from the ground"),
    ):
        low = [row for row in some if row.fields["elevation"] < lowest]
        reasons = [
            f"elevation {values[row.where]:g} of {what}, read as {ELEVATION_FORMS[form]}, is "
            f"{-row.fields['elevation']:g} degrees below the horizon: {CONVENTION}"
            for row in low
        ]
        found = [row.fields["elevation"] for row in some]
        doubtful = sum(value < doubtful_below for value in found)
        level = low and min(found) >= LEVEL and max(found) > 0
        if low and not level and 2 * doubtful >= len(some):
            raise ValueError(f"{low[0].where} and {len(low) - 1} more of {len(some)}: {reasons[0]}")
        bad += zip(low, reasons, strict=True)
    _refuse_radians(above)
    warnings += _not_usable([row for row in given if row.fields.get("view") != "aerial"])
    return bad


def _above_horizon(value: float, form: str) -> float:
    return value if form == "horizon" else 90 - value if form == "nadir" else 0.0 - value


def _refuse_radians(above: list[Row]) -> None:
    """Raise ValueError if all images from above have an elevation too low for a drone."""
    values = [row.fields["elevation"] for row in above]
    small = all(0 < value < RIGHT_ANGLE for value in values)
    if len(values) > 1 and small and any(value % 1 for value in values):
        raise ValueError(
            f"{above[0].where} and all other images from above: elevation {values[0]:g} looks like "
            "radians; write degrees above the horizon, 90 = straight down from above"
        )


def _not_usable(ground: list[Row]) -> Iterable[str]:
    """Warnings of elevations outside the range of the reconstruction."""
    low = [row for row in ground if SIGN <= row.fields["elevation"] < FIT[0]]
    below = [row for row in ground if SIGN <= row.fields["elevation"] < 0]
    high = [row for row in ground if row.fields["elevation"] > FIT[1]]
    instead = (
        f"the reconstruction accepts {FIT[0]:g} to {FIT[1]:g} degrees, and estimates the elevation "
        f"instead: {CONVENTION}"
    )
    if below and (low or len(below) == len(ground) > 1):
        yield (
            f"{below[0].where} and {len(below) - 1} more: elevation "
            f"{below[0].fields['elevation']:g} of an image from the ground is below the horizon; "
            f"{instead}"
        )
    if high:
        yield (
            f"{high[0].where} and {len(high) - 1} more: elevation "
            f"{high[0].fields['elevation']:g} of an image from the ground; {instead}; if a drone "
            "took it, its view is aerial"
        )


# ---- boxes ---------------------------------------------------------------------------------------


def boxes(rows: list[Row], form: str, warnings: list[str]) -> Bad:
    """Convert the column to left, top, right, bottom in pixels.

    Args:
        rows: All rows of one table; their `box` is replaced.
        form: xyxy, xywh or fraction; auto: xyxy, unless the column shows another form.
        warnings: Get a suspicion that is not certain.

    Returns:
        Rows with an impossible box.

    Raises:
        ValueError: if the column has another form.
    """
    given = [row for row in rows if "box" in row.fields]
    if not given:
        return []
    size = cache(images.size)
    if form == "auto":
        form = "xyxy"
        _refuse_other_forms(given, size, warnings)
    if form == "fraction":
        _refuse_fractions_of_sides(given)
    if form == "xywh":
        _refuse_corners(given, size)
    bad: Bad = []
    for row in given:
        box = row.fields["box"]
        try:
            row.fields["box"] = _pixels(box, form, row.paths[0], size)
        except ValueError as error:
            bad.append((row, f"{error}; got {_shown(box)}"))
    return bad


def _shown(box: Box) -> str:
    return " ".join(f"{value:g}" for value in box)


def _pixels(box: Box, form: str, path: Path, size: Callable) -> tuple[int, int, int, int]:
    """A box in pixels; raises ValueError if it is not valid in that form."""
    one, two, three, four = box
    if form == "xyxy":
        found = tuple(round(value) for value in box)
        if not (0 <= found[0] < found[2] and 0 <= found[1] < found[3]):
            raise ValueError(
                "box must be left, top, right, bottom in pixels, or --data.box must be "
                f"xywh for {BOX_FORMS['xywh']}"
            )
        return found
    width, height = size(path)
    if form == "fraction":
        if not (0 <= one < three <= 1 and 0 <= two < four <= 1):
            raise ValueError("box must be left, top, right, bottom as fractions from 0 to 1")
        return _corners(one * width, two * height, three * width, four * height)
    if three <= 0 or four <= 0:
        raise ValueError("box must be x, y, width, height in pixels, with sides above 0")
    if not _inside(*box, width, height):
        raise ValueError(f"box leads out of its image of {width}x{height} pixels")
    return _corners(max(one, 0), max(two, 0), one + three, two + four)


def _corners(left: float, top: float, right: float, bottom: float) -> tuple[int, int, int, int]:
    """Rounded corners, at least one pixel apart."""
    left, top = round(left), round(top)
    return left, top, max(round(right), left + 1), max(round(bottom), top + 1)


def _refuse_other_forms(rows: list[Row], size: Callable, warnings: list[str]) -> None:
    """Raise ValueError if a column that should be xyxy has another form."""
    found = [row.fields["box"] for row in rows]
    if all(0 <= value <= 1 for box in found for value in box):
        _refuse_fractions_of_sides(rows)
        raise _other_form(rows, 0, "fraction", "all values are between 0 and 1")
    flipped = _reversed(found)
    corners = sum(_upright(box[2] - box[0], box[3] - box[1]) for box in found)
    sides = sum(_upright(box[2], box[3]) for box in found)
    if not flipped:
        if len(found) > 2 and 2 * corners < len(found) == sides:
            warnings.append(
                f"{rows[0].where} and others: most boxes are wider than high; if they are "
                f"{BOX_FORMS['xywh']}, give --data.box xywh"
            )
        return
    mistakes = 50 * len(flipped) < len(found) < 1.1 * corners
    if mistakes or sides < corners or (sides == corners and (sides or len(found) == 1)):
        return  # mistakes of single rows, which are rejected later
    shapes = [(box, _size(row, size)) for box, row in zip(found[:LOOK], rows, strict=False)]
    known = [(box, shape) for box, shape in shapes if shape]
    why = "a right edge is left of its left edge, or a bottom edge above its top edge"
    if all(_inside(box[0], box[1], *box[2:], *shape) for box, shape in known):
        raise _other_form(rows, flipped[0], "xywh", why)
    if all(_inside(x - w / 2, y - h / 2, w, h, *shape) for (x, y, w, h), shape in known):
        raise ValueError(
            f"{rows[flipped[0]].where}: box {_shown(found[flipped[0]])} and the others are "
            "centre x, centre y, width, height (YOLO format); write left, top, right, bottom in "
            "pixels"
        )


def _reversed(boxes: list[Box]) -> list[int]:
    """Indices of boxes whose right or bottom edge comes before the left or top one."""
    return [k for k, box in enumerate(boxes) if box[2] <= box[0] or box[3] <= box[1]]


def _inside(x: float, y: float, w: float, h: float, width: int, height: int) -> bool:
    within = x >= -SLACK and y >= -SLACK and x + w <= width + SLACK and y + h <= height + SLACK
    return w > 0 and h > 0 and within


def _upright(width: float, height: float) -> bool:
    return width > 0 and PERSON[0] < height / width < PERSON[1]


def _size(row: Row, size: Callable) -> tuple[int, int] | None:
    try:
        return size(row.paths[0])
    except images.ImageError:
        return None  # reported when the image is read


def _other_form(rows: list[Row], at: int, form: str, why: str) -> ValueError:
    return ValueError(
        f"{rows[at].where}: box {_shown(rows[at].fields['box'])}: the column is {BOX_FORMS[form]}, "
        f"because {why}; --data.box {form} reads it (--data.box xyxy reads left, top, right, "
        "bottom in pixels anyway)"
    )


def _refuse_corners(rows: list[Row], size: Callable) -> None:
    """Raise ValueError if most boxes, read as x, y, width, height, lead out of their images."""
    shapes = [(row, shape) for row in rows if (shape := _size(row, size))]
    outside = [row for row, shape in shapes if not _inside(*row.fields["box"], *shape)]
    if 2 * len(outside) > len(shapes):
        raise ValueError(
            f"{outside[0].where}: box {_shown(outside[0].fields['box'])}, read as x, y, width, "
            f"height, leads out of its image, as do {len(outside)} of {len(rows)} boxes; "
            "--data.box xyxy reads left, top, right, bottom"
        )


def _refuse_fractions_of_sides(rows: list[Row]) -> None:
    """Raise ValueError for fractions that are not corners."""
    found = [row.fields["box"] for row in rows]
    flipped = _reversed(found)
    if flipped and 4 * len(flipped) >= len(found):
        raise ValueError(
            f"{rows[flipped[0]].where}: box {_shown(found[flipped[0]])}: the column is x, y, "
            "width, height or centre x, centre y, width, height (YOLO format) in fractions, which "
            f"cannot be read; write {BOX_FORMS['fraction']}, which --data.box fraction reads"
        )
