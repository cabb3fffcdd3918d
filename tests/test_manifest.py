# SPDX-License-Identifier: Apache-2.0
"""The frozen input list, chunks, parts and remaining tasks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from drawing import photos
from hypothesis import given, settings
from hypothesis import strategies as st

from viewsynth import manifest
from viewsynth.data import folder
from viewsynth.records import Reject, Sample, to_dict

SETTINGS = {"seed": 0, "pose": {"mode": "relaxed"}}


def freeze(run: Path, root: Path, chunk=2, settings=SETTINGS) -> manifest.Frozen:
    run.mkdir(exist_ok=True)
    found = folder.load(root)
    entries = manifest.entries(found.samples)
    return manifest.freeze(run, settings, root, entries, found.rejects, chunk)


def finish(run: Path, task: manifest.Task, faults: tuple[str, ...] = ()) -> None:
    """Write the part of a task: a row per person and view, and a fault for some."""
    people = [(e.pid, e.outfit) for e in task.entries] or [(m["pid"], "") for m in task.made]
    made = [{"pid": pid, "outfit": o, "file": f"people/{pid}"} for pid, o in people]
    made = [one for one in made if one["pid"] not in faults]
    rows = [{"file_name": f"images/{m['pid']}/{v}.jpg"} for m in made for v in task.views]
    rejects = [Reject(source=p, stage="chunk", reason="x", kind="fault", pid=p) for p in faults]
    manifest.write_part(run, task, made, rows, [to_dict(r) for r in rejects])


@pytest.fixture
def root(tmp_path):
    return photos(tmp_path / "photos", [f"p{i}/a.jpg" for i in range(5)])


def names(tasks):
    return [(task.part, len(task.entries), len(task.made), task.views) for task in tasks]


def test_run_json_round_trip(tmp_path, root):
    run = tmp_path / "run"
    first = freeze(run, root)
    assert [chunk[1:] for chunk in first.chunks] == [(0, 2), (2, 4), (4, 5)]
    assert manifest.read(run) == first
    assert freeze(run, root) == first


optional = st.none() | st.floats(-90, 90)


@settings(max_examples=50, deadline=None)
@given(
    st.builds(
        Sample,
        paths=st.lists(st.sampled_from(["a.jpg", "b/ü.png"]), min_size=1).map(
            lambda names: tuple(Path("/data") / name for name in names)
        ),
        pid=st.text(min_size=1),
        name=st.text(min_size=1),
        outfit=st.text(),
        box=st.none() | st.tuples(*[st.integers(0, 99)] * 4),
        elevation=optional,
        altitude=optional,
        attributes=st.lists(st.text()).map(tuple),
    )
)
def test_samples_survive(tmp_path_factory, sample):
    run = tmp_path_factory.mktemp("run")
    entry = manifest.Entry(sample.pid, sample.outfit, (sample,), ("0",) * len(sample.paths))
    manifest.save(run, manifest.Frozen({}, Path("/data"), [entry]))
    assert manifest.read(run).people == [entry]


def test_another_configuration_is_refused(tmp_path, root):
    freeze(tmp_path / "run", root)
    with pytest.raises(ValueError, match=r"seed: 0 there, 1 now.*another --output"):
        freeze(tmp_path / "run", root, settings={**SETTINGS, "seed": 1})


def test_changed_images_are_refused(tmp_path, root):
    freeze(tmp_path / "run", root)
    photos(root, ["p1/a.jpg", "p1/b.jpg"])
    with pytest.raises(ValueError, match="images of 'p1'.*: b.jpg .1 file.*2 now"):
        freeze(tmp_path / "run", root)
    (root / "p1" / "b.jpg").unlink()
    freeze(tmp_path / "run", root)
    (root / "p1" / "a.jpg").write_bytes(b"other")
    with pytest.raises(ValueError, match="was started with: a.jpg .1 file.* there, 1 now"):
        freeze(tmp_path / "run", root)


def test_new_people_form_new_chunks_and_missing_ones_stay(tmp_path, root):
    run = tmp_path / "run"
    before = freeze(run, root)
    photos(root, ["a0/x.jpg", "z/x.jpg", "z2/x.jpg"])
    (root / "p0" / "a.jpg").unlink()
    after = freeze(run, root)
    assert after.people[:5] == before.people and after.chunks[:3] == before.chunks
    assert [e.pid for e in after.people[5:]] == ["a0", "z", "z2"]
    assert after.chunks[3:] == [("00003", 5, 7), ("00004", 7, 8)]


def test_tasks(tmp_path, root):
    run, views = tmp_path / "run", ("e30_a0", "e60_a0")
    frozen = freeze(run, root)
    todo = manifest.tasks(run, frozen, views)
    assert names(todo) == [("00000", 2, 0, views), ("00001", 2, 0, views), ("00002", 1, 0, views)]
    finish(run, todo[1], faults=("p2",))
    assert [task.part for task in manifest.tasks(run, frozen, views)] == ["00000", "00002"]
    for task in manifest.tasks(run, frozen, views):
        finish(run, task)
    assert manifest.tasks(run, frozen, views) == []
    assert manifest.tasks(run, frozen, views[:1]) == []
    # More views: rendered from the saved people, in a further part.
    more = manifest.tasks(run, frozen, (*views, "e90_a0"))
    assert names(more)[1] == ("00001-1", 0, 1, ("e90_a0",))
    for task in more:
        finish(run, task)
    rows, _ = manifest.join(run, frozen, [])
    assert len(rows) == 4 * 3
    # Only faults are retried: the whole chunk, with all views that it had.
    again = manifest.tasks(run, frozen, views, retry=True)
    assert names(again) == [("00001", 2, 0, (*views, "e90_a0"))]
    finish(run, again[0])
    rows, rejects = manifest.join(run, frozen, [])
    assert len(rows) == 5 * 3 and rejects == []
    assert (run / "parts" / "00001-1.jsonl").exists()  # a leftover, which is not read
    assert manifest.tasks(run, frozen, (*views, "e90_a0"), retry=True) == []


def test_join_is_sorted_and_includes_lost_people(tmp_path, root):
    run = tmp_path / "run"
    frozen = freeze(run, root)
    for task in reversed(manifest.tasks(run, frozen, ("e30_a0",))):
        finish(run, task)
    lost = [to_dict(Reject(source="z", stage="chunk", reason="died", kind="fault"))]
    manifest.join(run, frozen, lost)
    lines = [json.loads(x) for x in (run / "metadata.jsonl").read_text().splitlines()]
    assert [row["file_name"] for row in lines] == [f"images/p{i}/e30_a0.jpg" for i in range(5)]
    assert json.loads((run / "rejects.jsonl").read_text())["reason"] == "died"


def test_strange_text_in_rows_survives(tmp_path, root):
    run = tmp_path / "run"
    frozen = freeze(run, root, chunk=5)
    task = manifest.tasks(run, frozen, ("v",))[0]
    row = {"file_name": "x", "pid": "a\u2028b\x85\n"}
    manifest.write_part(run, task, [], [row], [])
    assert manifest.read_rows(run, frozen)[0] == [row]


def test_sweep_removes_files_without_a_part(tmp_path, root):
    run = tmp_path / "run"
    frozen = freeze(run, root)
    for name in ("images/p0/e30_a0.jpg", "images/p0/old.jpg", "seen/p0/old.png", "images/note.txt"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).touch()
    rows = [{"file_name": "images/p0/e30_a0.jpg", "seen_file_name": "seen/p0/e30_a0.png"}]
    assert manifest.sweep(run, frozen, rows) == 2
    assert (run / "images/note.txt").exists() and (run / "images/p0/e30_a0.jpg").exists()


def test_names_that_would_collide(tmp_path):
    one = Sample(paths=(tmp_path / "a",), pid="bus", name="a")
    two = Sample(paths=(tmp_path / "a",), pid="bus#1", name="b")
    with pytest.raises(ValueError, match="rename one"):
        manifest.entries([one, two])


def test_no_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run of viewsynth"):
        manifest.read(tmp_path)
    (tmp_path / "run.json").write_text('{"format": 99}')
    with pytest.raises(ValueError, match=r"run\.json cannot be read"):
        manifest.read(tmp_path)


def test_few_images_of_each_person():
    samples = [
        Sample(paths=(Path(f"{pid}/{n}.jpg"),), pid=pid, name=f"{pid}/{n}.jpg", outfit=outfit)
        for pid in "abcd"
        for n, outfit in enumerate(["", "", "", "", "", "", "red"])
    ]
    kept = manifest.random_subset(samples, 2, 0)
    assert len(kept) == 4 * 3 and kept == [s for s in samples if s in kept]
    assert sum(s.outfit == "red" for s in kept) == 4  # per outfit, since each is a body of its own
    assert {s.name for s in manifest.random_subset(samples[::-1], 2, 0)} == {s.name for s in kept}
    assert any(manifest.random_subset(samples, 2, seed) != kept for seed in (1, 2))
    assert manifest.random_subset(samples, 9, 0) == samples
