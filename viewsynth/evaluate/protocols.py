# SPDX-License-Identifier: Apache-2.0
"""Protocols: which ones of a data set are evaluated, which cannot be, and why.

Before anything is computed: `select` -> protocols whose numbers mean something -> `evaluation`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from viewsynth.records import Dataset, Protocol, Sample
from viewsynth.runtime.files import sha256

UNTOLD = Sample.camid  # of a picture whose camera the data does not say
NO_RULE = (
    "No camera rule (--camera-rule none): matches from the query's own camera count, the query's "
    "own picture alone is left out. Such figures are higher than those with the rule, and not "
    "comparable with published ones."
)
VIEW_RULE = (
    "A<->G keeps its rule without a camera rule too: the view plays the camera, matches are from "
    "the other view only."
)


def select(
    dataset: Dataset, names: Sequence[str], camera_rule: str, learnt: dict[str, str]
) -> tuple[list[Protocol], list[str]]:
    """The protocols that are computed, and what should be told about them, a line each.

    Args:
        names: Of protocols; none = all.
        camera_rule: "protocol" = each one's own; "none" = only a query's own picture is removed,
            but in "A<->G", which the view defines.
        learnt: See `computable`.
    Raises: ValueError: see `named` and `computable`.
    """
    chosen, notes = named(dataset, names), one_view(dataset)
    if camera_rule == "none":
        cameras = {protocol.camera for protocol in chosen}
        notes += [NO_RULE] if "camid" in cameras else []
        notes += [VIEW_RULE] if "view" in cameras else []
        chosen = [without_cameras(protocol) for protocol in chosen]
    kept, lines = computable(dataset, chosen, learnt)
    return kept, notes + lines


def named(dataset: Dataset, names: Sequence[str]) -> list[Protocol]:
    """The protocols of these names; none = all.

    Raises: ValueError: if there is none, or none of that name.
    """
    known = ", ".join(f'"{name}"' for name in dataset.protocols)
    if not known:
        raise ValueError(
            f"data: {dataset.root} offers no protocol: evaluation needs a query and a gallery; see "
            f"what there is with `viewsynth data {dataset.name} ROOT`"
        )
    for name in names:
        if name not in dataset.protocols:
            hint = (
                '; quote the names, as in --protocols "A->G": the shell takes an unquoted > (or <) '
                "for a redirection, and what follows it for a file"
                if name.rstrip("-") in "AGCW"
                else "".join(f". {n}" for n in one_view(dataset))
            )
            raise ValueError(
                f"protocols: {dataset.name} has no protocol {name!r}; there are {known}{hint}"
            )
    return [dataset.protocols[name] for name in dict.fromkeys(names or dataset.protocols)]


def one_view(dataset: Dataset) -> list[str]:
    """A line if nobody's own pictures are said to be from above, so that there is one view."""
    tested = [s for p in dataset.protocols.values() for some in (p.query, p.gallery) for s in some]
    if dataset.name != "folder" or any(sample.view == "aerial" for sample in tested):
        return []
    return [
        "view: no picture of query or gallery is said to be from above (without a column view all "
        "count as ground), so A<->G, A<->A, A->G and G->A are not offered; if some are, give the "
        'metadata that column, "aerial" or "ground"'
    ]


def without_cameras(protocol: Protocol) -> Protocol:
    """A protocol of cameras without its camera rule; others as they are.

    Pictures of a person with the same bytes count as one, whatever they are called: a gallery that
    holds copies of the queries would be searched for what is known to be there.
    """
    if protocol.camera != "camid":
        return protocol
    alike: dict[tuple, list[Sample]] = {}
    for sample in {s.name: s for s in (*protocol.query, *protocol.gallery)}.values():
        if all(path.is_file() for path in sample.paths):
            sizes = tuple(path.stat().st_size for path in sample.paths)
            alike.setdefault((sample.pid, sizes), []).append(sample)
    first: dict[tuple, Sample] = {}
    paths = {}
    for (pid, _), some in alike.items():
        for sample in some if len(some) > 1 else ():
            content = tuple(map(sha256, sample.paths))
            paths[sample.name] = first.setdefault((pid, content), sample).paths
    query, gallery = (
        [replace(sample, paths=paths.get(sample.name, sample.paths)) for sample in side]
        for side in (protocol.query, protocol.gallery)
    )
    return replace(protocol, query=query, gallery=gallery, camera="none")


def without(protocol: Protocol, lost: set[str]) -> Protocol:
    """The protocol without some samples, by name."""
    return replace(
        protocol,
        query=[sample for sample in protocol.query if sample.name not in lost],
        gallery=[sample for sample in protocol.gallery if sample.name not in lost],
    )


# ---- what cannot be computed ---------------------------------------------------------------------


def computable(
    dataset: Dataset, protocols: Sequence[Protocol], learnt: dict[str, str]
) -> tuple[list[Protocol], list[str]]:
    """Those that can be computed, and a line for each reason why others cannot.

    Args:
        learnt: Identities that the model has learnt from -> where that is said.
    Raises: ValueError: if query or gallery holds what is synthetic or was learnt from, or if no
        protocol can be computed, with each one's reason.
    """
    learnt = learnt | {sample.pid: "the split train" for sample in dataset.train}
    kept, reasons = [], {}
    for protocol in protocols:
        if reason := _impossible(dataset, protocol):
            reasons.setdefault(reason, []).append(protocol.name)
            continue
        _refuse(dataset, protocol, learnt)
        kept.append(protocol)
    lines = [
        f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} not computed: {reason}"
        for reason, names in reasons.items()
    ]
    if not kept:
        raise ValueError("\n".join([f"no protocol of {dataset.name} can be computed:", *lines]))
    return kept, lines


def _refuse(dataset: Dataset, protocol: Protocol, learnt: dict[str, str]) -> None:
    """Raise ValueError where the numbers would be those of something else."""
    where = f"the protocol {protocol.name} of {dataset.name}"
    for what in ("query", "gallery"):
        samples: Sequence[Sample] = getattr(protocol, what)
        made = [sample.name for sample in samples if sample.source != "real"]
        if made:
            raise ValueError(
                f"{where} has {len(made)} synthetic pictures in its {what}, e.g. {made[0]}: "
                "real pictures only are evaluated; move them to train"
            )
        shared = sorted({sample.pid for sample in samples if sample.pid in learnt})
        if shared:
            raise ValueError(
                f"{where}: {len(shared)} identities of the {what} were learnt from, e.g. "
                f"{', '.join(shared[:3])}, by {learnt[shared[0]]}; train and test must not "
                "share any"
            )


def _impossible(dataset: Dataset, protocol: Protocol) -> str:
    """Why a protocol has nothing to average, and what to do; "" if it has."""
    for what in ("query", "gallery"):
        if not getattr(protocol, what):
            return f"it has an empty {what} in {dataset.root}"
    if protocol.valid_queries:
        return ""
    none = f"none of its {len(protocol.query)} queries has a match in the gallery"
    if not {s.pid for s in protocol.query} & {s.pid for s in protocol.gallery}:
        return f"{none}: no person is in both; write pids of query and gallery alike"
    if protocol.camera == "none":
        return f"{none} other than its own picture; give the gallery other pictures of the people"
    camids = {sample.camid for sample in (*protocol.query, *protocol.gallery)}
    if protocol.camera == "camid" and len(camids) == 1:
        camid = camids.pop()
        untold = " (as a picture has whose camera is not given)" if camid == UNTOLD else ""
        return (
            f"every picture of query and gallery has the camid {camid!r}{untold}, so none has a "
            "match in the gallery with another camid. Give the metadata a column camid, or "
            "evaluate without a camera rule: --camera-rule none"
        )
    other = (
        "; evaluate without a camera rule, --camera-rule none, if camera ids mean nothing here"
        if protocol.camera == "camid"
        else ""
    )
    return f"{none} with another {protocol.camera}{other}"


# ---- who was learnt from -------------------------------------------------------------------------


def learnt_from(paths: Iterable[Path], dataset: str) -> dict[str, str]:
    """Identities that manifests name, and which manifest does.

    Args:
        paths: metadata.jsonl of a run (or its folder), rows with "pid"; or text, a pid a line,
            with or without the data set's name before it.
        dataset: Name of the data set.
    Raises: FileNotFoundError, ValueError: if one cannot be read or names nobody.
    """
    found: dict[str, str] = {}
    for path in paths:
        file = path / "metadata.jsonl" if path.is_dir() else path
        if not file.is_file():
            raise FileNotFoundError(f"trained_on: there is no file {file}")
        try:
            rows = [row.strip() for row in file.read_text(encoding="utf-8-sig").splitlines()]
            if file.suffix == ".jsonl":
                pids = [str(json.loads(row)["pid"]) for row in rows if row]
            else:
                pids = [pid for row in rows if row for pid in {row, f"{dataset}/{row}"}]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f'trained_on: {file} must have rows {{"pid": ...}} (.jsonl) or a pid a line '
                f"(text): {type(error).__name__} {error}"
            ) from error
        if not pids:
            raise ValueError(f"trained_on: {file} names nobody")
        found |= dict.fromkeys(pids, str(file))
    return found
