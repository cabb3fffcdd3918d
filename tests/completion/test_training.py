# SPDX-License-Identifier: Apache-2.0
"""Training of the completion network: it learns, resumes, and degrades crops but not truth."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_examples
import torch
from accelerate import Accelerator

from viewsynth.completion import augment, losses, training
from viewsynth.completion.options import CompletionOptimization
from viewsynth.completion.stored import Stored
from viewsynth.metrics import colours
from viewsynth.reconstruct.complete import CHANNELS, Completer, stack
from viewsynth.training.rows import Draws


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    return Stored.open(tiny_examples.folder(tmp_path_factory.mktemp("examples")))


def read(examples, rows=range(8)):
    every = np.arange(len(examples))
    return losses.Completing(examples, every, torch.device("cpu")).read(np.array(list(rows)))


def learn(examples, folder, steps=3, every=100, last=None, **options):
    settings = CompletionOptimization(steps=steps, batch=4, warmup=1, rate=3e-3, **options)
    parts = training.split(examples, 0.34, 0)
    accelerator = Accelerator(cpu=True)
    return training.train(examples, parts, settings, 0, folder, every, accelerator)


def test_stack_has_the_stated_channels_and_no_surprises(examples):
    found = stack(read(examples))
    assert found.shape[1] == CHANNELS and bool(found.isfinite().all())
    assert float(found.abs().max()) < 4


def test_examples_are_read_in_mixed_precision(examples):
    with torch.autocast("cpu", torch.bfloat16):
        found = losses.terms(Completer(), read(examples), torch.device("cpu"))
    assert all(value.isfinite() for value in found.values())


def test_it_learns_thickness_and_a_darker_back(examples, tmp_path):
    parts = training.split(examples, 0.34, 0)
    rows, device = parts.held, torch.device("cpu")
    before = training.check(Completer(), examples, rows, device)
    after = training.check(learn(examples, tmp_path, 40, average=0.8), examples, rows, device)
    assert after["val_half_cm"] < 0.5 * before["val_half_cm"]
    assert after["val_half_cm"] < 0.5 * after["val_body_half_cm"]
    assert after["val_back_delta_e"] < before["val_back_delta_e"] - 1


def test_killed_and_resumed_is_undisturbed(examples, tmp_path):
    whole = learn(examples, tmp_path / "whole", 4, 2)
    stopped = tmp_path / "stopped"
    learn(examples, stopped, 4, 2)
    for path in stopped.glob("checkpoint-4/*"):
        path.unlink()
    resumed = learn(examples, stopped, 4, 2)
    for (name, one), other in zip(
        whole.state_dict().items(), resumed.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other), name


def test_parts_of_a_batch_are_the_batch(examples):
    whole = augment.augmented(read(examples), Draws(8, slice(None), 0, "step", 5))
    for part in (slice(0, 4), slice(4, 8)):
        own = augment.augmented(read(examples, range(8)[part]), Draws(8, part, 0, "step", 5))
        for name, value in own.items():
            assert torch.equal(value, whole[name][part]), name


def test_augmentation_changes_the_crop_and_keeps_the_truth(examples):
    given = read(examples)
    found = augment.augmented(given, Draws(8, slice(None), 1, "step", 0))
    assert not torch.equal(found["image"], given["image"])
    for k in range(8):
        plain = torch.equal(found["sheets"][k], given["sheets"][k])
        turned = torch.equal(found["sheets"][k], given["sheets"][k].flip(-1))
        assert plain or turned
        sign = 1 if torch.equal(found["true_angles"][k], given["true_angles"][k]) else -1
        assert float(found["angles"][k, 1]) == sign * float(given["angles"][k, 1])
    assert found["image"].dtype == torch.uint8 and found["mask"].dtype == torch.uint8
    again = read(examples)
    for name, value in again.items():  # what was given is not changed
        assert torch.equal(value, given[name]), name


def test_lab_is_that_of_metrics():
    rgb = torch.rand(200, 3, generator=torch.Generator().manual_seed(0))
    expected = colours.lab(255 * rgb.double().numpy())
    np.testing.assert_allclose(losses.lab(rgb).numpy(), expected, atol=0.02)


def test_losses_are_finite_without_a_person(examples):
    empty = {k: torch.zeros_like(v) for k, v in read(examples, range(2)).items()}
    empty["detail"] += 1
    found = losses.terms(Completer(), empty, torch.device("cpu"))
    assert all(bool(value.isfinite()) for value in found.values())


def test_held_out_people_are_not_trained_on(examples):
    parts = training.split(examples, 0.34, 0)
    pids = [{examples.rows[k]["pid"] for k in rows} for rows in (parts.trained, parts.held)]
    assert not pids[0] & pids[1] and len(pids[1]) == 2
    assert len(parts.trained) + len(parts.held) == len(examples)
    with pytest.raises(ValueError, match="leaves nobody to train on"):
        training.split(examples, 0.99, 0)
