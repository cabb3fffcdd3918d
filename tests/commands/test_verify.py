# SPDX-License-Identifier: Apache-2.0
"""`verify`: faults that were planted in a finished run are found and named."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import drawing
import numpy as np
import pytest
from PIL import Image

from viewsynth import config, manifest
from viewsynth.commands import generate, verify
from viewsynth.manifest import frozen

VIEWS = ("--views.elevations", "30", "60", "--views.azimuths", "0")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return drawing.photos(tmp_path_factory.mktemp("photos"), [f"p{i}/a.jpg" for i in range(3)])


@pytest.fixture(scope="module")
def whole(photos, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole")
    argv = ["--data.root", photos, "--output", output, "--chunk", 2, "--workers", 1, *VIEWS]
    parsed = config.parse(generate.Config, [str(word) for word in argv], "drawing")
    assert generate.run(parsed, drawing.prepare, drawing.load, drawing.make) == 0
    return output


@pytest.fixture
def run(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def found(run: Path) -> list[str]:
    problems, notes = manifest.verify(run)
    assert not notes
    return [f"{one.where}: {one.what}" for one in problems]


def edit(path: Path, change) -> None:
    path.write_text(change(path.read_text()))


def rows(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metadata.jsonl").read_text().splitlines()]


def put_rows(run: Path, changed: list[dict]) -> None:
    (run / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in changed))


def test_a_whole_run_has_no_differences(whole, capsys):
    assert found(whole) == []
    asked = config.parse(verify.Config, [str(whole), "--chunks", "0"], "verify")
    assert verify.run(asked) == 0
    assert "19 files: no difference" in capsys.readouterr().err
    done = subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=whole)
    assert done.returncode == 0  # other tools check the files, too


def test_derived_files_may_be_made_again(run):
    shutil.rmtree(run / "report")
    (run / "contact_sheet.png").unlink()
    (run / "export" / "cargo").mkdir(parents=True)
    (run / "export" / "cargo" / "a.jpg").touch()
    assert found(run) == []


def a_byte(run):
    path = run / rows(run)[0]["file_name"]
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    return "images/p0/e30_a0.jpg: is not the file that was written"


def a_lost_row(run):
    put_rows(run, rows(run)[1:])
    return "metadata.jsonl (images/p0/e30_a0.jpg): a row of its part is lost"


def swapped_identities(run):
    changed = rows(run)
    first, last = changed[0], changed[-1]
    first["pid"], last["pid"] = last["pid"], first["pid"]
    put_rows(run, changed)
    return "metadata.jsonl:1 (images/p0/e30_a0.jpg): was edited: pid differ"


def a_foreign_picture(run):
    noise = np.random.default_rng(0).integers(0, 256, (60, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(run / "images/p1/e60_a0.jpg")
    return "images/p1/e60_a0.jpg: is not the file that was written"


def an_edited_weight(run):
    changed = rows(run)
    changed[2]["weight"] = 0.9
    put_rows(run, changed)
    return "metadata.jsonl:3 (images/p1/e30_a0.jpg): was edited: weight differ"


def a_missing_seen_map(run):
    (run / "seen/p2/e30_a0.png").unlink()
    return "seen/p2/e30_a0.png: is missing"


def an_edited_run_json(run):
    edit(run / "run.json", lambda text: text.replace('"seed": 0', '"seed": 1'))
    return "run.json: settings, people or chunks were edited"


def a_broken_person_file(run):
    path = run / "people/p0.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    return "people/p0.safetensors: is not the file that was written"


def an_extra_file(run):
    shutil.copy(run / "images/p0/e30_a0.jpg", run / "images/p0/e99_a0.jpg")
    return "images/p0/e99_a0.jpg: belongs to no row of this run"


PLANTED = [
    *(a_byte, a_lost_row, swapped_identities, a_foreign_picture, an_edited_weight),
    *(a_missing_seen_map, an_edited_run_json, a_broken_person_file, an_extra_file),
]


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_planted_faults(run, plant, capsys):
    expected = plant(run)
    problems = found(run)
    assert any(problem.startswith(expected) for problem in problems), problems
    asked = config.parse(verify.Config, [str(run)], "verify")
    assert verify.run(asked) == 1
    told = capsys.readouterr()
    assert expected in told.out and "nothing was rendered again" in told.err


def test_a_changed_photo(photos, whole):
    path = photos / "p1" / "a.jpg"
    data = path.read_bytes()
    try:
        path.write_bytes(data + b" ")
        assert found(whole) == [f"{path}: this photo has changed"]
        path.unlink()
        assert found(whole) == [f"{path}: this photo is gone"]
    finally:
        path.write_bytes(data)


def test_rows_that_contradict_the_run(run):
    """Edited in the rows and in their parts, so that only the contents tell."""

    def change(text: str) -> str:
        return text.replace('"pid": "p1"', '"pid": "p7"').replace('"seed": 0', '"seed": 3')

    for path in (run / "metadata.jsonl", *(run / "parts").glob("*")):
        edit(path, change)
    own = manifest.read(run)
    joined, _ = manifest.read_rows(run, own)
    manifest.write_sums(run, own, joined)
    problems = found(run)
    name = "images/p1/e30_a0.jpg"
    assert f"{name}: its person p7 is not in the input list of run.json" in problems
    assert f"{name}: the file names are not those of its person, p7" in problems
    assert f"{name}: its seed is 3, that of run.json another" in problems


def test_runs_that_are_not_finished(run, tmp_path):
    (run / "SHA256SUMS").unlink()
    with pytest.raises(FileNotFoundError, match="it is not finished; run `viewsynth generate`"):
        manifest.verify(run)
    with pytest.raises(FileNotFoundError, match="is no run of viewsynth"):
        manifest.verify(tmp_path)
    (run / "SHA256SUMS").write_text("abc\n")
    with pytest.raises(ValueError, match="SHA256SUMS:1 is no line of sha256sum"):
        manifest.verify(run)


def test_the_hash_of_the_input_list_is_of_what_decides(whole):
    tree = json.loads((whole / "run.json").read_text())
    facts = tree | {"facts": {}, "sha256": ""}
    assert frozen.digest(facts) == tree["sha256"]
    assert frozen.digest(tree | {"rejects": [{}]}) != tree["sha256"]


@pytest.mark.slow
def test_views_rendered_again(tools, tmp_path, capsys):
    output = tmp_path / "run"
    argv = ["--data.people", 1, "--output", output, "--workers", 1, *VIEWS, "--report", "no"]
    parsed = config.parse(generate.Config, [str(word) for word in argv], "generate")
    assert generate.run(parsed) == 0
    # A picture that was replaced, with its hash in rows, parts and sums.
    name = rows(output)[0]["file_name"]
    old = rows(output)[0]["sha256"]
    shutil.copy(output / rows(output)[1]["file_name"], output / name)
    new = rows(output)[1]["sha256"]
    for path in (output / "metadata.jsonl", *(output / "parts").glob("*")):
        edit(path, lambda text: text.replace(old, new))
    own = manifest.read(output)
    joined, _ = manifest.read_rows(output, own)
    manifest.write_sums(output, own, joined)
    assert verify.run(config.parse(verify.Config, [str(output)], "verify")) == 1
    told = capsys.readouterr()
    assert told.out == f"{name}: rendered again, it differs: sha256\n"  # the other one is equal
    assert "2 views rendered again: differences: 1" in told.err
