# SPDX-License-Identifier: Apache-2.0
"""Detection of rendered people on plain backgrounds; needs the model, which is cached."""

import numpy as np
import pytest
from PIL import Image

from viewsynth.reconstruct import find
from viewsynth.reconstruct.tflite import Model
from viewsynth.runtime import weights
from viewsynth.world import shots


@pytest.fixture(scope="module")
def models(detector, pose_model) -> tuple[Model, Model]:
    """The detector and the landmark model."""
    return detector, pose_model


@pytest.fixture(scope="module")
def rendered() -> list[shots.Picture]:
    return shots.draw(3, seed=3)


def place(size, pictures, corners, heights) -> tuple[np.ndarray, list[tuple]]:
    """Rendered people on a grey gradient: the image and a box around each person."""
    width, height = size
    grey = np.linspace(200, 110, height)[:, None] + np.random.default_rng(0).normal(
        0, 6, (height, width)
    )
    scene = Image.fromarray(np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, 2))
    boxes = []
    for picture, (x, y), tall in zip(pictures, corners, heights, strict=True):
        scale = tall / picture.image.shape[0]
        new = (round(picture.image.shape[1] * scale), tall)
        mask = Image.fromarray(picture.mask.astype(np.uint8) * 255).resize(new)
        scene.paste(Image.fromarray(picture.image).resize(new), (x, y), mask)
        rows, columns = np.nonzero(picture.mask)
        ends = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) * scale
        boxes.append(tuple(ends + (x, y, x, y)))
    return np.asarray(scene), boxes


def test_several_people_get_one_box_each_the_largest_first(detector, rendered):
    image, truth = place(
        (1280, 800), rendered[:3], [(200, 250), (600, 60), (1000, 350)], [300, 640, 200]
    )
    boxes = find.find(image, detector)
    assert len(boxes) == 3
    for found, true in zip(boxes, [truth[1], truth[0], truth[2]], strict=True):
        tall = true[3] - true[1]
        assert found[1] < true[1] + 0.06 * tall and found[3] > true[3] - 0.06 * tall
        assert found[0] < (true[0] + true[2]) / 2 < found[2]
        assert 0.9 * tall < found[3] - found[1] < 1.4 * tall


def test_nobody_is_found_in_a_rotated_or_empty_image(detector, rendered):
    empty, _ = place((500, 400), [], [], [])
    assert find.find(empty, detector) == []
    image, _ = place((400, 400), rendered[:1], [(130, 40)], [320])
    assert len(find.find(image, detector)) == 1
    assert find.find(np.rot90(image), detector) == []


def test_half_a_person_is_left_out(detector, rendered):
    image, (box,) = place((400, 400), rendered[:1], [(130, 40)], [320])
    assert find.find(image[: int(box[1] + 0.5 * (box[3] - box[1]))], detector) == []


def test_the_result_is_deterministic(detector, rendered):
    image, _ = place((400, 400), rendered[:1], [(130, 40)], [320])
    again = Model(weights.detector_model())
    assert find.find(image, detector) == find.find(image, again)


def test_people_who_are_small_in_a_large_frame(detector, rendered):
    corners = [(150, 200), (700, 600), (1200, 300), (1650, 700)]
    image, truth = place(
        (1920, 1080), [rendered[k] for k in (0, 1, 2, 4)], corners, [150, 130, 170, 140]
    )
    boxes = find.find(image, detector)
    for true in truth:
        middle = (true[0] + true[2]) / 2
        assert any(box[0] < middle < box[2] and box[1] < true[3] - 20 < box[3] for box in boxes)


@pytest.mark.parametrize(
    ("size", "tight"),
    [
        ((128, 64), True),
        ((146, 86), True),
        ((104, 88), True),
        ((480, 160), True),
        ((100, 100), False),
        ((400, 80), False),
        ((640, 480), False),
        ((1600, 900), False),
        ((480, 640), False),
    ],
)
def test_tight_by_shape(size, tight):
    assert find.is_tight(np.zeros((*size, 3), np.uint8)) is tight


def test_anchors_are_the_grids_of_the_five_layers():
    expected = [
        ((x + 0.5) / count, (y + 0.5) / count)
        for count, repeat in ((28, 2), (14, 2), (7, 6))
        for y in range(count)
        for x in range(count)
        for _ in range(repeat)
    ]
    assert np.allclose(find.ANCHORS, expected)


def test_windows_are_black_beyond_the_image():
    image = np.full((100, 100, 3), 255, np.uint8)
    window = find._cut(image, (-50, -50, 200))
    assert (window[60:164, 60:164] == 1).all() and (window[:50] == -1).all()
    assert (find._cut(image, (500, 0, 50)) == -1).all()


def test_outputs_of_the_models_have_names_and_shapes(models):
    shapes = [
        {
            name: value.shape
            for name, value in model(np.zeros((1, *model.size, 3), np.float32)).items()
        }
        for model in models
    ]
    assert shapes == [
        {"boxes": (2254, 12), "scores": (2254,)},
        {
            "landmarks": (39, 5),
            "presence": (1,),
            "mask": (256, 256),
            "heatmap": (64, 64, 39),
            "world": (39, 3),
        },
    ]


def test_an_invalid_model_file_is_refused(tmp_path, models):
    path = tmp_path / "a.tflite"
    path.write_bytes(b"\x1c\x00\x00\x00TFL3 and nothing else")
    with pytest.raises(ValueError, match="a.tflite"):
        Model(path)
    with pytest.raises(ValueError, match=r"takes \[1, 224, 224, 3\], got \[1, 10, 10, 3\]"):
        models[0](np.zeros((1, 10, 10, 3), np.float32))


def test_loading_is_quiet(models, capfd):
    Model(weights.detector_model())
    assert capfd.readouterr().err == ""
