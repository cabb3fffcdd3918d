# SPDX-License-Identifier: Apache-2.0
"""`generate --data.meshes` from photos and meshes to views; the meshes are exported bodies."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_views
from PIL import Image

from viewsynth import config
from viewsynth.commands import export, generate
from viewsynth.diffusion import refine
from viewsynth.generate import chunk, gather, ranks
from viewsynth.generate.synthesizer import Synthesizer
from viewsynth.records import MESH, Person, Sample
from viewsynth.reid import synthetic
from viewsynth.world import shots

VIEWS = ("--views.elevations", "30", "80", "--views.azimuths", "0", "200")


def run(tools, output: Path, *options) -> int:
    """`generate` with this process as its only worker."""

    def serial(items, start, args, workers):
        for item in items:
            start(*args)(item)
            yield item, ""

    def load(job):
        refiner = None
        if "refine" in job.models:
            refiner = refine.load(job.models["refine"], job.config.refine, job.device)
        return chunk.Tools(Synthesizer.from_models(tools, refiner))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "run_items", serial)
        return generate.run(asked(output, *options), load=load)


def asked(output: Path, *options) -> generate.Config:
    argv = [*map(str, options), "--output", str(output), "--chunk", "1", "--device", "cpu"]
    argv += [] if "--views.elevations" in options else VIEWS
    return config.parse(generate.Config, argv, "generate")


def rows(output: Path, name: str = "metadata.jsonl") -> list[dict]:
    return [json.loads(line) for line in (output / name).read_text().splitlines()]


def content(output: Path) -> dict[str, bytes]:
    return {
        path.relative_to(output).as_posix(): path.read_bytes()
        for path in sorted(output.rglob("*"))
        if path.is_file() and path.name not in ("run.json", "config.yaml")
    }


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return shots.write_folder(tmp_path_factory.mktemp("photos"), 3, 3, shots.SHOTS[:2])


@pytest.fixture(scope="module")
def reconstructed(tools, photos, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "reconstructed"
    assert run(tools, output, "--data.root", photos) == 0
    return output


@pytest.fixture(scope="module")
def given(reconstructed, tmp_path_factory) -> Path:
    """A mesh of the first person, an unusable one of the second, and one of nobody."""
    folder = tmp_path_factory.mktemp("given") / "meshes"
    assert export.run(export.Config("body", reconstructed, str(folder))) == 0
    shutil.copy(folder / "0000.glb", folder / "nobody.glb")
    (folder / "0001.glb").write_bytes((folder / "0001.glb").read_bytes()[:9999])
    (folder / "0002.glb").unlink()
    return folder


@pytest.fixture(scope="module")
def mixed(tools, photos, given, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "mixed"
    assert run(tools, output, "--data.root", photos, "--data.meshes", given) == 0
    return output


@pytest.fixture(scope="module")
def alone(tools, given, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "alone"
    assert run(tools, output, "--data.meshes", given) == 0
    return output


def test_people_with_and_without_meshes(mixed, reconstructed):
    found = rows(mixed)
    assert {row["pid"] for row in found} == {"0000", "0002"} and len(found) == 8
    for row in found:
        own = row["pid"] == "0000"
        assert (row["engine"]["body"] == MESH) == (row["pose_mode"] == MESH) == own
        assert ["mesh" in source for source in row["sources"]] == [own] * own + [False] * 2
    (broken,) = (row for row in rows(mixed, "rejects.jsonl") if row["pid"] == "0001")
    assert broken["stage"] == "input" and "cannot be read as GLB" in broken["reason"]
    assert [row["source"] for row in rows(mixed, "rejects.jsonl") if not row["pid"]] == [
        "nobody.glb"
    ]
    before, after = content(reconstructed), content(mixed)
    others = [name for name in before if "0002" in name and name.startswith(("images", "people"))]
    assert others and all(before[name] == after[name] for name in others)
    assert "a mesh that was given" in (mixed / "report" / "index.html").read_text()


def test_a_round_trip_through_a_file_gives_the_same_views(mixed, reconstructed):
    for row in rows(mixed)[:4]:
        one, two = (
            np.asarray(Image.open(run / row["file_name"]), float) for run in (mixed, reconstructed)
        )
        assert one.shape == two.shape and np.abs(one - two).mean() < 2
    before = next(row for row in rows(reconstructed) if row["pid"] == "0000")
    after = rows(mixed)[0]
    assert "turn" not in after["sources"][0]["mesh"]
    assert after["scores"]["overlap"] > 0.75 and after["seen_ratio"] > 0.6
    assert abs(after["seen_ratio"] - before["seen_ratio"]) < 0.25


def test_meshes_without_photos_are_not_observed(alone, mixed):
    found = rows(alone)
    assert {row["pid"] for row in found} == {"0000", "nobody"}
    for row in found:
        assert row["seen_ratio"] == 0 and row["weight"] == 0.5
        assert row["scores"]["flags"] == ["unobserved"] and row["camid"].startswith("mesh:e")
    names = {row["file_name"] for row in rows(mixed) if row["pid"] == "0000"}
    assert all(content(alone)[name] == content(mixed)[name] for name in names)


def test_the_same_command_again_and_more_views(tools, photos, given, mixed, tmp_path):
    output, before = tmp_path / "out", content(mixed)
    options = ("--data.root", photos, "--data.meshes", given)
    assert run(tools, output, *options, "--views.elevations", "30", "--views.azimuths", "0") == 0
    assert run(tools, output, *options) == 0  # the rest from the saved people
    after = content(output)
    assert {n for n in before if n.startswith("images")} <= after.keys()
    assert all(before[n] == after[n] for n in before if n.startswith(("images", "seen", "people")))
    assert run(tools, mixed, *options) == 0
    assert content(mixed) == before


@pytest.mark.slow
def test_two_workers_give_the_same_bytes(photos, given, mixed, tmp_path):
    options = ("--data.root", photos, "--data.meshes", given, "--workers", "2")
    assert generate.run(asked(tmp_path / "out", *options)) == 0
    assert content(tmp_path / "out") == content(mixed)


def test_a_saved_person_in_a_notebook_and_as_a_file(tools, mixed, tmp_path):
    person = Person.load(mixed / "people" / "0000.safetensors")
    synthesizer = Synthesizer.from_models(tools)
    for row in rows(mixed)[:4]:
        view = synthesizer.render(person, row["elevation"], row["azimuth"], pose="walk")
        view.image.save(tmp_path / "view.png")
        stored = np.asarray(Image.open(mixed / row["file_name"]), float)
        assert np.abs(np.asarray(view.image, float) - stored).mean() < 3  # JPEG
    assert export.run(export.Config("body", mixed, str(tmp_path / "glb"))) == 0
    assert {path.name for path in (tmp_path / "glb").glob("*.glb")} == {"0000.glb", "0002.glb"}


def test_training_takes_the_views(alone, mixed, photos):
    everyone = Sample(paths=(photos / "0000" / "front.jpg",), pid="0000", name="other.jpg")
    synthetic._check_sources(alone, rows(alone), [everyone])  # nothing can be compared
    with pytest.raises(ValueError, match="none of the source images"):
        synthetic._check_sources(mixed, rows(mixed), [everyone])


def test_a_refiner_repairs_meshes_with_photos_only(tools, photos, given, tmp_path):
    model = tiny_views.saved(tmp_path / "pipeline")
    engine = ("--refine.engine", model, "--refine.steps", "2", "--views.elevations", "60")
    with pytest.raises(ValueError, match="refine.engine needs photos of the people"):
        run(tools, tmp_path / "none", "--data.meshes", given, *engine)
    options = ("--data.root", photos, "--data.meshes", given, "--views.azimuths", "0")
    assert run(tools, tmp_path / "out", *options, *engine) == 0
    assert "refine" in rows(tmp_path / "out")[0]["engine"]
    person = Person.load(tmp_path / "out" / "people" / "0000.safetensors")
    assert len(gather.source_crops(person, photos)) == 2
    person.sources = person.sources[:1]
    with pytest.raises(gather.UnusableError, match="the refiner needs a photo"):
        gather.source_crops(person, photos)
