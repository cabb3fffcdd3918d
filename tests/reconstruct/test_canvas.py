# SPDX-License-Identifier: Apache-2.0
"""Canvases: places agree with the fit, a crop alone gives what it gives among others."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from viewsynth.bodies import KEYPOINTS, keypoints
from viewsynth.reconstruct import canvas, fitting
from viewsynth.reconstruct.canvas import ARM_BEFORE, HEAD, LEGS, METRE, SIZE, TORSO
from viewsynth.reconstruct.crops import Outcome
from viewsynth.records import Sample
from viewsynth.world import shots


@pytest.fixture(scope="module")
def placed(tools):
    rendered = shots.render(2)
    samples = [
        [Sample(paths=(), pid=one.pid, name=one.shot.name) for one in rendered[k : k + 2]]
        for k in (0, 2)
    ]
    images = [[one.image for one in rendered[k : k + 2]] for k in (0, 2)]
    outcomes = [Outcome(person=None) for _ in samples]
    fitted = fitting.fitted(samples, images, tools, outcomes)
    return fitted, of(tools, fitted, range(len(fitted.crops)))


def of(tools, fitted, rows):
    crops = [fitted.crops[row] for row in rows]
    return canvas.canvases(
        tools.body,
        fitted.fit,
        rows,
        fitted.vertices[list(rows)],
        [crop.image for crop in crops],
        [crop.parse.mask for crop in crops],
    )


def test_the_body_lies_on_the_mask(placed):
    for one in placed[1]:
        body, mask = (one.half > 0) | (one.parts >= ARM_BEFORE), one.mask > 0.5
        assert (body & mask).sum() / (body | mask).sum() > 0.6
        assert one.image.shape == (*SIZE, 3) and one.inside.min() >= 0
        assert 0.02 < one.half.max() < 0.35


def test_a_rough_canvas_is_near_that_of_the_fit(placed):
    fitted, every = placed
    for crop, one in zip(fitted.crops, every, strict=True):
        parse = crop.parse
        found = canvas.rough(crop.image, parse.mask, parse.points)
        size, true = (np.ptp(x.box.reshape(2, 2), axis=0) for x in (found, one))
        assert np.allclose(np.log(size[1] / true[1]), 0, atol=0.2)
        assert np.allclose(found.box[:2] + size / 2, one.box[:2] + true / 2, atol=0.06 * true[1])
        assert found.detail == pytest.approx(size[1] / SIZE[0]) and not found.half.any()


def test_places_agree_with_the_fit(placed, tools):
    fitted, every = placed
    for row, one in enumerate(every):
        points = keypoints(tools.body, fitted.vertices[row : row + 1])
        pixels, depth = fitted.fit.project(points, torch.tensor([row]))
        x, y = ((pixels[0].numpy() - one.box[:2]) / (one.box[2:] - one.box[:2]) * SIZE[::-1]).T
        for name, region in (("nose", HEAD), ("left_hip", None), ("left_ankle", LEGS)):
            at = KEYPOINTS.index(name)
            here = int(y[at]), int(x[at])
            if region:
                assert one.parts[here] % ARM_BEFORE == region
            near = abs(one.middle[here] - float(depth[0, at]))
            assert near < one.half[here] + 0.1  # the joint lies within the body
        tall = np.ptp(y) / METRE
        assert 1.2 < tall < 1.9
        assert {HEAD, TORSO, LEGS} <= set(np.unique(one.parts % ARM_BEFORE))


def test_a_crop_alone_is_the_crop_among_others(placed, tools):
    fitted, every = placed
    for row, one in enumerate(every):
        (alone,) = of(tools, fitted, [row])
        for field in dataclasses.fields(one):
            np.testing.assert_array_equal(getattr(one, field.name), getattr(alone, field.name))


@given(st.floats(-80, 60), st.floats(-90, 90), st.floats(0.5, 2.5))
def test_resampling_reads_the_right_places(left, top, scale):
    rows, columns = np.indices((120, 70)).astype(np.float32)
    box = np.array([left, top, left + SIZE[1] * scale, top + SIZE[0] * scale])
    for picture, start in ((columns, left), (rows, top)):
        found = canvas.resampled(picture, box, "edge")
        axis = 1 if picture is columns else 0
        at = start + scale * (np.arange(SIZE[axis]) + 0.5) - 0.5
        want = np.clip(at, 0, picture.shape[axis] - 1)
        inner = (at > 4) & (at < picture.shape[axis] - 5)  # filtering blurs the edge
        line = found[SIZE[0] // 2] if axis else found[:, SIZE[1] // 2]
        np.testing.assert_allclose(line[inner], want[inner], atol=0.6)
    known = canvas.resampled(np.ones((120, 70), np.float32), box, "constant")
    outside = box[0] + scale * (np.arange(SIZE[1]) + 0.5) > 74
    assert not known[:, outside].any() and known.min() >= 0 and known.max() <= 1


def test_reference_is_smooth_and_continues():
    trunk = np.full((2, *SIZE), np.nan, np.float32)
    trunk[0, 30:60, 20:40], trunk[1, 30:60, 20:40] = 1.0, 1.4
    found = canvas.reference(trunk)
    np.testing.assert_allclose(found, 1.2, atol=1e-5)
    assert not canvas.reference(np.full((2, *SIZE), np.nan, np.float32)).any()
