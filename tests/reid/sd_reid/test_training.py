# SPDX-License-Identifier: Apache-2.0
"""SD-ReID's second stage: what it learns from cached features, and how."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_generation import VIEWS, WIDTH, cached, generator, noise, with_mode

from viewsynth.reid.sd_reid import sampling, training
from viewsynth.reid.sd_reid.options import GeneratorOptimization


def test_moments_and_prototypes_by_hand():
    data = cached()
    data.weights[:6] = 0
    for numbers in (data.identity, data.condition):
        mean, scale = data.moments(numbers)
        kept = numbers[:, 6:].flatten(0, 1).float()
        torch.testing.assert_close(mean, kept.mean(0))
        torch.testing.assert_close(scale, kept.std(0, correction=0))
    same = torch.full((2, len(data), 1), -8.0)  # float16 cannot tell these from -8.004
    assert data.moments(same)[1].item() == pytest.approx(8e-3, rel=1e-2)
    found = data.prototypes(VIEWS)
    expected = [data.view[:, (data.kinds == n) & (data.weights > 0)].mean((0, 1)) for n in range(3)]
    torch.testing.assert_close(found, torch.stack(expected))
    with pytest.raises(ValueError, match="view 3 has no image"):
        data.prototypes(4)


def test_prepare_by_mode():
    data, bank = cached(), noise(VIEWS, WIDTH, seed=9)
    ours, theirs = generator(), generator(mode="faithful")
    for made in (ours, theirs):
        training.prepare(made, data, bank)
    torch.testing.assert_close(
        ours.latent(data.identity.flatten(0, 1)).flatten(1).std(0),
        torch.ones(WIDTH),
        rtol=0.05,
        atol=0.05,
    )
    torch.testing.assert_close(ours.prototypes, data.prototypes(VIEWS))
    assert torch.equal(theirs.prototypes, bank)
    latent = theirs.latent(data.identity[0])
    assert torch.equal(latent.flatten(1)[:, :WIDTH], data.identity[0])


def test_nothing_hangs_on_where_the_encoder_puts_its_zero_and_its_unit():
    """Views that differ by little of what they amount to are as different as any, unless raw."""
    data = cached()
    small = {name: 2 + 0.05 * getattr(data, name).float() for name in ("condition", "view")}
    moved = replace(data, identity=2 + 0.05 * data.identity, **small)

    def sampled(seen, raw: bool) -> torch.Tensor:
        made = with_mode(generator(decoder="align"), raw=raw)
        training.prepare(made, seen, noise(VIEWS, WIDTH))
        start = sampling.initial_noise(1, 2, made.grid.shape).expand(VIEWS, -1, -1, -1, -1)
        return made.features(sampling.sample(made, seen.condition[0, :2].float(), start, 2, 2.0))

    ours = sampled(data, False)
    torch.testing.assert_close(sampled(moved, False), ours, rtol=5e-3, atol=5e-3)
    assert sampled(moved, True).std(0).mean() < 0.2 * ours.std(0).mean()


def test_what_is_denoised_is_a_picture_of_the_person_in_its_own_view():
    data = cached()
    rows = torch.arange(len(data)).repeat(100)
    uniform = torch.rand(len(rows), generator=torch.Generator().manual_seed(0))
    found = data.of_same_person(rows, uniform)
    assert torch.equal(data.labels[found], data.labels[rows])
    pairs = torch.stack([rows, found]).unique(dim=1)
    assert pairs.shape[1] == len(data) * 6  # each with each of its person's six
    assert data.of_same_person(torch.tensor([5]), torch.tensor([1.0])) < 6  # as float32 rounds

    for own in (True, False):
        made = with_mode(generator(), own_target=own, raw=True, own_view=True)
        training.prepare(made, data, noise(VIEWS, WIDTH))
        seen = []

        def spy(clean, eps, times, condition, prototype, view, dropped, seen=seen):
            seen.append((clean.flatten(1)[:, :WIDTH], condition[:, 0], prototype, view))
            return torch.zeros_like(clean), None

        losses = training.Denoising(made, data, GeneratorOptimization(), "cpu")
        losses(spy, None, np.arange(len(data)), training.Draws(len(data), slice(None), 0, "step"))
        clean, condition, prototype, view = seen[0]
        same = data.identity.flatten(0, 1)
        which = torch.cdist(clean, same).argmin(1) % len(data)
        told = torch.cdist(condition.float(), same).argmin(1) % len(data)
        assert torch.equal(told, torch.arange(len(data)))
        assert torch.equal(data.labels[which], data.labels)
        assert torch.equal(which, told) == own
        assert torch.equal(prototype, made.prototypes[data.kinds[which]])
        assert torch.equal(view, data.view[0, which])


def test_maps_are_made_of_own_view_or_prototype():
    data = cached()
    data = replace(data, view=data.view + noise(*data.view.shape, seed=11))  # pictures differ
    for own, shares in ((True, {1.0}), (False, {0.5})):
        made = with_mode(generator(), own_view=own)
        training.prepare(made, data, noise(VIEWS, WIDTH))
        made.mode = replace(made.mode, own_view=own)
        seen = []

        def spy(clean, eps, times, condition, prototype, view, dropped, seen=seen):
            seen.append((view != prototype).any(1))
            return torch.zeros_like(clean), None

        losses = training.Denoising(made, data, GeneratorOptimization(), "cpu")
        for step in range(40):
            draws = training.Draws(8, slice(None), 0, "step", step)
            losses(spy, None, torch.arange(8).numpy(), draws)
        share = torch.cat(seen).float().mean().item()
        assert min(abs(share - s) for s in shares) < 0.1


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mode": "faithful"},
        {"denoiser": "mlp"},
        {"decoder": "align"},
    ],
)
@pytest.mark.slow
def test_a_few_steps_lower_the_loss(changes):
    data, settings = cached(), GeneratorOptimization(drop=0.1)
    made = generator(**changes)
    training.prepare(made, data, data.prototypes(VIEWS))
    losses = training.Denoising(made, data, settings, "cpu")
    before = training.check(made, data, settings, 0, "cpu")
    optimiser = torch.optim.AdamW([p for p in made.parameters() if p.requires_grad], 2e-3)
    made.train()
    for step in range(40):
        draws = training.Draws(12, slice(None), 0, "step", step)
        found = losses(made, made, torch.arange(12).numpy(), draws)
        optimiser.zero_grad()
        sum(found.values()).backward()
        optimiser.step()
    asked = {n for n, p in made.named_parameters() if p.requires_grad and p.grad is None}
    assert not asked  # several processes would wait for those
    assert training.check(made, data, settings, 0, "cpu") < 0.9 * before
