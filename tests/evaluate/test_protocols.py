# SPDX-License-Identifier: Apache-2.0
"""Protocols: which are chosen by name, and which cannot be evaluated and why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from samples import ONE, TWO, sample

from viewsynth import data
from viewsynth.evaluate import protocols
from viewsynth.records import Dataset, Protocol


def dataset_of(query, gallery, train=()) -> Dataset:
    query = [replace(sample, split="query") for sample in query]
    gallery = [replace(sample, split="gallery") for sample in gallery]
    protocol = Protocol(name="A->G", query=query, gallery=gallery)
    return Dataset(
        name="some",
        root=Path("/data"),
        samples=[*train, *query, *gallery],
        protocols={"A->G": protocol},
    )


@pytest.mark.parametrize(
    ("dataset", "learnt", "message"),
    [
        (
            dataset_of([ONE], [replace(TWO, source="synthetic")]),
            {},
            r"A->G of some has 1 synthetic pictures in its gallery, e.g. g.jpg",
        ),
        (dataset_of([replace(ONE, source="synthetic")], [TWO]), {}, "in its query, e.g. q.jpg"),
        (dataset_of([], [TWO]), {}, "has an empty query in /data"),
        (dataset_of([ONE], []), {}, "has an empty gallery"),
        (dataset_of([ONE], [sample("h", "some/2")]), {}, "none of its 1 queries has a match"),
        (dataset_of([ONE], [replace(TWO, camid="1")]), {}, "with another camid"),
        (
            dataset_of([ONE], [TWO], [sample("t", "some/1")]),
            {},
            "1 identities of the query were learnt from, e.g. some/1, by the split train",
        ),
        (
            dataset_of([ONE], [TWO, sample("h", "some/2")]),
            {"some/2": "list.txt"},
            "1 identities of the gallery were learnt from, e.g. some/2, by list.txt",
        ),
    ],
)
def test_refusals(dataset, learnt, message):
    with pytest.raises(ValueError, match=message):
        protocols.computable(dataset, list(dataset.protocols.values()), learnt)


def test_nothing_to_refuse():
    dataset = dataset_of([ONE], [TWO], [sample("t", "some/3")])
    every = list(dataset.protocols.values())
    assert protocols.computable(dataset, every, {"some/4": "list.txt", "1": "x"}) == (every, [])


@pytest.mark.parametrize("text", ["some/7\n\n some/8 \r\n", "7\n8"])
def test_lists_of_training_people(tmp_path, text):
    (tmp_path / "pids.txt").write_text(text)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.jpg", "pid": "some/9"}\n')
    found = protocols.training_identities([tmp_path / "pids.txt", tmp_path], "some")
    assert {"some/7", "some/8", "some/9"} <= set(found) and found["some/9"].endswith("jsonl")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.jpg"}\n')
    with pytest.raises(ValueError, match="must have rows"):
        protocols.training_identities([tmp_path], "some")
    with pytest.raises(FileNotFoundError, match="trained_on: there is no file"):
        protocols.training_identities([tmp_path / "none.txt"], "some")


def test_protocols_by_name(release):
    dataset = data.load("cargo", release("cargo"))
    assert [p.name for p in protocols.named(dataset, ("A->G", "ALL"))] == ["A->G", "ALL"]
    with pytest.raises(ValueError, match=r"no protocol 'A-'; there are \"ALL\".*quote the names"):
        protocols.named(dataset, ("A-",))
    with pytest.raises(ValueError, match=r"no protocol 'A2G'; there are .*\"G->A\"$"):
        protocols.named(dataset, ("A2G",))
    with pytest.raises(ValueError, match="offers no protocol: .*viewsynth data some"):
        protocols.named(replace(dataset_of([ONE], [TWO]), protocols={}), ())
