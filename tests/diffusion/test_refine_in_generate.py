# SPDX-License-Identifier: Apache-2.0
"""The refiner in `generate`: records, resuming, changed models and photos, licences."""

from __future__ import annotations

import json
import shutil

import pytest
import tiny_views
import torch
from PIL import Image

from viewsynth import config
from viewsynth.commands import generate
from viewsynth.diffusion import refine
from viewsynth.diffusion.options import Refine
from viewsynth.diffusion.pipeline import ViewDiffusionPipeline
from viewsynth.generate import chunk, ranks
from viewsynth.runtime import weights
from viewsynth.world import shots

VIEWS = ("--views.elevations", "30", "80", "--views.azimuths", "0", "200")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A pipeline with random weights, saved as by `train-diffusion`."""
    return tiny_views.saved(tmp_path_factory.mktemp("model") / "pipeline")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    try:
        weights.pose_model(), weights.detector_model()
    except weights.MissingWeightsError as error:
        pytest.skip(f"the pose models cannot be had: {error}")
    return shots.write_folder(tmp_path_factory.mktemp("photos"), 2, 3, shots.SHOTS[:1])


@pytest.fixture(scope="module")
def here(model):
    """`generate` with this process as its only worker, which loads its tools once."""
    tools = []

    def load(job):
        tools.append(tools[0] if tools else chunk.load_tools(job))
        return tools[0]

    def serial(items, start, args, workers):
        for item in items:
            start(*args)(item)
            yield item, ""

    def run(root, output, *options, make=chunk.make_chunk):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ranks, "run_items", serial)
            return generate.run(asked(root, output, model, *options), load=load, make=make)

    return run


def asked(root, output, model, *options):
    argv = ["--data.root", str(root), "--output", str(output), "--chunk", "1", "--report", "no"]
    argv += [] if "--views.elevations" in options else VIEWS
    argv += ["--refine.engine", str(model), "--refine.steps", "2", *options]
    return config.parse(generate.Config, argv, "generate")


def content(output):
    return {
        path.relative_to(output).as_posix(): path.read_bytes()
        for path in sorted(output.rglob("*"))
        if path.is_file() and path.name not in ("run.json", "config.yaml")
    }


@pytest.fixture(scope="module")
def undisturbed(photos, here, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "undisturbed"
    assert here(photos, output, "--data.licence", "CC0-1.0") == 0
    return output


def test_rows_and_images_record_the_refiner(undisturbed, model):
    rows = [json.loads(line) for line in (undisturbed / "metadata.jsonl").read_text().splitlines()]
    assert len(rows) == 8
    found = refine.find(Refine(engine=str(model)))
    for row in rows:
        assert row["engine"]["refine"] == refine.revision(found, Refine(steps=2))
        assert row["licences"]["refiner"] == "CC0-1.0"
        with Image.open(undisturbed / row["file_name"]) as image:
            assert b"/compositeWithTrainedAlgorithmicMedia" in image.info["xmp"]
            assert image.size == (row["width"], row["height"])


@pytest.mark.slow
def test_workers_and_interruptions_change_no_byte(photos, model, undisturbed, here, tmp_path):
    output = tmp_path / "workers"
    workers = asked(photos, output, model, "--workers", "2", "--data.licence", "CC0-1.0")
    assert generate.run(workers) == 0
    assert content(output) == content(undisturbed)

    def killed(task, job, tools, put):
        """Stop at the second person, after some of its images."""
        made = chunk.make_chunk(task, job, tools, put)
        if task.chunk == "00001":
            raise KeyboardInterrupt
        return made

    output = tmp_path / "killed"
    few = ("--data.licence", "CC0-1.0", "--views.elevations", "30", "--views.azimuths", "200")
    with pytest.raises(KeyboardInterrupt):
        here(photos, output, *few, make=killed)
    assert len(list(output.glob("parts/*"))) == 1 and not (output / "metadata.jsonl").exists()
    assert here(photos, output, *few) == 0
    # Further views use the saved persons and read the photos again.
    assert here(photos, output, "--data.licence", "CC0-1.0") == 0
    once, twice = content(undisturbed), content(output)
    assert {*twice} - {*once} == {"parts/00000-1.jsonl", "parts/00001-1.jsonl"}
    differ = {name for name, data in once.items() if twice[name] != data}
    assert all(name == "SHA256SUMS" or name.startswith("parts/") for name in differ)


def test_more_views_need_the_photos(photos, undisturbed, here, tmp_path):
    root, output = tmp_path / "photos", shutil.copytree(undisturbed, tmp_path / "out")
    shutil.copytree(photos, root)
    frozen = json.loads((output / "run.json").read_text())
    frozen["root"] = frozen["settings"]["data"]["root"] = root.resolve().as_posix()
    (output / "run.json").write_text(json.dumps(frozen))
    (root / "0001" / "front.jpg").unlink()
    listed = (root / "metadata.jsonl").read_text().splitlines(keepends=True)
    (root / "metadata.jsonl").write_text("".join(line for line in listed if "0001/" not in line))
    more = ("--views.elevations", "45", "--views.azimuths", "0", "--data.licence", "CC0-1.0")
    assert here(root, output, *more) == 1  # one of two people
    rejects = [json.loads(line) for line in (output / "rejects.jsonl").read_text().splitlines()]
    assert [(r["pid"], r["stage"], r["kind"]) for r in rejects] == [("0001", "refine", "fault")]
    assert "is gone" in rejects[0]["reason"] and rejects[0]["source"] == "0001/front.jpg"
    rows = [json.loads(line) for line in (output / "metadata.jsonl").read_text().splitlines()]
    assert [sum(row["pid"] == pid for row in rows) for pid in ("0000", "0001")] == [5, 4]


def test_another_refiner_in_the_same_folder_is_refused(photos, model, undisturbed, here, tmp_path):
    for options, said in (
        (("--refine.engine", "none"), "refine.engine: '.*pipeline' there, 'none' now"),
        (("--refine.steps", "3"), "refine.steps: 2 there, 3 now"),
    ):
        with pytest.raises(ValueError, match=said):
            here(photos, undisturbed, "--data.licence", "CC0-1.0", *options)
    moved = model.rename(tmp_path / "aside")
    try:
        pipeline = ViewDiffusionPipeline.from_pretrained(moved)
        with torch.no_grad():
            pipeline.unet.conv_out.bias += 1e-3
        pipeline.save_pretrained(model)
        with pytest.raises(
            ValueError, match=r"models.refine.weights: '\w{64}' there, '\w{64}' now"
        ):
            here(photos, undisturbed, "--data.licence", "CC0-1.0")
    finally:
        shutil.rmtree(model, ignore_errors=True)
        moved.rename(model)


def test_a_run_without_refiner_settings_resumes(tmp_path):
    plain = config.parse(generate.Config, ["--output", str(tmp_path)], "generate")
    settings = generate.settings_of(plain, "cpu")
    old = {key: value for key, value in settings.items() if key != "refine"}
    (tmp_path / "run.json").write_text(
        json.dumps(
            {
                "format": 1,
                "settings": old,
                "root": "/x",
                "people": [],
                "chunks": [],
                "rejects": [],
                "facts": {},
            }
        )
    )
    generate._claim(tmp_path, settings)
    with pytest.raises(ValueError, match=r"refine.engine: 'none' there, 'bundled' now"):
        generate._claim(tmp_path, settings | {"refine": refine.settings(Refine("bundled"))})


def test_commercial_use_needs_the_licence_of_the_refiner(photos, model, tmp_path):
    ours = ("--data.licence", "CC0-1.0", "--commercial")
    generate.check(asked(photos, tmp_path / "out", model, *ours))
    other = shutil.copytree(model, tmp_path / "other")
    index = json.loads((other / "model_index.json").read_text())
    for licence in ("unknown", "CC-BY-NC-4.0"):
        (other / "model_index.json").write_text(json.dumps(index | {"licence": licence}))
        with pytest.raises(ValueError, match=rf"refiner: {licence} \((unknown|no)\)"):
            generate.check(asked(photos, tmp_path / "out", other, *ours))
