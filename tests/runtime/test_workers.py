# SPDX-License-Identifier: Apache-2.0
"""Worker processes: every item is processed once, and deaths are reported."""

from __future__ import annotations

import os
import signal

import pytest

from viewsynth.runtime.workers import ONE_THREAD, FatalError, Progress, run_items


def start(folder):
    if folder is None:
        raise OSError("no tools")
    return lambda item: process(folder, item)


def process(folder, item):
    if item == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if item == "raise":
        raise KeyError("a bug")
    (folder / str(item)).write_text(" ".join(os.environ[name] for name in ONE_THREAD))


def outcomes(items, folder, workers):
    return {item[0]: item[1] for item in run_items(items, start, (folder,), workers) if item}


def test_every_item_is_processed_once(tmp_path):
    assert outcomes(list(range(7)), tmp_path, 2) == dict.fromkeys(range(7), "")
    assert sorted(p.name for p in tmp_path.iterdir()) == [str(i) for i in range(7)]
    assert (tmp_path / "3").read_text() == "1 1 1 1"
    assert outcomes([], tmp_path, 2) == {}


def test_a_dead_worker_loses_only_its_item(tmp_path):
    got = outcomes([1, "die", 2, 3], tmp_path, 1)
    assert "SIGKILL" in got.pop("die") and got == {1: "", 2: "", 3: ""}


def test_faults_of_every_item_stop_the_workers(tmp_path):
    with pytest.raises(FatalError, match="no tools"):
        outcomes([1, 2], None, 2)
    with pytest.raises(FatalError, match="a bug"):
        outcomes([1, "raise"], tmp_path, 1)
    with pytest.raises(FatalError, match="3 workers in a row"):
        outcomes(["die"] * 9, tmp_path, 1)


def test_progress_counts_new_and_replaced_files(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("x")
    with Progress({old: 3, new: 4}) as progress:
        progress.update()
        assert progress.bar.n == 0
        new.write_text("y")
        progress.update()
        (tmp_path / "t").write_text("z")
        (tmp_path / "t").replace(old)
        progress.update()
        progress.update()
        assert progress.bar.n == 7
