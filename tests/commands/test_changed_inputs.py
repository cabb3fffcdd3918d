# SPDX-License-Identifier: Apache-2.0
"""Inputs that changed since a run was stopped are refused by name; touched ones are not."""

from __future__ import annotations

import io
import json
import shutil
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
import tiny_pairs
import tiny_people
from file_changes import copied, replaced, touched
from PIL import Image
from tiny_pairs import train as run_diffusion

from viewsynth import config, data
from viewsynth.commands import train, train_sd_reid
from viewsynth.diffusion.pairs import making
from viewsynth.diffusion.pairs.stored import SHARDS
from viewsynth.evaluate import features
from viewsynth.records import Sample
from viewsynth.reid import pixels
from viewsynth.reid.pixels import Pixels
from viewsynth.runtime import fingerprint
from viewsynth.world import truth

FIRST = "train/Cam1/Cam1_day_0_0.png"
SIZE = (32, 16)


def picture(seed: int = 9) -> bytes:
    file = io.BytesIO()
    values = np.random.default_rng(seed).integers(0, 256, (48, 24, 3), dtype=np.uint8)
    Image.fromarray(values).save(file, "png")
    return file.getvalue()


def dated(path, seed: int = 9) -> None:
    """Another image of the same length and date; bytes after the end of a PNG do not count."""
    path.write_bytes(path.read_bytes().ljust(4000, b"\0"))
    replaced(path, picture(seed))


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A data set, and runs of both stages of SD-ReID on it, each with a checkpoint and no model."""
    folder = tmp_path_factory.mktemp("given")
    tiny_people.cargo(folder / "CARGO", 6)
    for path in (folder / "CARGO" / "train").rglob("*.png"):
        path.write_bytes(path.read_bytes().ljust(4000, b"\0"))
    tiny_people.vit(folder / "vit", layers=3, width=32)
    first(folder)
    second(folder)
    return folder


def first(folder, *options) -> None:
    argv = [
        "--data.name",
        "cargo",
        "--data.root",
        folder / "CARGO",
        "--model.backbone",
        folder / "vit",
        "--model.method",
        "sd_reid",
        "--model.size",
        32,
        16,
        "--people",
        4,
        "--pictures",
        2,
        "--steps",
        2,
        "--every",
        1,
        "--data.validation",
        0.3,
        "--device",
        "cpu",
        "--cache",
        folder / "cache",
        "--output",
        folder / "run",
        *options,
    ]
    assert train.run(config.parse(train.Config, [*map(str, argv)], "train")) == 0


def second(folder) -> None:
    argv = [
        folder / "run",
        "--optim.steps",
        1,
        "--optim.batch",
        8,
        "--optim.pictures",
        2,
        "--cache",
        folder / "cache",
        "--generator.denoiser",
        "mlp",
        "--output",
        folder / "second",
    ]
    assert train_sd_reid.run(config.parse(train_sd_reid.Config, [*map(str, argv)])) == 0


@pytest.fixture
def folder(given, tmp_path):
    """A copy at the same path, which is part of the settings."""
    shutil.copytree(given, tmp_path / "kept")
    yield given
    shutil.rmtree(given)
    shutil.copytree(tmp_path / "kept", given)


@pytest.mark.parametrize("stage", [first, second])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda root: (root / FIRST).write_bytes(picture()), f"1 changed .{FIRST}"),
        (lambda root: dated(root / FIRST), f"1 changed .{FIRST}"),
        (lambda root: (root / FIRST).unlink(), f"1 gone .{FIRST}"),
        (
            lambda root: (root / FIRST).with_name("Cam1_day_0_9.png").write_bytes(picture()),
            "1 new .train/Cam1/Cam1_day_0_9.png",
        ),
    ],
)
def test_changed_inputs_of_reid_training(folder, stage, change, said):
    change(folder / "CARGO")
    with pytest.raises(ValueError, match=f"begun with other files than there are now: {said}"):
        stage(folder)


@pytest.mark.parametrize("stage", [first, second])
def test_touched_files_are_accepted(folder, stage, monkeypatch):
    touched(folder / "CARGO" / FIRST)
    copied(folder / "CARGO" / FIRST.replace("_0_0", "_1_0"))
    dated(folder / "CARGO" / "query/Cam1/Cam1_day_6_0.png")  # not a training image
    before = set((folder / "cache").rglob("*.safetensors"))
    monkeypatch.setattr(pixels, "_make", None)
    monkeypatch.setattr("viewsynth.reid.sd_reid.cache.compute", None)
    stage(folder)
    assert set((folder / "cache").rglob("*.safetensors")) == before


def test_a_run_without_a_record_resumes(folder, caplog):
    (folder / "run" / fingerprint.RECORD).unlink()
    path = folder / "run" / "run.json"
    told = json.loads(path.read_text())
    told["settings"]["pictures_sha256"] = "0" * 64
    path.write_text(json.dumps(told))
    first(folder)
    assert "inputs.jsonl is not there or cannot be read" in caplog.text
    dated(folder / "CARGO" / FIRST)
    with pytest.raises(ValueError, match=f"1 changed .{FIRST}"):
        first(folder)


def test_the_metadata_of_an_image_counts(tmp_path):
    root, rows = tmp_path / "own", []
    root.mkdir()
    for number in range(16):
        (root / f"{number}.png").write_bytes(picture(number))
        rows.append(f"{number}.png,{number // 4},{number % 2},train,ground,0 0 24 48")
    options = ("--data.name", "folder", "--data.root", root, "--data.validation", 0)
    options += ("--model.method", "baseline")
    tiny_people.vit(tmp_path / "vit")

    def told(some: list[str]) -> None:
        head = "file_name,pid,camid,split,view,box"
        (root / "metadata.csv").write_text("\n".join([head, *some]) + "\n")
        first(tmp_path, *options)

    told(rows)
    told(rows)
    for changed, said in (
        (rows[5].replace("0 0 24 48", "0 0 20 48"), r"5.png, box: \[0.*\] there, \[0.*20.*\] now"),
        (rows[5].replace("5.png,1", "5.png,3"), "5.png, pid: '1' there, '3' now"),
    ):
        with pytest.raises(ValueError, match=f"1 described otherwise .{said}"):
            told([*rows[:5], changed, *rows[6:]])


# ---- pairs ---------------------------------------------------------------------------------------


def test_changed_inputs_of_diffusion_training(tmp_path):
    tiny_pairs.write_pairs(tmp_path / "pairs", people=4, each=2)
    tiny_pairs.pipeline().save_pretrained(tmp_path / "base")
    few = tmp_path / "run", "--optim.steps", 1
    assert run_diffusion(tmp_path, *few) == 0
    shard = tmp_path / "pairs" / SHARDS / "a.safetensors"
    weights = tmp_path / "base" / "vae" / "diffusion_pytorch_model.safetensors"
    touched(shard)
    copied(weights)
    assert run_diffusion(tmp_path, *few) == 0
    for path in (shard, weights):
        before = path.read_bytes()
        replaced(path, before[:-1] + bytes([before[-1] ^ 1]))
        with pytest.raises(ValueError, match=f"1 changed .{path}"):
            run_diffusion(tmp_path, *few)
        path.write_bytes(before)
    (tmp_path / "pairs" / fingerprint.RECORD).write_text("{}\n")  # the record of another run
    (tmp_path / "base" / "unet" / "other.fp16.safetensors").write_bytes(b"of other tools")
    assert run_diffusion(tmp_path, *few) == 0


def test_a_base_from_the_hub_is_known_by_its_id(tmp_path, monkeypatch):
    tiny_pairs.write_pairs(tmp_path / "pairs", people=4, each=2)
    few = tmp_path / "run", "--optim.steps", 1
    cache = tmp_path / "hub" / "models--own--base"
    (cache / "refs").mkdir(parents=True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for commit in ("a" * 40, "b" * 40):  # the same weights in two commits
        tiny_pairs.pipeline().save_pretrained(cache / "snapshots" / commit)
        (cache / "refs" / "main").write_text(commit)
        assert run_diffusion(tmp_path, *few, "--model.base", "own/base") == 0
    names = [json.loads(row)["name"] for row in (tmp_path / "run" / fingerprint.RECORD).open()]
    assert "own/base/model_index.json" in names and not any("snapshots" in name for name in names)


def unfinished(job, members) -> None:
    """Parts of chunks without pairs."""
    for chunk in making.chunks(members):
        path, _ = making._paths(job, chunk)
        path.parent.mkdir(exist_ok=True)
        told = {"mark": job.mark, "who": chunk.who, "bytes": 0, "rows": [], "rejects": []}
        path.write_text(json.dumps(told))


def test_pairs_of_a_data_set(tmp_path):
    root = tmp_path / "own"
    (root / "a").mkdir(parents=True)
    rows = ["file_name,pid,view,platform,elevation"]
    for number in range(3):
        (root / f"a/{number}.png").write_bytes(picture(number).ljust(4000, b"\0"))
        rows += [f"a/{number}.png,a,{'aerial,drone,50' if number else 'ground,cctv,'}"]
    (root / "metadata.csv").write_text("\n".join(rows) + "\n")

    def make() -> None:
        with pytest.raises(ValueError, match="no pair could be made"):
            making.make(data.load("folder", root), tmp_path / "pairs", SIZE)

    dataset = data.load("folder", root)
    job = making.claim_output(dataset, tmp_path / "pairs", SIZE, "train", 0)
    unfinished(job, making.identity.plan(dataset, None, 0, 0))
    make()
    touched(root / "a/1.png")
    make()
    root = root.rename(tmp_path / "elsewhere")
    make()
    dated(root / "a/1.png")
    with pytest.raises(ValueError, match="1 changed .a/1.png"):
        making.make(data.load("folder", root), tmp_path / "pairs", SIZE)
    (root / "a/1.png").write_bytes(picture(1).ljust(4000, b"\0"))
    (root / "metadata.csv").write_text("\n".join(rows).replace(",50", ",40") + "\n")
    with pytest.raises(ValueError, match="2 described otherwise .*a/1.png, elevation: 50.0 there"):
        making.make(data.load("folder", root), tmp_path / "pairs", SIZE)


def test_pairs_of_a_world(tmp_path):
    world = tmp_path / "world"
    people, rows = [], []
    for number in range(4):
        pid = f"{number:04d}"
        people.append({"pid": pid, "split": "train"})
        for view in ("ground", "aerial"):
            row = {"file_name": f"paired/{pid}_{view}.jpg", "parts": f"parts/{pid}_{view}.png"}
            for name in row.values():
                (world / name).parent.mkdir(parents=True, exist_ok=True)
                (world / name).write_bytes(picture(number).ljust(4000, b"\0"))
            rows.append({**row, "pid": pid, "view": view, "split": "paired", "instant": "0"})
    for name, some in zip(truth.FILES, (people, rows), strict=True):
        (world / name).write_text("".join(json.dumps(row) + "\n" for row in some))

    def make(count: int | None, said: str = "no pair could be made") -> None:
        with pytest.raises(ValueError, match=said):
            making.make(world, tmp_path / "pairs", SIZE, count)

    job = making.claim_output(world, tmp_path / "pairs", SIZE, "train", 0)
    unfinished(job, making.exact.plan(world, None, 0, "train"))
    make(4)
    make(4)
    world = world.rename(tmp_path / "elsewhere")
    make(4)
    changed = world / "parts/0003_aerial.png"
    before = changed.read_bytes()
    dated(changed)
    make(4, "1 changed .*parts/0003_aerial.png")
    changed.write_bytes(before)
    make(4)
    (world / "paired/0000_ground.jpg").unlink()
    make(4, "1 gone .*paired/0000_ground.jpg")


# ---- caches --------------------------------------------------------------------------------------


def test_the_image_cache_depends_on_the_contents(tmp_path):
    names = [f"{n}.png" for n in range(4)]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(picture(number).ljust(4000, b"\0"))
    samples = [Sample(paths=(tmp_path / name,), pid="a", name=name) for name in names]
    first = Pixels.open(samples, SIZE, tmp_path / "cache").get(range(4))
    for change in (touched, copied):
        change(tmp_path / "1.png")
        assert (Pixels.open(samples, SIZE, tmp_path / "cache").get(range(4)) == first).all()
    folder = tmp_path / "cache" / "32x16"
    assert len(list(folder.iterdir())) == 1
    dated(tmp_path / "2.png", seed=3)
    found = Pixels.open(samples, SIZE, tmp_path / "cache").get(range(4))
    assert (found[2] == first[3]).all() and (found[[0, 1, 3]] == first[[0, 1, 3]]).all()
    assert len(list(folder.iterdir())) == 2
    shutil.rmtree(tmp_path / "cache" / pixels.HASHES)  # it is optional
    assert (Pixels.open(samples, SIZE, tmp_path / "cache").get(range(4)) == found).all()
    assert len(list(folder.iterdir())) == 2


def test_the_features_of_an_evaluation_depend_on_the_contents(tmp_path):
    samples = []
    for number in range(3):
        path = tmp_path / f"{number}.png"
        path.write_bytes(picture(number).ljust(4000, b"\0"))
        samples.append(Sample(paths=(path, tmp_path / "0.png"), pid="a", name=path.name))

    def mark() -> str:
        encoder = SimpleNamespace(fingerprint="of a model", views_of=lambda samples: None)
        (block,) = features.blocks(samples, {"1.png"}, tmp_path / "features", encoder, 8)
        return block.mark

    first = mark()
    touched(tmp_path / "1.png")
    copied(tmp_path / "0.png")
    assert mark() == first
    dated(tmp_path / "0.png")
    assert mark() != first


def test_the_record_of_the_inputs(given):
    rows = [json.loads(row) for row in (given / "run" / fingerprint.RECORD).open()]
    names = {path.relative_to(given / "CARGO").as_posix() for path in given.glob("CARGO/train/*/*")}
    assert {row["name"] for row in rows} == names, "those of the validation, too; none of the tests"
    assert all(row["about"]["readable"] and row["about"]["weight"] == 1 for row in rows)
