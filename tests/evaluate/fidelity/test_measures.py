# SPDX-License-Identifier: Apache-2.0
"""Baselines, measures, segmentation and tables of fidelity on images with known results."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from viewsynth import bodies, metrics
from viewsynth.cameras import Cameras, focal_length, orbit, pinhole
from viewsynth.evaluate.fidelity import baselines, measures, methods, outline, table, text
from viewsynth.reconstruct.parse import Parse
from viewsynth.world import LABELS, truth

SKIN, TOP, TROUSERS = (LABELS.index(name) for name in ("face", "top", "bottom"))


# ---- baselines -----------------------------------------------------------------------------------


def scene(elevation=5.0, azimuth=20.0, size=(120, 80), distance=8.0):
    """A camera that looks at a person-sized target, and a noise image with a mask."""
    angles = (torch.tensor([v]) for v in (elevation, azimuth, distance, 0.9))
    matrix = pinhole(torch.tensor([focal_length(16, size[0])]), size)
    camera = Cameras(orbit(*angles), matrix, size, torch.zeros(1))
    rng = np.random.default_rng(0)
    image = np.repeat(np.repeat(rng.integers(0, 256, (12, 8, 3)), 10, 0), 10, 1).astype(np.uint8)
    labels = np.zeros(size, np.uint8)
    labels[20:105, 25:55] = TOP
    row = {"elevation": elevation, "azimuth": azimuth, "target_height": 0.9}
    return truth.TrueImage(image, labels, camera, row)


def parsed(picture) -> Parse:
    points = np.zeros((len(bodies.KEYPOINTS), 2), np.float32)
    return Parse(
        points=points,
        length=np.zeros((len(points), 3), np.float32),
        spread=points[:, 0],
        mask=picture.mask.astype(np.float32),
        soft=picture.mask.astype(np.float32),
        presence=1.0,
        vote=1.0,
        front=True,
        height=85.0,
    )


def test_warp_to_the_same_camera_is_the_identity():
    picture = scene()
    layers = baselines.warped(picture, picture, parsed(picture), lean=0.0)
    inner = np.zeros(picture.mask.shape, bool)
    inner[24:101, 29:51] = True
    assert torch.allclose(layers[3][inner], torch.ones(1), atol=1e-3)
    assert float(layers[3][~picture.mask].mean()) < 0.02
    apart = np.abs(layers[:3].permute(1, 2, 0).numpy()[inner] * 255 - picture.image[inner])
    assert np.median(apart) < 2


def test_the_leaning_board_has_the_height_of_a_body_at_every_elevation():
    """A box of a body's proportions, 1.75 x 0.42 m, against the board's upper and lower edge."""
    source = scene()
    for elevation in (30.0, 50.0, 70.0, 89.0):
        view = scene(elevation=elevation, size=(160, 120))
        layers = baselines.warped(view, source, parsed(source))
        _, top, _, bottom = baselines.bounding_box((layers[3] > 0.5).numpy())
        scale = float(view.camera.intrinsics[0, 1, 1]) / 8
        e = np.radians(elevation)
        _, a, _, b = baselines.bounding_box(source.mask)
        height = (b - a) / (float(source.camera.intrinsics[0, 1, 1]) / 8)
        box = height * (np.cos(e) + 0.25 * np.sin(e))
        assert (bottom - top) / scale == pytest.approx(box, rel=0.12)


def test_the_resized_crop_fills_the_true_box():
    picture, view = scene(), scene(elevation=60, size=(90, 100))
    labels = np.zeros((90, 100), np.uint8)
    labels[10:60, 30:90] = TOP
    view = dataclasses.replace(view, labels=labels)
    layers = baselines.pasted_crop(view, picture, parsed(picture))
    assert baselines.bounding_box((layers[3] > 0.5).numpy()) == (30, 10, 90, 60)


def test_the_nearest_azimuth_wraps_around():
    ground = [scene(azimuth=a) for a in (180.0, 350.0)]
    assert baselines.nearest(scene(azimuth=20.0), ground) == 1
    assert baselines.nearest(scene(azimuth=120.0), ground) == 0


def test_body_parts_follow_the_skeleton():
    picture = scene()
    found = parsed(picture)
    at = {name: k for k, name in enumerate(bodies.KEYPOINTS)}
    heights = {
        "eye": 28,
        "ear": 30,
        "shoulder": 42,
        "elbow": 55,
        "wrist": 66,
        "hip": 62,
        "knee": 82,
        "ankle": 98,
        "heel": 101,
        "big_toe": 103,
    }
    for name, y in heights.items():
        for side, x in (("left", 46), ("right", 34)):
            found.points[at[f"{side}_{name}"]] = x, y
    part = baselines.body_parts(found)
    assert part[22, 40] == "hair" and part[33, 40] == "face" and part[52, 40] == "torso"
    assert part[75, 46] == "thigh" and part[90, 34] == "shank" and part[103, 46] == "foot"
    assert part[5, 5] == ""


# ---- measures ------------------------------------------------------------------------------------


def prediction_of(picture, **changes) -> methods.Prediction:
    image = np.where(picture.mask[..., None], picture.image, np.uint8(methods.GREY))
    return methods.Prediction(image=image, mask=picture.mask, **changes)


def flat(colours: dict[int, tuple[int, int, int]]):
    """A person of three parts in uniform colours, with an occluder in front of the feet."""
    picture = scene()
    image, labels = picture.image.copy(), 0 * picture.labels
    for k, (label, colour) in enumerate(colours.items()):
        labels[20 + 25 * k : 45 + 25 * k, 25:55] = label
        image[labels == label] = colour
    labels[90:, :] = truth.OCCLUDER
    return dataclasses.replace(picture, image=image, labels=labels)


PLAIN = {SKIN: (200, 150, 130), TOP: (160, 30, 30), TROUSERS: (30, 40, 90)}


def test_the_truth_has_no_error():
    picture = flat(PLAIN)
    row = measures.compare(picture, prediction_of(picture))
    assert row["iou"] == 1 and row["psnr"] == metrics.BEST_PSNR and row["missing"] == 0
    assert row["ssim"] == pytest.approx(1)
    assert max(row[key] for key in row if key.startswith(("de", "dp"))) < 1e-6


def test_a_wrong_colour_counts_for_its_part_only():
    picture = flat(PLAIN)
    image = picture.image.copy()
    image[picture.labels == TOP] = (30, 30, 160)
    seen = np.where(picture.labels == TOP, 0.3, 1.0).astype(np.float32)
    row = measures.compare(
        dataclasses.replace(picture), methods.Prediction(image, picture.mask, seen)
    )
    expected = float(
        metrics.delta_e(*(metrics.lab(np.array(c)) for c in ((160, 30, 30), (30, 30, 160))))
    )
    assert row["de_top"] == pytest.approx(expected) and row["de_head"] == row["de_bottom"] == 0
    assert row["de_unseen"] == pytest.approx(expected) and row["de_seen"] == 0
    share = (picture.labels == TOP).sum() / picture.mask.sum()
    assert row["de"] == pytest.approx(expected * share)


def test_exposure_is_removed_by_the_gain():
    picture = flat(PLAIN)
    dark = dataclasses.replace(picture, image=(picture.image * 0.6).astype(np.uint8))
    row = measures.compare(picture, prediction_of(dark))
    assert row["de"] > 8 and row["de_tone"] < 0.7


def test_a_missing_part_counts_as_background_colour():
    picture = flat(PLAIN)
    mask = picture.mask & (picture.labels != TROUSERS)
    image = np.where(mask[..., None], picture.image, np.uint8(methods.GREY))
    row = measures.compare(picture, methods.Prediction(image, mask))
    grey = metrics.lab(np.full(3, methods.GREY))
    assert row["de_bottom"] == pytest.approx(
        float(metrics.delta_e(metrics.lab(np.array(PLAIN[TROUSERS])), grey))
    )
    assert row["missing"] == pytest.approx((picture.labels == TROUSERS).sum() / picture.mask.sum())


def test_occluded_pixels_are_ignored():
    picture = flat(PLAIN)
    mask = picture.mask | (picture.labels == truth.OCCLUDER)
    image = np.where(picture.mask[..., None], picture.image, np.uint8(0))
    row = measures.compare(picture, methods.Prediction(image, mask))
    assert row["iou"] == 1 and row["de"] < 1e-6 and row["psnr"] == metrics.BEST_PSNR


def test_seen_and_unseen_pixels_are_those_of_the_rendering():
    """A repaired view with another mask is measured on the same pixels."""
    picture = flat(PLAIN)
    seen = np.where(picture.labels == TOP, 0.5, 1.0).astype(np.float32)  # mirrored, not observed
    mask = picture.mask & (picture.labels != TROUSERS)
    base = methods.Prediction(
        np.where(mask[..., None], picture.image, np.uint8(methods.GREY)), mask, seen
    )
    rendered = measures.compare(picture, base)
    assert rendered["psnr_seen"] == rendered["psnr_unseen"] == metrics.BEST_PSNR
    assert rendered["ssim_unseen"] == pytest.approx(1)
    whole = picture.image.copy()
    whole[picture.labels == TOP] += np.uint8(10)
    whole[~mask] = 255  # background and pixels outside the rendering are ignored
    empty = methods.Prediction(whole, np.zeros_like(mask), seen, whole=whole)
    row = measures.compare(picture, empty, base)
    assert row["psnr_unseen"] == pytest.approx(20 * np.log10(25.5))
    assert row["psnr_seen"] == metrics.BEST_PSNR and row["de_seen"] == 0 < row["de_unseen"]
    assert row["ssim_seen"] > 0.99 and row["seen"] == rendered["seen"] == pytest.approx(0.5)
    assert row["iou"] == 0 and row["missing"] == 1


def test_elevation_bins():
    names = [measures.bin_of(angle) for angle in (25, 39.9, 40, 69, 70, 90, 10)]
    assert names == ["25-40", "25-40", "40-55", "55-70", "70-90", "70-90", "other"]


# ---- segmentation --------------------------------------------------------------------------------


def person(height=96, width=64):
    """A person in two colours on a noisy background, and the mask."""
    rng = np.random.default_rng(0)
    image = rng.normal(150, 8, (height, width, 3))
    y, x = np.mgrid[:height, :width]
    mask = ((y - 48) / 38) ** 2 + ((x - 32) / 15) ** 2 < 1
    image[mask] = (170, 40, 40)
    image[mask & (y > 50)] = (40, 50, 110)
    return (image + rng.normal(0, 4, image.shape)).clip(0, 255).astype(np.uint8), mask


def test_a_wrong_initial_mask_is_corrected():
    image, mask = person()
    for start in (np.roll(mask, (3, 2), (0, 1)), np.roll(mask, -3, 1)):
        assert metrics.iou(start, mask) < 0.85
        assert metrics.iou(outline.outline(image, start), mask) > 0.93
    found = outline.outline(image, None)
    assert metrics.iou(outline.ellipse(mask.shape), mask) < 0.75 < metrics.iou(found, mask)


def test_resized_grows_and_shrinks_evenly():
    _, mask = person()
    for area in (mask.sum() // 2, mask.sum(), mask.sum() * 3 // 2):
        found = outline.grown_to(mask, int(area))
        assert area <= found.sum() < 1.15 * area
        assert not (found & ~mask).any() or not (mask & ~found).any()
    assert np.array_equal(outline.grown_to(mask, int(mask.sum())), mask)


def test_without_colour_differences_the_initial_mask_stays():
    _, mask = person()
    flat = np.full((*mask.shape, 3), 90, np.uint8)
    assert metrics.iou(outline.outline(flat, mask), mask) > 0.97
    for plain in (np.zeros_like(mask), np.ones_like(mask)):
        assert np.array_equal(outline.outline(flat, plain), plain)
    dot = np.zeros_like(mask)
    dot[40, 30] = True
    assert outline.outline(flat, dot).sum() < 30


# ---- tables --------------------------------------------------------------------------------------


def rows_of(methods_values: dict[str, list[float]]) -> list[dict]:
    """Two views per person with the given `iou` and one embedding direction per person."""
    rows = []
    for method, values in methods_values.items():
        for person, value in enumerate(values):
            for view in range(2):
                vector = np.zeros(8)
                vector[person] = 1
                if method == "warped":
                    vector = np.roll(vector, 1)
                rows.append(
                    {
                        "pid": str(person),
                        "view": f"{person}_{view}",
                        "method": method,
                        "elevation": 30.0 + 30 * view,
                        "embedding": list(vector + 0.01 * view),
                        "iou": value + 0.02 * view,
                    }
                )
    return rows


def test_identity_is_matched_in_other_images_only():
    rows = rows_of({"true": [1] * 5, "ours": [0.6] * 5, "warped": [0.5] * 5})
    table.identify(rows)
    assert all(row["map"] == 1 and row["rank1"] == 1 for row in rows if row["method"] == "ours")
    assert all(row["own_view"] == 1 for row in rows if row["method"] == "ours")
    wrong = [row for row in rows if row["method"] == "warped"]
    assert all(row["rank1"] == 0 and row["map"] < 0.6 for row in wrong)
    assert all(row["cosine"] > 0.95 for row in rows if row["method"] == "ours")
    assert max(row["own_view"] for row in wrong) < 0.6
    assert "cosine" not in rows[0], "true views have no similarity to themselves"


def test_summary_and_paired_differences():
    rng = np.random.default_rng(0)
    base = rng.uniform(0.3, 0.7, 8)
    rows = rows_of(
        {
            "true": [1] * 8,
            "ours": base + 0.1,
            "warped": base,
            "mean_body": base + 0.1,
            "resized": base + 0.3,
        }
    )
    table.identify(rows)
    found = {(c["method"], c["bin"], c["measure"]): c for c in table.summary(rows)}
    cell = found["ours", "all", "iou"]
    assert cell["mean"] == pytest.approx((base + 0.11).mean()) and cell["people"] == 8
    assert cell["pictures"] == 16 and cell["low"] < cell["mean"] < cell["high"]
    assert found["ours", "55-70", "iou"]["mean"] == pytest.approx((base + 0.12).mean())
    versus = {(c["baseline"], c["bin"], c["measure"]): c for c in table.gains_over_baselines(rows)}
    assert versus["warped", "all", "iou"]["better"] is True
    assert versus["warped", "all", "iou"]["mean"] == pytest.approx(0.1)
    assert versus["resized", "all", "iou"]["better"] is False
    assert versus["mean_body", "25-40", "iou"]["better"] is None
    page = text.markdown(table.summary(rows), table.gains_over_baselines(rows), ["a note"])
    assert "LOSES" in page and "Elevation 25-40° (8 people, 8 views)" in page
    assert "repair" not in page and "a note" in page
    assert all(line.endswith("|") for line in page.splitlines() if line.startswith("|"))
