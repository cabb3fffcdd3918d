# SPDX-License-Identifier: Apache-2.0
"""Augmentation: a function of the image and its random numbers, as the recipe defines."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from viewsynth.reid import augment
from viewsynth.reid.options import Augmentation

OFF = Augmentation(pad=0, flip=0, erase=0)
EVERYTHING = Augmentation(degrade=0.5, perspective=0.5)


def random_images(count, height=128, width=64, seed=0):
    """Smooth coloured noise without black pixels."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, height // 8, width // 8, generator=rng) * 200 + 40
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return fine.permute(0, 2, 3, 1).contiguous().byte()


def planar(images):
    return images.permute(0, 3, 1, 2).float() / 255


@pytest.mark.parametrize("recipe", [OFF, Augmentation(), EVERYTHING])
@pytest.mark.parametrize("size", [(128, 64), (256, 128), (60, 37)])
def test_rows_of_a_batch_are_independent(recipe, size):
    images = random_images(9, *size)
    slots = np.array([3, 0, 17, 5, 4, 31, 2, 8, 9])
    whole = augment.augment(images, 1, 7, slots, recipe)
    assert whole.dtype == torch.float32 and whole.shape == (9, 3, *size)
    assert whole.min() >= 0 and whole.max() <= 1
    for n, slot in enumerate(slots):
        alone = augment.augment(images[n : n + 1], 1, 7, [slot], recipe)
        assert (alone[0] == whole[n]).all()


def test_the_input_is_unchanged():
    images = random_images(6)
    before = images.clone()
    augment.augment(images, 0, 0, range(6), Augmentation(degrade=1, perspective=1))
    assert (images == before).all()


def test_draws():
    some = augment.draws(3, 5, range(40))
    assert (augment.draws(3, 5, [17, 4]) == some[[17, 4]]).all()
    assert len(np.unique(some)) == some.size
    for other in (augment.draws(3, 6, range(40)), augment.draws(4, 5, range(40))):
        assert not (other == some).any()
    assert augment.draws(0, 0, []).shape == (0, augment.COLUMNS)


def test_without_operations():
    images = random_images(5)
    assert (augment.augment(images, 0, 0, range(5), OFF) == planar(images)).all()


def test_flip():
    images = random_images(400, 32, 16)
    found = augment.augment(images, 0, 0, range(400), Augmentation(pad=0, erase=0))
    same = (found == planar(images)).flatten(1).all(1)
    flipped = (found == planar(images).flip(3)).flatten(1).all(1)
    assert (same | flipped).all() and 160 < flipped.sum() < 240


@pytest.mark.parametrize(("size", "pad"), [((128, 64), 5), ((256, 128), 10)])
def test_pad_and_crop(size, pad):
    images = random_images(60, *size)
    found = augment.augment(images, 0, 0, range(60), Augmentation(flip=0.5, erase=0))
    offsets = set()
    for image, row in zip(planar(images), found, strict=True):
        fits = []
        for source in (image, image.flip(2)):
            padded = torch.nn.functional.pad(source, (pad,) * 4)
            inside = (row > 0).any(0)  # images have no black pixels
            top, left = inside.any(1).int().argmax(), inside.any(0).int().argmax()
            high, wide = inside.any(1).sum(), inside.any(0).sum()
            y = pad - top if high + top == size[0] and top else pad + size[0] - high
            x = pad - left if wide + left == size[1] and left else pad + size[1] - wide
            cut = padded[:, y : y + size[0], x : x + size[1]]
            if cut.shape == row.shape and (cut == row).all():
                fits.append((int(y), int(x)))
        assert fits
        offsets.add(fits[0])
    assert {0, 2 * pad} <= {y for y, _ in offsets} | {x for _, x in offsets}
    assert len(offsets) > 40 and np.max(list(offsets)) <= 2 * pad


def test_erasing():
    images = random_images(500, 64, 32)
    found = augment.augment(images, 0, 0, range(500), Augmentation(pad=0, flip=0))
    mean = torch.tensor(augment.MEAN)[:, None, None]
    shares, ratios = [], []
    for image, row in zip(planar(images), found, strict=True):
        changed = (row != image).any(0)
        if not changed.any():
            continue
        y, x = torch.where(changed)
        box = row[:, y.min() : y.max() + 1, x.min() : x.max() + 1]
        assert (box == mean).all()  # one rectangle only
        shares.append(box[0].numel() / row[0].numel())
        ratios.append(box.shape[1] / box.shape[2])
    assert 210 < len(shares) < 290
    assert 0.015 < min(shares) < 0.05 and 0.28 < max(shares) < 0.36
    assert 0.2 < min(ratios) < 0.6 and 2 < max(ratios) < 4.5


def test_controls_do_not_change_the_other_operations():
    images = random_images(64)
    plain = augment.augment(images, 0, 3, range(64), Augmentation())
    coarse = augment.augment(images, 0, 3, range(64), Augmentation(degrade=0.5))
    touched = (plain != coarse).flatten(1).any(1)
    assert 15 < touched.sum() < 50
    # Erased rectangles and black padding are in the same positions.
    mean = torch.tensor(augment.MEAN)[:, None, None]
    assert (((plain == mean).all(1)) == ((coarse == mean).all(1))).all()
    assert (((plain == 0).all(1)) == ((coarse == 0).all(1))).all()


@pytest.mark.parametrize("blur", [0.0, augment.BLUR])
def test_degraded_changes_the_resolution_only(blur):
    image = random_images(1, 256, 128)[0]
    grey = torch.full_like(image, 77)
    assert (augment.degraded(grey, 40, blur) == 77).all()
    last = 0.0
    for pixels in (100, 60, 28):
        found = augment.degraded(image, pixels, blur)
        assert found.shape == image.shape and found.dtype == torch.uint8
        # Colours are unchanged: the mean of every quarter.
        quarters = [
            torch.nn.functional.adaptive_avg_pool2d(planar(x[None]), 2) for x in (image, found)
        ]
        assert (quarters[0] - quarters[1]).abs().max() < 0.01
        # Geometry is unchanged: no shift fits the image better.
        error = [
            (
                planar(found[None])[..., 16:-16, 16 + d : 112 + d]
                - planar(image[None])[..., 16:-16, 16:112]
            )
            .abs()
            .mean()
            .item()
            for d in (-4, -1, 0, 1, 4)
        ]
        assert min(error) == error[2] and error[2] > last
        last = error[2]
    assert (augment.degraded(image, 256) == image).all()


def test_degraded_keeps_low_frequencies():
    """Stripes of two low-resolution pixels stay, stripes of half of one become grey."""
    wide = ((torch.arange(256) // 16) % 2 * 255)[:, None, None].expand(256, 128, 3).byte()
    thin = ((torch.arange(256) // 2) % 2 * 255)[:, None, None].expand(256, 128, 3).byte()
    assert augment.degraded(wide, 32).float().std() > 100
    assert augment.degraded(thin, 32).float().std() < 5


def test_tilted():
    image = random_images(1)[0]
    still = augment.tilted(image, 0.0, 0.0, 3.0)
    assert (still.int() - image.int()).abs().max() <= 1
    away = augment.tilted(image, 60.0, 0.0, 1e4)  # foreshortening only, which cropping removes
    assert (away.int() - image.int()).abs().max() <= 3
    turned, mirror = (
        augment.tilted(image, 30.0, 10.0, 3.0),
        augment.tilted(image.flip(1), 30.0, -10.0, 3.0).flip(1),
    )
    assert (turned.int() - mirror.int()).abs().max() <= 1
    lean = augment.tilted(image, 40.0, 0.0, 2.0)
    below = augment.tilted(image.flip(0), -40.0, 0.0, 2.0).flip(0)
    assert (lean.int() - below.int()).abs().max() <= 1


def test_tilted_enlarges_near_parts():
    """A board with a bar of constant width."""
    image = torch.zeros(128, 64, 3, dtype=torch.uint8)
    image[:, 24:40] = 255
    found = augment.tilted(image, 50.0, 0.0, 2.0)[..., 0] > 127
    top, bottom = found[2].sum().item(), found[-3].sum().item()
    # Depths of the edges: 2 -+ sin(50 deg) / 2; the wider edge fills the image as before.
    expected = (2 - 0.383) / (2 + 0.383)
    assert top == pytest.approx(16, abs=1) and bottom / top == pytest.approx(expected, abs=0.08)
    left = augment.tilted(image.transpose(0, 1).contiguous(), 0.0, 50.0, 2.0)[..., 0] > 127
    near, far = left[:, 2].sum().item(), left[22:42, -3].sum().item()  # outside are reflected bars
    assert near == pytest.approx(16, abs=1)
    assert far / near == pytest.approx((2 - 0.766) / (2 + 0.766), abs=0.1)


@pytest.mark.parametrize(
    ("key", "value"), [("flip", 1.1), ("erase", -0.1), ("degrade", 2), ("pad", -1)]
)
def test_invalid_recipes(key, value):
    with pytest.raises(ValueError, match=f"augment.{key} must be"):
        Augmentation(**{key: value})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_equal_on_a_gpu():
    images = random_images(16)
    here = augment.augment(images, 0, 0, range(16), Augmentation())
    there = augment.augment(images.cuda(), 0, 0, range(16), Augmentation())
    assert there.is_cuda and (there.cpu() - here).abs().max() < 1e-6
    both = [augment.augment(x, 0, 0, range(16), EVERYTHING).cpu() for x in (images, images.cuda())]
    assert (both[0] - both[1]).abs().max() < 2.5 / 255
