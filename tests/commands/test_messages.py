# SPDX-License-Identifier: Apache-2.0
"""Errors name the file or row, what was expected, what was found, and what to do."""

from __future__ import annotations

import re
from functools import partial

import pytest

from viewsynth import config, manifest
from viewsynth.commands import compare, export, generate, probe, world
from viewsynth.records import Reject, to_dict
from viewsynth.report import sheet
from viewsynth.runtime import files


def refused(capsys, *argv: str) -> str:
    with pytest.raises(SystemExit) as ended:
        config.parse(generate.Config, argv, "generate")
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("none.yaml", None, ("does not exist", "give a YAML file")),
        ("folder.yaml", ..., ("is a folder", "give a YAML file")),
        (
            "large.yaml",
            b"a" * (1 + (1 << 20)),
            ("at most 1048576 bytes, got 1048577", "give"),
        ),
        ("list.yaml", b"[1, 2]", ("`key: value` lines", "got a list", "configs/")),
        ("torn.yaml", b"a: [1", ("not plain YAML", "line 1", "configs/")),
        ("bytes.yaml", b"\xff\xfe\x00", ("not plain YAML", "configs/")),
    ],
)
def test_presets(name, data, words, tmp_path, capsys):
    path = tmp_path / name
    if data is ...:
        path.mkdir()
    elif data is not None:
        path.write_bytes(data)
    said = refused(capsys, str(path))
    assert name in said and all(word in said for word in words), said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--data.root", "none"), ("data.root must be a folder", "does not exist", "give the")),
        (("--data.root", "x.jpg"), ("data.root must be a folder", "is a file", "give the path")),
        (("--weights.smplx", "none.npz"), ("SMPLX_NEUTRAL.npz", "not a file", "give its path")),
        (("--weights.smplx", "."), ("SMPLX_NEUTRAL.npz", "not a file", "leave it out")),
        (("--weights.pose", "none.tflite"), ("pose_landmark_full", "give the path", "omit")),
    ],
)
def test_missing_files(options, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.jpg").write_bytes(b"x")
    with pytest.raises(FileNotFoundError) as told:
        generate.check(config.parse(generate.Config, list(options), "generate"))
    assert options[1] in str(told.value) and all(word in str(told.value) for word in words)


@pytest.mark.parametrize(
    ("read", "words"),
    [
        (manifest.read, ("no run.json", "give a folder that `viewsynth generate` wrote")),
        (sheet.write_report, ("no run.json", "give a folder that `viewsynth generate` wrote")),
        (world.read, ("no world.json", "give a folder that `viewsynth world` wrote")),
        (
            partial(export.read_rows, kind="cargo"),
            ("no metadata.jsonl", "give the folder that `viewsynth generate` wrote"),
        ),
    ],
)
def test_folders_of_another_kind(read, words, tmp_path):
    with pytest.raises(FileNotFoundError) as told:
        read(tmp_path)
    assert all(word in str(told.value) for word in (str(tmp_path), *words))


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (1, b""),
        (1, b"[]\n"),
        (1, b'{"row": {}}\n'),
        (1, b'{"pa'),
        (2, b'{"row": {"file_na'),
        (2, b"\xff\n"),
        (3, b'"x"\n'),
    ],
)
def test_damaged_parts_are_named(number, line, tmp_path):
    task = manifest.Task("00000", "00000", (), (), ("e60_a0",))
    reject = to_dict(Reject(source="a.jpg", stage="judge", reason="dark"))
    manifest.write_part(tmp_path, task, [], [], [reject, reject])
    frozen = manifest.Frozen({}, tmp_path, chunks=[("00000", 0, 1)])
    assert manifest.read_rows(tmp_path, frozen) == ([], [reject, reject])
    path = tmp_path / "parts" / "00000.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[: number - 1]) + line)
    said = rf"00000\.jsonl:{number} is no line of a part: .*delete the file and run the same"
    with pytest.raises(ValueError, match=said):
        manifest.read_rows(tmp_path, frozen)


def test_words_of_arms_and_options_of_the_probe():
    with pytest.raises(ValueError, match=r"expected \"arm=words\", got '=real'; e\.g\."):
        compare.run(compare.Config("results", words=("a=b", "=real")))
    with pytest.raises(ValueError, match=r"got 'floor'; e"):
        compare.run(compare.Config("results", words=("floor",)))
    with pytest.raises(ValueError, match=r"missing: --model, --data\.synthetic$"):
        probe.run(probe.Config(data=probe.Data(root="x")))


def test_names_and_folders(tmp_path):
    with pytest.raises(ValueError, match="must not be empty, got ''; give the person a name"):
        files.folder_of("")
    for name in ("/etc/passwd", "../a.jpg", "a/../../b.jpg"):
        with pytest.raises(ValueError, match=f"{re.escape(repr(name))} leads out.*put the file"):
            files.path_inside(tmp_path, name)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="cannot make the folder .*file/out.*give another --out"):
        files.claim_folder(tmp_path / "file" / "out", set(), "run.json")
