# SPDX-License-Identifier: Apache-2.0
"""Every method from training to evaluation: stopped and resumed, and with two processes."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from pathlib import Path

import pytest
import tiny_people
import torch
from accelerate import debug_launcher
from accelerate.state import AcceleratorState, PartialState
from safetensors.torch import load_file

from viewsynth import config
from viewsynth.commands import evaluate, train
from viewsynth.reid import methods

OPTIONS = """--data.name folder --data.validation 0 --model.size 64 32 --people 4 --pictures 2
--steps 4 --every 2 --optim.rate 1e-2 --optim.warmup 0 --optim.prompt-steps 4 --device cpu"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The tiny CARGO with a table that has attributes and captions."""
    root = tiny_people.cargo(tmp_path_factory.mktemp("data") / "CARGO", 8)
    rows = ["file_name,pid,camid,view,platform,split,attributes,caption"]
    for path in sorted(root.rglob("*.png")):
        camera, pid = path.stem.split("_")[0], int(path.stem.split("_")[2])
        side = "aerial,drone" if camera == "Cam1" else "ground,cctv"
        known = ";".join([f"size:{'small' if pid % 2 else 'large'}", f"tone:{pid % 3}"])
        text = f"person {pid}" if pid % 2 else ""
        name = path.relative_to(root).as_posix()
        rows.append(f"{name},{pid},{camera},{side},{name.split('/')[0]},{known},{text}")
    (root / "metadata.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("models")
    tiny_people.vit(root / "vit", layers=2)
    tiny_people.clip(root / "clip")
    return root


def run(folder, models, name: str, output, *options) -> Path:
    text = "text" in methods.needs(name)
    words = [*OPTIONS.split(), "--data.root", folder, "--model.method", name]
    words += ["--model.backbone", models / ("clip" if text else "vit"), "--output", output]
    words += ["--cache", models / "cache", *options]
    assert train.run(config.parse(train.Config, [str(word) for word in words], "train")) == 0
    return output


def content(output) -> dict[str, bytes]:
    about = ("run.json", "config.yaml")  # they name host and folder
    files = [path for path in output.rglob("*") if path.is_file() and path.name not in about]
    return {path.relative_to(output).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("name", methods.names())
def test_trained_stopped_resumed_and_evaluated(folder, models, tmp_path, name):
    whole = run(folder, models, name, tmp_path / "whole")
    stages = [stage.name for stage in methods.stages(name)]
    for stage in stages:  # stopped half way through each
        own = "" if stage == stages[-1] else stage
        stopped = tmp_path / f"stopped-{stage}"
        shutil.copytree(whole, stopped)
        shutil.rmtree(stopped / own / "checkpoint-4")
        for gone in (stopped / "model", *([] if not own else stopped.glob("checkpoint-*"))):
            shutil.rmtree(gone)
        if own:
            (stopped / "log.jsonl").unlink()
        run(folder, models, name, stopped)
        assert content(stopped) == content(whole)
    words = ["--data.name", "folder", "--data.root", folder, "--model.path", whole / "model"]
    words += ["--output", tmp_path / "evaluate", "--device", "cpu"]
    found = config.parse(evaluate.Config, [str(word) for word in words], "evaluate")
    assert evaluate.run(found) == 0
    results = json.loads((tmp_path / "evaluate" / "results.json").read_text())["results"]
    assert {one["protocol"] for one in results} >= {"A->G", "G->A"}
    assert {one["told"] for one in results} == {methods.told(name)}
    assert all(0 < one["mAP"][0] <= 1 for one in results)


@pytest.fixture(scope="module")
def views(folder, tmp_path_factory) -> Path:
    """A run with two aerial views of each training person: drone images in place of drawn ones."""
    root = tmp_path_factory.mktemp("views")
    rows = []
    for source in sorted((folder / "train" / "Cam7").glob("*_0.png")):
        digest = hashlib.sha256(source.read_bytes()).hexdigest()
        for number in range(2):
            pid, name = source.stem.split("_")[2], f"{source.stem}-{number}.png"
            own = folder / "train" / "Cam1" / f"Cam1_day_{pid}_{number}.png"
            shutil.copy(own, root / name)
            files = [{"file": source.relative_to(folder).as_posix(), "sha256": digest}]
            about = {"platform": "drone", "view": "aerial", "split": "train", "outfit": ""}
            about |= {"source": "synthetic", "elevation": 40.0, "seen_ratio": 0.5, "weight": 0.5}
            rows.append({"file_name": name, "pid": pid, "camid": "e40", "sources": files} | about)
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return root


@pytest.mark.parametrize("name", methods.names())
def test_ground_images_with_views(folder, models, views, tmp_path, name):
    """The single-view setting: what a method needs of aerial images comes from the views."""
    options = ("--data.views", "ground", "--data.synthetic", views, "--steps", 2)
    whole = run(folder, models, name, tmp_path / "run", *options)
    logged = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert all(math.isfinite(value) for row in logged for value in row.values())
    assert (whole / "model" / "model.safetensors").is_file()


def every(folder, models, output, names) -> None:
    """Train all methods in this process, one of several that were forked."""
    PartialState._reset_state()
    AcceleratorState._reset_state()
    torch.set_num_threads(1)
    for name in names:
        run(folder, models, name, output / name, *TWO)


# AdamW would turn the rounding of gradients near 0 into whole steps.
TWO = ("--optim.parts", 2, "--optim.optimizer", "sgd", "--steps", 3, "--optim.prompt-steps", 2)


# With a memory bank, stages, noise, descriptions, experts, or parts without gradients. The others
# differ from `vdt` and `baseline` in their losses only, which know of no processes.
SPECIAL = ("baseline", "clip_reid", "dts", "latex", "pdpa", "sd_reid", "svpr", "uagrpg", "vdt")
SPECIAL += ("visa",)


@pytest.mark.slow
def test_one_process_equals_two(folder, models, tmp_path):
    for name in SPECIAL:
        run(folder, models, name, tmp_path / "one" / name, *TWO)
    debug_launcher(every, (folder, models, tmp_path / "two", SPECIAL), num_processes=2)
    for name in SPECIAL:
        one, two = (
            load_file(tmp_path / count / name / "model/model.safetensors")
            for count in ("one", "two")
        )
        assert one.keys() == two.keys()
        for key in one:
            # Running statistics, and sd_reid's moving bank, are those of the first part.
            if "running" in key or "num_batches" in key or key == "bank":
                continue
            same = torch.allclose(one[key].float(), two[key].float(), rtol=2e-3, atol=2e-4)
            assert same, f"{name}: {key}"


# ---- refusals ------------------------------------------------------------------------------------


def table(folder, output, change) -> Path:
    """A copy of the data set whose rows are as `change` makes them."""
    shutil.copytree(folder, output)
    head, *rows = (folder / "metadata.csv").read_text().splitlines()
    (output / "metadata.csv").write_text("\n".join([head, *map(change, rows)]) + "\n")
    return output


def test_a_test_set_without_platforms_is_refused(folder, models, tmp_path):
    platform = ("--model.views", "platform")
    whole = run(folder, models, "visa", tmp_path / "run", *platform)
    other = table(folder, tmp_path / "other", lambda row: row.replace(",cctv,", ",unknown,"))
    words = ["--data.name", "folder", "--data.root", other, "--model.path", whole / "model"]
    words += ["--output", tmp_path / "evaluate", "--device", "cpu"]
    asked = config.parse(evaluate.Config, [str(word) for word in words], "evaluate")
    told = "must be told the platform of every image, one of cctv, drone; .* has 'unknown'"
    with pytest.raises(ValueError, match=told):
        evaluate.run(asked)
    assert not list((tmp_path / "evaluate").glob("features/*.safetensors"))


def test_needs_that_the_data_do_not_meet(folder, models, tmp_path, capsys):
    def bare(row: str) -> str:
        return ",".join([*row.split(",")[:6], "", ""])

    other = table(folder, tmp_path / "bare", bare)
    for name in ("explain", "v2e"):
        with pytest.raises(ValueError, match=f"{name} needs attributes of people"):
            run(other, models, name, tmp_path / name)
    for name in ("latex", "svpr"):  # they use attributes only if there are some
        run(other, models, name, tmp_path / name)
    many = table(
        folder,
        tmp_path / "many",
        lambda row: row.replace("tone:", ";".join(f"own{n}" for n in range(60)) + ";tone:"),
    )
    with pytest.raises(ValueError, match="for each of 62 groups .* name attributes of one kind"):
        run(many, models, "latex", tmp_path / "groups")
    assert "nearly the same in all images: the attributes own0" in capsys.readouterr().err
    for name in ("clip_reid", "latex", "svpr"):
        with pytest.raises(ValueError, match="needs a CLIP with its text side; got vit"):
            run(folder, models, name, tmp_path / "no", "--model.backbone", models / "vit")
    with pytest.raises(ValueError, match="needs ground and aerial images; all images are of one"):
        run(folder, models, "uagrpg", tmp_path / "no", "--data.views", "ground")
