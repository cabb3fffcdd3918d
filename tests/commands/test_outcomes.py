# SPDX-License-Identifier: Apache-2.0
"""The outcome of a run: sources of a person's texture, reasons and the exit status."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import drawing
import numpy as np
import pytest

from viewsynth import config
from viewsynth.commands import generate
from viewsynth.diffusion import refine
from viewsynth.generate import chunk, worker
from viewsynth.records import Person, View
from viewsynth.report import sheet
from viewsynth.runtime.images import jpeg


def run(root: Path, output: Path, *options: str) -> int:
    argv = ["--data.root", str(root), "--output", str(output), "--workers", "1", *options]
    argv += ["--views.elevations", "60", "--views.azimuths", "0"]
    parsed = config.parse(generate.Config, argv, "drawing")
    return generate.run(parsed, drawing.prepare, drawing.load, drawing.make)


# ---- the exit status -------------------------------------------------------------------------


def test_a_run_without_views_fails_every_time(tmp_path, capsys):
    root = drawing.photos(tmp_path / "root", [f"p{i}/bad.jpg" for i in range(3)])
    for session in range(2):  # in the second session no task is left
        assert run(root, tmp_path / "out") == 1
        said = capsys.readouterr().err
        assert "0 people of 3 done" in said, session
        assert "failed: no view was kept; most often: parse: no person in it" in said
        assert said.index("3 x parse: no person in it") < said.index("failed:")
    assert json.loads((tmp_path / "out" / "run.json").read_text())["people"]


def test_one_person_with_views_is_a_success(tmp_path, capsys):
    names = ["p0/a.jpg", *(f"p{i}/bad.jpg" for i in range(1, 4))]
    assert run(drawing.photos(tmp_path / "root", names), tmp_path / "out") == 0
    assert "failed" not in capsys.readouterr().err


def test_unusable_images_only(tmp_path, capsys):
    """Rejected while reading the data: rows of missing images."""
    rows = "file_name,pid\ngone.jpg,anna\nlost.jpg,ben\n../out.jpg,carl\n"
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "metadata.csv").write_text(rows)
    status = run(tmp_path / "root", tmp_path / "out")
    said = capsys.readouterr().err
    assert status == 1 and "failed: no view was kept; most often: input: " in said


def test_people_lost_to_faults_can_be_retried(tmp_path, capsys):
    root = drawing.photos(tmp_path / "root", ["p0/fault.jpg", "p1/fault.jpg"])
    assert run(root, tmp_path / "out", "--chunk", "1") == 1
    said = capsys.readouterr().err
    assert "--retry-failed" in said and "no view was kept; most often: chunk: " in said
    for name in ("p0", "p1"):
        (root / name / ".mended").touch()
    assert run(root, tmp_path / "out", "--chunk", "1", "--retry-failed") == 0


def test_aerial_images_only_are_refused(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.jpg").write_bytes(jpeg(np.full((60, 30, 3), 90, np.uint8)))
    (root / "metadata.csv").write_text("file_name,pid,view\na.jpg,anna,aerial\n")
    with pytest.raises(ValueError, match="no ground image.*all 1 are aerial .*correct"):
        run(root, tmp_path / "out")


def reject(reason: str, stage: str = "judge", kind: str = "quality") -> dict:
    return {"stage": stage, "reason": reason, "kind": kind}


def test_reasons_that_differ_in_numbers_or_names_count_as_one():
    found = sheet.reasons(
        [reject("too dark")] * 3
        + [reject(f"only {share}% of the body was seen") for share in (3, 4, 5, 6.5)]
        + [reject(f"nobody says which one is '{who}'", "find") for who in ("a", "b")]
        + [reject("nobody says which one is 'c'", "parse")]
        + [reject("pictures from above are not used (9)", "input", "skipped")] * 9
    )
    assert found == [
        ("judge: only 3% of the body was seen", 4),
        ("judge: too dark", 3),
        ("find: nobody says which one is 'a'", 2),
        ("parse: nobody says which one is 'c'", 1),
        ("input: pictures from above are not used (9)", 9),
    ]
    assert sheet.reasons([]) == []


# ---- sources of a texture --------------------------------------------------------------------


def person(**used: bool | None) -> Person:
    """A person whose sources say which crops were used; None = they do not, as in old files."""
    sources = [
        {"file": f"{camid}.jpg", "sha256": camid, "camid": camid}
        | ({} if was is None else {"used": was})
        for camid, was in used.items()
    ]
    empty = np.zeros(3, np.float32)
    return Person(
        pid="p",
        body="anny",
        shape=empty,
        pose=np.zeros((1, 3), np.float32),
        offsets=empty,
        scale=1.0,
        texture=np.zeros((8, 8, 3), np.uint8),
        seen=np.full((8, 8), 255, np.uint8),
        quality=defaultdict(lambda: 1.0, flags=[]),
        sources=sources,
    )


def row_of(one: Person, side: int = 40):
    image = np.full((side, side, 3), 90, np.uint8)
    whole = np.ones((side, side), bool)
    view = View(
        pid="p",
        image=image,
        seen=255 * whole.astype(np.uint8),
        mask=whole,
        elevation=47.0,
        azimuth=0.0,
        distance=20.0,
        target_height=0.9,
        vfov=40.0,
        box=(0, 0, side, side),
    )
    job = worker.Job(Path("run"), Path("root"), generate.Config(), "cpu", {}, {}, {})
    return chunk._row(one, "", "e47_a0", view, job)


@pytest.mark.parametrize(
    ("used", "camid", "files"),
    [
        ({"c1": False, "w1": True}, "w1:e45", ["w1.jpg"]),
        ({"c1": True, "w1": True}, "c1+w1:e45", ["c1.jpg", "w1.jpg"]),
        ({"c2": True, "c1": False, "c0": True}, "c0+c2:e45", ["c2.jpg", "c0.jpg"]),
        ({"c1": None, "w1": False}, "c1:e45", ["c1.jpg"]),
    ],
)
def test_a_virtual_camera_names_the_used_sources(used, camid, files):
    row, rejected = row_of(person(**used))
    assert rejected is None and row["camid"] == camid
    assert [source["file"] for source in row["sources"]] == files
    assert [one["file"] for one in refine.used_sources(person(**used))] == files


def test_a_rejected_view_names_a_used_source():
    row, rejected = row_of(person(c1=False, w1=True), side=3)
    assert not row and rejected.source == "w1.jpg e47_a0"
