# SPDX-License-Identifier: Apache-2.0
"""Examples of the world's people: the same bytes however they are made, and true."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from viewsynth.completion import examples, making, stored
from viewsynth.completion.stored import Stored
from viewsynth.reconstruct.canvas import SIZE

SEED, PEOPLE = 77, 3


@pytest.fixture(scope="module", autouse=True)
def small_chunks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(making, "CHUNK", 2)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory, tools):
    folder = tmp_path_factory.mktemp("made") / "two"
    return folder, making.make(folder, PEOPLE, SEED, 1, workers=2)


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_one_process_is_two_and_resumed_is_undisturbed(made, tmp_path):
    """A run of two processes that stopped before its last chunk goes on with one."""
    before, one = contents(made[0]), tmp_path / "one"
    shutil.copytree(made[0], one)
    for path in one.rglob(f"{making.name_of(range(2, 3))}.*"):
        path.unlink()
    (one / stored.INDEX).unlink()
    making.make(one, PEOPLE, SEED, 1, workers=1)
    assert contents(one) == before


def test_truth_lies_where_the_mask_is(made):
    found = made[1]
    assert 2 <= len(found) <= PEOPLE
    every = found.batch(range(len(found)))
    assert every["image"].shape[1:] == (*SIZE, 3)
    for k, row in enumerate(found.rows):
        mask, person = every["mask"][k].numpy() > 127, every["kind"][k, 0].numpy() > 0
        overlap = (mask & person).sum() / (mask | person).sum()
        assert overlap == pytest.approx(row["overlap"], abs=0.02) and overlap >= examples.OVERLAP
        middle, half = every["sheets"][k].float().nan_to_num().numpy()
        assert 0.05 < half.max() < 0.8 and np.abs(middle[half > 0]).mean() < 0.1
        turn = (row["fitted"][1] - row["angles"][1] + 180) % 360 - 180
        assert abs(turn) < 60 or abs(turn) > 120  # right, or front taken for back


def test_rejects_say_why(made):
    rows = [json.loads(row) for row in (made[0] / making.REJECTS).read_text().splitlines()]
    assert len(rows) + len(made[1]) == PEOPLE
    assert all(row["reason"] and row["name"] for row in rows)


def test_other_settings_and_damaged_folders_are_refused(made, tmp_path):
    with pytest.raises(ValueError, match="images"):
        making.make(made[0], PEOPLE, SEED, 2, workers=1)
    making_folder = tmp_path / "damaged"
    (making_folder / stored.SHARDS).mkdir(parents=True)
    for name, data in contents(made[0]).items():
        (making_folder / name).parent.mkdir(exist_ok=True)
        (making_folder / name).write_bytes(data[:-1] if name.endswith("safetensors") else data)
    with pytest.raises(ValueError, match="missing or damaged"):
        Stored.open(making_folder)
    with pytest.raises(FileNotFoundError, match="no examples"):
        Stored.open(tmp_path)
