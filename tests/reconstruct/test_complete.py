# SPDX-License-Identifier: Apache-2.0
"""The completion network: one row of a batch is that row alone; files; its start."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from viewsynth.reconstruct import canvas, complete
from viewsynth.world import sheets


def crops(count=3):
    rng = np.random.default_rng(0)
    maps = (count, *canvas.SIZE)
    return {
        "image": torch.from_numpy(rng.integers(0, 256, (*maps, 3), np.uint8)),
        "mask": torch.from_numpy(rng.integers(0, 256, maps, np.uint8)),
        "inside": torch.full(maps, 255, dtype=torch.uint8),
        "body": torch.from_numpy(rng.uniform(0, 0.2, (count, 2, *canvas.SIZE)).astype(np.float32)),
        "parts": torch.from_numpy(rng.integers(0, 12, maps, np.uint8)),
        "angles": torch.tensor([[5.0, 40.0], [12, 200], [0, 359]])[:count],
        "detail": torch.tensor([0.6, 1.0, 2.0])[:count],
    }


def network():
    torch.manual_seed(0)
    model = complete.Completer().eval()
    with torch.no_grad():
        model.last[-1].weight.normal_(0, 0.05)
    return model


@torch.no_grad()
def test_a_row_of_a_batch_is_the_row_alone():
    given, model = crops(), network()
    whole = model(complete.stack(given))
    for k in range(3):
        alone = model(complete.stack({name: v[k : k + 1] for name, v in given.items()}))
        for field in dataclasses.fields(whole):
            one, other = getattr(whole, field.name)[k], getattr(alone, field.name)[0]
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_kind_has_the_colour_that_the_crop_shows_of_it():
    """Two colours, one above the other, whose kinds are swapped behind."""
    upper = (torch.arange(canvas.SIZE[0]) < canvas.SIZE[0] // 2)[:, None].expand(canvas.SIZE)
    colour = torch.where(upper[..., None], torch.tensor([200, 60, 60]), torch.tensor([40, 80, 160]))
    given = crops(1) | {"image": colour[None].byte(), "mask": torch.full((1, *canvas.SIZE), 255)}
    part = {name: torch.zeros(1, count, *canvas.SIZE) for name, count in complete.OUTPUTS.items()}
    for side, kinds in (("front", (4, 5)), ("back", (5, 4))):
        for kind, where in zip(kinds, (upper, ~upper), strict=True):
            part[f"{side}_kind"][0, kind] = 20.0 * where
        part[f"{side}_mix"][:, -1] = 20.0
    found = complete._colours(part, complete.stack(given))[0] * 255
    top, bottom = (found[:, :, k].mean(-1) for k in (10, -10))
    for side, (first, second) in enumerate(((0, -1), (-1, 0))):
        torch.testing.assert_close(top[side], colour[first, 0].float(), atol=2.0, rtol=0)
        torch.testing.assert_close(bottom[side], colour[second, 0].float(), atol=2.0, rtol=0)


@torch.no_grad()
def test_it_starts_with_the_colours_of_the_crop():
    given = crops()
    given["image"] = given["image"][:, :1, :1].expand(-1, *canvas.SIZE, -1)
    found = complete.Completer()(complete.stack(given))
    image = given["image"].movedim(-1, 1) / 255
    for side in range(2):
        torch.testing.assert_close(
            found.colour[:, side], image.clamp(0.02, 0.98), atol=2e-3, rtol=0
        )
    assert bool((found.half > 0).all()) and not bool(found.middle.any())


@torch.no_grad()
def test_files_keep_the_network(tmp_path):
    model, path, given = network(), tmp_path / "completion.safetensors", complete.stack(crops())
    complete.save(model, path, {"steps": "3"})
    again = complete.load(path)
    torch.testing.assert_close(again(given).half, model(given).half, atol=2e-3, rtol=1e-2)
    assert path.stat().st_size < 10e6
    complete.save(again, tmp_path / "twice.safetensors", {"steps": "3"})
    assert (tmp_path / "twice.safetensors").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("kind", ["text", "missing", "other weights"])
def test_other_files_are_refused(tmp_path, kind):
    path = tmp_path / "file.safetensors"
    if kind == "text":
        path.write_text("no network")
    elif kind == "other weights":
        save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="is no completion network: .*train-completion"):
        complete.load(path)


def test_kinds_are_those_of_the_world():
    assert complete.KINDS == sheets.KINDS
