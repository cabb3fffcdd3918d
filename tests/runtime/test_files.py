# SPDX-License-Identifier: Apache-2.0
"""File names, atomic writes and checksums."""

from __future__ import annotations

import errno
import re
import resource
import subprocess
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from viewsynth.runtime import files

pids = st.text(min_size=1, max_size=14) | st.text("_/.~%aA+\0", min_size=1, max_size=12)


@settings(deadline=None)
@given(pids)
@example("..")
@example("a__b")
@example("a_/b")
@example("a/_b")
@example("//")
@example("\0")
@example("cargo/2519")
def test_pid_of_inverts_folder_of(pid):
    name = files.folder_of(pid)
    assert re.fullmatch(r"[A-Za-z0-9._%-]+", name) and not name.startswith((".", "-"))
    assert files.pid_of(name) == pid


@settings(deadline=None)
@given(st.text("ab_/é", min_size=150, max_size=400), st.text("ab_/é", min_size=150, max_size=400))
def test_long_names_are_shortened_and_stay_different(a, b):
    one, two = files.stem_of(a, b), files.stem_of(b, a)
    assert len((one + ".safetensors").encode()) <= 255
    assert (one == two) == (a == b)
    assert len(files.folder_of(a)) <= files.LONGEST


def test_known_names():
    assert files.folder_of("cargo/2519") == "cargo__2519"
    assert files.folder_of("..") == "%2E%2E"
    assert files.folder_of("Ä b") == "%C3%84%20b"
    assert files.stem_of("a", "red") == "a+red"
    with pytest.raises(ValueError, match="empty"):
        files.folder_of("")


def test_write_is_atomic(tmp_path):
    path = tmp_path / "a" / "b.bin"
    files.write(path, b"one")
    files.write(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["b.bin"]
    with pytest.raises(files.WriteError, match="cannot write"):
        files.write(path / "below", b"x")


def test_write_reports_a_full_disk(tmp_path):
    """With a real limit of the operating system, set in a child process."""
    code = (
        "import sys; from pathlib import Path; from viewsynth.runtime import files\n"
        "try: files.write(Path(sys.argv[1]), b'x' * 5000)\n"
        "except files.WriteError as e: print(e.__cause__.errno, e)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "big")],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
    )
    assert done.stdout.startswith(f"{errno.EFBIG} cannot write") and "run the same" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_clean_removes_only_unfinished_files(tmp_path):
    (tmp_path / "images" / "p").mkdir(parents=True)
    (tmp_path / "images" / "p" / f"{files.LEFTOVER}abc").touch()
    files.write(tmp_path / "images" / "p" / "e30_a0.jpg", b"x")
    assert files.clean(tmp_path) == 1
    assert [p.name for p in (tmp_path / "images" / "p").iterdir()] == ["e30_a0.jpg"]


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "link/x", "link"])
def test_inside_rejects_paths_out_of_the_root(tmp_path, name):
    (tmp_path / "link").symlink_to("/etc")
    with pytest.raises(ValueError, match="leads out"):
        files.path_inside(tmp_path, name)
    assert files.path_inside(tmp_path, "a/b.jpg") == tmp_path / "a" / "b.jpg"


def test_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert files.sha256(tmp_path / "a").startswith("ba7816bf8f01cfea")
    assert files.sha256(tmp_path / "none") == ""
