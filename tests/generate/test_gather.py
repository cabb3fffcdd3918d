# SPDX-License-Identifier: Apache-2.0
"""From image files to crops of one person each: people found, flagged or rejected."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from viewsynth import config, manifest
from viewsynth.commands import generate
from viewsynth.generate import gather
from viewsynth.generate.worker import Job
from viewsynth.records import Sample
from viewsynth.world import shots


@pytest.fixture(scope="module")
def tools(pose_model, detector):
    return SimpleNamespace(detector=detector, pose_model=pose_model)


@pytest.fixture(scope="module")
def rendered() -> list[shots.Picture]:
    return shots.draw(4, seed=3)


def scene(*people: tuple[shots.Picture, int, int], size: tuple[int, int]) -> Image.Image:
    """An image of rendered people on grey: (picture, left, top), 240 pixels high each."""
    grey = np.random.default_rng(0).normal(145, 5, (*size[::-1], 1)).clip(0, 255).astype(np.uint8)
    result = Image.fromarray(np.repeat(grey, 3, 2))
    for picture, left, top in people:
        mask = Image.fromarray(picture.mask.astype(np.uint8) * 255)
        result.paste(Image.fromarray(picture.image), (left, top), mask)
    return result


def crops(tmp_path: Path, tools, image: Image.Image, mode: str = "auto", **fields):
    (tmp_path / "root").mkdir(exist_ok=True)
    path = tmp_path / "root" / "a.png"
    image.save(path)
    settings = generate.Config(data=generate.Data(root=path.parent, crops=mode))
    job = Job(tmp_path / "run", path.parent, settings, "cpu", {}, {}, {})
    (entry,) = manifest.entries([Sample(paths=(path,), pid="a", name="a.png", **fields)])
    return gather.crops(entry, job, tools)


def test_two_people_in_one_crop_or_box_are_rejected(tmp_path, tools, rendered):
    pair = scene((rendered[0], 0, 4), (rendered[2], 90, 4), size=(210, 250))
    within = (30, 200, 240, 460)
    frame = scene((rendered[0], 30, 210), (rendered[2], 120, 210), size=(640, 480))
    for image, fields in ((pair, {}), (frame, {"box": within})):
        groups, (reject,) = crops(tmp_path, tools, image, **fields)
        assert not groups and (reject.source, reject.stage) == ("a.png", "find")
        assert "two people" in reject.reason and "--data.crops yes" in reject.reason
        groups, rejects = crops(tmp_path, tools, image, "yes", **fields)
        assert len(groups) == 1 and not rejects


def test_a_box_around_one_of_two_people_selects_that_person(tmp_path, tools, rendered):
    frame = scene((rendered[0], 40, 150), (rendered[2], 420, 150), size=(640, 480))
    ((group,), rejects) = crops(tmp_path, tools, frame, box=(30, 140, 200, 420))
    assert not rejects and group.images[0].shape == (280, 170, 3) and group.found == 1


def test_every_person_of_a_single_frame_gets_a_pid(tmp_path, tools, rendered):
    people = [(rendered[k], 60 + 300 * k, 200 + 40 * (k % 2)) for k in range(4)]
    groups, rejects = crops(tmp_path, tools, scene(*people, size=(1280, 600)))
    assert not rejects and [group.found for group in groups] == [4, 4, 4, 4]
    assert [group.samples[0].pid for group in groups] == [f"a#{k}" for k in range(1, 5)]


# ---- through generate ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory, tools, rendered) -> dict[str, dict]:
    """Rows by pid of a run on people who are whole, small, cut off, riding, or two in one image."""
    root = tmp_path_factory.mktemp("flags")
    whole = Image.fromarray(rendered[0].image)
    whole.save(root / "whole.png")
    whole.resize((20, 50), Image.Resampling.LANCZOS).save(root / "small.png")
    other = Image.fromarray(rendered[2].image)
    other.crop((0, 0, other.width, round(0.72 * other.height))).save(root / "knees.png")
    ride = shots.Simple(name="r", posture="cycle", elevation=5, azimuth=70, height=220)
    Image.fromarray(shots.one(0, 4, ride).image).save(root / "rides.png")
    scene((rendered[0], 60, 60), (rendered[2], 420, 80), size=(700, 400)).save(root / "street.png")
    argv = [
        "--data.root",
        str(root),
        "--output",
        str(root.parent / "run"),
        "--workers",
        "1",
        "--views.elevations",
        "60",
        "--views.azimuths",
        "0",
        "--report",
        "no",
    ]
    assert generate.run(config.parse(generate.Config, argv, "generate")) == 0
    lines = (root.parent / "run" / "metadata.jsonl").read_text().splitlines()
    return {row["pid"]: row for row in map(json.loads, lines)}


def test_rows_have_the_flags_of_their_sources(run):
    flags = {pid: set(row["scores"]["flags"]) for pid, row in run.items()}
    assert not flags["whole"] and "small" in flags["small"] and "cut" in flags["knees"]
    assert {"riding", "sitting"} & flags["rides"]
    for pid in ("small", "knees", "rides"):
        assert run[pid]["weight"] < 0.9 * run["whole"]["weight"], pid


def test_rows_have_the_number_of_people_found(run):
    found = {pid: row["scores"]["found"] for pid, row in run.items()}
    assert found["street#1"] == found["street#2"] == 2 and found["whole"] == 1
