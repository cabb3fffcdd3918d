# SPDX-License-Identifier: Apache-2.0
"""Riders, sitters and people who are cut off, lying or small are flagged, others are not."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from viewsynth import judge
from viewsynth.bodies import KEYPOINTS
from viewsynth.reconstruct import crop_flags, quality
from viewsynth.reconstruct.parse import parse
from viewsynth.world import shots


def rendered(posture: str, count: int = 4, **more) -> list[np.ndarray]:
    """Crops of people, alternately from the side and from the front."""
    return [
        shots.render_one(
            number,
            4,
            shots.SimpleShot(
                name=posture,
                posture=posture,
                elevation=8,
                azimuth=(75, 20)[number % 2],
                height=200,
                revision=1,
                **more,
            ),
        ).image
        for number in range(count)
    ]


@pytest.fixture(scope="module")
def walkers(pose_model) -> list[tuple]:
    return [(image, parse(image, pose_model)) for image in rendered("walk", 6)]


def flags(image, pose_model) -> list[str]:
    return crop_flags.flags(image, parse(image, pose_model))[0]


@pytest.mark.parametrize("posture", ["sit", "cycle"])
def test_sitters_and_riders_are_flagged(pose_model, posture):
    found = [flags(image, pose_model) for image in rendered(posture)]
    assert sum(bool({"sitting", "riding"} & set(some)) for some in found) >= 3, found


def test_walkers_and_runners_are_not_flagged(pose_model, walkers):
    for image, found in walkers:
        assert crop_flags.flags(image, found)[0] == []
    for image in rendered("run", 3):
        assert not {"sitting", "riding"} & set(flags(image, pose_model))


@pytest.mark.parametrize("at", ["knee", "shin", "thigh"])
def test_a_crop_that_ends_at_the_legs_is_cut(pose_model, walkers, at):
    cut = []
    for image, found in walkers:
        hip, knee, ankle = (
            max(found.points[KEYPOINTS.index(f"{side}_{name}"), 1] for side in ("left", "right"))
            for name in ("hip", "knee", "ankle")
        )
        row = {"knee": knee, "shin": (knee + ankle) / 2, "thigh": (hip + knee) / 2}[at]
        part = np.ascontiguousarray(image[: round(row)])
        seen = parse(part, pose_model)
        cut.append(bool(quality.unusable(seen, part, pose_model)) or crop_flags.is_cut(seen))
    assert sum(cut) >= (4 if at == "thigh" else 5), cut


def test_a_crop_without_head_or_without_a_side_is_cut(pose_model, walkers):
    beheaded, halved = [], []
    for image, found in walkers:
        chin = round(found.points[: KEYPOINTS.index("left_shoulder"), 1].max())
        beheaded.append(parse(np.ascontiguousarray(image[chin:]), pose_model))
        middle = round(found.points[KEYPOINTS.index("left_hip"), 0])
        halved.append(parse(np.ascontiguousarray(image[:, max(middle, 20) :]), pose_model))
    for some in (beheaded, halved):
        cut = [one.presence < 0.3 or crop_flags.is_cut(one) for one in some]
        assert sum(cut) >= 5, cut


@pytest.mark.parametrize("tall", [50, 40])
def test_small_crops_are_flagged_even_when_enlarged(pose_model, walkers, tall):
    for image, found in walkers[:3]:
        size = (round(image.shape[1] * tall / image.shape[0]), tall)
        small = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
        assert "small" in flags(np.asarray(small), pose_model)
        large = np.asarray(small.resize((128, 256), Image.Resampling.BICUBIC))
        _, pixels = crop_flags.flags(large, parse(large, pose_model))
        assert pixels < 0.6 * crop_flags.flags(image, found)[1]


def test_a_lying_person_and_an_empty_crop_get_different_reasons(pose_model, walkers):
    image = walkers[0][0]
    for turned in (np.rot90(image), np.rot90(image, 3)):
        turned = np.ascontiguousarray(turned)
        assert "lies" in quality.unusable(parse(turned, pose_model), turned, pose_model)
    empty = np.full((200, 80, 3), 120, np.uint8)
    assert "no person" in quality.unusable(parse(empty, pose_model), empty, pose_model)


def test_sharpness_is_the_scale_that_keeps_the_detail(walkers):
    for image, _ in walkers[:3]:
        whole, found = Image.fromarray(image), []
        for scale in (0.15, 0.3, 0.6):
            small = whole.resize([round(side * scale) for side in whole.size])
            large = np.asarray(small.resize(whole.size, Image.Resampling.BICUBIC))
            found.append(crop_flags.sharpness(large))
        assert found == sorted(found) and found[0] < 0.25 < found[1] < 0.5
        assert found[2] <= crop_flags.sharpness(image) <= 1
    assert crop_flags.sharpness(np.full((90, 40, 3), 7, np.uint8)) == crop_flags.SCALES[0]
    noise = np.random.default_rng(0).integers(0, 256, (200, 100, 3), dtype=np.uint8)
    assert crop_flags.sharpness(noise) == 1


# ---- effects of the flags ------------------------------------------------------------------------


def scores(*flags: str, error: float = 0.01, pixels: float = 120.0) -> dict:
    return {"flags": list(flags), "error": error, "pixels": pixels}


def test_other_crops_compensate_for_flags():
    cut, whole, rides = scores("cut", "small"), scores(pixels=150), scores("riding", error=0.001)
    assert quality.of_person(cut, [cut, whole])["flags"] == []
    assert quality.of_person(cut, [cut])["flags"] == ["cut", "small"]
    assert quality.of_person(whole, [scores("mixed"), whole])["flags"] == ["mixed"]
    assert quality.of_person(whole, [cut, whole])["pixels"] == 150
    assert min((rides, whole), key=quality.rank) is whole


def test_flags_of_the_crop_do_not_count_as_misfits():
    assert quality.misfits(scores("riding", "cut", "small", "mixed", "elevation")) == 0
    assert quality.fallback(scores("riding", "cut", "small", "mixed")) == ""
    assert quality.fallback(scores("error", "doubt")) == "walk"


@dataclasses.dataclass
class Made:
    """The parts of a person that the judge uses."""

    quality: dict
    fallback: str = ""
    body: str = "anny"


def verdict(*flags: str, pixels: float = 150.0):
    keys = ("error", "silhouette", "spread", "vote", "presence", "aspect")
    quality = dict.fromkeys(keys, 0.1) | {"overlap": 0.8, "seen_texels": 0.5, "found": 1}
    return judge.judge_person(Made(quality | {"flags": list(flags), "pixels": pixels}))


@pytest.mark.parametrize("flag", ["riding", "sitting", "cut", "mixed", "elevation"])
def test_each_flag_costs_weight_and_keeps_the_person(flag):
    assert verdict(flag).keep and verdict(flag).weight < verdict().weight == 1.0
    assert flag in verdict(flag).scores["flags"] and judge.FLAG_TEXT[flag]


@given(st.floats(1, 500), st.floats(1, 500))
def test_weight_falls_with_the_resolution(a, b):
    low, high = sorted((a, b))
    assert 0 < judge.resolution(low) <= judge.resolution(high) <= 1
    assert judge.resolution(high) == 1 or high < 85
