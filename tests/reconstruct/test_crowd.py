# SPDX-License-Identifier: Apache-2.0
"""Two people side by side in one crop are no person; one is, whoever passes behind."""

import io

import numpy as np
import pytest
from PIL import Image

from viewsynth.reconstruct import crowd
from viewsynth.reconstruct.tflite import Model
from viewsynth.runtime import images, weights
from viewsynth.world import shots


@pytest.fixture(scope="module")
def drawn() -> list[shots.Picture]:
    return shots.draw(4, seed=3)


def together(*people: tuple[shots.Picture, float, float], tall: int = 200) -> np.ndarray:
    """People on grey: (picture, middle, size), both in heights of the first."""
    ends = [middle * tall for _, middle, _ in people]
    left, width = min(ends) - 0.3 * tall, round(max(ends) - min(ends) + 0.6 * tall)
    grey = np.random.default_rng(0).normal(140, 6, (round(1.1 * tall), width, 1)).clip(0, 255)
    scene = Image.fromarray(np.repeat(grey.astype(np.uint8), 3, 2))
    for picture, middle, size in people:
        rows, columns = np.nonzero(picture.mask)
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        scale = size * tall / (box[3] - box[1])
        new = (max(round((box[2] - box[0]) * scale), 1), round(size * tall))
        image = Image.fromarray(picture.image).crop(box).resize(new)
        mask = Image.fromarray(picture.mask.astype(np.uint8) * 255).crop(box).resize(new)
        place = (round(middle * tall - left - new[0] / 2), round(1.05 * tall) - new[1])
        scene.paste(image, place, mask)
    return np.asarray(scene)


@pytest.mark.parametrize("apart", [0.35, 0.5, 0.8])
@pytest.mark.parametrize("squeezed", [False, True])
def test_two_equals_side_by_side(pose_model, drawn, apart, squeezed):
    for a, b in ((0, 2), (1, 5)):
        image = together((drawn[a], 0, 1.0), (drawn[b], apart, 0.97))
        if squeezed:
            image = np.asarray(Image.fromarray(image).resize((128, 256)))
        assert crowd.is_crowd(image, pose_model), (a, b)


def test_case_of_the_report(pose_model, drawn):
    """160 wide, 90 high, and squeezed by another toolkit to 256x128."""
    pair = Image.fromarray(together((drawn[0], 0, 1.0), (drawn[4], 0.6, 1.0)))
    for size in ((90, 160), (128, 256), (64, 128)):
        assert crowd.is_crowd(np.asarray(pair.resize(size)), pose_model), size


def test_one_person_is_none(pose_model, drawn):
    for picture in drawn:
        assert not crowd.is_crowd(picture.image, pose_model)
        squeezed = Image.fromarray(picture.image).resize((128, 256))
        assert not crowd.is_crowd(np.asarray(squeezed), pose_model)
    assert not crowd.is_crowd(np.full((150, 80, 3), 128, np.uint8), pose_model)


def test_a_passer_by_far_behind_or_cut_by_the_edge_is_none(pose_model, drawn):
    assert not crowd.is_crowd(together((drawn[0], 0, 1.0), (drawn[3], 0.35, 0.45)), pose_model)
    pair = together((drawn[0], 0, 1.0), (drawn[3], 0.55, 1.0))
    assert not crowd.is_crowd(np.ascontiguousarray(pair[:, : round(0.72 * 200)]), pose_model)


def test_same_crop_same_answer(pose_model, drawn):
    image = together((drawn[0], 0, 1.0), (drawn[2], 0.25, 1.0))
    assert crowd.is_crowd(image, pose_model) == crowd.is_crowd(image, Model(weights.pose_model()))


def test_people_of_the_demo_are_none(pose_model):
    """One of them wears a long dress, whose sleeve looks like somebody else once widened."""
    for picture in shots.draw(6, seed=0):
        written = np.asarray(Image.open(io.BytesIO(images.jpeg(picture.image))))
        for image in (picture.image, written):
            assert not crowd.is_crowd(image, pose_model), (picture.pid, picture.shot.name)
