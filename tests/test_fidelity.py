# SPDX-License-Identifier: Apache-2.0
"""Fidelity on one real person of the world, and its arithmetic on pictures with known answers."""

from __future__ import annotations

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from viewsynth import bodies, metrics, observer, population, reconstruct, weights
from viewsynth.cameras import Cameras, focal_length, orbit, pinhole
from viewsynth.chunks import Writer
from viewsynth.commands import fidelity as command
from viewsynth.fidelity import baselines, comparison, measures, methods, table, truth
from viewsynth.reconstruct.parse import Parse
from viewsynth.world import LABELS

SKIN, TOP, TROUSERS = (LABELS.index(name) for name in ("face", "top", "bottom"))


# ---- one person of the world ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Person 1, a test person, at one instant."""
    folder = tmp_path_factory.mktemp("world")
    with ThreadPoolExecutor(1) as pool:
        writer = Writer(folder, pool)
        person, rows = population._person(population.Want(1, (0, 0), (0, 1)), 0, writer.put)
        writer.finish()
    write = lambda name, some: (folder / name).write_text(  # noqa: E731
        "".join(json.dumps(row) + "\n" for row in some)
    )
    write("people.jsonl", [{**person, "split": "test"}])
    write("truth.jsonl", rows)
    return folder


@pytest.fixture(scope="module")
def comparer(world, tmp_path_factory):
    body = bodies.load("anny")
    tools = reconstruct.load(body, weights.pose_model(None), weights.detector_model(None))
    job = comparison.Job(
        world=world, output=tmp_path_factory.mktemp("out"), observer=world / "none",
        models={}, mark="m", seed=0, shown=("0001",),
    )  # fmt: skip
    torch.manual_seed(0)
    return comparison.Comparer(job, tools, observer.Network().eval())


@pytest.fixture(scope="module")
def compared(world, comparer):
    """The rows of that person, through the files."""
    chunk = comparison.chunks(truth.instants(world, 1))[0]
    assert comparison.part(comparer.job, chunk) is None
    comparer.do(chunk)
    return comparison.part(comparer.job, chunk)["rows"]


def of(rows, method, key):
    return np.array([row[key] for row in rows if row["method"] == method])


def test_the_instant_has_two_ground_and_three_drone_views(world):
    (moment,) = truth.instants(world, 1)
    assert (len(moment.ground), len(moment.drone)) == (2, 3)
    picture = truth.read(world, moment.drone[0])
    points = torch.tensor(moment.drone[0]["joints"])[None]
    pixels, _ = picture.camera.project(points)
    stored = np.array(moment.drone[0]["keypoints"])[:, :2]
    assert np.abs(pixels[0].numpy() - stored).max() < 0.5, "camera and key points agree"
    with pytest.raises(ValueError, match="1 test people, so after skipping 1 there are 0"):
        truth.instants(world, 1, skip=1)
    with pytest.raises(FileNotFoundError, match="no world"):
        truth.instants(world / "paired", 1)


def test_the_observer_learns_from_training_people_only(world, tmp_path):
    with pytest.raises(ValueError, match="no training pictures"):
        truth.training(world)
    rows = [json.loads(line) for line in (world / "truth.jsonl").read_text().splitlines()]
    other = [{**row, "pid": "0002", "file_name": f"train/{k}.jpg"} for k, row in enumerate(rows)]
    people = [{"pid": "0001", "split": "test"}, {"pid": "0002", "split": "train"}]
    for name, some in (("people.jsonl", people), ("truth.jsonl", rows + other)):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in some))
    assert {row["pid"] for row in truth.training(tmp_path)} == {"0002"}
    assert len(truth.training(tmp_path)) == 5


def test_methods_rank_as_they_must(compared):
    """The nearer to the truth a body is made, the better its outline; baselines come last."""
    assert {row["method"] for row in compared} == set(methods.METHODS)
    mean = {name: of(compared, name, "iou").mean() for name in methods.METHODS if name != "true"}
    assert mean["ceiling"] > 0.7 and mean["ceiling"] > mean["ours"] + 0.05
    assert mean["true_pose"] > mean["ours"]
    assert mean["ceiling"] > max(mean["resized"], mean["warped"], mean["mean_body"])
    assert np.abs(of(compared, "ceiling", "height_error")).max() == 0
    assert np.abs(of(compared, "ours", "height_error")).max() < 20
    assert "iou" not in next(row for row in compared if row["method"] == "true")
    for row in compared:
        assert len(row["embedding"]) == observer.EMBEDDING


def test_a_view_alone_has_the_same_figures_and_another_mark_is_refused(world, comparer, compared):
    (chunk,) = comparison.chunks(truth.instants(world, 1))
    moment = dataclasses.replace(chunk.moments[0], drone=chunk.moments[0].drone[:1])
    again = comparison.Comparer(
        dataclasses.replace(comparer.job, output=world / "again", shown=()),
        comparer.tools, comparer.network,
    )  # fmt: skip
    again.do(dataclasses.replace(chunk, moments=(moment,)))
    alone = comparison.part(again.job, chunk)["rows"]
    together = [row for row in compared if row["view"] == moment.drone[0]["file_name"]]
    for row, other in zip(alone, together, strict=True):
        assert np.allclose(row.pop("embedding"), other["embedding"], atol=1e-3)
        expected = {key: value for key, value in other.items() if key != "embedding"}
        assert row == {
            **expected,
            "elevation_error": pytest.approx(other["elevation_error"], abs=0.05),
        }
    other = dataclasses.replace(comparer.job, mark="another")
    with pytest.raises(ValueError, match="give --output a new folder"):
        comparison.part(other, chunk)


def test_the_report(world, comparer, compared, capsys):
    config = command.Config(world=world, output=comparer.job.output, people=1)
    moments = truth.instants(world, 1)
    part = comparison.part(comparer.job, comparison.chunks(moments)[0])
    command._report(config, [part], moments)
    text = capsys.readouterr().out
    assert "## All elevations (1 people, 3 views)" in text and "| mean_body" in text
    rows = (config.output / "fidelity.jsonl").read_text().splitlines()
    assert len(rows) == 3 * len(methods.METHODS) and "embedding" not in rows[0]
    assert json.loads((config.output / "table.json").read_text())["summary"]
    with Image.open(config.output / "sheet.png") as sheet:
        assert sheet.width > 1000


# ---- baselines -----------------------------------------------------------------------------------


def scene(elevation=5.0, azimuth=20.0, size=(120, 80), distance=8.0):
    """A camera that looks at a person-sized target, and a picture of noise in a mask."""
    angles = (torch.tensor([v]) for v in (elevation, azimuth, distance, 0.9))
    matrix = pinhole(torch.tensor([focal_length(16, size[0])]), size)
    camera = Cameras(orbit(*angles), matrix, size, torch.zeros(1))
    rng = np.random.default_rng(0)
    image = np.repeat(np.repeat(rng.integers(0, 256, (12, 8, 3)), 10, 0), 10, 1).astype(np.uint8)
    labels = np.zeros(size, np.uint8)
    labels[20:105, 25:55] = TOP
    row = {"elevation": elevation, "azimuth": azimuth, "target_height": 0.9}
    return truth.Picture(image, labels, camera, row)


def parsed(picture) -> Parse:
    points = np.zeros((len(bodies.KEYPOINTS), 2), np.float32)
    return Parse(
        points=points, length=np.zeros((len(points), 3), np.float32),
        spread=points[:, 0], mask=picture.mask.astype(np.float32), presence=1.0, vote=1.0,
        front=True, height=85.0,
    )  # fmt: skip


def test_a_warp_to_its_own_camera_changes_nothing():
    picture = scene()
    layers = baselines.warped(picture, picture, parsed(picture), lean=0.0)
    inner = np.zeros(picture.mask.shape, bool)
    inner[24:101, 29:51] = True
    assert torch.allclose(layers[3][inner], torch.ones(1), atol=1e-3)
    assert float(layers[3][~picture.mask].mean()) < 0.02
    apart = np.abs(layers[:3].permute(1, 2, 0).numpy()[inner] * 255 - picture.image[inner])
    assert np.median(apart) < 2


def test_the_leaning_board_is_as_high_as_a_body_at_every_elevation():
    """A box of a body's proportions, 1.75 x 0.42 m, against the board's upper and lower edge."""
    source = scene()
    for elevation in (30.0, 50.0, 70.0, 89.0):
        view = scene(elevation=elevation, size=(160, 120))
        layers = baselines.warped(view, source, parsed(source))
        _, top, _, bottom = baselines.bounds((layers[3] > 0.5).numpy())
        scale = float(view.camera.intrinsics[0, 1, 1]) / 8
        e = np.radians(elevation)
        _, a, _, b = baselines.bounds(source.mask)
        height = (b - a) / (float(source.camera.intrinsics[0, 1, 1]) / 8)
        box = height * (np.cos(e) + 0.25 * np.sin(e))
        assert (bottom - top) / scale == pytest.approx(box, rel=0.12)


def test_the_resized_crop_fills_the_true_box():
    picture, view = scene(), scene(elevation=60, size=(90, 100))
    labels = np.zeros((90, 100), np.uint8)
    labels[10:60, 30:90] = TOP
    view = dataclasses.replace(view, labels=labels)
    layers = baselines.resized(view, picture, parsed(picture))
    assert baselines.bounds((layers[3] > 0.5).numpy()) == (30, 10, 90, 60)


def test_the_nearest_azimuth_is_nearest_round_the_circle():
    ground = [scene(azimuth=a) for a in (180.0, 350.0)]
    assert baselines.nearest(scene(azimuth=20.0), ground) == 1
    assert baselines.nearest(scene(azimuth=120.0), ground) == 0


def test_regions_follow_the_skeleton():
    picture = scene()
    found = parsed(picture)
    at = {name: k for k, name in enumerate(bodies.KEYPOINTS)}
    heights = {"eye": 28, "ear": 30, "shoulder": 42, "elbow": 55, "wrist": 66, "hip": 62,
               "knee": 82, "ankle": 98, "heel": 101, "big_toe": 103}  # fmt: skip
    for name, y in heights.items():
        for side, x in (("left", 46), ("right", 34)):
            found.points[at[f"{side}_{name}"]] = x, y
    part = baselines.regions(found)
    assert part[22, 40] == "hair" and part[33, 40] == "face" and part[52, 40] == "torso"
    assert part[75, 46] == "thigh" and part[90, 34] == "shank" and part[103, 46] == "foot"
    assert part[5, 5] == ""


# ---- measures ------------------------------------------------------------------------------------


def made_of(picture, **changes) -> methods.Made:
    image = np.where(picture.mask[..., None], picture.image, np.uint8(methods.GREY))
    return methods.Made(image=image, mask=picture.mask, **changes)


def flat(colours: dict[int, tuple[int, int, int]]):
    """A person of three plain parts, and something in front of its feet."""
    picture = scene()
    image, labels = picture.image.copy(), 0 * picture.labels
    for k, (label, colour) in enumerate(colours.items()):
        labels[20 + 25 * k : 45 + 25 * k, 25:55] = label
        image[labels == label] = colour
    labels[90:, :] = truth.OCCLUDER
    return dataclasses.replace(picture, image=image, labels=labels)


PLAIN = {SKIN: (200, 150, 130), TOP: (160, 30, 30), TROUSERS: (30, 40, 90)}


def test_the_truth_against_itself_is_perfect():
    picture = flat(PLAIN)
    row = measures.compare(picture, made_of(picture))
    assert row["iou"] == 1 and row["psnr"] == metrics.BEST_PSNR and row["missing"] == 0
    assert row["ssim"] == pytest.approx(1)
    assert max(row[key] for key in row if key.startswith(("de", "dp"))) < 1e-6


def test_a_wrong_part_is_found_where_it_is():
    picture = flat(PLAIN)
    image = picture.image.copy()
    image[picture.labels == TOP] = (30, 30, 160)
    seen = np.where(picture.labels == TOP, 0.3, 1.0).astype(np.float32)
    row = measures.compare(dataclasses.replace(picture), methods.Made(image, picture.mask, seen))
    expected = float(
        metrics.delta_e(*(metrics.lab(np.array(c)) for c in ((160, 30, 30), (30, 30, 160))))
    )
    assert row["de_top"] == pytest.approx(expected) and row["de_head"] == row["de_bottom"] == 0
    assert row["de_invented"] == pytest.approx(expected) and row["de_seen"] == 0
    share = (picture.labels == TOP).sum() / picture.mask.sum()
    assert row["de"] == pytest.approx(expected * share)


def test_another_exposure_costs_nothing_after_the_gain():
    picture = flat(PLAIN)
    dark = dataclasses.replace(picture, image=(picture.image * 0.6).astype(np.uint8))
    row = measures.compare(picture, made_of(dark))
    assert row["de"] > 8 and row["de_tone"] < 0.7


def test_a_bare_part_counts_as_what_is_shown_there():
    picture = flat(PLAIN)
    mask = picture.mask & (picture.labels != TROUSERS)
    image = np.where(mask[..., None], picture.image, np.uint8(methods.GREY))
    row = measures.compare(picture, methods.Made(image, mask))
    grey = metrics.lab(np.full(3, methods.GREY))
    assert row["de_bottom"] == pytest.approx(
        float(metrics.delta_e(metrics.lab(np.array(PLAIN[TROUSERS])), grey))
    )
    assert row["missing"] == pytest.approx((picture.labels == TROUSERS).sum() / picture.mask.sum())


def test_what_stands_in_front_is_left_out():
    picture = flat(PLAIN)
    mask = picture.mask | (picture.labels == truth.OCCLUDER)
    image = np.where(picture.mask[..., None], picture.image, np.uint8(0))
    row = measures.compare(picture, methods.Made(image, mask))
    assert row["iou"] == 1 and row["de"] < 1e-6 and row["psnr"] == metrics.BEST_PSNR


def test_bins():
    names = [measures.bin_of(angle) for angle in (25, 39.9, 40, 69, 70, 90, 10)]
    assert names == ["25-40", "25-40", "40-55", "55-70", "70-90", "70-90", "other"]


# ---- the table -----------------------------------------------------------------------------------


def rows_of(methods_values: dict[str, list[float]]) -> list[dict]:
    """Two views of every person; `iou` is the value, the embedding a direction per person."""
    rows = []
    for method, values in methods_values.items():
        for person, value in enumerate(values):
            for view in range(2):
                vector = np.zeros(8)
                vector[person] = 1
                if method == "warped":
                    vector = np.roll(vector, 1)
                rows.append({
                    "pid": str(person), "view": f"{person}_{view}", "method": method,
                    "elevation": 30.0 + 30 * view, "embedding": list(vector + 0.01 * view),
                    "iou": value + 0.02 * view,
                })  # fmt: skip
    return rows


def test_identity_is_found_in_other_pictures_only():
    rows = rows_of({"true": [1] * 5, "ours": [0.6] * 5, "warped": [0.5] * 5})
    table.identify(rows)
    assert all(row["map"] == 1 and row["rank1"] == 1 for row in rows if row["method"] == "ours")
    assert all(row["own_view"] == 1 for row in rows if row["method"] == "ours")
    wrong = [row for row in rows if row["method"] == "warped"]
    assert all(row["rank1"] == 0 and row["map"] < 0.6 for row in wrong)
    assert all(row["cosine"] > 0.95 for row in rows if row["method"] == "ours")
    assert max(row["own_view"] for row in wrong) < 0.6
    assert "cosine" not in rows[0], "the truth is like itself: that says nothing"


def test_summary_and_differences():
    rng = np.random.default_rng(0)
    base = rng.uniform(0.3, 0.7, 8)
    rows = rows_of({"true": [1] * 8, "ours": base + 0.1, "warped": base, "mean_body": base + 0.1,
                    "resized": base + 0.3})  # fmt: skip
    table.identify(rows)
    found = {(c["method"], c["bin"], c["measure"]): c for c in table.summary(rows)}
    cell = found["ours", "all", "iou"]
    assert cell["mean"] == pytest.approx((base + 0.11).mean()) and cell["people"] == 8
    assert cell["pictures"] == 16 and cell["low"] < cell["mean"] < cell["high"]
    assert found["ours", "55-70", "iou"]["mean"] == pytest.approx((base + 0.12).mean())
    versus = {(c["baseline"], c["bin"], c["measure"]): c for c in table.against(rows)}
    assert versus["warped", "all", "iou"]["better"] is True
    assert versus["warped", "all", "iou"]["mean"] == pytest.approx(0.1)
    assert versus["resized", "all", "iou"]["better"] is False
    assert versus["mean_body", "25-40", "iou"]["better"] is None
    text = table.markdown(table.summary(rows), table.against(rows), ["a note"])
    assert "LOSES" in text and "Elevation 25-40° (8 people, 8 views)" in text
    table_lines = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.count("|") >= 8 for line in table_lines)
