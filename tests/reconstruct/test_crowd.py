# SPDX-License-Identifier: Apache-2.0
"""Two people side by side in one crop are detected; a passer-by in the background is ignored."""

import io

import numpy as np
import pytest
from PIL import Image

from viewsynth.reconstruct import crowd
from viewsynth.reconstruct.tflite import Model
from viewsynth.runtime import images, weights
from viewsynth.world import shots


@pytest.fixture(scope="module")
def rendered() -> list[shots.Picture]:
    return shots.draw(4, seed=3)


def together(*people: tuple[shots.Picture, float, float], tall: int = 200) -> np.ndarray:
    """An image of people on grey: (picture, middle, size), in heights of the first."""
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
def test_two_people_of_one_size_are_a_crowd(pose_model, rendered, apart, squeezed):
    for a, b in ((0, 2), (1, 5)):
        image = together((rendered[a], 0, 1.0), (rendered[b], apart, 0.97))
        if squeezed:
            image = np.asarray(Image.fromarray(image).resize((128, 256)))
        assert crowd.is_crowd(image, pose_model), (a, b)


def test_a_pair_is_a_crowd_at_any_aspect(pose_model, rendered):
    """In its own aspect, and squeezed to 256x128 as other toolkits do."""
    pair = Image.fromarray(together((rendered[0], 0, 1.0), (rendered[4], 0.6, 1.0)))
    for size in ((90, 160), (128, 256), (64, 128)):
        assert crowd.is_crowd(np.asarray(pair.resize(size)), pose_model), size


def test_one_person_is_no_crowd(pose_model, rendered):
    for picture in rendered:
        assert not crowd.is_crowd(picture.image, pose_model)
        squeezed = Image.fromarray(picture.image).resize((128, 256))
        assert not crowd.is_crowd(np.asarray(squeezed), pose_model)
    assert not crowd.is_crowd(np.full((150, 80, 3), 128, np.uint8), pose_model)


def test_people_far_behind_or_cut_off_are_ignored(pose_model, rendered):
    assert not crowd.is_crowd(
        together((rendered[0], 0, 1.0), (rendered[3], 0.35, 0.45)), pose_model
    )
    pair = together((rendered[0], 0, 1.0), (rendered[3], 0.55, 1.0))
    assert not crowd.is_crowd(np.ascontiguousarray(pair[:, : round(0.72 * 200)]), pose_model)


def test_the_result_is_deterministic(pose_model, rendered):
    image = together((rendered[0], 0, 1.0), (rendered[2], 0.25, 1.0))
    assert crowd.is_crowd(image, pose_model) == crowd.is_crowd(image, Model(weights.pose_model()))


def test_people_of_the_demo_are_no_crowd(pose_model):
    """One of them wears a long dress whose sleeve, once widened, resembles a second person."""
    for picture in shots.draw(6, seed=0):
        written = np.asarray(Image.open(io.BytesIO(images.jpeg(picture.image))))
        for image in (picture.image, written):
            assert not crowd.is_crowd(image, pose_model), (picture.pid, picture.shot.name)
