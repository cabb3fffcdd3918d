# SPDX-License-Identifier: Apache-2.0
"""Checks of whole columns: the form of boxes, the sign and unit of elevations."""

from __future__ import annotations

import numpy as np
import pytest
from own_pictures import load, put, reasons, refusal, write_csv, write_jsonl
from PIL import Image

from viewsynth.data import images

WIDTH, HEIGHT = 640, 480
# Upright people all over the image: left, top, right, bottom.
PEOPLE = [(20, 30, 100, 230), (300, 40, 370, 240), (400, 100, 480, 330), (550, 200, 620, 420)]


def table(root, boxes, write=write_csv):
    """A table with one image for each box."""
    names = [f"{k}.png" for k in range(len(boxes))]
    put(root, *names, size=(WIDTH, HEIGHT))
    rows = zip(names, boxes, strict=True)
    write(root, *({"file_name": name, "pid": "1", "box": box} for name, box in rows))
    return root


def text(boxes):
    return [" ".join(map(str, box)) for box in boxes]


def sides(boxes):
    return [(x, y, right - x, bottom - y) for x, y, right, bottom in boxes]


def parts(boxes):
    return [(a / WIDTH, b / HEIGHT, c / WIDTH, d / HEIGHT) for a, b, c, d in boxes]


def centres(boxes):
    return [((a + c) / 2, (b + d) / 2, c - a, d - b) for a, b, c, d in boxes]


def read(root, **options):
    return [sample.box for sample in load(root, **options).samples]


def test_corners_are_read(tmp_path):
    assert read(table(tmp_path, text(PEOPLE))) == PEOPLE
    assert read(tmp_path, box="xyxy") == PEOPLE and not load(tmp_path).warnings


@pytest.mark.parametrize(
    "form", ["[1, 2, 19, 30]", "(1.0, 2.0, 19.0, 30.0)", "1,2,19,30", "[1 2 19 30]"]
)
def test_boxes_as_tools_write_them(tmp_path, form):
    assert read(table(tmp_path, [form])) == [(1, 2, 19, 30)]


# ---- COCO ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [write_csv, write_jsonl])
@pytest.mark.parametrize("number", [int, float])
def test_coco_boxes_are_recognised_and_read(tmp_path, number, write):
    boxes = [tuple(map(number, box)) for box in sides(PEOPLE)]
    table(tmp_path, text(boxes) if write is write_csv else [list(b) for b in boxes], write)
    with pytest.raises(
        ValueError, match=r"metadata.\w+:\d: box 300 40 70 200: .*COCO.*--data.box xywh"
    ):
        load(tmp_path)
    assert read(tmp_path, box="xywh") == PEOPLE


def test_one_certain_coco_box_decides_for_the_column(tmp_path):
    boxes = [(20, 30, 80, 200), (30, 20, 70, 190), (10, 10, 90, 230), (300, 40, 60, 180)]
    message = refusal(load, table(tmp_path, text(boxes)))
    assert "300 40 60 180" in message and "COCO" in message


def test_coco_boxes_that_are_not_upright(tmp_path):
    root = table(tmp_path, text([(20, 30, 200, 150), (300, 200, 220, 140)]))
    assert "COCO" in refusal(load, root)


def test_boxes_that_may_have_either_form_are_a_warning(tmp_path):
    boxes = [(10, 120, 70, 160), (5, 100, 60, 130), (8, 140, 80, 170), (3, 90, 50, 120)]
    (warning,) = load(table(tmp_path, text(boxes))).warnings
    assert "wider than high" in warning and "--data.box xywh" in warning


def test_one_wrong_box_is_a_reject(tmp_path):
    boxes = [*PEOPLE, (480, 100, 400, 330)]
    table(tmp_path, text(boxes))
    assert len(read(tmp_path)) == 4
    reason = reasons(tmp_path)["metadata.csv:6"]
    assert "box must be left, top, right, bottom" in reason and "got 480 100 400 330" in reason


@pytest.mark.parametrize("wrong", [(400, 100, 80, 230), (500, 20, 60, 180)])
def test_undecided_forms_reject_single_rows(tmp_path, wrong):
    """One of the boxes is upright if read as corners, the other if read as sides."""
    table(tmp_path, text([(20, 30, 100, 230), wrong]))
    with pytest.raises(ValueError, match="COCO"):
        load(tmp_path)
    table(tmp_path / "tie", text([(200, 40, 280, 240), wrong]))
    assert read(tmp_path / "tie") == [(200, 40, 280, 240)]
    assert "box must be left, top" in reasons(tmp_path / "tie")["metadata.csv:3"]


def test_corners_read_as_sides_are_refused(tmp_path):
    message = refusal(load, table(tmp_path, text(PEOPLE)), box="xywh")
    assert "leads out of its image, as do 3 of 4 boxes; --data.box xyxy" in message


def test_boxes_refer_to_the_upright_image(tmp_path):
    put(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    noise = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg", exif=exif)
    assert (
        images.size(tmp_path / "a.jpg")
        == (HEIGHT, WIDTH)
        == images.read(tmp_path / "a.jpg").shape[1::-1]
    )
    write_csv(tmp_path, {"file_name": "a.jpg", "pid": "1", "box": "0 500 60 140"})
    assert read(tmp_path, box="xywh") == [(0, 500, 60, 640)]


# ---- fractions and others ------------------------------------------------------------------------


def test_fractions_are_recognised_and_read(tmp_path):
    table(tmp_path, text(parts(PEOPLE)))
    with pytest.raises(
        ValueError, match="left, top, right, bottom as fractions.*--data.box fraction"
    ):
        load(tmp_path)
    assert read(tmp_path, box="fraction") == PEOPLE


def test_fractions_that_cover_whole_images(tmp_path):
    with pytest.raises(ValueError, match="--data.box fraction"):
        load(table(tmp_path, ["0 0 1 1", "0 0 1.0 1.0"]))
    assert read(tmp_path, box="fraction") == [(0, 0, WIDTH, HEIGHT)] * 2


@pytest.mark.parametrize("form", [sides, centres])
@pytest.mark.parametrize("option", ["auto", "fraction"])
def test_fractions_of_other_forms_are_refused(tmp_path, form, option):
    table(tmp_path, text(form(parts(PEOPLE))))
    message = refusal(load, tmp_path, box=option)
    assert "in fractions, which cannot be read; write left, top" in message


def test_a_fraction_above_one_is_a_reject(tmp_path):
    table(tmp_path, text([*parts(PEOPLE), (0.5, 0.5, 1.5, 0.9)]))
    assert len(read(tmp_path, box="fraction")) == 4
    assert "from 0 to 1; got 0.5 0.5 1.5 0.9" in reasons(tmp_path, box="fraction")["metadata.csv:6"]


def test_yolo_boxes_are_refused(tmp_path):
    boxes = [(600, 300, 70, 200), (320, 240, 60, 400)]
    assert "YOLO" in refusal(load, table(tmp_path, text(boxes)))


# ---- elevation -----------------------------------------------------------------------------------


def rows(root, *values, **fields):
    """A table with one image for each elevation."""
    names = [f"{k}.png" for k in range(len(values))]
    put(root, *names)
    found = zip(names, values, strict=True)
    write_csv(root, *({"file_name": n, "pid": n, "elevation": v} | fields for n, v in found))
    return root


def elevations(root, **options):
    return [sample.elevation for sample in load(root, **options).samples]


HINT = "a drone's pitch is negative when it looks down: --data.elevation pitch reads it"


@pytest.mark.parametrize(
    "fields",
    [
        {"view": "aerial"},
        {"platform": "drone"},
        {"platform": "drone", "view": "ground"},
        {"view": "aerial", "split": "query"},
        {"platform": "drone", "split": "gallery"},
    ],
)
@pytest.mark.parametrize("values", [(-60, -45, -90), (-52.5,), (-5, -30, 10)])
def test_a_pitch_is_refused_with_a_hint(tmp_path, fields, values):
    message = refusal(load, rows(tmp_path, *values, **fields))
    assert message.startswith("metadata.csv:2 ") and HINT in message
    assert f"elevation {values[0]:g} " in message


def test_a_pitch_is_read(tmp_path):
    rows(tmp_path, -60, -45.5, 0, platform="drone")
    assert elevations(tmp_path, elevation="pitch") == [60, 45.5, 0]
    with pytest.raises(ValueError, match="read as camera pitch, is 60 degrees below"):
        load(rows(tmp_path / "other", 60, 30, view="aerial"), elevation="pitch")


def test_degrees_from_straight_down_are_read(tmp_path):
    rows(tmp_path, 65, 0, 90, view="aerial")
    assert elevations(tmp_path, elevation="nadir") == [25, 90, 0]
    rows(tmp_path / "other", -65, view="aerial")
    reason = reasons(tmp_path / "other", elevation="nadir")["metadata.csv:2"]
    assert "elevation must be a number in [0, 180], got '-65'" in reason


def test_one_wrong_elevation_is_a_reject(tmp_path):
    rows(tmp_path, 60, 45, -30, 80, view="aerial")
    assert elevations(tmp_path) == [60, 45, 80]
    assert "30 degrees below the horizon" in reasons(tmp_path)["metadata.csv:4"]


@pytest.mark.parametrize("values", [(-0.4, 45), (-5, 0.5), (-1, -2, -3, 30)])
def test_slightly_negative_elevations_among_others_from_above(tmp_path, values):
    rows(tmp_path, *values, view="aerial")
    assert elevations(tmp_path) == [value for value in values if value > 0]
    assert "below the horizon" in reasons(tmp_path)["metadata.csv:2"]


@pytest.mark.parametrize("values", [(-0.4, -3), (-4,), (-5.5, 45)])
def test_negative_elevations_alone_or_far_below_refuse_the_column(tmp_path, values):
    assert "below the horizon" in refusal(load, rows(tmp_path, *values, view="aerial"))


@pytest.mark.parametrize("fields", [{}, {"platform": "cctv"}, {"view": "ground"}])
def test_a_pitch_of_a_ground_image(tmp_path, fields):
    with pytest.raises(ValueError, match=f"elevation -52 of an image from the ground.*{HINT}"):
        load(rows(tmp_path, -52, -40, **fields))
    rows(tmp_path / "one", 10, -52, 5, **fields)
    assert elevations(tmp_path / "one") == [10, 5]
    assert "52 degrees below" in reasons(tmp_path / "one")["metadata.csv:3"]


@pytest.mark.parametrize("values", [(-12, 5, 8), (-20, -15, -25), (-4, -6), (-10.5,)])
def test_slightly_negative_elevations_are_a_warning(tmp_path, values):
    dataset = load(rows(tmp_path, *values))
    assert len(dataset.samples) == len(values) and not dataset.rejects
    (warning,) = dataset.warnings
    assert "below the horizon" in warning and "-10 to 60" in warning


@pytest.mark.parametrize("fields", [{}, {"platform": "drone", "view": "ground"}])
def test_elevations_out_of_range_are_a_warning(tmp_path, fields):
    (warning,) = load(rows(tmp_path, 65, 60, 80, **fields)).warnings
    assert "metadata.csv:2 and 1 more" in warning and "--data.elevation nadir" in warning


@pytest.mark.parametrize("values", [(0, 15, 60), (-5, 5), (-10, 10), (-3,)])
def test_usual_elevations_give_no_warning(tmp_path, values):
    dataset = load(rows(tmp_path, *values))
    assert elevations(tmp_path) == list(values)
    assert not dataset.warnings and not dataset.rejects


def test_radians_are_refused(tmp_path):
    root = rows(tmp_path, 1.05, 0.8, 1.5708, view="aerial")
    assert "elevation 1.05 looks like radians" in refusal(load, root)
    root = rows(tmp_path / "pitch", -1.05, -0.8, platform="drone")
    assert "looks like radians" in refusal(load, root, elevation="pitch")
