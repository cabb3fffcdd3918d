# SPDX-License-Identifier: Apache-2.0
"""Batches of the sampler: memory that runs out, and static shapes."""

from __future__ import annotations

import pytest
import torch

from viewsynth.diffusion import sampling


def test_the_batch_is_halved_when_memory_runs_out(caplog):
    tried = []

    def make(some: list[int]) -> torch.Tensor:
        tried.append(len(some))
        if len(some) > 3:
            raise torch.OutOfMemoryError("too many")
        return torch.tensor(some)

    with caplog.at_level("WARNING"):
        made = sampling.in_batches(make, 11)
    assert made.tolist() == list(range(11)) and tried == [11, 6, 3, 3, 3, 2]
    assert "continuing with 6 views" in caplog.text and "with 3 views" in caplog.text


def test_a_single_view_that_does_not_fit_is_an_error():
    def make(some: list[int]) -> torch.Tensor:
        raise torch.OutOfMemoryError("none")

    with pytest.raises(torch.OutOfMemoryError):
        sampling.in_batches(make, 4)


def test_static_batches_have_one_shape():
    sizes = []
    made = sampling.in_batches(
        lambda some: sizes.append(len(some)) or torch.tensor(some), 5, batch=2, static=True
    )
    assert made.tolist() == [0, 1, 2, 3, 4] and sizes == [2, 2, 2]
