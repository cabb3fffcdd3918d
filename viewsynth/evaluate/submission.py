# SPDX-License-Identifier: Apache-2.0
"""Submission of the AG-ReID 2023 challenge: for every query, the identity that ranks first.

Source: `demo/save_result.py` and the README of agreid23/AG-ReID. A CSV file with the columns
`image_id`, the query's file name without its ending, and `person_id`, the P..T..A.. of the nearest
gallery image. Images of `gallery_add_on` are no answer and are passed over. The queries of "A->G"
come first, then those of "G->A": 8,499, so 8,500 rows with the header.

output of `viewsynth evaluate` -> this module -> `viewsynth export submission`.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import yaml

from viewsynth import data, metrics
from viewsynth.data import ag_reid_challenge as challenge
from viewsynth.data.qut_attributes import IDENTITY
from viewsynth.evaluate import features
from viewsynth.records import Dataset, Protocol, Sample

COLUMNS = ("image_id", "person_id")
QUERIES = 8_499  # of the challenge
NAME = "ag_reid_challenge"


def answers(folder: Path) -> list[dict]:
    """The answers to all queries of the challenge.

    Args:
        folder: Output of `viewsynth evaluate` on `ag_reid_challenge`.

    Returns:
        One dict per query: `COLUMNS`, `protocol`, and `query` and `gallery`, the names of both
        images. Equally near images: the first by identity and name.

    Raises:
        FileNotFoundError: if the folder, the data set or the features are missing.
        ValueError: if it is the output for another data set, a direction is missing, or features.
    """
    options = _options(folder)
    root = Path(options["data"]["root"]).expanduser()
    dataset = data.load(NAME, root)
    _check_unchanged(folder, dataset)
    if missing := [name for name in challenge.DIRECTIONS if name not in dataset.protocols]:
        raise ValueError(
            f"a submission needs both directions; {root} has no protocol {' and '.join(missing)}; "
            f"see `viewsynth data {NAME} {root}`"
        )
    found = []
    for name in challenge.DIRECTIONS:
        found += _nearest(dataset.protocols[name], folder, options, root)
    return found


def to_csv(rows: list[dict]) -> bytes:
    """Answers as the file to hand in."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _options(folder: Path) -> dict:
    """The options of the evaluation, checked."""
    path = folder / "config.yaml"
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} is no finished evaluation: it has no config.yaml; give the output folder of "
            f"`viewsynth evaluate --data.name {NAME}`"
        )
    try:
        options = yaml.safe_load(path.read_bytes())
        name = options["data"]["name"]
    except (yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} has no data.name ({type(error).__name__}); run `viewsynth evaluate` again"
        ) from error
    if name != NAME:
        raise ValueError(f"a submission is for the data set {NAME}; {folder} evaluated {name}")
    return options


def _check_unchanged(folder: Path, dataset: Dataset) -> None:
    """Raise ValueError if the evaluation read other files; without scores there is no record."""
    path = folder / "results.json"
    results = json.loads(path.read_bytes())["results"] if path.is_file() else []
    if any(one["fingerprint"] != dataset.fingerprint for one in results):
        raise ValueError(
            f"{dataset.root} has changed since {folder} was written; run `viewsynth evaluate` again"
        )


def _nearest(protocol: Protocol, folder: Path, options: dict, root: Path) -> list[dict]:
    """Answers to the queries of one direction."""
    gallery = [sample for sample in protocol.gallery if _is_answer(sample)]
    if not gallery:
        raise ValueError(f"no image of the gallery of {protocol.name} names an identity in {root}")
    given = options.get("features")
    listing = options.get("names")
    rows = features.load(
        Path(given) if given else folder / "features.safetensors",
        [sample.name for sample in (*protocol.query, *gallery)],
        Path(listing) if listing else None,
        list(dict.fromkeys([root, root.absolute(), root.resolve()])),
    )
    rows = (rows.part(options["part"]) if options.get("part") else rows).rows
    count = len(protocol.query)
    blocks = metrics.blocks(rows[:count], rows[count:])
    first = [index for _, distances in blocks for index in distances.argmin(1)]
    return [
        {
            "image_id": Path(query.name).stem,
            "person_id": gallery[index].pid.rpartition("/")[2],
            "protocol": protocol.name,
            "query": query.name,
            "gallery": gallery[index].name,
        }
        for query, index in zip(protocol.query, first, strict=True)
    ]


def _is_answer(sample: Sample) -> bool:
    known = IDENTITY.fullmatch(sample.pid.rpartition("/")[2])
    return known is not None and not sample.name.startswith(f"{challenge.ADD_ON}/")
