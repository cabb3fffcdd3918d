# SPDX-License-Identifier: Apache-2.0
"""`train-sd-reid`: training, resuming, and evaluation of its model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_people
import torch
from safetensors.torch import load_file
from two_processes import launch

from viewsynth import config
from viewsynth.commands import evaluate, train, train_sd_reid
from viewsynth.evaluate import feature_files, features
from viewsynth.reid import saved
from viewsynth.reid.sd_reid import cache, fused
from viewsynth.training import checkpoints

ROOT = Path(__file__).parents[2]
FEW = ("--optim.batch", "8", "--optim.pictures", "2", "--optim.warmup", "2", "--every", "2")


@pytest.fixture(scope="module")
def cargo(tmp_path_factory):
    return tiny_people.cargo(tmp_path_factory.mktemp("data") / "CARGO", 10)


@pytest.fixture(scope="module")
def stage1(cargo, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stage1")
    backbone = tiny_people.vit(folder / "vit", layers=3, width=32)
    argv = [
        "--data.name",
        "cargo",
        "--data.root",
        cargo,
        "--model.method",
        "sd_reid",
        "--model.backbone",
        backbone,
        "--model.size",
        "32",
        "16",
        "--steps",
        "8",
        "--people",
        "4",
        "--pictures",
        "2",
        "--every",
        "4",
        "--optim.optimizer",
        "adamw",
        "--optim.rate",
        "1e-3",
        "--data.validation",
        "0.2",
        "--cache",
        folder / "cache",
        "--output",
        folder / "run",
    ]
    assert train.run(config.parse(train.Config, [*map(str, argv)])) == 0
    return folder / "run"


def argv(stage1, output, *options) -> list[str]:
    given = [stage1, "--optim.steps", 6, *FEW, "--cache", stage1.parent / "features"]
    return [*map(str, (*given, "--output", output, *options))]


def run(stage1, output, *options) -> int:
    asked = config.parse(train_sd_reid.Config, argv(stage1, output, *options))
    return train_sd_reid.run(asked)


@pytest.fixture(scope="module")
def undisturbed(stage1, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "whole"
    assert run(stage1, output) == 0
    return output


def weights(output) -> dict[str, torch.Tensor]:
    return load_file(output / "model" / "adapter.safetensors")


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_files_of_a_run(stage1, undisturbed):
    names = {path.name for path in undisturbed.iterdir()}
    assert names == {
        "config.yaml",
        "run.json",
        "inputs.jsonl",
        "training",
        "model",
        "cost.json",
    }
    rows = [json.loads(row) for row in (undisturbed / "training/log.jsonl").open()]
    assert [row["step"] for row in rows] == [2, 4, 6] and all("val_loss" in row for row in rows)
    cost = json.loads((undisturbed / "cost.json").read_text())
    assert cost["fused"]["gflops"] > cost["encoder"]["gflops"] > 0
    assert same(
        load_file(undisturbed / "model/person/model.safetensors"),
        load_file(stage1 / "model/model.safetensors"),
    )
    told = json.loads((undisturbed / "run.json").read_text())
    assert told["stage1"]["model"]["method"] == "sd_reid"


def test_features_are_computed_once(stage1, undisturbed, tmp_path, monkeypatch):
    before = {p: p.stat().st_mtime_ns for p in (stage1.parent / "features").glob("*.*")}
    assert len(before) == 2  # of training and validation
    monkeypatch.setattr("viewsynth.reid.sd_reid.cache.compute", None)
    assert run(stage1, tmp_path / "mlp", "--generator.denoiser", "mlp") == 0
    assert {p: p.stat().st_mtime_ns for p in (stage1.parent / "features").glob("*.*")} == before


def test_cached_features_are_the_encoders(stage1):
    asked = config.parse(train.Config, [str(stage1 / "config.yaml")])
    pool, _, _ = train.pools(asked)
    pixels = train.open_pixels(pool.samples, asked, False)
    person, _ = saved.load(stage1 / "model")
    made = cache.compute(person, pixels, False, 0, "cpu")
    for n in (0, 7):
        image = pixels.get([n]).permute(0, 3, 1, 2).float() / 255
        for side, picture in enumerate((image, image.flip(-1))):
            found = person.encode(picture)
            for key in ("identity", "condition", "view"):
                own = getattr(found, key)[0].detach()
                torch.testing.assert_close(made[key][side, n].float(), own, rtol=2e-3, atol=2e-3)
    one, again, other = (cache.compute(person, pixels, True, seed, "cpu") for seed in (1, 1, 2))
    assert torch.equal(one["identity"], again["identity"])
    assert not torch.equal(one["identity"], other["identity"])
    assert not torch.allclose(one["identity"], made["identity"])
    marks = {cache.mark(person, pool, *how) for how in ((False, 0), (True, 0), (True, 1))}
    assert len(marks) == 3 and cache.mark(person, pool, False, 1) in marks


def test_dropped_paths_by_hand(stage1):
    """A block is dropped, or its residual is scaled up; the first block is never dropped."""
    person, _ = saved.load(stage1 / "model")
    first, _, last = person.backbone.blocks
    tokens = torch.randn(400, 5, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = last(tokens)
        with cache._stochastic_depth(person, True, 0):
            assert torch.allclose(first(tokens), first.block(tokens), atol=1e-6)
            found = last(tokens)
        assert torch.equal(last(tokens), whole)  # nothing is dropped afterwards
    out = (found == tokens).flatten(1).all(1)
    assert 0.05 < out.float().mean() < 0.16  # 0.1 for the last block
    more = tokens + (whole - tokens) / 0.9
    torch.testing.assert_close(found[~out], more[~out], rtol=1e-4, atol=1e-5)


def test_resumed_equals_undisturbed(stage1, undisturbed, tmp_path, monkeypatch):
    write, output = checkpoints.write_checkpoint, tmp_path / "stopped"

    def stop_after(run, step, *rest):
        write(run, step, *rest)
        if step == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "write_checkpoint", stop_after)
    with pytest.raises(KeyboardInterrupt):
        run(stage1, output)
    monkeypatch.undo()
    assert not (output / "model").exists()
    assert run(stage1, output) == 0
    assert same(weights(output), weights(undisturbed))
    log = "training/log.jsonl"
    assert (output / log).read_text() == (undisturbed / log).read_text()


@pytest.mark.slow
def test_one_process_equals_two(stage1, tmp_path):
    options = ("--optim.parts", "2", "--optim.steps", "3")
    assert run(stage1, tmp_path / "one", *options) == 0
    launch(["-m", "viewsynth.commands.train_sd_reid"], argv(stage1, tmp_path / "two", *options))
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-4)


def test_evaluate_takes_the_model_and_its_parts(cargo, stage1, undisturbed, tmp_path):
    def found(output, *options):
        data = ["--data.name", "cargo", "--data.root", cargo, "--output", tmp_path / output]
        data += ["--protocols", "A<->G", "G->A"]
        asked = config.parse(evaluate.Config, [*map(str, (*data, *options))])
        assert evaluate.run(asked) == 0
        return json.loads((tmp_path / output / "results.json").read_text())["results"]

    found("fused", "--model.path", undisturbed / "model")
    file = tmp_path / "fused" / "features.safetensors"
    identity = found("identity", "--features", file, "--part", "identity")
    alone = found("alone", "--model.path", stage1 / "model")
    for one, other in zip(identity, alone, strict=True):
        assert one["mAP"] == pytest.approx(other["mAP"], abs=1e-6)
    generated = found("generated", "--features", file, "--part", "generated")
    assert generated[0]["protocol"] == identity[0]["protocol"]
    names = feature_files.read(file).names
    rows = features.load(file, names)
    assert rows.parts == {"identity": (0, 32), "generated": (32, 96)}
    norms = np.linalg.norm(rows.part("identity").rows, axis=1)
    np.testing.assert_allclose(norms, 3**-0.5, rtol=1e-4)
    with pytest.raises(ValueError, match="no part 'nothing'; they have identity, generated"):
        rows.part("nothing")


def test_faithful_runs_from_end_to_end(stage1, tmp_path):
    assert run(stage1, tmp_path / "run", "--generator.mode", "faithful") == 0
    model, _ = fused.load(tmp_path / "run" / "model")
    assert model.generator.mode.across_batch and model.running is not None
    assert torch.equal(model.generator.prototypes, model.person.bank)


def test_refusals(cargo, stage1, undisturbed, tmp_path):
    with pytest.raises(ValueError, match="generator.depth"):
        run(stage1, undisturbed, "--generator.depth", "2")
    with pytest.raises(FileNotFoundError, match="no finished run of viewsynth train"):
        run(tmp_path, tmp_path / "run")
    other = tmp_path / "other"
    shutil.copytree(stage1, other)
    text = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(text.replace("method: sd_reid", "method: baseline"))
    with pytest.raises(ValueError, match="needs a first stage with --model.method sd_reid"):
        run(other, tmp_path / "run")
    (other / "config.yaml").write_text(text.replace("added: 0", "added: 1"))
    with pytest.raises(ValueError, match=r"multiple of 3, the images of a person: .* \(1\); got 8"):
        run(other, tmp_path / "run")
    with pytest.raises(ValueError, match="multiple of 3, .* got 8"):
        run(stage1, tmp_path / "run", "--optim.pictures", "3")
    broken = tmp_path / "broken"
    shutil.copytree(undisturbed / "model", broken)
    kept = load_file(broken / "adapter.safetensors")
    (broken / "adapter.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="no adapter.safetensors"):
        fused.load(broken)
    from safetensors.torch import save_file

    save_file({k: v for k, v in kept.items() if k != "prototypes"}, broken / "adapter.safetensors")
    with pytest.raises(ValueError, match="must be of one model, whole"):
        fused.load(broken)
