# SPDX-License-Identifier: Apache-2.0
"""`train`: a resumed run equals an undisturbed one, one process equals two, and errors."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_people
import torch
from safetensors.torch import load_file
from two_processes import launch

from viewsynth import config
from viewsynth.commands import train
from viewsynth.reid import backbones, batches, methods, saved, training
from viewsynth.reid.options import Augmentation
from viewsynth.reid.pixels import Pixels
from viewsynth.reid.sampler import Plan
from viewsynth.training import checkpoints, loop

ROOT = Path(__file__).parents[2]
PEOPLE = 10


@pytest.fixture(scope="module")
def cargo(tmp_path_factory):
    return tiny_people.cargo(tmp_path_factory.mktemp("data") / "CARGO", PEOPLE)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return tiny_people.vit(tmp_path_factory.mktemp("models") / "vit")


def argv(root, backbone, output, *options) -> list[str]:
    known = [
        "--data.name",
        "cargo",
        "--data.root",
        root,
        "--model.backbone",
        backbone,
        "--model.size",
        32,
        16,
        "--people",
        4,
        "--pictures",
        2,
        "--steps",
        8,
        "--every",
        3,
        "--optim.rate",
        "1e-2",
        "--optim.warmup",
        2,
        "--data.validation",
        0.2,
        "--device",
        "cpu",
        "--cache",
        Path(output).parent / "cache",
        "--output",
        output,
    ]
    return [str(token) for token in (*known, *options)]


def run(root, backbone, output, *options) -> int:
    return train.run(config.parse(train.Config, argv(root, backbone, output, *options), "train"))


def weights(output) -> dict[str, torch.Tensor]:
    return load_file(output / "model" / "model.safetensors")


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.fixture(scope="module")
def undisturbed(cargo, backbone, tmp_path_factory):
    output = tmp_path_factory.mktemp("train") / "run"
    assert run(cargo, backbone, output, "--optim.average", 0.5) == 0
    return output


def test_files_of_a_run(undisturbed):
    assert {p.name for p in undisturbed.iterdir()} == {
        "model",
        "checkpoint-6",
        "checkpoint-8",
        "log.jsonl",
        "config.yaml",
        "run.json",
        "inputs.jsonl",
        "rejects.jsonl",
    }
    rows = [json.loads(row) for row in (undisturbed / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [3, 6, 8]
    assert all(0 <= row["val_mAP"] <= 1 and row["identity"] > 0 for row in rows)
    model, about = saved.load(undisturbed / "model")
    best = max(rows, key=lambda row: row["val_mAP"])
    assert about["step"] == best["step"] and model.features(torch.rand(2, 3, 32, 16)).shape == (
        2,
        16,
    )


@pytest.mark.parametrize("broken", [False, True])
def test_resumed_equals_undisturbed(cargo, backbone, undisturbed, tmp_path, monkeypatch, broken):
    output = tmp_path / "run"
    real = checkpoints.write_checkpoint

    def stop_after(run, step, *rest):
        folder = real(run, step, *rest)
        if step == 6:
            if broken:  # as on a full disk
                path = folder / "model.safetensors"
                path.write_bytes(path.read_bytes()[:-10])
            raise KeyboardInterrupt
        return folder

    monkeypatch.setattr(checkpoints, "write_checkpoint", stop_after)
    with pytest.raises(KeyboardInterrupt):
        run(cargo, backbone, output, "--optim.average", 0.5)
    monkeypatch.setattr(checkpoints, "write_checkpoint", real)
    seen = []
    assemble = training.stream

    def spy(plan, pixels, recipe, steps, *rest):
        for step, batch in zip(steps, assemble(plan, pixels, recipe, steps, *rest), strict=True):
            seen.append((step, batch.names))
            yield batch

    monkeypatch.setattr(training, "stream", spy)
    assert run(cargo, backbone, output, "--optim.average", 0.5) == 0
    assert [step for step, _ in seen] == list(range(3 if broken else 6, 8))
    assert same(weights(output), weights(undisturbed))
    one, two = (
        checkpoints.read_checkpoint(folder / "checkpoint-8")[0] for folder in (output, undisturbed)
    )
    assert all(same(one[name], two[name]) for name in ("model", "optimizer", "average"))
    assert (output / "log.jsonl").read_bytes() == (undisturbed / "log.jsonl").read_bytes()
    assert run(cargo, backbone, output, "--optim.average", 0.5) == 0  # no step is left
    assert same(weights(output), weights(undisturbed))


def test_fine_tuning_with_frozen_batch_norms(cargo, tmp_path, monkeypatch):
    folder = tiny_people.osnet(tmp_path / "osnet")
    before = backbones.load(str(folder), (32, 16)).state_dict()
    options = ("--model.freeze-norms", "yes", "--optim.average", 0.5, "--data.validation", 0)
    options += ("--optim.head-rate", 0.1, "--steps", 4, "--every", 2)
    for name, rate in (("tuned", 1e-3), ("heads", 0)):
        assert run(cargo, folder, tmp_path / name, *options, "--optim.rate", rate) == 0
        after = weights(tmp_path / name)
        kept = {key for key in before if torch.equal(before[key], after[f"backbone.{key}"])}
        norms = {key for key in before if ".norm." in key}
        assert norms <= kept and (len(kept) < len(before)) == bool(rate)
        assert not torch.equal(after["neck.norm.weight"], torch.ones(16))
    real = checkpoints.write_checkpoint

    def stop(*rest):
        real(*rest)
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "write_checkpoint", stop)
    options = (*options, "--optim.rate", 1e-3)
    with pytest.raises(KeyboardInterrupt):
        run(cargo, folder, tmp_path / "stopped", *options)
    monkeypatch.setattr(checkpoints, "write_checkpoint", real)
    assert run(cargo, folder, tmp_path / "stopped", *options) == 0
    assert same(weights(tmp_path / "stopped"), weights(tmp_path / "tuned"))


def test_without_identity_loss_only_triplets_decide(cargo, backbone, tmp_path):
    options = ("--optim.identity", 0, "--steps", 2, "--every", 2, "--data.validation", 0)
    for name, smoothing in (("plain", 0), ("smooth", 0.5)):
        given = ("--model.smoothing", smoothing)
        assert run(cargo, backbone, tmp_path / name, *options, *given) == 0
    row = json.loads((tmp_path / "plain" / "log.jsonl").read_text())
    assert row["identity"] == 0 < row["triplet"]
    assert same(weights(tmp_path / "plain"), weights(tmp_path / "smooth"))


def test_added_images_are_real_without_synthetic_ones(cargo, backbone, tmp_path):
    short = ("--steps", 2, "--data.validation", 0)
    for name, options in (("added", ("--data.added", 1)), ("more", ("--pictures", 3))):
        assert run(cargo, backbone, tmp_path / name, *short, *options) == 0
    assert same(weights(tmp_path / "added"), weights(tmp_path / "more"))


@pytest.mark.slow
def test_one_process_equals_two(cargo, backbone, tmp_path):
    options = ("--optim.parts", 2, "--data.validation", 0, "--steps", 4, "--every", 2)
    assert run(cargo, backbone, tmp_path / "one" / "run", *options) == 0
    given = argv(cargo, backbone, tmp_path / "two" / "run", *options)
    launch([str(ROOT / "train.py")], given)
    rows = [
        [json.loads(row) for row in (tmp_path / n / "run/log.jsonl").read_text().splitlines()]
        for n in ("one", "two")
    ]
    for one, two in zip(*rows, strict=True):
        assert one["identity"] == pytest.approx(two["identity"], abs=2e-5)
        assert one["triplet"] == pytest.approx(two["triplet"], abs=2e-5)
    one, two = weights(tmp_path / "one/run"), weights(tmp_path / "two/run")
    # With two processes, running statistics of the neck come from the first part only.
    for key in one:
        if "running" not in key and "num_batches" not in key:
            assert torch.allclose(one[key], two[key], atol=1e-5), key


def test_a_loss_that_is_not_finite_stops_the_run(cargo, backbone, tmp_path):
    output = tmp_path / "run"
    with pytest.raises(
        loop.DivergedError, match="is not finite .*lower --optim.rate|are not finite"
    ):
        run(
            cargo,
            backbone,
            output,
            "--optim.rate",
            1e6,
            "--optim.decay",
            1000,
            "--optim.warmup",
            0,
            "--optim.clip",
            0,
        )
    told = json.loads((output / "diverged.json").read_text())
    newest = checkpoints.newest(output)
    assert newest is None or newest.name == f"checkpoint-{told['step']}"


def test_a_gradient_that_is_not_finite_is_not_applied(cargo, backbone, tmp_path, monkeypatch):
    real, calls = torch.nn.utils.clip_grad_norm_, []

    def spoil(parameters, *rest, **options):
        parameters = list(parameters)
        calls.append(1)
        if len(calls) == 5:
            parameters[0].grad.view(-1)[0] = math.inf
        return real(parameters, *rest, **options)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", spoil)
    output = tmp_path / "run"
    with pytest.raises(loop.DivergedError, match="step 4 is not finite .*gradient inf"):
        run(cargo, backbone, output)
    told = json.loads((output / "diverged.json").read_text())
    assert told["step"] == 4 and len(told["images"]) == 8
    assert all(name.startswith("train/Cam") for name in told["images"])
    tensors, state = checkpoints.read_checkpoint(output / "checkpoint-4")
    assert state["step"] == 4 and all(torch.isfinite(t).all() for t in tensors["model"].values())
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", real)
    assert run(cargo, backbone, output) == 0  # the saved checkpoint is good


def test_stopped_in_the_middle_of_a_checkpoint(cargo, backbone, tmp_path, monkeypatch):
    real = checkpoints.write

    def stop(path, content):
        if path.name == "state.json" and "-6" not in path.parent.name:
            raise KeyboardInterrupt
        real(path, content)

    monkeypatch.setattr(checkpoints, "write", stop)
    output = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run(cargo, backbone, output)
    assert [p for p in output.iterdir() if p.is_dir() and p.name.startswith(".tmp-")]
    monkeypatch.setattr(checkpoints, "write", real)
    assert run(cargo, backbone, output) == 0
    assert not [p for p in output.iterdir() if p.name.startswith(".tmp-")]


def test_other_data_is_refused_on_resume(cargo, backbone, tmp_path):
    root = tmp_path / "CARGO"
    shutil.copytree(cargo, root)
    assert run(root, backbone, tmp_path / "run") == 0
    moved = root / "train/Cam1/Cam1_day_3_0.png"
    moved.rename(moved.with_name("Cam1_day_4_7.png"))
    with pytest.raises(ValueError, match="1 gone .*Cam1_day_3_0.png.*; 1 new .*Cam1_day_4_7.png"):
        run(root, backbone, tmp_path / "run")


def test_schedule():
    values = [loop.schedule(step, 1000, 100) for step in range(1000)]
    assert values[0] == pytest.approx(0.01) and values[100] == pytest.approx(1)
    assert np.all(np.diff(values[:100]) > 0) and np.all(np.diff(values[100:]) < 0)
    assert values[550] == pytest.approx((1 + 2e-4) / 2, abs=0.01) and values[-1] < 1e-3
    assert loop.schedule(0, 10, 2000) < loop.schedule(2, 10, 2000) == 1  # at most a fifth


def test_check_learns_finds_a_dead_model(cargo, backbone, tmp_path):
    parsed = config.parse(train.Config, argv(cargo, backbone, tmp_path / "run"), "train")
    learnt, _, _ = train.pools(parsed)
    pixels = Pixels.open(learnt.samples, (32, 16))
    plan = Plan(pool=learnt, people=4, pictures=4, steps=10)
    body = backbones.load(str(backbone), (32, 16))
    method = methods.build("baseline", body, learnt.classes)
    batch = next(batches.stream(plan, pixels, Augmentation(), [0]))
    before = {k: v.clone() for k, v in method.state_dict().items()}
    first, last = training.check_learns(method, batch)
    assert math.isfinite(first) and last < first
    assert same(before, method.state_dict())  # a copy was trained
    for parameter in method.parameters():
        parameter.requires_grad_(False)
    method.neck.classifier.weight.requires_grad_(True)
    with torch.no_grad():
        method.backbone.norm.weight.zero_()
        method.backbone.norm.bias.zero_()
    with pytest.raises(ValueError, match="does not learn"):
        training.check_learns(method, batch)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--model.method", "vdtt"), "method must be one of"),
        (("--data.views", "ground", "--model.method", "vdt"), "needs ground and aerial images"),
        (("--people", 11), "cannot be drawn from 8 identities"),
        (("--optim.parts", 3), "cannot be shared"),
        (("--optim.parts", 4), "leave one a part"),
        (("--data.synthetic", "nowhere"), "nowhere"),
    ],
)
def test_refusals(cargo, backbone, tmp_path, options, said):
    with pytest.raises((ValueError, OSError), match=said):
        run(cargo, backbone, tmp_path / "run", *options)


def test_a_run_without_reading_options_resumes(cargo, backbone, tmp_path):
    run(cargo, backbone, tmp_path / "run")
    told = json.loads((tmp_path / "run" / "run.json").read_text())["settings"]["data"]
    assert not {"form", "box", "elevation"} & told.keys() and told["name"] == "cargo"
    assert run(cargo, backbone, tmp_path / "run") == 0


def test_tracklets_are_used_frame_by_frame(cargo, backbone, tmp_path):
    root = tmp_path / "people"
    for path in sorted((cargo / "train").rglob("*.png")):
        pid, number = path.stem.split("_")[2:]
        for frame in "ab":
            track = root / pid / f"t{number}"
            track.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, track / f"{path.parent.name}{frame}.png")
    asked = argv(root, backbone, tmp_path / "run", "--data.name", "folder")
    learnt, validated, _ = train.pools(config.parse(train.Config, asked, "train"))
    assert (len(learnt.samples), len(validated)) == (8 * 12, 2 * 12)
    assert all(len(sample.paths) == 1 for sample in (*learnt.samples, *validated))
    assert len({sample.name for sample in (*learnt.samples, *validated)}) == 120


def test_another_configuration_is_refused(cargo, backbone, undisturbed):
    with pytest.raises(ValueError, match="steps"):
        run(cargo, backbone, undisturbed, "--optim.average", 0.5, "--steps", 9)
    with pytest.raises(ValueError, match="holds a run"):
        run(cargo, backbone, undisturbed, "--optim.average", 0.5, "--resume", "no")
