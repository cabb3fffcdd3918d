# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: whole or passed over, and never the last one deleted."""

import logging

import pytest
import torch

from viewsynth.runtime.files import LEFTOVER
from viewsynth.training import checkpoints


def put(run, step, keep=2):
    tensors = {
        "model": {"a": torch.full((3,), float(step))},
        "optimizer": {"0.step": torch.ones(())},
    }
    return checkpoints.write_checkpoint(run, step, tensors, {"note": step}, keep)


def steps(run):
    return sorted(int(path.name.split("-")[1]) for path in run.glob("checkpoint-*"))


def test_round_trip(tmp_path):
    folder = put(tmp_path, 7)
    tensors, state = checkpoints.read_checkpoint(folder)
    assert torch.equal(tensors["model"]["a"], torch.full((3,), 7.0))
    assert tensors["optimizer"]["0.step"].shape == () and state["note"] == state["step"] == 7
    assert checkpoints.newest(tmp_path) == folder
    assert checkpoints.newest(tmp_path / "none") is None


def test_the_newest_are_kept_by_number(tmp_path):
    for step in (5, 8, 50, 100):
        put(tmp_path, step)
    assert steps(tmp_path) == [50, 100]
    put(tmp_path, 200, keep=3)
    assert steps(tmp_path) == [50, 100, 200]
    put(tmp_path, 60)  # of a run that had to go back: what is newer was not whole
    assert steps(tmp_path) == [50, 60]
    assert not list(tmp_path.glob(f"{LEFTOVER}*"))


@pytest.mark.parametrize("harm", ["cut", "changed", "state", "gone", "renamed"])
def test_a_broken_one_is_passed_over(tmp_path, harm, caplog):
    put(tmp_path, 1)
    folder = put(tmp_path, 2)
    model, state = folder / "model.safetensors", folder / "state.json"
    data = model.read_bytes()
    if harm == "cut":
        model.write_bytes(data[:-4])
    elif harm == "changed":
        model.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif harm == "state":
        state.write_bytes(state.read_bytes()[:20])
    elif harm == "gone":
        model.unlink()
    else:
        folder = folder.rename(tmp_path / "checkpoint-3")
    with caplog.at_level(logging.WARNING):
        assert checkpoints.newest(tmp_path) == tmp_path / "checkpoint-1"
    assert "is skipped" in caplog.text and folder.name in caplog.text
    with pytest.raises(ValueError, match="not whole"):
        checkpoints.read_checkpoint(folder)


def test_none_whole_is_no_new_start(tmp_path):
    for step in (1, 2):
        (put(tmp_path, step) / "state.json").unlink()
    with pytest.raises(ValueError, match="none of the 2 checkpoints"):
        checkpoints.newest(tmp_path)


def test_a_step_that_is_there_is_replaced(tmp_path):
    put(tmp_path, 4)
    tensors = {"model": {"a": torch.zeros(1)}}
    checkpoints.write_checkpoint(tmp_path, 4, tensors, {})
    found, _ = checkpoints.read_checkpoint(tmp_path / "checkpoint-4")
    assert list(found) == ["model"] and found["model"]["a"].shape == (1,)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_optimizers_go_on(kind):
    def make():
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
        return model, kind(
            [{"params": [model.weight]}, {"params": [model.bias]}], lr=0.1, **options
        )

    def step(model, optimizer, seed):
        optimizer.zero_grad()
        model(torch.full((4, 3), float(seed))).pow(2).sum().backward()
        optimizer.step()

    one, first = make()
    for seed in range(4):
        step(one, first, seed)
    two, second = make()
    for seed in range(2):
        step(two, second, seed)
    three, third = make()
    three.load_state_dict(two.state_dict())
    checkpoints.restore_optimizer(third, checkpoints.optimizer_tensors(second))
    for seed in range(2, 4):
        step(three, third, seed)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), three.parameters(), strict=True))
