# SPDX-License-Identifier: Apache-2.0
"""The observer: training, prediction, reproducibility and files."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from viewsynth.evaluate.fidelity import observer
from viewsynth.evaluate.fidelity.observer import SIDE, Settings


def generated(count=6, each=10, seed=0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes in two colours per person, flatter for higher cameras."""
    rng = np.random.default_rng(seed)
    colours = np.random.default_rng(7).integers(20, 236, (count, 2, 3))
    images, people, angles = [], [], []
    for person in range(count):
        for _ in range(each):
            angle = rng.uniform(0, 90)
            tall, wide = round(20 + 70 * np.cos(np.radians(angle))), 30
            image = np.zeros((100, 60, 3), np.uint8)
            mask = np.zeros((100, 60), bool)
            mask[5 : 5 + tall, 15 : 15 + wide] = True
            image[5 : 5 + tall // 2, 15 : 15 + wide] = colours[person, 0]
            image[5 + tall // 2 : 5 + tall, 15 : 15 + wide] = colours[person, 1]
            noisy = np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)
            images.append(observer.letterbox(noisy, mask))
            people.append(person)
            angles.append(angle)
    return np.stack(images), np.array(people), np.float32(angles)


QUICK = Settings(epochs=1, least=72, people=6, pictures=2)  # converged on every kind of CPU


@pytest.fixture(scope="module")
def trained():
    return observer.train(*generated(), QUICK, 0)


def test_letterbox_keeps_the_aspect_ratio_and_removes_the_background():
    image = np.full((80, 50, 3), 200, np.uint8)
    mask = np.zeros((80, 50), bool)
    mask[10:70, 20:35] = True
    square = observer.letterbox(image, mask)
    assert square.shape == (SIDE, SIDE, 3)
    inside = (square == 200).all(2)
    rows, columns = np.nonzero(inside)
    assert inside.sum() == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    assert (np.ptp(rows) + 1) / (np.ptp(columns) + 1) == pytest.approx(4, rel=0.05)
    assert np.ptp(rows) + 1 == pytest.approx(SIDE / 1.08, abs=1)
    assert (square[~inside] == observer.GREY).all()
    other = image.copy()
    other[~mask] = 7
    assert np.array_equal(observer.letterbox(other, mask), square), (
        "the background has an influence"
    )
    assert (observer.letterbox(image, 0 * mask == 1) == observer.GREY).all()


def test_it_generalises_to_new_images(trained):
    images, people, angles = generated(seed=1)
    embedding, degrees = observer.predict(trained, images)
    assert np.allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-5)
    similarity = embedding @ embedding.T
    np.fill_diagonal(similarity, -1)
    assert (people[similarity.argmax(1)] == people).mean() > 0.9
    assert np.abs(degrees - angles).mean() < 15 < np.abs(angles - angles.mean()).mean()


def test_predictions_are_independent_of_the_batch(trained):
    images, *_ = generated(seed=2)
    together, heights = observer.predict(trained, images)
    alone, height = observer.predict(trained, images[3:4])
    assert np.allclose(alone[0], together[3], atol=1e-4) and abs(height[0] - heights[3]) < 0.05


def test_training_is_reproducible_and_has_no_side_effects():
    few = Settings(epochs=1, least=3, people=4, pictures=2)
    torch.manual_seed(5)
    before = torch.rand(1)
    torch.manual_seed(5)
    one, other = (observer.train(*generated(4, 4), few, 0).state_dict() for _ in range(2))
    assert torch.equal(torch.rand(1), before), "the global generator was used"
    assert all(torch.equal(one[key], other[key]) for key in one)
    third = observer.train(*generated(4, 4), few, 1).state_dict()
    assert not torch.equal(one["stem.0.weight"], third["stem.0.weight"])


def test_number_of_parameters():
    assert sum(p.numel() for p in observer.Network().parameters()) < 1_000_000


def test_batches_hold_all_people_equally_often():
    people = np.repeat(np.arange(7), [1, 2, 3, 4, 5, 6, 7])
    order = observer.batches(people, 3, 4, np.random.default_rng(0))
    counts = np.zeros(7, int)
    for _ in range(7):
        batch = people[next(order)].reshape(3, 4)
        assert (batch == batch[:, :1]).all() and len(set(batch[:, 0])) >= 2
        np.add.at(counts, batch[:, 0], 1)
    assert (counts == 3).all()


def test_file_round_trip_and_refusal_of_other_files(tmp_path, trained):
    path = tmp_path / "observer.safetensors"
    rows = [{"file_name": "a.jpg", "pid": "1"}]
    mark = observer.fingerprint(rows, QUICK, 0)
    assert mark != observer.fingerprint(rows, QUICK, 1)
    assert mark != observer.fingerprint([{**rows[0], "pid": "2"}], QUICK, 0)
    observer.save(trained, path, mark)
    images, *_ = generated(2, 2)
    again = observer.load(path, mark)
    assert np.array_equal(observer.predict(again, images)[0], observer.predict(trained, images)[0])
    with pytest.raises(ValueError, match="another world or with other settings"):
        observer.load(path, "0" * 64)
    path.write_bytes(b"not a network")
    with pytest.raises(ValueError, match="not an observer"):
        observer.load(path)
