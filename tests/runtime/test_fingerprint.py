# SPDX-License-Identifier: Apache-2.0
"""Fingerprints of inputs: a replaced file is detected, a touched one is not a change."""

from __future__ import annotations

import hashlib
import json
import logging

import pytest
from file_changes import copied, replaced, touched

from viewsynth.runtime import fingerprint
from viewsynth.runtime.files import sha256


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    for name in "abcd":
        (folder / f"{name}.jpg").write_bytes(name.encode() * 100)
    return folder


def inputs(folder, **about) -> dict:
    return {path.name: (path, {"pid": "1", **about}) for path in sorted(folder.glob("*.jpg"))}


# ---- digests -------------------------------------------------------------------------------------


def test_digests_depend_on_the_content_only(files, tmp_path):
    paths = [*sorted(files.glob("*.jpg")), files / "none.jpg", files / "a.jpg"]
    found = fingerprint.digests(paths, tmp_path / "store")
    assert found == [sha256(path) for path in paths] and found[4] == "" and found[0] == found[5]
    assert found[0] == hashlib.sha256(b"a" * 100).hexdigest()
    for change in (touched, copied):
        change(paths[1])
        assert fingerprint.digests(paths, tmp_path / "store") == found
    for number, change in enumerate((replaced, lambda path, data: path.write_bytes(data)), 2):
        change(paths[number], b"something else")
        found[number] = sha256(paths[number])
        assert fingerprint.digests(paths, tmp_path / "store") == found
    paths[4].write_bytes(b"there is one now")
    assert fingerprint.digests(paths, tmp_path / "store")[4] == sha256(paths[4])
    assert len(list((tmp_path / "store").iterdir())) == 1
    fingerprint.digests(paths[:2], tmp_path / "store")
    assert len(list((tmp_path / "store").iterdir())) == 2, "another selection has its own list"


def test_unchanged_files_are_not_read_again(files, tmp_path):
    """Shown by a stored list with wrong hashes, which are returned."""
    paths = sorted(files.glob("*.jpg"))
    true = fingerprint.digests(paths, tmp_path)
    (store,) = tmp_path.glob("*.jsonl")
    rows = [json.loads(row) for row in store.read_text().splitlines()]
    for row in rows:
        row["sha256"] = "known"
    store.write_text("".join(json.dumps(row) + "\n" for row in rows))
    touched(paths[1])
    assert fingerprint.digests(paths, tmp_path) == ["known", true[1], "known", "known"]
    for broken in ("", "{", '{"name": "a"}\n', "[1]\n", "\udcff"):
        store.write_text(broken, errors="surrogateescape")
        assert fingerprint.digests(paths, tmp_path) == true


# ---- runs ----------------------------------------------------------------------------------------


def begin(files, run) -> None:
    fingerprint.keep(run, fingerprint.compare(run, inputs(files), False))


def test_unchanged_inputs_are_accepted(files, tmp_path):
    begin(files, tmp_path)
    first = (tmp_path / fingerprint.RECORD).read_bytes()
    assert [json.loads(row)["name"] for row in first.splitlines()] == [f"{n}.jpg" for n in "abcd"]
    fingerprint.keep(tmp_path, fingerprint.compare(tmp_path, inputs(files), True))
    assert (tmp_path / fingerprint.RECORD).read_bytes() == first
    touched(files / "a.jpg")
    copied(files / "b.jpg")
    fingerprint.keep(tmp_path, fingerprint.compare(tmp_path, inputs(files), True))
    assert (tmp_path / fingerprint.RECORD).read_bytes() != first, "the new times are stored"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "a.jpg").write_bytes(b"!"), r"1 changed \(a.jpg\)"),
        (lambda f: replaced(f / "c.jpg", b"!"), r"1 changed \(c.jpg\)"),
        (lambda f: (f / "b.jpg").unlink(), r"1 gone \(b.jpg\)"),
        (lambda f: (f / "new.jpg").write_bytes(b"!"), r"1 new \(new.jpg\)"),
        (lambda f: (f / "b.jpg").rename(f / "z.jpg"), r"1 gone \(b.jpg\); 1 new \(z.jpg\)"),
        (
            lambda f: [path.write_bytes(b"!") for path in f.glob("*.jpg")],
            r"4 changed \(a.jpg, b.jpg, c.jpg, …\)",
        ),
    ],
)
def test_changed_inputs_are_refused_by_name(files, tmp_path, change, message):
    begin(files, tmp_path)
    before = (tmp_path / fingerprint.RECORD).read_bytes()
    change(files)
    with pytest.raises(ValueError, match=rf"begun with other files .*{message}; put them back"):
        fingerprint.compare(tmp_path, inputs(files), True)
    assert (tmp_path / fingerprint.RECORD).read_bytes() == before
    fingerprint.compare(tmp_path, inputs(files), False)  # the run has not used them yet


def test_changed_properties_are_refused(files, tmp_path):
    begin(files, tmp_path)
    listed = inputs(files)
    listed["c.jpg"] = (files / "c.jpg", {"pid": "2", "box": (1, 2, 3, 4)})
    with pytest.raises(ValueError, match=r"1 described otherwise \(c.jpg, pid: '1' there, '2' now"):
        fingerprint.compare(tmp_path, listed, True)
    fingerprint.keep(tmp_path, fingerprint.compare(tmp_path, listed, False))
    fingerprint.compare(tmp_path, listed, True)  # a tuple equals the list that JSON stores


def test_files_that_became_readable_need_a_new_run(files, tmp_path):
    """As after installing a decoder: there is no earlier state to restore."""
    listed = inputs(files)
    for readable in (False, True):
        listed["c.jpg"] = (files / "c.jpg", {"readable": readable})
        if not readable:
            fingerprint.keep(tmp_path, fingerprint.compare(tmp_path, listed, False))
    message = r"1 that could not be read then and can be now \(c.jpg\); give another --output"
    with pytest.raises(ValueError, match=f"than there are now: {message}"):
        fingerprint.compare(tmp_path, listed, True)
    (files / "a.jpg").write_bytes(b"!")
    with pytest.raises(ValueError, match="1 changed .*; put them back as they were, or give"):
        fingerprint.compare(tmp_path, listed, True)


def test_inputs_may_be_added_unless_fixed(files, tmp_path):
    begin(files, tmp_path)
    few = {name: listed for name, listed in inputs(files).items() if name < "c"}
    fingerprint.keep(tmp_path, fingerprint.compare(tmp_path, few, True, fixed=False))
    (files / "more.jpg").write_bytes(b"!")
    fingerprint.compare(tmp_path, inputs(files), True, fixed=False)
    (files / "d.jpg").write_bytes(b"!")
    with pytest.raises(ValueError, match=r"1 changed \(d.jpg\)"):
        fingerprint.compare(tmp_path, inputs(files), True, fixed=False)
    gone = inputs(files)
    (files / "a.jpg").unlink()
    with pytest.raises(ValueError, match=r"1 changed \(d.jpg\); 1 gone \(a.jpg\)"):
        fingerprint.compare(tmp_path, gone, True, fixed=False)


def test_a_missing_record_is_reported(files, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        fingerprint.compare(tmp_path, inputs(files), True)
    assert "inputs.jsonl is not there or cannot be read" in caplog.text
