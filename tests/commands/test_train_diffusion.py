# SPDX-License-Identifier: Apache-2.0
"""`train-diffusion`: from pairs to a saved pipeline, stops at any point, refusals."""

from __future__ import annotations

import importlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_pairs as tiny
import torch
from diffusers import DDIMScheduler, LCMScheduler
from two_processes import launch

from viewsynth import commands, config
from viewsynth.commands import train_diffusion
from viewsynth.diffusion import distillation, stages, training
from viewsynth.diffusion.pipeline import ViewDiffusionPipeline

ROOT = Path(__file__).parents[2]
PRESETS = sorted((ROOT / "configs" / "diffusion").glob("*.yaml"))


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Folders of pairs of four people, and of a base pipeline."""
    folder = tmp_path_factory.mktemp("given")
    tiny.write_pairs(folder / "pairs", people=4, each=2)
    tiny.pipeline().save_pretrained(folder / "base")
    return folder


def weights(folder) -> dict[str, torch.Tensor]:
    pipeline = ViewDiffusionPipeline.from_pretrained(folder)
    return {
        f"{name}.{key}": value
        for name in ("unet", "conditioner", "vae")
        for key, value in getattr(pipeline, name).state_dict().items()
    }


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.fixture(scope="module")
def undisturbed(given, tmp_path_factory):
    output = tmp_path_factory.mktemp("run") / "run"
    assert tiny.train(given, output, "--distil.steps", 4) == 0
    return output


def test_files_of_a_run(undisturbed):
    assert {path.name for path in undisturbed.iterdir()} == {
        "training",
        "distillation",
        "teacher",
        "pipeline",
        "grids",
        "config.yaml",
        "run.json",
        "inputs.jsonl",
    }
    names = {path.name for path in (undisturbed / "grids").iterdir()}
    assert names == {
        "training-000003.png",
        "training-000006.png",
        "distillation-000003.png",
        "distillation-000004.png",
    }
    text = (undisturbed / "training" / "log.jsonl").read_text()
    rows = [json.loads(row) for row in text.splitlines()]
    assert [row["step"] for row in rows] == [3, 6]
    assert all(row["loss"] > 0 and row["val_loss"] > 0 for row in rows)
    teacher = ViewDiffusionPipeline.from_pretrained(undisturbed / "teacher")
    student = ViewDiffusionPipeline.from_pretrained(undisturbed / "pipeline")
    assert isinstance(teacher.scheduler, DDIMScheduler)
    assert isinstance(student.scheduler, LCMScheduler)
    card = (undisturbed / "pipeline" / "README.md").read_text()
    assert "6 pairs of 3 people: 3 exact by the pixel" in card and "base: unknown" in card
    assert "4 steps of distillation" in card and student.config.licence == "unknown"
    assert str(undisturbed) not in card


@pytest.mark.parametrize(
    ("module", "when"), [(training, "train"), (distillation, "train"), (stages, "save_folder")]
)
def test_runs_killed_in_and_between_stages_resume(
    given, undisturbed, tmp_path, monkeypatch, module, when
):
    real, calls = getattr(module, when), []

    def stop(*args, **named):
        if when == "save_folder":
            raise KeyboardInterrupt
        run = args[-1]

        def tell_and_stop(step, figures):
            run.report(step, figures)
            if step == 4:
                calls.append(step)
                raise KeyboardInterrupt

        return real(*args[:-1], replace(run, report=tell_and_stop), **named)

    output = tmp_path / "run"
    monkeypatch.setattr(module, when, stop)
    with pytest.raises(KeyboardInterrupt):
        tiny.train(given, output, "--distil.steps", 4)
    monkeypatch.setattr(module, when, real)
    assert tiny.train(given, output, "--distil.steps", 4) == 0
    for name in ("teacher", "pipeline"):
        assert same(weights(output / name), weights(undisturbed / name))
    for stage in ("training", "distillation"):
        logs = [(folder / stage / "log.jsonl").read_bytes() for folder in (output, undisturbed)]
        assert logs[0] == logs[1]
    for path in (undisturbed / "grids").iterdir():
        assert (output / "grids" / path.name).read_bytes() == path.read_bytes()


def test_a_distillation_can_be_added_later(given, undisturbed, tmp_path):
    assert tiny.train(given, tmp_path / "run") == 0
    assert not (tmp_path / "run" / "teacher").exists()
    assert tiny.train(given, tmp_path / "run", "--distil.steps", 4) == 0
    assert same(weights(tmp_path / "run/pipeline"), weights(undisturbed / "pipeline"))


@pytest.mark.slow
def test_one_process_equals_two(given, tmp_path):
    options = ("--optim.parts", 2, "--optim.steps", 3, "--distil.parts", 2, "--distil.steps", 2)
    assert tiny.train(given, tmp_path / "one", *options) == 0
    argv = tiny.train_argv(given, tmp_path / "two", *options)
    launch(["-m", "viewsynth.commands.train_diffusion"], argv)
    one, two = (weights(tmp_path / name / "pipeline") for name in ("one", "two"))
    for key in one:
        assert torch.allclose(one[key], two[key], atol=1e-4), key


def test_a_lora_run_saves_a_lora_and_a_whole_pipeline(given, tmp_path):
    assert tiny.train(given, tmp_path / "run", "--model.rank", 2) == 0
    names = {path.name for path in (tmp_path / "run" / "lora").iterdir()}
    assert "conditioner" in names and any(name.endswith(".safetensors") for name in names)
    before, after = weights(given / "base"), weights(tmp_path / "run" / "pipeline")
    assert before.keys() == after.keys() and not same(before, after)


def test_the_small_model_gets_an_autoencoder_of_its_own(tmp_path):
    tiny.write_pairs(tmp_path / "pairs", people=2, size=(64, 32))
    asked = [
        "--data.pairs",
        tmp_path / "pairs",
        "--data.validation",
        0,
        "--model.size",
        64,
        32,
        "--optim.steps",
        1,
        "--optim.batch",
        2,
        "--autoencoder.steps",
        2,
        "--autoencoder.batch",
        2,
        "--device",
        "cpu",
        "--output",
        tmp_path / "run",
        "--data.licence",
        "CC0-1.0",
        "--commercial",
    ]
    asked = config.parse(train_diffusion.Config, [str(token) for token in asked], "x")
    assert train_diffusion.run(asked) == 0
    made = ViewDiffusionPipeline.from_pretrained(tmp_path / "run" / "pipeline")
    assert made.vae.config.scaling_factor not in (1, 0.18215)
    assert made.config.licence == "Apache-2.0 AND CC0-1.0"
    assert (
        sum(
            p.numel()
            for m in (made.vae, made.unet, made.conditioner, made.identity_encoder)
            for p in m.parameters()
        )
        < 12.5e6
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--data.pairs",), "data: give --data.world"),
        (("--data.world", "nowhere"), "is no world of viewsynth"),
        (("--data.root", "nowhere"), "data.root: there is no folder nowhere"),
        (("--data.pairs", "nowhere"), "nowhere holds no pairs"),
        (("--model.base", "./nowhere"), "there is no folder ./nowhere"),
        (("--model.identity", "nowhere"), "model.identity: there is no config.json"),
        (("--commercial",), "not every part allows commercial use: .*base: unknown"),
        (("--model.size", "64", "32"), "model.size must be that of the base, .32, 16"),
        (("--data.validation", "0.9"), "leaves nobody to train on"),
        (("--optim.parts", "4", "--optim.batch", "4", "--distil.parts", "3"), "distil.batch must"),
    ],
)
def test_refusals(given, tmp_path, capsys, options, said):
    try:
        with pytest.raises((ValueError, OSError), match=said):
            tiny.train(given, tmp_path / "run", *options)
    except SystemExit:
        assert said in capsys.readouterr().err


def test_refused_base_pipelines(given, tmp_path):
    made = ViewDiffusionPipeline.from_pretrained(given / "base")
    made.identity_encoder.model.save_pretrained(tmp_path / "identity")
    with pytest.raises(ValueError, match="model.identity must be None"):
        tiny.train(given, tmp_path / "run", "--model.identity", tmp_path / "identity")
    made.scheduler = LCMScheduler.from_config(made.scheduler.config)
    made.save_pretrained(tmp_path / "distilled")
    with pytest.raises(ValueError, match="is distilled; give teacher/"):
        tiny.train(given, tmp_path / "run", "--model.base", tmp_path / "distilled")


def test_another_configuration_is_refused(given, undisturbed):
    with pytest.raises(ValueError, match="optim.steps: 6 there, 7 now"):
        tiny.train(given, undisturbed, "--distil.steps", 4, "--optim.steps", 7)
    with pytest.raises(ValueError, match="holds a run"):
        tiny.train(given, undisturbed, "--distil.steps", 4, "--resume", "no")


def test_a_run_without_reading_options_resumes(given, undisturbed, tmp_path):
    shutil.copytree(undisturbed, tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    told = json.loads(path.read_text())
    assert not told["settings"]["data"].keys() & {"form", "box", "elevation"}
    assert tiny.train(given, tmp_path / "run", "--distil.steps", 4) == 0
    assert json.loads(path.read_text())["settings"] == told["settings"]
    with pytest.raises(ValueError, match="data.box: .* there, 'xywh' now"):
        tiny.train(given, tmp_path / "run", "--distil.steps", 4, "--data.box", "xywh")


def test_a_lora_of_random_weights_is_refused(capsys):
    with pytest.raises(SystemExit):
        config.parse(train_diffusion.Config, ["--model.rank", "4"], "x")
    assert "model.rank must be 0 with the base small" in capsys.readouterr().err


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.name)
def test_every_preset_parses_and_has_its_header(path):
    asked = config.parse(train_diffusion.Config, [str(path)], "x")
    assert asked.distil.steps > 0
    text = path.read_text(encoding="utf-8")
    for word in ("Command:", "Hardware:", "Time:", "Expect:"):
        assert f"# {word}" in text
    assert config.parse(train_diffusion.Config, config.flags(asked), "x") == asked


def test_commands_accept_the_lines_of_the_pipeline(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "pipelines"))
    story = importlib.import_module("view_diffusion")
    options = ["--train.optim.steps", "5", "--world.people", "8", "--output", "out"]
    lines = story.plan(config.parse(story.Config, options, "x"))
    monkeypatch.chdir(ROOT)
    asked = config.parse(train_diffusion.Config, lines[1][1:], "x")
    assert asked.optim.steps == 5 and asked.distil.steps > 0
    assert asked.data.world == Path("out/world")
    assert [line[0] for line in lines] == ["world", "train-diffusion", "generate", "fidelity"]
    for name, *rest in lines:
        command = importlib.import_module(f"viewsynth.commands.{name.replace('-', '_')}")
        asked = config.parse(command.Config, rest, name)
        assert name in commands.names()
        if "--refine.engine" in rest:  # the trained model is used and measured
            assert asked.refine.engine == "out/diffusion/pipeline"
