# SPDX-License-Identifier: Apache-2.0
"""Seen pixels are restored in the light of the generated image."""

from __future__ import annotations

import torch

from viewsynth.diffusion.image_processing import restore_seen

SIZE = (64, 32)


def test_seen_pixels_are_restored_in_the_light_of_the_image():
    draw = torch.Generator().manual_seed(0)
    render = torch.rand(2, 3, *SIZE, generator=draw) * 0.5
    seen = torch.zeros(2, 1, *SIZE)
    seen[:, :, 10:50, 8:24] = 1
    seen[:, :, 40:50] *= 0.5  # mirrored: not kept
    made = (render * 1.4 + 0.1) + 0.05 * torch.randn(2, 3, *SIZE, generator=draw)
    made[:, :, 30:35] = 0.9  # an error of the model
    assert restore_seen(made, render, seen, 0) is made
    kept = restore_seen(made, render, seen, 1)
    outside = (seen <= 0.5).expand_as(made)
    assert torch.equal(kept[outside], made[outside])
    inside = kept[:, :, 15:35, 12:20] - (render * 1.4 + 0.1)[:, :, 15:35, 12:20]
    assert inside.abs().mean() < 0.05 < (made - render)[:, :, 15:35, 12:20].abs().mean()
    half = restore_seen(made, render, seen, 0.5)
    assert torch.allclose(half, (kept + made) / 2, atol=1e-5)


def test_an_unseen_person_is_not_changed():
    made, render = torch.rand(1, 3, *SIZE), torch.rand(1, 3, *SIZE)
    assert torch.equal(restore_seen(made, render, torch.zeros(1, 1, *SIZE), 1), made)


def test_noise_on_a_flat_colour_is_not_amplified():
    made, render = torch.rand(1, 3, *SIZE), torch.full((1, 3, *SIZE), 0.3)
    render += 0.01 * torch.randn(render.shape, generator=torch.Generator().manual_seed(0))
    kept = restore_seen(made, render, torch.ones(1, 1, *SIZE), 1)
    assert kept[:, :, 20:40, 10:20].std((2, 3)).max() < 0.03
