# SPDX-License-Identifier: Apache-2.0
"""Selects the protocols of a data set to evaluate and explains why others cannot be computed.

data set -> `select`, before features are computed -> protocols with valid queries -> `scoring`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from viewsynth.records import Dataset, Protocol, Sample
from viewsynth.runtime.files import sha256

HIDDEN = "ag_reid_challenge"  # data set whose release may hide the identities of its queries
UNKNOWN_CAMERA = Sample.camid  # camera id of images without one in the data
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
    dataset: Dataset, names: Sequence[str], camera_rule: str, trained_on: dict[str, str]
) -> tuple[list[Protocol], list[str]]:
    """Select the protocols to compute.

    Args:
        dataset: Data set.
        names: Names of protocols; empty = all.
        camera_rule: "protocol" = the rule of each protocol; "none" = only the query's own image is
            removed from the gallery, except in "A<->G", which is defined by the view.
        trained_on: See `computable`.

    Returns:
        The protocols, and remarks for the report, one line each.

    Raises:
        ValueError: See `named` and `computable`.
    """
    chosen, notes = named(dataset, names), one_view(dataset)
    if camera_rule == "none":
        cameras = {protocol.camera for protocol in chosen}
        notes += [NO_RULE] if "camid" in cameras else []
        notes += [VIEW_RULE] if "view" in cameras else []
        chosen = [without_cameras(protocol) for protocol in chosen]
    kept, lines = computable(dataset, chosen, trained_on)
    return kept, notes + lines


def named(dataset: Dataset, names: Sequence[str]) -> list[Protocol]:
    """Look up protocols by name.

    Args:
        dataset: Data set.
        names: Names of protocols; empty = all.

    Raises:
        ValueError: If the data set has no protocols, or none of a given name.
    """
    known = ", ".join(f'"{name}"' for name in dataset.protocols)
    if not known:
        raise ValueError(
            f"data: {dataset.root} offers no protocol: evaluation needs a query and a gallery; "
            f"check the data set with `viewsynth data {dataset.name} ROOT`"
        )
    for name in names:
        if name not in dataset.protocols:
            hint = (
                '; quote the names, as in --protocols "A->G": the shell interprets an unquoted > '
                "or < as a redirection"
                if name.rstrip("-") in "AGCW"
                else "".join(f". {n}" for n in one_view(dataset))
            )
            raise ValueError(
                f"protocols: {dataset.name} has no protocol {name!r}; there are {known}{hint}"
            )
    return [dataset.protocols[name] for name in dict.fromkeys(names or dataset.protocols)]


def unlabelled(dataset: Dataset, names: Sequence[str]) -> list[Protocol]:
    """The named protocols of `HIDDEN`, if no query has a known match; else empty.

    Their features can be computed, for `submission`, but not scored.

    Args:
        dataset: Data set.
        names: Names of protocols; empty = all.
    """
    if dataset.name != HIDDEN or any(p.valid_queries for p in dataset.protocols.values()):
        return []
    return named(dataset, names)


def one_view(dataset: Dataset) -> list[str]:
    """Remark, as a list, if a user's own data set has no aerial images; else empty."""
    tested = [s for p in dataset.protocols.values() for side in (p.query, p.gallery) for s in side]
    if dataset.name != "folder" or any(sample.view == "aerial" for sample in tested):
        return []
    return [
        "view: no picture of query or gallery is said to be from above (without a column view all "
        "count as ground), so A<->G, A<->A, A->G and G->A are not offered; if some are, give the "
        'metadata that column, "aerial" or "ground"'
    ]


def without_cameras(protocol: Protocol) -> Protocol:
    """Remove the camera rule of a protocol that has one; other protocols stay unchanged.

    Images of a person with equal bytes count as one image, independent of their names. Otherwise
    copies of the queries in the gallery would be trivial matches.
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
    for (pid, _), samples in alike.items():
        for sample in samples if len(samples) > 1 else ():
            content = tuple(map(sha256, sample.paths))
            paths[sample.name] = first.setdefault((pid, content), sample).paths
    query, gallery = (
        [replace(sample, paths=paths.get(sample.name, sample.paths)) for sample in side]
        for side in (protocol.query, protocol.gallery)
    )
    return replace(protocol, query=query, gallery=gallery, camera="none")


def without(protocol: Protocol, lost: set[str]) -> Protocol:
    """Remove samples from a protocol by name."""
    return replace(
        protocol,
        query=[sample for sample in protocol.query if sample.name not in lost],
        gallery=[sample for sample in protocol.gallery if sample.name not in lost],
    )


# ---- checks --------------------------------------------------------------------------------------


def computable(
    dataset: Dataset, protocols: Sequence[Protocol], trained_on: dict[str, str]
) -> tuple[list[Protocol], list[str]]:
    """Keep the protocols that can be computed.

    Args:
        dataset: Data set of the protocols.
        protocols: Protocols to check.
        trained_on: Identities that the model was trained on -> the file that lists them.

    Returns:
        The protocols, and a line for each reason why others cannot be computed.

    Raises:
        ValueError: If a query or gallery contains synthetic images or training identities, or if no
            protocol can be computed.
    """
    trained_on = trained_on | {sample.pid: "the split train" for sample in dataset.train}
    kept, reasons = [], {}
    for protocol in protocols:
        if reason := _impossible(dataset, protocol):
            reasons.setdefault(reason, []).append(protocol.name)
            continue
        _refuse(dataset, protocol, trained_on)
        kept.append(protocol)
    lines = [
        f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} not computed: {reason}"
        for reason, names in reasons.items()
    ]
    if not kept:
        raise ValueError("\n".join([f"no protocol of {dataset.name} can be computed:", *lines]))
    return kept, lines


def _refuse(dataset: Dataset, protocol: Protocol, trained_on: dict[str, str]) -> None:
    """Raise ValueError if a protocol contains synthetic images or training identities."""
    where = f"the protocol {protocol.name} of {dataset.name}"
    for what in ("query", "gallery"):
        samples: Sequence[Sample] = getattr(protocol, what)
        synthetic = [sample.name for sample in samples if sample.source != "real"]
        if synthetic:
            raise ValueError(
                f"{where} has {len(synthetic)} synthetic pictures in its {what}, e.g. "
                f"{synthetic[0]}: only real images are evaluated; move them to the split train"
            )
        shared = sorted({sample.pid for sample in samples if sample.pid in trained_on})
        if shared:
            raise ValueError(
                f"{where}: {len(shared)} identities of the {what} were learnt from, e.g. "
                f"{', '.join(shared[:3])}, by {trained_on[shared[0]]}; training and test data must "
                "not share identities"
            )


def _impossible(dataset: Dataset, protocol: Protocol) -> str:
    """Reason why a protocol has no valid query, with a remedy; "" if it has one."""
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
        unknown = " (as a picture has whose camera is not given)" if camid == UNKNOWN_CAMERA else ""
        return (
            f"every picture of query and gallery has the camid {camid!r}{unknown}, so none has a "
            "match in the gallery with another camid. Give the metadata a column camid, or "
            "evaluate without a camera rule: --camera-rule none"
        )
    other = (
        "; evaluate without a camera rule, --camera-rule none, if camera ids mean nothing here"
        if protocol.camera == "camid"
        else ""
    )
    return f"{none} with another {protocol.camera}{other}"


# ---- training identities -------------------------------------------------------------------------


def training_identities(paths: Iterable[Path], dataset: str) -> dict[str, str]:
    """Read the identities that a model was trained on.

    Args:
        paths: metadata.jsonl files or their folders, with rows that have a "pid"; or text files
            with one pid per line, with or without the data set's name as a prefix.
        dataset: Name of the data set.

    Returns:
        Identity -> the file that lists it.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file cannot be parsed or lists no identity.
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
                f'trained_on: {file} must have rows {{"pid": ...}} (.jsonl) or one pid per line '
                f"(text): {type(error).__name__} {error}"
            ) from error
        if not pids:
            raise ValueError(f"trained_on: {file} lists no pid; give a file that lists some")
        found |= dict.fromkeys(pids, str(file))
    return found
