# SPDX-License-Identifier: Apache-2.0
"""Sampling's parts: seen pixels, memory, and which photo goes with which camera."""

from __future__ import annotations

import pytest
import torch

from viewsynth.diffusion import photo, sampling

SIZE = (64, 32)


# ---- seen pixels ---------------------------------------------------------------------------------


def test_seen_pixels_are_set_back_in_the_light_of_the_picture():
    draw = torch.Generator().manual_seed(0)
    render = torch.rand(2, 3, *SIZE, generator=draw) * 0.5
    seen = torch.zeros(2, 1, *SIZE)
    seen[:, :, 10:50, 8:24] = 1
    seen[:, :, 40:50] *= 0.5  # mirrored: not kept
    made = (render * 1.4 + 0.1) + 0.05 * torch.randn(2, 3, *SIZE, generator=draw)
    made[:, :, 30:35] = 0.9  # what the model got wrong
    assert sampling.reimpose(made, render, seen, 0) is made
    kept = sampling.reimpose(made, render, seen, 1)
    outside = (seen <= 0.5).expand_as(made)
    assert torch.equal(kept[outside], made[outside])
    inside = kept[:, :, 15:35, 12:20] - (render * 1.4 + 0.1)[:, :, 15:35, 12:20]
    assert inside.abs().mean() < 0.05 < (made - render)[:, :, 15:35, 12:20].abs().mean()
    half = sampling.reimpose(made, render, seen, 0.5)
    assert torch.allclose(half, (kept + made) / 2, atol=1e-5)


def test_an_unseen_person_stays_as_made():
    made, render = torch.rand(1, 3, *SIZE), torch.rand(1, 3, *SIZE)
    assert torch.equal(sampling.reimpose(made, render, torch.zeros(1, 1, *SIZE), 1), made)


def test_one_flat_colour_is_not_blown_up():
    made, render = torch.rand(1, 3, *SIZE), torch.full((1, 3, *SIZE), 0.3)
    render += 0.01 * torch.randn(render.shape, generator=torch.Generator().manual_seed(0))
    kept = sampling.reimpose(made, render, torch.ones(1, 1, *SIZE), 1)
    assert kept[:, :, 20:40, 10:20].std((2, 3)).max() < 0.03


# ---- memory --------------------------------------------------------------------------------------


def test_memory_that_runs_out_halves_the_batch(caplog):
    tried = []

    def make(some: list[int]) -> torch.Tensor:
        tried.append(len(some))
        if len(some) > 3:
            raise torch.OutOfMemoryError("too many")
        return torch.tensor(some)

    with caplog.at_level("WARNING"):
        made = sampling.by_halves(make, 11)
    assert made.tolist() == list(range(11)) and tried == [11, 6, 3, 3, 3, 2]
    assert "going on with 6 views" in caplog.text and "with 3 views" in caplog.text


def test_one_view_that_does_not_fit_is_an_error():
    def make(some: list[int]) -> torch.Tensor:
        raise torch.OutOfMemoryError("none")

    with pytest.raises(torch.OutOfMemoryError):
        sampling.by_halves(make, 4)


def test_static_batches_have_one_shape():
    sizes = []
    made = sampling.by_halves(
        lambda some: sizes.append(len(some)) or torch.tensor(some), 5, batch=2, static=True
    )
    assert made.tolist() == [0, 1, 2, 3, 4] and sizes == [2, 2, 2]


# ---- a photo alone -------------------------------------------------------------------------------


def test_photos_and_cameras_are_matched():
    assert photo.matched(1, [10, 20], 90) == ([0, 0], [10, 20], [90, 90])
    assert photo.matched(2, 10, [0, 90]) == ([0, 1], [10, 10], [0, 90])
    assert photo.matched(1, 10, 0, 3) == ([0, 0, 0], [10] * 3, [0] * 3)
    with pytest.raises(ValueError, match="2 photos, 3 elevations"):
        photo.matched(2, [1, 2, 3], 0)
