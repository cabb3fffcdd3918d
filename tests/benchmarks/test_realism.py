# SPDX-License-Identifier: Apache-2.0
"""The benchmark of realism: measures of drawn crops with known answers."""

from __future__ import annotations

import json

import numpy as np
import pytest

from viewsynth.metrics.colours import lab
from viewsynth.reconstruct.parse import INDEX, KEYPOINTS, Parse

HEIGHT, WIDTH = 128, 64
POINTS = {  # a standing person, x and y
    "nose": (32, 20),
    "left_eye": (34, 18),
    "right_eye": (30, 18),
    "left_ear": (36, 19),
    "right_ear": (28, 19),
    "left_shoulder": (42, 34),
    "right_shoulder": (22, 34),
    "left_hip": (38, 68),
    "right_hip": (26, 68),
    "left_knee": (38, 92),
    "right_knee": (26, 92),
}
GREY, SHIRT, JEANS = (128, 128, 128), (200, 40, 40), (40, 60, 120)


@pytest.fixture(scope="module")
def measures(benchmarks):
    return benchmarks("realism_measures")


@pytest.fixture(scope="module")
def realism(benchmarks):
    return benchmarks("realism")


@pytest.fixture(scope="module")
def reid(benchmarks):
    return benchmarks("realism_reid")


def parsed(shift: int = 0) -> Parse:
    """What the pose model would find in `drawn`."""
    points = np.full((len(KEYPOINTS), 2), (32.0, 110.0), np.float32)
    for name, place in POINTS.items():
        points[INDEX[name]] = place
    mask = np.zeros((HEIGHT, WIDTH), np.float32)
    mask[10:118, 18:46] = 1
    points[:, 1] += shift
    mask = np.roll(mask, shift, 0)
    return Parse(
        points=points,
        length=np.zeros((len(KEYPOINTS), 3), np.float32),
        spread=np.zeros(len(KEYPOINTS), np.float32),
        mask=mask,
        soft=mask,
        presence=1.0,
        vote=1.0,
        front=True,
        height=108.0,
    )


def drawn(shirt=SHIRT, jeans=JEANS, ground=GREY) -> np.ndarray:
    """A person in two colours; hair is black and skin brown."""
    image = np.full((HEIGHT, WIDTH, 3), ground, np.uint8)
    image[10:17, 18:46], image[17:30, 18:46] = 0, (150, 110, 90)
    image[30:68, 18:46], image[68:118, 18:46] = shirt, jeans
    return image


# ---- one crop ------------------------------------------------------------------------------------


def test_parts_have_the_colours_that_were_drawn(measures):
    found = measures.measure(drawn(), parsed())
    for part, colour in (("upper", SHIRT), ("lower", JEANS), ("background", GREY)):
        colours = [found[f"{part}.{axis}"] for axis in "Lab"]
        assert np.allclose(colours, lab(np.array(colour)), atol=0.01), part
    assert found["hair.L"] == pytest.approx(0)
    assert found["skin.L"] == pytest.approx(lab(np.array([150, 110, 90]))[0])
    assert found["upper.saturated"] and not found["upper.blue"] and not found["upper.dark"]
    assert found["lower.dark"] == (lab(np.array(JEANS))[0] < 30)


@pytest.mark.parametrize(
    ("colour", "name"),
    [
        ((20, 20, 22), "dark"),
        (GREY, "grey"),
        ((240, 240, 240), "white"),
        ((70, 100, 160), "blue"),
        ((60, 160, 60), "saturated"),
    ],
)
def test_a_colour_has_its_name_and_no_other(measures, colour, name):
    found = measures.measure(drawn(shirt=colour), parsed())
    names = ("dark", "grey", "white", "saturated", "blue")
    assert {one for one in names if found[f"upper.{one}"]} - {"saturated"} == {name} - {"saturated"}
    assert found[f"upper.{name}"] == 1


def test_contrast_of_stripes_is_no_shading(measures):
    plain, striped, shaded = drawn(shirt=GREY), drawn(shirt=GREY), drawn(shirt=GREY)
    striped[30:68:4, 18:46] = striped[31:68:4, 18:46] = 220
    shaded[30:68, 18:46] = np.linspace(60, 220, 28)[:, None]
    flat, stripes, slope = (measures.measure(one, parsed()) for one in (plain, striped, shaded))
    apart = lab(np.full(3, 220))[0] - lab(np.array(GREY))[0]
    assert flat["upper.range"] == pytest.approx(0, abs=1e-9)
    assert stripes["upper.range"] == pytest.approx(apart)
    assert stripes["upper.texture"] > measures.PATTERN and stripes["upper.pattern"] == 1
    assert slope["upper.range"] > 20 and slope["upper.texture"] < 3 and slope["upper.pattern"] == 0


def test_framing_of_a_box(measures):
    found = measures.framing(parsed().mask)
    assert found["framing.tall"] == pytest.approx(108 / HEIGHT)
    assert found["framing.offset"] == pytest.approx(0)
    assert found["framing.cut"] == 0
    moved = parsed(shift=10)
    below = measures.framing(moved.mask)
    assert below["framing.offset"] == pytest.approx(10 / HEIGHT)
    assert below["framing.cut.bottom"] == 1 and below["framing.cut.top"] == 0


def test_landmarks_outside_and_off_the_person(measures):
    found = parsed()
    assert measures.hidden(found) == {"hidden.outside": 0, "hidden.off": 0}
    found.points[0], found.points[1] = (-5, 3), (5, 5)
    inside = len(KEYPOINTS) - 1
    expected = {"hidden.outside": 1 / len(KEYPOINTS), "hidden.off": 1 / inside}
    assert measures.hidden(found) == pytest.approx(expected)


def test_a_frame_around_a_crop_is_not_clipped(measures):
    image = drawn()
    image[:2], image[-2:], image[:, :2], image[:, -2:] = 255, 255, 255, 255
    assert measures.measure(image, parsed())["look.clipped"] == 0
    image[:, 46:] = 255
    assert measures.measure(image, parsed())["look.clipped"] > 0.2


@pytest.mark.parametrize("height", [64, 128, 300])
def test_images_become_of_one_height(measures, height):
    made = measures.scaled(np.full((height, height // 2, 3), 77, np.uint8))
    assert made.shape == (128, 64, 3) and (made == 77).all()


# ---- people --------------------------------------------------------------------------------------


def test_a_cast_and_a_darker_exposure_are_found_between_cameras(measures):
    one = measures.measure(drawn(), parsed())
    same = measures.differences(one, one)
    assert all(value == pytest.approx(0, abs=1e-9) for value in same.values())
    cast = (GREY[0] + 20, GREY[1], GREY[2] - 20)
    found = measures.differences(one, measures.measure(drawn(ground=cast), parsed()))
    expected = np.abs(lab(np.array(cast)) - lab(np.array(GREY)))
    assert [found[f"background.{axis}"] for axis in "Lab"] == pytest.approx(expected)
    assert found["garments.delta_e"] == pytest.approx(0, abs=1e-9)
    dark = measures.measure((drawn() * 0.5).astype(np.uint8), parsed())
    assert measures.differences(one, dark)["garments.L"] > 10


def test_people_of_one_colour_pair(measures):
    red, blue = [50.0, 60.0, 40.0], [30.0, 5.0, -50.0]
    upper = np.array([red, red, red, [np.nan] * 3])
    lower = np.array([blue, blue, red, blue])
    assert np.allclose(measures.sharing(upper, lower), [0.5, 0.5, 0, np.nan], equal_nan=True)


def crop(realism, measures, pid: str, camera: str, view: str, image: np.ndarray):
    shot = realism.Shot(None, pid, camera, view)
    return realism.Crop(shot, image, measures.measure(image, parsed()))


def test_only_pairs_of_one_person_by_two_cameras_count(realism, measures):
    light, dark = (np.full(3, level, np.uint8) for level in (200, 100))
    crops = [
        crop(realism, measures, "x", "1", "ground", drawn(ground=light)),
        crop(realism, measures, "x", "1", "ground", drawn(ground=(0, 0, 0))),  # one camera
        crop(realism, measures, "y", "1", "ground", drawn(ground=dark)),
        crop(realism, measures, "y", "2", "ground", drawn(ground=light)),
        crop(realism, measures, "y", "2", "aerial", drawn(ground=light)),
    ]
    apart = lab(light)[0] - lab(dark)[0]
    assert realism.between(crops, "ground")["background.L"] == pytest.approx([apart])
    assert realism.between(crops, "aerial")["background.L"] == pytest.approx([apart / 2])


def test_a_mean_of_people_weighs_them_alike(realism, measures):
    images = [drawn(shirt=(level,) * 3) for level in (100, 100, 100, 200)]
    pids = ("x", "x", "x", "y")
    crops = [
        crop(realism, measures, pid, str(n), "ground", image)
        for n, (pid, image) in enumerate(zip(pids, images, strict=True))
    ]
    values = realism.by_person(crops, "ground", "upper.L")
    assert values == pytest.approx([lab(np.full(3, level))[0] for level in (100, 200)])
    assert len(realism.by_person(crops, "aerial", "upper.L")) == 0


def test_images_of_a_world_that_are_measured(realism, tmp_path):
    rows = [
        {"pid": "0", "split": "train", "view": "aerial", "elevation": 50.0},
        {"pid": "0", "split": "train", "view": "aerial", "elevation": 80.0},
        {"pid": "0", "split": "paired", "view": "aerial", "elevation": 50.0},
        {"pid": "0", "split": "query", "view": "ground", "elevation": 5.0},
        {"pid": "1", "split": "train", "view": "ground", "elevation": 5.0},
    ]
    for n, row in enumerate(rows):
        row |= {"file_name": f"{n}.jpg", "camid": n}
    (tmp_path / "truth.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert [shot.path.name for shot in realism.rendered(tmp_path, 1)] == ["0.jpg", "3.jpg"]
    assert len(realism.rendered(tmp_path, 2)) == 3


def test_values_whose_intervals_are_apart_are_bold(realism):
    low, near, high = np.array([1.0, 2, 3]), np.array([2.0, 3, 2]), np.array([8.0, 9, 8])
    cells = realism.row("words", [low, near, high], 1, 1).split("|")
    assert ["**" in cell for cell in cells[2:5]] == [False, False, True]


# ---- network -------------------------------------------------------------------------------------


def directions(count: int, size: int = 16, seed: int = 0) -> list[np.ndarray]:
    rows = np.random.default_rng(seed).normal(size=(count, 2, size))
    return list(rows / np.linalg.norm(rows, axis=2, keepdims=True))


def test_retrieval_of_the_same_and_of_swapped_people(reid):
    ground = [row[:1] for row in directions(4)]
    right = reid.retrieval(ground, ground)
    assert right[:, :2] == pytest.approx(1) and right[:, 3] == pytest.approx(1)
    assert right[:, 2] == pytest.approx(right[:, 3] - right[:, 4])
    assert reid.retrieval(ground[::-1], ground)[:, 0] == pytest.approx(0)


def test_a_small_gallery_is_easier(reid):
    queries, ground = directions(40, seed=1), directions(40)
    whole, small = (reid.retrieval(queries, ground, sizes) for sizes in ((), [2] * 4))
    assert np.nanmean(small[:, 1]) > np.nanmean(whole[:, 1]) + 0.2


def test_a_probe_tells_shifted_features_and_no_equal_ones(reid):
    real, made = directions(20), directions(30, seed=1)
    shifted = [rows + 2 * np.eye(16)[0] for rows in made]
    accuracy, area = reid.probe(real, shifted).mean(0)
    assert accuracy > 0.9 and area > 0.95
    assert np.abs(reid.probe(real, made).mean(0) - 0.5).max() < 0.2
