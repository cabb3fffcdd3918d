# SPDX-License-Identifier: Apache-2.0
"""Fidelity on one person of a world, without and with a diffusion model."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
import tiny_views
import torch
from PIL import Image

from viewsynth.commands import fidelity as command
from viewsynth.diffusion import refine
from viewsynth.diffusion.options import Refine
from viewsynth.evaluate.fidelity import (
    comparison,
    features,
    measures,
    methods,
    observer,
    repair,
    sets,
    table,
    text,
)
from viewsynth.reid import backbones, saved
from viewsynth.reid import methods as methods_of_reid
from viewsynth.render.options import Scene, Sensor
from viewsynth.runtime.files import to_jsonl
from viewsynth.world import truth

# ---- without a diffusion model -------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(instant, tmp_path_factory):
    """Person 1, a test person, in one instant."""
    images, person, rows = instant
    folder = shutil.copytree(images, tmp_path_factory.mktemp("fidelity") / "world")
    (folder / "people.jsonl").write_bytes(to_jsonl([{**person, "split": "test"}]))
    (folder / "truth.jsonl").write_bytes(to_jsonl(rows))
    return folder


@pytest.fixture(scope="module")
def comparer(world, tools, tmp_path_factory):
    job = comparison.Job(
        world=world,
        output=tmp_path_factory.mktemp("out"),
        observer=world / "none",
        models={},
        mark="m",
        seed=0,
        shown=("0001",),
    )
    torch.manual_seed(0)
    return comparison.Comparer(job, tools, observer.Network().eval())


@pytest.fixture(scope="module")
def compared(world, comparer):
    """Rows of that person, read from the part."""
    chunk = comparison.chunks(truth.instants(world, 1))[0]
    assert comparison.part(comparer.job, chunk) is None
    comparer.compute(chunk)
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
    assert np.abs(pixels[0].numpy() - stored).max() < 0.5, "camera and keypoints disagree"
    with pytest.raises(ValueError, match="1 test people, so after skipping 1 there are 0"):
        truth.instants(world, 1, skip=1)
    with pytest.raises(FileNotFoundError, match="no world"):
        truth.instants(world / "paired", 1)


def test_the_observer_is_trained_on_training_people_only(world, tmp_path):
    with pytest.raises(ValueError, match="no training images"):
        truth.training_rows(world)
    rows = [json.loads(line) for line in (world / "truth.jsonl").read_text().splitlines()]
    other = [{**row, "pid": "0002", "file_name": f"train/{k}.jpg"} for k, row in enumerate(rows)]
    people = [{"pid": "0001", "split": "test"}, {"pid": "0002", "split": "train"}]
    (tmp_path / "people.jsonl").write_bytes(to_jsonl(people))
    (tmp_path / "truth.jsonl").write_bytes(to_jsonl(rows + other))
    assert {row["pid"] for row in truth.training_rows(tmp_path)} == {"0002"}
    assert len(truth.training_rows(tmp_path)) == 5


def test_methods_have_the_expected_order(compared):
    """The more of the ground truth a body uses, the better its mask; baselines come last."""
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


def test_rows_are_independent_of_other_views_and_other_marks_are_refused(world, comparer, compared):
    (chunk,) = comparison.chunks(truth.instants(world, 1))
    moment = dataclasses.replace(chunk.moments[0], drone=chunk.moments[0].drone[:1])
    again = comparison.Comparer(
        dataclasses.replace(comparer.job, output=world / "again", shown=()),
        comparer.tools,
        comparer.network,
    )
    again.compute(dataclasses.replace(chunk, moments=(moment,)))
    alone = comparison.part(again.job, chunk)["rows"]
    together = [row for row in compared if row["view"] == moment.drone[0]["file_name"]]
    for row, other in zip(alone, together, strict=True):
        assert np.allclose(row.pop("embedding"), other["embedding"], atol=1e-3)
        assert row.pop("features", {}).keys() == other.get("features", {}).keys()
        expected = {k: v for k, v in other.items() if k not in ("embedding", "features")}
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
    command._report(config, [part], moments, [])
    text = capsys.readouterr().out
    assert "## All elevations (1 people, 3 views)" in text and "| mean_body" in text
    assert "PSNR dB unseen" in text
    for absent in ("repair", "KID", "ReID", "IoU possible"):
        assert absent not in text  # too few people for KID, and no diffusion model
    rows = (config.output / "fidelity.jsonl").read_text().splitlines()
    assert len(rows) == 3 * len(methods.METHODS)
    assert not {"embedding", "features"} & json.loads(rows[0]).keys()
    assert json.loads((config.output / "table.json").read_text())["summary"]
    with Image.open(config.output / "sheet.png") as sheet:
        assert sheet.width > 1000


def test_whole_images_and_ground_images_have_features(world, comparer, compared):
    whole = {row["method"] for row in compared if "features" in row}
    assert whole == {"true", *methods.WHOLE}
    part = comparison.part(comparer.job, comparison.chunks(truth.instants(world, 1))[0])
    assert [row["pid"] for row in part["ground"]] == ["0001"] * 2
    for row in (*part["ground"], compared[0]):
        assert len(row["features"]["observer"]) == observer.WIDTHS[-1]


def test_a_reid_model_gives_features_of_whole_images(comparer, tmp_path):
    model = methods_of_reid.build("baseline", backbones.load("small", (32, 16)), 6)
    saved.save(model, tmp_path / "model", {})
    observer.save(comparer.network, tmp_path / "observer.safetensors", "mark")
    spaces = features.load(tmp_path / "observer.safetensors", tmp_path / "model")
    images = [np.full((40, 20 + k, 3), 60 * k, np.uint8) for k in range(3)]
    rows = features.rows(images, spaces)
    alone = features.rows(images[1:2], spaces)
    assert set(rows[0]) == {"observer", "reid"} and rows[0]["reid"] != rows[1]["reid"]
    assert np.allclose(rows[1]["reid"], alone[0]["reid"], atol=1e-3)


def test_the_look_changes_rendered_images_alone(world, comparer, compared, tmp_path):
    """With a preset the pictures change; the truth, the outlines and the seen pixels do not."""
    look = {"sensor": Sensor(exposure=-1.5, contrast=1.8), "scene": Scene(shadow=0.8)}
    job = dataclasses.replace(comparer.job, output=tmp_path, mark="look", **look)
    moment = truth.instants(world, 1)[0]
    chunk = comparison.Chunk(moment.pid, (dataclasses.replace(moment, drone=moment.drone[:1]),))
    comparison.Comparer(job, comparer.tools, comparer.network).compute(chunk)
    made = {row["method"]: row for row in comparison.part(job, chunk)["rows"]}
    before = {row["method"]: row for row in compared if row["view"] == made["true"]["view"]}
    assert np.allclose(made["true"]["embedding"], before["true"]["embedding"], atol=1e-3)
    for name in ("ours", "true_pose"):
        assert made[name]["iou"] == before[name]["iou"]
        assert made[name]["seen"] == before[name]["seen"]
        assert made[name]["de"] > before[name]["de"] + 3
        assert made[name]["features"] != before[name]["features"]


# ---- with a diffusion model ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def repaired(world, comparer, tmp_path_factory):
    """One drone view of that person with a random diffusion model and a second feature space."""
    options = Refine(engine="tiny", steps=2)
    repairer = repair.Repairer(refine.Refiner(tiny_views.pipeline(), options), Sensor(), Scene())
    job = dataclasses.replace(
        comparer.job, output=tmp_path_factory.mktemp("repaired"), mark="e", refine=options
    )

    def mean(images):
        return np.stack([image.mean((0, 1)) for image in images])

    spaces = {"observer": features.of_observer(comparer.network), "reid": mean}
    engine = comparison.Comparer(job, comparer.tools, comparer.network, repairer, spaces)
    moment = truth.instants(world, 1)[0]
    chunk = comparison.Chunk(moment.pid, (dataclasses.replace(moment, drone=moment.drone[:1]),))
    engine.compute(chunk)
    return job, chunk, comparison.part(job, chunk)


def test_a_diffusion_model_adds_rows_and_changes_no_others(compared, repaired):
    rows = {row["method"]: row for row in repaired[2]["rows"]}
    assert set(rows) == {*methods.METHODS, *repair.METHODS}
    ours = next(row for row in compared if row["method"] == "ours")
    assert rows["ours"]["view"] == ours["view"] and rows["ours"]["iou"] == ours["iou"]
    assert rows["ours"]["psnr_seen"] == pytest.approx(ours["psnr_seen"], abs=1e-3)
    for name, base in repair.BASE.items():
        assert rows[name]["seen"] == rows[base]["seen"]  # the same pixels
        assert rows[name]["psnr_unseen"] != rows[base]["psnr_unseen"]
        assert 0 < rows[name]["iou_possible"] <= 1
        assert ("iou_grown" in rows[name]) == (name != "source_only")
    assert rows["repair"]["iou"] > 0.2  # random weights, but near the rendered person
    assert rows["repair"]["features"]["reid"] != rows["source_only"]["features"]["reid"]


def test_the_report_with_a_diffusion_model(world, repaired, capsys):
    job, chunk, part = repaired
    config = command.Config(
        world=world,
        output=job.output,
        people=1,
        reid=world / "model",
        refine=Refine(engine="some/tiny"),
    )
    command._report(config, [part], list(chunk.moments), [])
    text = capsys.readouterr().out
    for expected in (
        "- `repair`:",
        "IoU possible",
        "repair − ours",
        "source_only − ours",
        "Whole images in the ReID model",
        "Diffusion tiny: steps 4",
    ):
        assert expected in text
    tables = json.loads((job.output / "table.json").read_text())
    cells = {(c["method"], c["baseline"], c["bin"], c["measure"]): c for c in tables["repaired"]}
    cell = cells["repair", "ours", "all", "psnr_unseen"]
    rows = {row["method"]: row for row in part["rows"]}
    gain = rows["repair"]["psnr_unseen"] - rows["ours"]["psnr_unseen"]
    assert cell["mean"] == pytest.approx(gain) and cell["better"] is (gain > 0)
    with Image.open(job.output / "sheet.png") as sheet:
        assert sheet.width > 500


def test_invalid_models_are_refused_immediately(world, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        command.run(
            command.Config(
                world=world,
                people=1,
                output=tmp_path,
                refine=Refine(engine=f"{tmp_path}/none"),
            )
        )
    with pytest.raises(ValueError, match="viewsynth train"):
        command.run(command.Config(world=world, people=1, output=tmp_path, reid=tmp_path))


def test_the_mark_depends_on_the_models(world, tmp_path):
    assert command._judges(command.Config(world=world)) == ({}, [])
    tiny_views.pipeline().save_pretrained(tmp_path / "engine")
    marks = []
    for steps in (4, 5):
        asked = Refine(engine=str(tmp_path / "engine"), steps=steps)
        job, names = command._judges(command.Config(world=world, refine=asked, device="cpu"))
        assert job["engine"].folder == tmp_path / "engine" and job["device"] == "cpu"
        marks.append(names)
    assert marks[0] != marks[1] and comparison.code(True) != comparison.code()


# ---- identity, paired differences and KID --------------------------------------------------------


def scored(shift: dict[str, float], people: int = 12) -> list[dict]:
    """Two views per person; features are the person's direction plus the shift of the method."""
    rng = np.random.default_rng(0)
    who = rng.normal(0, 1, (people, 6))
    rows = []
    for method, offset in shift.items():
        for person in range(people):
            for view in range(2):
                vector = who[person] + rng.normal(0, 0.1, 6) + offset
                rows.append(
                    {
                        "pid": str(person),
                        "view": f"{person}_{view}",
                        "method": method,
                        "elevation": 30.0 + 30 * view,
                        "psnr_unseen": 20 - offset,
                        "features": {"reid": list(vector)},
                    }
                )
    return rows


def test_repair_is_paired_with_its_rendering():
    rows = scored({"true": 0, "ours": 1.0, "repair": 0.2, "source_only": 3.0})
    table.identify(rows, "reid")
    cells = {(c["method"], c["bin"], c["measure"]): c for c in table.gains_of_repair(rows)}
    assert cells["repair", "all", "psnr_unseen"]["mean"] == pytest.approx(0.8)
    assert cells["repair", "all", "psnr_unseen"]["better"] is True
    assert cells["source_only", "25-40", "psnr_unseen"]["mean"] == pytest.approx(-2)
    assert cells["source_only", "25-40", "psnr_unseen"]["better"] is False
    assert cells["repair", "all", "reid_cosine"]["better"] is True
    assert not any(c["method"] == "repair_true" for c in table.gains_of_repair(rows))


def test_a_run_is_paired_with_another():
    rows = scored({"ours": 1.0, "true_pose": 0.0, "warped": 2.0})
    worse = [row | {"psnr_unseen": row["psnr_unseen"] - 0.5} for row in rows if row["pid"] != "3"]
    found = {(c["method"], c["bin"]): c for c in table.gains_over_run(rows, worse)}
    assert {method for method, _ in found} == {"ours", "true_pose"}
    for name in ("all", "25-40", "55-70"):
        cell = found["ours", name]
        assert cell["mean"] == pytest.approx(0.5) and cell["better"] is True
        assert cell["people"] == 11 and cell["baseline"] == "earlier ours"
    assert table.gains_over_run(rows, []) == []


def test_people_of_one_photo(world, comparer, compared, tmp_path, capsys):
    """The photo is drawn once and for all, and its side is a bin of its own."""
    config = command.Config(world=world, output=tmp_path, people=1, photos=1, against=tmp_path)
    with pytest.raises(FileNotFoundError, match="against"):
        command._earlier(config.against)
    (moment,) = truth.instants(world, 1)
    few = command._with_few_photos(moment, config)
    assert len(few.ground) == 1 and few == command._with_few_photos(few, config)
    assert command._with_few_photos(moment, command.Config(world=world)) == moment
    job = dataclasses.replace(comparer.job, output=tmp_path, mark="one photo")
    chunk = comparison.Chunk(moment.pid, (few,))
    comparison.Comparer(job, comparer.tools, comparer.network).compute(chunk)
    part = comparison.part(job, chunk)
    (side,) = {row["photo"] for row in part["rows"]}
    assert side in measures.PHOTO_NAMES
    command._report(config, [part], [few], [row | {"iou": 0.0} for row in compared])
    text = capsys.readouterr().out
    assert f"## {side.capitalize()} (1 people, 3 views)" in text
    assert "## Against the other run" in text and (tmp_path / "fidelity.jsonl").is_file()


def test_kid_ranks_methods_between_floor_and_ground():
    rows = scored({"true": 0, "ours": 1.0, "repair": 0.2})
    ground = [row for row in scored({"far": 2.0}) if row["view"].endswith("_0")]
    found = sets.compare(rows, ground)
    cells = {(c["method"], c["baseline"], c["bin"]): c for c in found}
    kid = {key[0]: c["mean"] for key, c in cells.items() if key[1:] == ("", "all")}
    assert abs(kid["floor"]) < kid["repair"] < kid["ours"] < kid["ground"]
    gain = cells["repair", "ours", "all"]
    assert gain["mean"] == pytest.approx(kid["ours"] - kid["repair"]) and gain["better"] is True
    assert cells["ours", "", "55-70"]["pictures"] == 12 and ("ours", "", "40-55") not in cells
    text_of = "\n".join(text._sets(found))
    assert "gain of repair over ours" in text_of and "true ground images" in text_of
    assert sets.compare(rows[: 2 * 3], ground) == []  # too few people
