# SPDX-License-Identifier: Apache-2.0
"""`evaluate` end to end on a small synthetic CARGO, with a tiny random model."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import debug_launcher
from accelerate.state import AcceleratorState, PartialState
from PIL import Image
from samples import ONE, TWO, sample
from transformers import ResNetConfig, ResNetModel

from viewsynth import config, data
from viewsynth.commands import evaluate
from viewsynth.evaluate import features, scoring
from viewsynth.metrics import distances, expansion, ranking, reranking
from viewsynth.records import Protocol

PEOPLE, CAMERAS = 12, (1, 3, 7, 9)  # two of the cameras are drones
FIGURES = ("mAP", "mINP", "rank1", "rank5", "rank10")
SAME = (
    "features.safetensors",
    "results.json",
    "queries.jsonl",
    "table.md",
    "leaderboard.csv",
    "rejects.jsonl",
)


@pytest.fixture(scope="module")
def cargo(tmp_path_factory):
    """Noise in one colour per person, so that a random network retrieves some."""
    root, rng = tmp_path_factory.mktemp("CARGO"), np.random.default_rng(0)
    for pid in (*range(PEOPLE), 100, 101):
        colour = rng.uniform(40, 215, 3)
        for camera in CAMERAS:
            for number in range(2):
                query = number == 0 and (pid + camera) % 3 == 0
                split = "train" if pid >= 100 else "query" if query else "gallery"
                noise = rng.normal(0, 40, (48, 24, 3)) + rng.normal(0, 20, 3)
                path = root / split / f"Cam{camera}" / f"Cam{camera}_day_{pid}_{number}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray((colour + noise).clip(0, 255).astype(np.uint8)).save(path)
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    torch.manual_seed(0)
    small = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
    ResNetModel(small).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True, scope="module")
def small_blocks():
    """Blocks so small that several processes share them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "BLOCK", 8)
        # Imported before the first one is patched: each copies the size at its import.
        for module in (distances, expansion, ranking, reranking):
            patch.setattr(module, "BLOCK", 4)
        yield


def parsed(root: Path, output: Path, *options) -> evaluate.Config:
    argv = ["--data.name", "cargo", "--data.root", str(root), "--output", str(output)]
    return config.parse(evaluate.Config, [*argv, *map(str, options)], "evaluate")


def run(root: Path, output: Path, *options) -> int:
    return evaluate.run(parsed(root, output, *options))


def of_model(model: Path) -> tuple:
    return ("--model.path", model, "--model.size", 32, 16, "--model.batch", 5, "--device", "cpu")


@pytest.fixture(scope="module")
def undisturbed(cargo, model, tmp_path_factory):
    output = tmp_path_factory.mktemp("undisturbed")
    assert run(cargo, output, *of_model(model), "--rerank") == 0
    return output


def told(output: Path) -> dict:
    return json.loads((output / "results.json").read_text())


def content(output: Path) -> dict[str, bytes]:
    return {name: (output / name).read_bytes() for name in SAME}


# ---- the numbers ---------------------------------------------------------------------------------


def brute_force(protocol: Protocol, rows: dict[str, np.ndarray]) -> dict[str, float]:
    """The metrics by plain loops."""
    found: dict[str, list[float]] = {name: [] for name in FIGURES}
    for query in protocol.query:
        left = [
            sample
            for sample in protocol.gallery
            if sample.pid != query.pid
            or getattr(sample, protocol.camera) != getattr(query, protocol.camera)
        ]
        likeness = [rows[sample.name] @ rows[query.name] for sample in left]
        hits = [left[k].pid == query.pid for k in np.argsort(likeness)[::-1]]
        places = [place for place, hit in enumerate(hits, 1) if hit]
        if places:
            precision = [k / place for k, place in enumerate(places, 1)]
            found["mAP"].append(np.mean(precision))
            found["mINP"].append(len(places) / places[-1])
            for k in (1, 5, 10):
                found[f"rank{k}"].append(places[0] <= k)
    return {name: np.mean(values) for name, values in found.items()}


def test_metrics_equal_plain_loops(cargo, undisturbed):
    dataset = data.load("cargo", cargo)
    names = [sample.name for sample in dataset.samples if sample.split != "train"]
    rows = features.load(undisturbed / "features.safetensors", names).rows.astype(np.float64)
    rows = dict(zip(names, rows / np.linalg.norm(rows, axis=1, keepdims=True), strict=True))
    results = [one for one in told(undisturbed)["results"] if not one["reranking"]]
    assert [one["protocol"] for one in results] == list(dataset.protocols)
    for one in results:
        protocol = dataset.protocols[one["protocol"]]
        expected = brute_force(protocol, rows)
        assert [one[name][0] for name in FIGURES] == pytest.approx(
            [expected[name] for name in FIGURES], abs=1e-9
        )
        assert one["valid_queries"] == protocol.valid_queries and one["tied_queries"] == 0
        assert all(one[name][1] <= one[name][0] <= one[name][2] for name in FIGURES)
    assert {one["mAP"][0] for one in results} != {1.0}


def test_results_name_their_inputs(cargo, undisturbed):
    results = told(undisturbed)["results"]
    one = next(r for r in results if r["protocol"] == "A<->G" and not r["reranking"])
    again = next(r for r in results if r["protocol"] == "A<->G" and r["reranking"])
    assert again["reranking"] == {"k1": 20, "k2": 6, "weight": 0.3} and again["mAP"] != one["mAP"]
    assert one["direction"].startswith("two-way") and one["camera_rule"] == "view"
    assert one["fingerprint"] == data.load("cargo", cargo).fingerprint
    key = ("dataset", "split", "media", "ties", "model", "left_out")
    assert [one[k] for k in key] == ["cargo", "test", "image", "pessimistic", "tiny", 0]
    row = next(r for r in results if r["protocol"] == "A->G" and not r["reranking"])
    assert row["direction"] == "one-way: aerial queries, ground gallery"
    assert told(undisturbed)["encoder"]["pooling"] == "pooler"
    table = (undisturbed / "table.md").read_text()
    assert f"| A->G | {row['direction']} | 8 / 8 |" in table and "| camera 7 |" in table
    assert "query images: 16 here, 312 published" in table


def test_every_query_has_a_row(cargo, undisturbed):
    dataset = data.load("cargo", cargo)
    rows = [json.loads(row) for row in (undisturbed / "queries.jsonl").read_text().splitlines()]
    for one in told(undisturbed)["results"]:
        own = [
            row
            for row in rows
            if (row["protocol"], row["reranking"]) == (one["protocol"], bool(one["reranking"]))
        ]
        asked = dataset.protocols[one["protocol"]].query
        assert [row["name"] for row in own] == [sample.name for sample in asked]
        valid = [row for row in own if row["valid"]]
        assert len(valid) == one["valid_queries"]
        assert np.mean([row["ap"] for row in valid]) == pytest.approx(one["mAP"][0])
        assert np.mean([row["inp"] for row in valid]) == pytest.approx(one["mINP"][0])
        assert np.mean([row["rank"] == 1 for row in valid]) == pytest.approx(one["rank1"][0])
    alone = Protocol(name="A->G", query=[ONE], gallery=[replace(TWO, pid="some/2")])
    arrays = (np.ones((1, 2), np.float32),) * 2
    row = scoring.queries(alone, scoring.rank(alone, *arrays), False)[0]
    assert [row[key] for key in ("valid", "ap", "inp", "rank")] == [False, None, None, None]


def test_expanded_and_mirrored_results_say_so(cargo, model, tmp_path, capsys):
    options = (*of_model(model), "--protocols", "A->G", "--rerank")
    assert run(cargo, tmp_path / "plain", *options) == 0
    assert run(cargo, tmp_path / "more", *options, "--model.flip", "yes", "--expand", 3) == 0
    assert "averaged with those of the 3 nearest images" in capsys.readouterr().out
    told = {}
    for name in ("plain", "more"):
        with (tmp_path / name / "leaderboard.csv").open() as file:
            told[name] = [row["reranking"] for row in csv.DictReader(file)]
    assert told["plain"] == ["no", "yes"]
    added = "expansion by 3 + mirror images"
    assert told["more"] == [added, f"yes + {added}"]
    one, two = (
        json.loads((tmp_path / name / "results.json").read_text())["results"] for name in told
    )
    assert (two[0]["flip"], two[0]["expand"]) == (True, 3) and one[0]["mAP"] != two[0]["mAP"]


def test_leaderboard_rows(undisturbed):
    with (undisturbed / "leaderboard.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == (
        [
            "dataset",
            "protocol",
            "direction",
            "method",
            "backbone",
            "rank1",
            "map",
            "reranking",
            "result_type",
            "source",
        ]
    )
    assert {row["dataset"] for row in rows} == {"CARGO"}
    assert {row["direction"] for row in rows} == {"ALL", "G2G", "A2A", "A2G", "G2A", "A2G and G2A"}
    assert [row["reranking"] for row in rows[:2]] == ["no", "yes"]
    one = told(undisturbed)["results"][0]
    assert rows[0]["map"] == f"{100 * one['mAP'][0]:.2f}" and rows[0]["backbone"] == "resnet"
    assert "16 valid of 16 queries" in rows[0]["protocol"]


def test_a_features_file_gives_the_same(cargo, undisturbed, tmp_path, capsys):
    file = undisturbed / "features.safetensors"
    options = ("--features", file, "--protocols", "A->G", "G<->G", "--method", "mine")
    assert run(cargo, tmp_path, *options) == 0
    said = capsys.readouterr()
    assert "| A->G |" in said.out and "32 rows of" not in said.out
    before = {one["protocol"]: one for one in told(undisturbed)["results"] if not one["reranking"]}
    results = told(tmp_path)["results"]
    assert [one["protocol"] for one in results] == ["A->G", "G<->G"]
    for one in results:
        assert [one[name] for name in FIGURES] == [before[one["protocol"]][k] for k in FIGURES]
        assert one["leaderboard"]["method"] == "mine"


@pytest.mark.parametrize("name", data.names())
def test_every_data_set_is_evaluated(release, model, tmp_path, capsys, name):
    root, output = release(name), tmp_path / "out"
    assert run(root, output, "--data.name", name, *of_model(model)) == 0
    dataset = data.load(name, root)
    results = told(output)["results"]
    assert [(one["protocol"], one["valid_queries"]) for one in results] == [
        (protocol.name, protocol.valid_queries) for protocol in dataset.protocols.values()
    ]
    assert ("our own rendered world" in capsys.readouterr().out) == (name == "world")
    binned = {part["by"] for one in results for part in one["bins"]} - {"camera"}
    above = [s for s in dataset.samples if s.split == "query" and s.view == "aerial"]
    known = {k for k in ("elevation", "altitude") for s in above if getattr(s, k) is not None}
    assert binned <= known and bool(binned) == bool(known)


def test_bins_are_the_queries_of_each_bin():
    rng = np.random.default_rng(0)
    gallery = [sample(f"g{n}", str(n % 20), "ground", "9") for n in range(60)]
    angles = [10.0, 25.0, 39.9, 40.0, 69.0, 70.0, 90.0, None]
    query = [
        replace(sample(f"q{n}", str(n % 20), "aerial", str(n % 2)), elevation=angles[n % 8])
        for n in range(40)
    ] + [replace(sample("q40", "3", "ground", "8"), elevation=50.0, altitude=1.5)]
    protocol = Protocol(name="ALL", query=query, gallery=gallery)
    arrays = (rng.normal(size=(len(some), 8)).astype(np.float32) for some in (query, gallery))
    rows = scoring.rank(protocol, *arrays)
    found = {(one["by"], one["bin"]): one for one in scoring.bins(protocol, rows)}
    assert set(found) == {
        ("camera", "0"),
        ("camera", "1"),
        ("camera", "8"),
        ("elevation", "0-25"),
        ("elevation", "25-40"),
        ("elevation", "40-55"),
        ("elevation", "55-70"),
        ("elevation", "70-90"),
        ("elevation", "unknown"),
    }
    counts = [found["elevation", name]["queries"] for name in ("0-25", "25-40", "70-90")]
    assert counts == [5, 10, 10]  # the ground query, at 50 degrees, is in no bin
    steep = [q.elevation is not None and q.elevation >= 70 for q in query]
    assert found["elevation", "70-90"]["mAP"][0] == pytest.approx(rows.ap[steep].mean())


# ---- processes and kills -------------------------------------------------------------------------


def rank_of_many(root: Path, output: Path, options: tuple) -> None:
    PartialState._reset_state()  # this process was forked from one that had it
    AcceleratorState._reset_state()
    assert run(root, output, *options) == 0


@pytest.mark.parametrize("processes", [2, 3])
def test_the_number_of_processes_does_not_matter(cargo, model, undisturbed, tmp_path, processes):
    options = (*of_model(model), "--rerank")
    debug_launcher(rank_of_many, (cargo, tmp_path, options), num_processes=processes)
    assert content(tmp_path) == content(undisturbed)


def slow_run(root: Path, output: Path, options: tuple) -> None:
    os.setsid()
    read = features.images.read
    features.images.read = lambda *args, **least: time.sleep(0.02) or read(*args, **least)
    run(root, output, *options)


def test_a_killed_run_resumes(cargo, model, undisturbed, tmp_path):
    options = (*of_model(model), "--rerank")
    process = multiprocessing.get_context("fork").Process(
        target=slow_run, args=(cargo, tmp_path, options)
    )
    process.start()
    while len(list(tmp_path.glob("features/[0-9]*"))) < 3:
        assert process.is_alive()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    (tmp_path / "features" / ".tmp-of-a-killed-write").touch()
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("features/[0-9]*")}
    assert 3 <= len(kept) < 12 and not (tmp_path / "results.json").exists()
    assert run(cargo, tmp_path, *options) == 0
    assert content(tmp_path) == content(undisturbed)
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())
    assert not list(tmp_path.rglob(".tmp-*"))


def test_broken_images(cargo, model, tmp_path, monkeypatch, capsys):
    root = tmp_path / "CARGO"
    for path in cargo.rglob("*.jpg"):
        copy = root / path.relative_to(cargo)
        copy.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, copy)
    bad = root / "gallery" / "Cam7" / "Cam7_day_0_1.jpg"
    bad.unlink()
    bad.write_bytes(b"\xff\xd8\xff no more")
    assert run(root, tmp_path / "out", *of_model(model)) == 1  # 1 of 96 is more than 1 %
    said = capsys.readouterr().err
    assert "failed: 1 of 96 images" in said and str(bad) in said
    rejects = [json.loads(row) for row in (tmp_path / "out/rejects.jsonl").read_text().splitlines()]
    assert [reject["source"] for reject in rejects] == [str(bad)]
    assert not (tmp_path / "out" / "results.json").exists()
    monkeypatch.setattr(evaluate, "BROKEN", 0.05)
    assert run(root, tmp_path / "out", *of_model(model)) == 0
    found = {one["protocol"]: one for one in told(tmp_path / "out")["results"]}
    assert (found["A->G"]["left_out"], found["A->G"]["gallery"]) == (1, 39)
    assert (found["A<->A"]["left_out"], found["A<->A"]["gallery"]) == (0, 40)
    assert "1 pictures could not be read" in (tmp_path / "out" / "table.md").read_text()


# ---- refusals ------------------------------------------------------------------------------------


def test_options(cargo, model, tmp_path, capsys):
    for options, message in (
        ((), "give either --model.path .* or --features .*; got neither"),
        ((*of_model(model), "--features", "x.safetensors"), "got both"),
        (("--features", tmp_path / "x.safetensors"), "features: there is no file"),
        (("--features", __file__, "--model.flip", "yes"), "mirror images need a model"),
        ((*of_model(model), "--protocols", "A-"), "quote the names"),
        ((*of_model(model), "--trained-on", tmp_path / "x.txt"), "trained_on: there is no file"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            run(cargo, tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()  # nothing was started
    (tmp_path / "mine.txt").touch()
    with pytest.raises(ValueError, match="holds other things"):
        run(cargo, tmp_path, *of_model(model))
    with pytest.raises(SystemExit):
        parsed(cargo, tmp_path, *of_model(model), "--model.size", 8, 8)
    assert "model.size must be in [16, 4096] pixels" in capsys.readouterr().err
    again = config.parse(evaluate.Config, [str(preset(tmp_path, cargo, model))], "evaluate")
    assert again == parsed(cargo, "out", *of_model(model), "--protocols", "A->G")


def preset(folder: Path, cargo: Path, model: Path) -> Path:
    path = folder / "preset.yaml"
    path.write_text(config.dump(parsed(cargo, "out", *of_model(model), "--protocols", "A->G")))
    return path
