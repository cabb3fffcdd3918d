# SPDX-License-Identifier: Apache-2.0
"""Evaluate the retrieval performance of a model, or of features from a file.

    accelerate launch evaluate.py --data.name cargo --data.root DIR --model.path DIR-or-hub-id
    viewsynth evaluate --data.name cargo --data.root DIR --features FILE
    viewsynth evaluate ... --protocols "A->G" "A<->G" --rerank

The quotes are needed: the shell takes an unquoted > for a redirection. Protocols without a valid
query are reported and left out; if the test images of the AG-ReID challenge tell no identities,
features are computed all the same, for `viewsynth export submission`. The formats of a features
file are described in viewsynth/evaluate/feature_files.py. The output folder gets `table.md`
(printed as well), `results.json`, `leaderboard.csv`, `rejects.jsonl`, `config.yaml`, the features,
and `queries.jsonl`, one row per protocol, re-ranking and query (see `scoring.queries`), which
`viewsynth compare` reads. Run the same command again to continue after a stop: finished features
are kept.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from viewsynth import __version__, data
from viewsynth.config import check_range, dump
from viewsynth.data import Reading, Source
from viewsynth.records import Dataset, Protocol, Reject
from viewsynth.records import to_dict as to_json
from viewsynth.runtime.files import claim_folder, clean, to_jsonl, write
from viewsynth.runtime.workers import cores, make_accelerator

if TYPE_CHECKING:
    from viewsynth.evaluate import features

BROKEN = 0.01  # largest share of unreadable images in a run that succeeds
OURS = {
    *("features", "features.safetensors", "table.md", "results.json", "queries.jsonl"),
    *("leaderboard.csv", "rejects.jsonl", "config.yaml", "export", ".gitkeep"),
}
WORLD = (
    "The data set is our own rendered world: these numbers compare methods on it, and say nothing "
    "of real pictures."
)
UNLABELLED = (
    "no query has a known match, so there are no scores; next: viewsynth export submission OUTPUT"
)


@dataclass(frozen=True)
class Data(Reading, Source):
    """The data set."""


@dataclass(frozen=True)
class Model:
    """The model: any vision model of transformers, or one of viewsynth train."""

    path: str | None = None
    """Folder with config.json and model.safetensors, or hub id."""
    size: tuple[int, int] = (256, 128)
    """Height and width of the model's input in pixels; ignored for models of viewsynth train."""
    pooling: Literal["auto", "cls", "mean", "pooler"] = "auto"
    """auto: the model's pooled output, else its class token, else the mean over patches."""
    batch: int = 64
    """Images per forward pass; affects the last digits of the features."""
    flip: Literal["yes", "no"] = "no"
    """Add the features of the mirror image, at twice the time. Some releases do."""

    def __post_init__(self):
        for side in self.size:
            check_range("model.size", side, 16, 4096, "pixels")
        check_range("model.batch", self.batch, 1, 65_536)


@dataclass(frozen=True)
class Config:
    """A model or a features file, a data set and protocols in, a table out."""

    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    features: Path | None = None
    """File of features (.safetensors, .npy, .npz, .pt), instead of a model."""
    names: Path | None = None
    """File with the names of the rows of --features; None = in that file, or in one next to it."""
    part: str = ""
    """Part of the features to use, if they have several; "" = all."""
    protocols: tuple[str, ...] = ()
    """Protocols by name, in quotes, e.g. "A->G"; none = all of the data set."""
    camera_rule: Literal["protocol", "none"] = "protocol"
    """none: matches from the query's own camera count, except its own image."""
    rerank: bool = False
    """Add results with k-reciprocal re-ranking."""
    expand: int = 0
    """Average query expansion: features are averaged with those of so many nearest images of the
    test set, e.g. 5; 0 = none. Some releases do. It uses all queries at once."""
    trained_on: tuple[Path, ...] = ()
    """Training people of the model, to be refused: metadata.jsonl, or files of one pid a line."""
    method: str = ""
    """Name of the method in the leaderboard row; "" = that of the model."""
    backbone: str = ""
    """Name of the backbone in the leaderboard row; "" = the architecture of the model."""
    output: Path = Path("outputs/evaluate")
    """Folder of the results."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the model; auto = cuda if there is one."""

    def __post_init__(self):
        check_range("expand", self.expand, 0, 1000)

    @property
    def folder(self) -> Path:
        """Folder of the results."""
        return self.output.expanduser()


def run(config: Config) -> int:
    """Evaluate, and print the table.

    Args:
        config: The options.

    Returns:
        0, or 1 if more than 1 % of the images could not be read.
    """
    from viewsynth.evaluate import protocols

    check(config)
    accelerator = make_accelerator(config.device)
    first = accelerator.is_main_process
    if not first:
        logging.getLogger("viewsynth").setLevel(logging.ERROR)  # each warning once
    dataset = data.load(config.data.name, config.data.root, config.data)
    trained_on = protocols.training_identities(config.trained_on, dataset.name)
    if hidden := protocols.unlabelled(dataset, config.protocols):
        chosen, notes = hidden, [UNLABELLED]
    else:
        chosen, notes = protocols.select(dataset, config.protocols, config.camera_rule, trained_on)
    if first:
        _print_notes(dataset.name, notes)
    with accelerator.main_process_first():
        if first:
            claim_folder(config.folder, OURS, "results.json")
            clean(config.folder)
    maker, rejects, have, count = {}, [], None, 0
    if config.features is None:
        maker, have, rejects, count = _extract(config, dataset, chosen, accelerator)
    if first:
        every = [*dataset.rejects, *rejects]
        write(config.folder / "rejects.jsonl", to_jsonl([to_json(reject) for reject in every]))
    failed = len(rejects) > BROKEN * count
    if hidden and not failed:
        if first:
            write(config.folder / "config.yaml", dump(config).encode())
    elif not failed:
        kept, more = _left(dataset, chosen, have, trained_on)
        found, order = _features(config, dataset, kept)
        results, queries = _rank(config, dataset, chosen, kept, found, order, accelerator)
        if first:
            _print_notes(dataset.name, [*more, *found.notes])
            write(config.folder / "queries.jsonl", to_jsonl(queries))
            _report(config, dataset, results, maker, [*notes, *more, *found.notes], len(rejects))
    elif first:
        _print_failure(config, rejects, count)
    accelerator.end_training()
    return int(failed)


def check(config: Config) -> None:
    """Check the options before anything is loaded.

    Args:
        config: The options.

    Raises:
        ValueError: if options are missing or do not fit together.
        FileNotFoundError: if a file does not exist.
    """
    if config.data.root is None:
        raise ValueError("data.root must be the folder of the data set; got none")
    if (config.model.path is None) == (config.features is None):
        raise ValueError(
            "give either --model.path (a model) or --features (a file); got "
            f"{'neither' if config.features is None else 'both'}"
        )
    if config.features is not None and not config.features.is_file():
        raise FileNotFoundError(
            f"features: there is no file {config.features}; give a .safetensors, .npy, .npz or .pt"
        )
    if config.features is not None and config.model.flip == "yes":
        raise ValueError("model.flip: mirror images need a model; got --features (a file)")
    if config.names is not None and config.features is None:
        raise ValueError("names: a file of names is for --features only; got --model.path")
    if config.names is not None and not config.names.is_file():
        raise FileNotFoundError(f"names: there is no file {config.names}")


def _print_notes(name: str, notes: list[str]) -> None:
    sys.stderr.write("".join(f"{name}: {note}\n" for note in notes))


def _extract(
    config: Config, dataset: Dataset, chosen: list[Protocol], accelerator
) -> tuple[dict, set[str], list[Reject], int]:
    """Extract the features of all images of the protocols to OUTPUT/features.safetensors.

    Returns:
        Description of the encoder, names of the samples that have features, rejects, and the number
        of images.
    """
    from viewsynth.evaluate import features
    from viewsynth.reid import encoders

    model = config.model
    with accelerator.main_process_first():  # one process downloads it
        device, flip = str(accelerator.device), model.flip == "yes"
        encoder = encoders.load(model.path, model.size, model.pooling, device, flip)
    ranks = accelerator.num_processes
    if config.part and config.part not in encoder.parts:
        raise ValueError(
            f"part: {model.path} has no part {config.part!r}; it has "
            f"{', '.join(encoder.parts) or 'no parts'}"
        )
    if encoder.ordered and ranks > 1:
        raise ValueError(
            f"{model.path} has mode faithful, whose random draws run through all images in order: "
            f"start one process, not {ranks}"
        )
    every = {sample.name: sample for p in dataset.protocols.values() for sample in _of(p)}
    wanted = {sample.name for protocol in chosen for sample in _of(protocol)}
    blocks = features.blocks(
        list(every.values()), wanted, config.folder / "features", encoder, model.batch
    )
    todo = [block for block in blocks if not block.done()]
    accelerator.wait_for_everyone()  # all list the blocks before one is written
    threads = max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", ranks)))
    mine = todo[accelerator.process_index :: ranks]
    threads = 1 if encoder.ordered else threads
    features.compute(mine, encoder, model.batch, threads, accelerator.is_main_process)
    accelerator.wait_for_everyone()
    have, rejects = features.readable_samples(blocks)
    if accelerator.is_main_process and have:
        features.join(blocks, config.folder / "features.safetensors", encoder)
    accelerator.wait_for_everyone()
    maker = {k: v for k, v in encoder.__dict__.items() if k != "model"} | {"batch": model.batch}
    count = sum(len(sample.paths) for block in blocks for sample in block.samples)
    return maker, have, rejects, count


def _of(protocol: Protocol) -> list:
    return [*protocol.query, *protocol.gallery]


def _print_failure(config: Config, rejects: list[Reject], count: int) -> None:
    shown = "".join(f"  {reject.source}: {reject.reason}\n" for reject in rejects[:5])
    sys.stderr.write(
        f"failed: {len(rejects)} of {count} images could not be read, more than {BROKEN:.0%}; "
        f"see {config.folder / 'rejects.jsonl'}\n{shown}"
    )


def _left(
    dataset: Dataset, chosen: list[Protocol], have: set[str] | None, trained_on: dict[str, str]
) -> tuple[list[Protocol], list[str]]:
    """The protocols without samples that have no features, and notes on what is left out."""
    from viewsynth.evaluate import protocols

    lost = {sample.name for protocol in chosen for sample in _of(protocol)} - (have or set())
    if have is None or not lost:
        return chosen, []
    return protocols.computable(dataset, [protocols.without(p, lost) for p in chosen], trained_on)


def _features(
    config: Config, dataset: Dataset, kept: list[Protocol]
) -> tuple[features.Features, dict[str, int]]:
    """The features of all samples of the protocols, and the row of each by name."""
    from viewsynth.evaluate import features

    names = sorted({sample.name for protocol in kept for sample in _of(protocol)})
    if config.features is None:
        found = features.load(config.folder / "features.safetensors", names)
    else:
        root = config.data.root.expanduser()
        roots = dict.fromkeys([root, root.absolute(), root.resolve(), dataset.root])
        found = features.load(config.features, names, config.names, list(roots))
    if config.part:
        found = found.part(config.part)
    return found, {name: row for row, name in enumerate(names)}


def _rank(
    config: Config,
    dataset: Dataset,
    chosen: list[Protocol],
    kept: list[Protocol],
    found: features.Features,
    order: dict[str, int],
    accelerator,
) -> tuple[list[dict], list[dict]]:
    """Results of all protocols and rows of their queries, equal in every process."""
    import torch
    from accelerate.utils import gather_object

    from viewsynth import metrics
    from viewsynth.evaluate import scoring

    torch.set_num_threads(1)  # the last bits of matrix products depend on it
    results, queries = [], []
    before = {protocol.name: len(_of(protocol)) for protocol in chosen}
    for protocol in kept:
        query, gallery = (
            found.rows[[order[sample.name] for sample in some]]
            for some in (protocol.query, protocol.gallery)
        )
        if config.expand:
            query, gallery = metrics.expand(query, gallery, config.expand)
        left_out = before[protocol.name] - len(_of(protocol))
        for reranking in (False, True) if config.rerank else (False,):
            rows = scoring.rank(
                protocol,
                query,
                gallery,
                reranking,
                accelerator.process_index,
                accelerator.num_processes,
                gather_object,
            )
            results.append(scoring.result(dataset, protocol, found, rows, reranking, left_out))
            queries += scoring.queries(protocol, rows, reranking)
    if found.extra and config.features and accelerator.is_main_process:
        sys.stderr.write(
            f"{found.extra} rows of {config.features} belong to no image of the protocols\n"
        )
    return results, queries


def _report(
    config: Config,
    dataset: Dataset,
    results: list[dict],
    maker: dict,
    remarks: list[str],
    broken: int,
) -> None:
    """Write the results, and print the table with the notes."""
    from viewsynth.evaluate import scoring

    model = results[0]["model"] or (config.features.stem if config.features else "")
    model += f", {config.part} alone" if config.part else ""
    method = config.method or model
    for one in results:
        one["model"] = model
        backbone = config.backbone or maker.get("kind", "")
        one["told"] = "view" if maker.get("told") else ""
        one["flip"], one["expand"] = bool(maker.get("flip")), config.expand
        one["leaderboard"] = scoring.leaderboard(one, method, backbone)
    notes = [WORLD] if dataset.name == "world" else []
    notes += [
        *dataset.warnings,
        *map(data.describe_difference, data.differences(dataset)),
        *remarks,
    ]
    if maker.get("flip"):
        notes.append("Features of an image and of its mirror image are added (--model.flip).")
    if config.expand:
        notes.append(
            f"Features are averaged with those of the {config.expand} nearest images of the test "
            "set (--expand): do not compare with results without."
        )
    if told := maker.get("told"):
        notes.append(f"The model is told the view of every image: {', '.join(told)}.")
    if broken:
        notes.append(f"{broken} pictures could not be read and are left out, see rejects.jsonl.")
    text, output = scoring.table(results, notes), config.folder
    tree = {"viewsynth": __version__, "notes": notes, "encoder": maker, "results": results}
    write(output / "config.yaml", dump(config).encode())
    write(output / "table.md", (text + scoring.details(results)).encode())
    write(output / "leaderboard.csv", _csv([one["leaderboard"] for one in results]))
    write(output / "results.json", (json.dumps(tree, indent=1) + "\n").encode())
    sys.stdout.write(text)
    sys.stderr.write(f"wrote results.json, leaderboard.csv and table.md (more in it) to {output}\n")


def _csv(rows: list[dict]) -> bytes:
    from viewsynth.evaluate import scoring

    text = io.StringIO()
    writer = csv.DictWriter(text, scoring.LEADERBOARD, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
