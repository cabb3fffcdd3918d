# SPDX-License-Identifier: Apache-2.0
"""Conditions: bad values are refused, and the message names the row."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from viewsynth.diffusion.conditions import CAMERA, Conditions

SIZE = (32, 16)


def make(views: int = 3, photos: int = 2) -> Conditions:
    draw = torch.Generator().manual_seed(0)

    def plane(count: int, channels: int) -> torch.Tensor:
        return torch.rand(count, channels, *SIZE, generator=draw)

    return Conditions(
        source=plane(photos, 3),
        person=torch.arange(views) % photos,
        render=plane(views, 3),
        seen=plane(views, 1),
        normals=plane(views, 3) * 2 - 1,
        camera=torch.tensor([[60.0, 10, 180, 20, 0.5]]).repeat(views, 1),
    )


def changed(name: str, row: int, value: float) -> Conditions:
    """The conditions with one value of one row set."""
    given = make()
    values = getattr(given, name).clone()
    values[row].view(-1)[0] = value
    return replace(given, **{name: values})


def camera(column: str, row: int, value: float) -> Conditions:
    given = make()
    given.camera[row, CAMERA.index(column)] = value
    return given


def test_good_conditions_pass():
    given = make()
    given.check()
    given.check(SIZE)
    assert len(given) == 3


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (changed("render", 1, torch.nan), "render of row 1 contains NaN"),
        (changed("camera", 2, torch.inf), "camera of row 2 contains NaN"),
        (changed("source", 1, torch.nan), "source of image 1 contains NaN"),
        (changed("seen", 1, 1.2), r"seen must be in \[0, 1\]; row 1 spans"),
        (changed("normals", 2, -1.5), r"normals must be in \[-1, 1\]; row 2 spans"),
        (camera("elevation", 1, 91), r"elevation must be in \[0, 90\].*row 1 has 91"),
        (camera("elevation", 0, -1), "row 0 has -1"),
        (camera("distance", 2, 0), "distance must be in .*row 2 has 0"),
        (camera("aspect", 2, 0), "aspect must be in .*row 2 has 0"),
        (replace(make(), person=torch.tensor([0, 1, 2])), r"source image, int64 in \[0, 1\]"),
        (replace(make(), person=torch.tensor([0, 1])), r"person must be \[2\]|render must be \[2"),
        (replace(make(), seen=make().render), r"seen must be \[3, 1, 32, 16\], got \[3, 3"),
        (replace(make(), camera=torch.zeros(3, 4)), r"camera must be \[3, 5\]"),
    ],
)
def test_bad_conditions_are_refused(given, said):
    with pytest.raises(ValueError, match=said):
        given.check()


def test_a_black_source_image_is_refused():
    given = make()
    given.source[1] = 0.01
    with pytest.raises(ValueError, match="source image 1 is black.*leave it out"):
        given.check()


def test_another_size_is_refused():
    with pytest.raises(ValueError, match=r"source must be \[2, 3, 64, 32\].*64 x 32 \(height"):
        make().check((64, 32))


def test_no_views_are_refused():
    given = make().take(torch.tensor([], dtype=torch.int64))
    with pytest.raises(ValueError, match="give at least one view"):
        given.check()


def test_taking_rows_keeps_the_source_images():
    given = make()
    taken = given.take(torch.tensor([2, 0]))
    assert torch.equal(taken.render, given.render[[2, 0]])
    assert torch.equal(taken.person, given.person[[2, 0]])
    assert taken.source is given.source


def test_moving_keeps_the_cameras_precision():
    moved = make().to("cpu", torch.bfloat16)
    assert moved.render.dtype == torch.bfloat16 and moved.camera.dtype == torch.float32
    assert moved.person.dtype == torch.int64
