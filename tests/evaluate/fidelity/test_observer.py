# SPDX-License-Identifier: Apache-2.0
"""The observer learns who and how high, the same every time, and keeps to its file."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from viewsynth.evaluate.fidelity import observer
from viewsynth.evaluate.fidelity.observer import SIDE, Settings


def drawn(count=6, each=10, seed=0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes in two colours a person; the higher the camera, the flatter the box."""
    rng = np.random.default_rng(seed)
    colours = np.random.default_rng(7).integers(20, 236, (count, 2, 3))
    pictures, people, angles = [], [], []
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
            pictures.append(observer.letterbox(noisy, mask))
            people.append(person)
            angles.append(angle)
    return np.stack(pictures), np.array(people), np.float32(angles)


QUICK = Settings(epochs=1, least=36, people=6, pictures=2)


@pytest.fixture(scope="module")
def trained():
    return observer.train(*drawn(), QUICK, 0)


def test_letterbox_keeps_the_shape_and_nothing_but_the_person():
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
    assert np.array_equal(observer.letterbox(other, mask), square), "the background is not seen"
    assert (observer.letterbox(image, 0 * mask == 1) == observer.GREY).all()


def test_it_learns_and_does_so_on_pictures_it_never_saw(trained):
    pictures, people, angles = drawn(seed=1)
    embedding, degrees = observer.look(trained, pictures)
    assert np.allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-5)
    similarity = embedding @ embedding.T
    np.fill_diagonal(similarity, -1)
    assert (people[similarity.argmax(1)] == people).mean() > 0.9
    assert np.abs(degrees - angles).mean() < 15 < np.abs(angles - angles.mean()).mean()


def test_a_picture_alone_is_seen_as_in_company(trained):
    pictures, *_ = drawn(seed=2)
    together, heights = observer.look(trained, pictures)
    alone, height = observer.look(trained, pictures[3:4])
    assert np.allclose(alone[0], together[3], atol=1e-4) and abs(height[0] - heights[3]) < 0.05


def test_the_same_training_gives_the_same_network_and_leaves_no_trace():
    few = Settings(epochs=1, least=3, people=4, pictures=2)
    torch.manual_seed(5)
    before = torch.rand(1)
    torch.manual_seed(5)
    one, other = (observer.train(*drawn(4, 4), few, 0).state_dict() for _ in range(2))
    assert torch.equal(torch.rand(1), before), "the global generator was used"
    assert all(torch.equal(one[key], other[key]) for key in one)
    third = observer.train(*drawn(4, 4), few, 1).state_dict()
    assert not torch.equal(one["stem.0.weight"], third["stem.0.weight"])


def test_it_is_small():
    assert sum(p.numel() for p in observer.Network().parameters()) < 1_000_000


def test_batches_hold_whole_people_and_all_get_their_turn():
    people = np.repeat(np.arange(7), [1, 2, 3, 4, 5, 6, 7])
    order = observer.batches(people, 3, 4, np.random.default_rng(0))
    turns = np.zeros(7, int)
    for _ in range(7):
        batch = people[next(order)].reshape(3, 4)
        assert (batch == batch[:, :1]).all() and len(set(batch[:, 0])) >= 2
        np.add.at(turns, batch[:, 0], 1)
    assert (turns == 3).all()


def test_file_round_trip_and_other_files_are_refused(tmp_path, trained):
    path = tmp_path / "observer.safetensors"
    rows = [{"file_name": "a.jpg", "pid": "1"}]
    mark = observer.fingerprint(rows, QUICK, 0)
    assert mark != observer.fingerprint(rows, QUICK, 1)
    assert mark != observer.fingerprint([{**rows[0], "pid": "2"}], QUICK, 0)
    observer.save(trained, path, mark)
    pictures, *_ = drawn(2, 2)
    again = observer.load(path, mark)
    assert np.array_equal(observer.look(again, pictures)[0], observer.look(trained, pictures)[0])
    with pytest.raises(ValueError, match="another world or with other settings"):
        observer.load(path, "0" * 64)
    path.write_bytes(b"no network")
    with pytest.raises(ValueError, match="not an observer"):
        observer.load(path)
