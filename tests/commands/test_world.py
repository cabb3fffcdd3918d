# SPDX-License-Identifier: Apache-2.0
"""`viewsynth world`: CARGO's layout, equal bytes for every way of running, refusals, faults."""

from __future__ import annotations

import json
import multiprocessing
import re
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from viewsynth import config
from viewsynth.commands import world
from viewsynth.runtime.provenance import code_digest
from viewsynth.world import LABELS, shots, writer

PEOPLE, IMAGES, INSTANTS = 2, 4, 1


def options(output: Path, *more: str) -> list[str]:
    argv = ["--output", str(output), "--people", str(PEOPLE), "--chunk", "1"]
    return [*argv, "--images-per-person", str(IMAGES), "--instants", str(INSTANTS), *more]


def run(output: Path, *more: str) -> int:
    return world.run(config.parse(world.Config, options(output, *more), "world"))


def alone(output: Path, people: int, images: int, instants: int, chunk: int = 1) -> Path:
    """Images and rows, rendered in this process."""
    do = writer.start(output, 0)
    for task in writer.tasks(output, people, images, instants, chunk):
        do(task)
    writer.join(output)
    return output


def content(output: Path, *without: str) -> dict[str, bytes]:
    """All files that must be equal, byte for byte, for every way of running."""
    skip = {"world.json", "contact_sheet.png", *without}
    return {
        path.relative_to(output).as_posix(): path.read_bytes()
        for path in sorted(output.rglob("*"))
        if path.is_file() and not skip & set(path.relative_to(output).parts)
    }


def rows(output: Path, name: str = "truth.jsonl") -> list[dict]:
    return [json.loads(line) for line in (output / name).read_text().splitlines()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    return alone(tmp_path_factory.mktemp("world"), PEOPLE, IMAGES, INSTANTS)


def cargo(root: Path, split: str) -> list[tuple[int, int, str]]:
    """Person, camera and view of every image, as CARGO's loaders read them."""
    found = []
    for path in sorted((root / split).glob("Cam*/*.jpg")):
        fields = path.stem.split("_")
        assert re.fullmatch(r"Cam\d+_day_\d+_\d+", path.stem) and fields[0] == path.parent.name
        camera = int(fields[0].removeprefix("Cam"))
        assert 1 <= camera <= 13
        found.append((int(fields[2]), camera, "aerial" if camera <= 5 else "ground"))
    return found


def test_a_cargo_loader_reads_it(undisturbed):
    train, query, gallery = (cargo(undisturbed, split) for split in ("train", "query", "gallery"))
    assert {pid for pid, _, _ in train} == {0} and len(train) == IMAGES
    assert {pid for pid, _, _ in query} == {1} and len(query) + len(gallery) == IMAGES
    assert {view for _, _, view in query} == {"aerial", "ground"}
    for pid, camera, _ in query:
        assert any(pid == other and camera != seen for other, seen, _ in gallery)


def test_every_image_has_its_ground_truth(undisturbed):
    listed = rows(undisturbed)
    names = [row["file_name"] for row in listed]
    assert names == sorted(names) and next(iter(listed[0])) == "file_name"
    pictures = {p.relative_to(undisturbed).as_posix() for p in undisturbed.rglob("*.jpg")}
    assert set(names) == pictures and len(names) == PEOPLE * (IMAGES + 5 * INSTANTS)
    for row in listed:
        with Image.open(undisturbed / row["file_name"]) as image:
            assert image.size == (row["width"], row["height"]) and not image.getexif()
            assert b"algorithmicMedia" in image.info["xmp"]
        with Image.open(undisturbed / row["parts"]) as parts:
            assert parts.mode == "P" and parts.size == image.size
            labels = np.asarray(parts)
        assert labels.max() < len(LABELS) and ((labels > 0) & (labels < 10)).any()
        assert row["view"] == ("aerial" if row["camid"] <= 5 else "ground")
        assert f"Cam{row['camid']}" in row["file_name"]
        assert row["altitude"] > row["target_height"] > 0.6 and row["vfov"] > 0
        assert len(row["keypoints"]) == len(row["joints"]) == 21
        assert (row["instant"] != "") == (row["split"] == "paired")
    moments = defaultdict(list)
    for row in listed:
        if row["instant"]:
            moments[row["pid"]].append(row)
    for seen in moments.values():
        assert [row["view"] for row in seen].count("aerial") == 3 and len(seen) == 5
        assert all(row["joints"] == seen[0]["joints"] for row in seen)
    people = rows(undisturbed, "people.jsonl")
    assert [(p["pid"], p["split"]) for p in people] == [("0000", "train"), ("0001", "test")]
    assert all(p["caption"] and p["words"] and set(p["attributes"]) <= {0, 1} for p in people)


@pytest.mark.slow
def test_kills_and_workers_give_the_same_bytes(undisturbed, tmp_path, capfd):
    """Kill -9 in the middle; then the same command to the end, with two processes."""
    output = tmp_path / "out"
    context = multiprocessing.get_context("fork")  # a copy of this process has everything loaded
    process = context.Process(target=alone, args=(output, PEOPLE, IMAGES, INSTANTS))
    process.start()
    while not list(output.glob("*/*/*.jpg")):
        assert process.is_alive()
        time.sleep(0.002)
    process.kill()
    process.join()
    assert not (output / "truth.jsonl").exists()
    stray = output / "train" / "Cam1" / "Cam1_day_0000_77.jpg"
    stray.parent.mkdir(parents=True, exist_ok=True)
    stray.touch()
    (output / ".tmp-of-a-killed-write").touch()
    settings = {"seed": 0, "revision": 2, "chunk": 1, "code": code_digest(*world.CODE)}
    (output / "world.json").write_text(json.dumps({"format": 1, "settings": settings}))
    assert run(output, "--workers", "2") == 0
    assert content(output) == content(undisturbed)
    assert Image.open(output / "contact_sheet.png").width > 600
    said = capfd.readouterr().err
    assert "query" in said and "images/s" in said and "18 of them new" in said
    told = world.read(output)
    assert told["settings"] == settings and told["labels"] == list(LABELS)
    assert told["attributes"] and told["chunks"] == ["00000", "00001"]
    with pytest.raises(ValueError, match="seed: 0 there, 5 now"):
        run(output, "--seed", "5")
    other = told | {"settings": settings | {"code": "0" * 64}}
    (output / "world.json").write_text(json.dumps(other))
    with pytest.raises(ValueError, match="code: '0000"):
        run(output, "--people", "4")


def test_more_people_and_images_extend(undisturbed, tmp_path):
    alone(tmp_path, 1, 2, 0, chunk=8)
    before = content(tmp_path, "chunks", "truth.jsonl", "people.jsonl")
    assert len(before) == 2 * 2
    alone(tmp_path, PEOPLE, IMAGES, INSTANTS, chunk=8)
    assert content(tmp_path, "chunks") == content(undisturbed, "chunks")
    assert len(list((tmp_path / "chunks").iterdir())) == 2
    assert not writer.tasks(tmp_path, 1, 2, 0, 8), "less than there is, is nothing to do"


def test_a_fault_costs_one_person_and_is_retried(undisturbed, tmp_path, monkeypatch):
    taken = shots.render_shot

    def broken(seed, number, shot):
        if number == 0 and shot.instant:
            raise RuntimeError("a bug")
        return taken(seed, number, shot)

    monkeypatch.setattr(shots, "render_shot", broken)
    alone(tmp_path, PEOPLE, IMAGES, INSTANTS, chunk=8)
    _, lost = writer.join(tmp_path)
    assert [fault["pid"] for fault in lost] == ["0000"] and "a bug" in lost[0]["reason"]
    assert {row["pid"] for row in rows(tmp_path)} == {"0001"}
    assert not list((tmp_path / "train").rglob("*.jpg"))
    monkeypatch.undo()
    alone(tmp_path, PEOPLE, IMAGES, INSTANTS, chunk=8)
    assert not writer.join(tmp_path)[1]
    assert content(tmp_path, "chunks") == content(undisturbed, "chunks")


def test_a_fault_in_further_images_is_reported(tmp_path):
    (tmp_path / "chunks").mkdir()
    fault = {"pid": "0000", "reason": "a bug"}
    failed = {"people": {}, "faults": [fault]}
    first, last = ({"people": {"0": [count, 0]}, "faults": []} for count in (2, 4))
    told = []
    for k, head in enumerate((first, failed, failed, last)):
        path = tmp_path / "chunks" / (f"00000-{k}.jsonl" if k else "00000.jsonl")
        path.write_text(json.dumps({"part": head}) + "\n")
        told.append(writer.join(tmp_path)[1])
    assert told == [[], [fault], [fault], []]


def test_many_chunks_are_merged_few_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "OPEN", 3)
    (tmp_path / "chunks").mkdir()
    for k in range(20):
        head = {"part": {"people": {str(k): [2, 0]}, "faults": []}}
        person = {"person": {"pid": f"{k:04d}"}}
        names = sorted(f"train/Cam{c}/Cam{c}_day_{k:04d}_0.jpg" for c in (k % 12 + 1, 13))
        own = [{"file_name": name} for name in names]
        text = "".join(json.dumps(line) + "\n" for line in (head, person, *own))
        (tmp_path / "chunks" / f"{k:05d}.jsonl").write_text(text)
    counts, _ = writer.join(tmp_path)
    names = [row["file_name"] for row in rows(tmp_path)]
    assert names == sorted(names) and len(names) == 40 and counts["train", "Cam13"] == 20
    assert [row["pid"] for row in rows(tmp_path, "people.jsonl")] == [f"{k:04d}" for k in range(20)]
    assert not list(tmp_path.glob(".tmp-*"))


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--people", "0", r"people must be in \[1, 99999\]"),
        ("--people", "100000", r"people must be in \[1, 99999\]"),
        ("--images-per-person", "0", r"images_per_person must be in \[1, 10000\], got 0"),
        ("--instants", "-1", r"instants must be in"),
    ],
)
def test_wrong_numbers(option, value, words, tmp_path, capsys):
    with pytest.raises(SystemExit):
        config.parse(world.Config, ["--output", str(tmp_path), option, value], "world")
    assert re.search(words, capsys.readouterr().err)


def test_a_launcher_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="without a launcher"):
        run(tmp_path)


def test_folders_that_are_not_ours_and_disks_that_are_full(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"holds other things \(thesis.tex\)"):
        run(tmp_path)
    with pytest.raises(ValueError, match="make room, give another --output"):
        run(tmp_path / "new", "--people", "9999", "--images-per-person", "10000")
    with pytest.raises(FileNotFoundError, match="has no world.json"):
        world.read(tmp_path)
