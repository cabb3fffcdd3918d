# SPDX-License-Identifier: Apache-2.0
"""Runs of `generate`: resume, extension, refusal, faults; the images come from `drawing`."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import drawing
import pytest
from PIL import Image

from viewsynth import config
from viewsynth.commands import generate
from viewsynth.generate.options import Views
from viewsynth.records import Person

TESTS = Path(__file__).parents[1]
VIEWS = ("--views.elevations", "30", "60", "--views.azimuths", "0", "90")


def run(root: Path, output: Path, *options: str) -> int:
    """`generate` in this process."""
    argv = ["--data.root", str(root), "--output", str(output), "--chunk", "2", *options]
    argv += [] if "--workers" in options else ["--workers", "1"]
    argv += [] if "--views.elevations" in options or "--views.sample" in options else VIEWS
    parsed = config.parse(generate.Config, argv, "drawing")
    return generate.run(parsed, drawing.prepare, drawing.load, drawing.make)


def start(root: Path, output: Path, *options: str, launch=(), env=None, **popen):
    """`generate` as a program, in a process group of its own."""
    argv = [
        *(launch or [sys.executable]),
        str(TESTS / "helpers/drawing.py"),
        "--data.root",
        str(root),
    ]
    argv += ["--output", str(output), "--chunk", "2", *VIEWS, *options]
    paths = os.pathsep.join([str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": paths, **(env or {})}
    return subprocess.Popen(
        argv,
        env=env,
        start_new_session=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        **popen,
    )


def content(output: Path) -> dict[str, bytes]:
    """All files of a run that must be equal, byte for byte, for every way of running it."""
    return {
        path.relative_to(output).as_posix(): path.read_bytes()
        for path in sorted(output.rglob("*"))
        if path.is_file() and path.name not in ("run.json", "config.yaml")
    }


def rows(output: Path, name: str = "metadata.jsonl") -> list[dict]:
    return [json.loads(line) for line in (output / name).read_text().splitlines()]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return drawing.photos(tmp_path_factory.mktemp("photos"), [f"p{i}/a.jpg" for i in range(7)])


@pytest.fixture(scope="module")
def undisturbed(photos, tmp_path_factory):
    output = tmp_path_factory.mktemp("undisturbed")
    assert run(photos, output, "--workers", "1") == 0
    return output


def test_files_of_a_run(undisturbed):
    assert {p.name for p in undisturbed.iterdir()} == generate.OURS - {"ranks", ".gitkeep"}
    listed = rows(undisturbed)
    assert len(listed) == 7 * 4 and next(iter(listed[0])) == "file_name"
    assert listed == sorted(listed, key=lambda row: row["file_name"])
    for row in listed:
        with Image.open(undisturbed / row["file_name"]) as image:
            assert not image.getexif() and b"compositeSynthetic" in image.info["xmp"]
        with Image.open(undisturbed / row["seen_file_name"]) as seen:
            assert seen.mode == "L" and seen.size == image.size
        assert Person.load(undisturbed / row["person"]).pid == row["pid"]
    page = (undisturbed / "report" / "index.html").read_text()
    assert "contact_sheet.png" in page and "p6" in page
    assert config.parse(generate.Config, [str(undisturbed / "config.yaml")]).chunk == 2


@pytest.mark.slow
def test_workers_and_processes_give_the_same_bytes(photos, undisturbed, tmp_path):
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    launch += ["--num_processes", "2"]
    port = str(20000 + os.getpid() % 20000)
    process = start(
        photos,
        tmp_path / "out",
        "--workers",
        "2",
        launch=[*launch, "--main_process_port", port],
        env={"ACCELERATE_USE_CPU": "1"},
    )
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert said.count("7 people of 7 done") == 1
    assert content(tmp_path / "out") == content(undisturbed)


@pytest.mark.slow
def test_kills_and_resumes(photos, undisturbed, tmp_path):
    """Kill -9 of all processes, twice; then the same command to the end."""
    output, slow = tmp_path / "out", {"DRAWING_SECONDS": "0.05"}
    for parts in (1, 3):
        process = start(photos, output, env=slow)
        while len(list(output.glob("parts/*.jsonl"))) < parts:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    (output / "images" / "p0").mkdir(parents=True, exist_ok=True)
    (output / "images" / "p0" / ".tmp-of-a-killed-write").touch()
    assert not (output / "metadata.jsonl").exists()
    assert run(photos, output) == 0
    assert content(output) == content(undisturbed)


def test_reading_options_are_stored_if_given(photos, tmp_path):
    def kept(*options):
        argv = ["--data.root", str(photos), *options]
        return generate.settings_of(config.parse(generate.Config, argv, "generate"), "cpu")["data"]

    assert not {"form", "box", "elevation"} & kept().keys()
    assert kept("--data.box", "xywh", "--data.form", "table") == kept() | {
        "box": "xywh",
        "form": "table",
    }


def test_workers_end_with_their_parent(photos, tmp_path):
    process = start(photos, tmp_path / "out", env={"DRAWING_SECONDS": "0.5"})
    while not (children := _children(process.pid)):
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(1)
    children |= _children(process.pid)
    process.kill()
    process.wait()
    until = time.time() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in children):
        assert time.time() < until, "workers outlive their parent"
        time.sleep(0.1)


def _children(pid: int) -> set[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    if not path.exists():
        pytest.skip("no /proc with children here")
    return {int(child) for child in path.read_text().split()}


def test_another_configuration_is_refused(photos, undisturbed):
    before = content(undisturbed)
    with pytest.raises(ValueError, match=r"seed: 0 there, 5 now"):
        run(photos, undisturbed, "--seed", "5")
    with pytest.raises(ValueError, match=r"pose.mode: 'relaxed' there, 'walk' now"):
        run(photos, undisturbed, "--pose.mode", "walk")
    assert content(undisturbed) == before


def test_the_demo_reads_the_people_that_it_renders(tmp_path):
    argv = ["--data.people", "1", "--output", str(tmp_path / "run")]
    root, samples, rejects = generate._input(config.parse(generate.Config, argv, "generate"))
    assert not rejects
    assert len(samples) == len(list(root.rglob("*.jpg"))) > 1


def test_more_views_and_more_people_extend(photos, undisturbed, tmp_path):
    output, root = tmp_path / "out", tmp_path / "photos"
    drawing.photos(root, [f"p{i}/a.jpg" for i in range(6)])
    run(root, output, "--views.elevations", "30", "--views.azimuths", "0", "90")
    drawing.photos(root, ["p6/a.jpg"])
    assert run(root, output) == 0
    assert [row["file_name"] for row in rows(output)] == [r["file_name"] for r in rows(undisturbed)]
    assert (output / "metadata.jsonl").read_bytes() == (undisturbed / "metadata.jsonl").read_bytes()
    before = content(output)
    assert run(root, output, "--views.sample", "2") == 0
    after = content(output)
    assert len(rows(output)) == 7 * 6
    assert all(after[name] == data for name, data in before.items() if name.startswith("images"))


def test_faults_are_retried_and_quality_rejects_are_not(tmp_path):
    names = ["a/a.jpg", "b/a.jpg", "c/fault.jpg", "d/a.jpg", "e/bad.jpg", "f/a.jpg"]
    root, output = drawing.photos(tmp_path / "photos", names), tmp_path / "out"
    assert run(root, output) == 1  # two of six people are lost to a fault
    assert {(r["pid"], r["kind"]) for r in rows(output, "rejects.jsonl")} == {
        ("c", "fault"),
        ("d", "fault"),
        ("e", "quality"),
    }
    assert "cannot draw fault.jpg" in (output / "rejects.jsonl").read_text()
    (root / "c" / ".mended").touch()
    assert run(root, output) == 1  # without the flag nothing is retried
    untouched = (output / "parts" / "00002.jsonl").stat().st_mtime_ns
    assert run(root, output, "--retry-failed") == 0
    assert (output / "parts" / "00002.jsonl").stat().st_mtime_ns == untouched
    assert {r["pid"] for r in rows(output)} == set("abcdf")
    assert [r["pid"] for r in rows(output, "rejects.jsonl")] == ["e"]


def test_a_dead_worker_is_reported_and_its_chunk_done_by_the_next_run(tmp_path, capfd):
    names = ["a/a.jpg", "b/a.jpg", "c/die.jpg", "d/a.jpg", "e/a.jpg"]
    root, output = drawing.photos(tmp_path / "photos", names), tmp_path / "out"
    assert run(root, output, "--workers", "1") == 1
    assert "out of memory?" in capfd.readouterr().err
    assert {r["pid"] for r in rows(output)} == set("abe")
    (root / "c" / ".mended").touch()
    assert run(root, output) == 0
    assert {r["pid"] for r in rows(output)} == set("abcde")


def test_a_full_disk_loses_nothing(photos, undisturbed, tmp_path):
    """Files may not exceed 4 kB: parts and page do not fit, images do."""
    output = tmp_path / "out"
    process = start(
        photos,
        output,
        "--workers",
        "1",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000)),
    )
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 2 and "error: cannot write" in said and "Traceback" not in said
    assert not list(output.rglob(".tmp-*"))
    assert run(photos, output) == 0
    assert content(output) == content(undisturbed)


def test_folders_that_are_not_ours(photos, tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"holds other things \(thesis.tex\)"):
        run(photos, tmp_path)
    with pytest.raises(ValueError, match="must not be inside data.root"):
        run(photos, photos / "out")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        run(photos / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no images"):
        run(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(ValueError, match=r"data: unknown \(unknown\)"):
        run(photos, tmp_path / "out", "--commercial")


def test_camera_names():
    views = Views(elevations=(30.0, 22.5), azimuths=(-90.0, 270.0, 0.0))
    assert views.names() == ("e30_a270", "e30_a0", "e22.5_a270", "e22.5_a0")
    from viewsynth.generate.chunk import camera

    assert camera("e22.5_a270", 0, "p") == (22.5, 270)
    sampled = Views(sample=200, range=(25.0, 90.0)).names()
    drawn = [camera(name, 0, "p") for name in sampled]
    assert drawn[:3] == [camera(name, 0, "p") for name in Views(sample=3).names()]
    assert all(25 <= e <= 90 and 0 <= a <= 360 for e, a in drawn)
    assert min(e for e, _ in drawn) < 30 and max(e for e, _ in drawn) > 85
    assert camera(sampled[0], 0, "q") != drawn[0] != camera(sampled[0], 1, "p")
