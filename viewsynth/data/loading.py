# SPDX-License-Identifier: Apache-2.0
"""Loads a data set by name, checks it, and counts what it holds.

A data set is one file of this folder with `load(root) -> Dataset`, `PARTS` (files or folders that
its root must hold; empty = none) and `NAME` (the pattern of its file names). `load` here finds it
by its module name.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import pkgutil
from collections import Counter
from pathlib import Path

from viewsynth.data import layout, listing
from viewsynth.data.reading import Reading
from viewsynth.records import Dataset, Published
from viewsynth.runtime.licences import Passport

# Modules of this folder that are not data sets.
HELPERS = {
    *("cells", "columns", "formats", "forms", "frames", "images"),
    *("layout", "listing", "loading", "profiles", "qut_attributes", "reading", "table"),
    "vehicles",
}

logger = logging.getLogger("viewsynth.data")


def names() -> list[str]:
    """Names of all data sets."""
    return sorted(
        m.name for m in pkgutil.iter_modules([str(Path(__file__).parent)]) if m.name not in HELPERS
    )


def load(name: str, root: str | Path, reading: Reading = Reading()) -> Dataset:  # noqa: B008
    """Load a data set; problems and differences from the published counts are logged as warnings.

    Args:
        name: One of `names()`.
        root: Folder of the data set; the release may be nested in it.
        reading: How to read a user's own folder; released data sets take no such option.

    Raises:
        ValueError: if there is no such data set, or `root` holds another one or none.
        FileNotFoundError: if there is no folder `root`.
    """
    if name not in names():
        raise ValueError(f"data.name must be one of {', '.join(names())}; got {name!r}")
    own = not _module(name).PARTS
    if not own and (given := reading.given()):
        raise ValueError(
            f"{' '.join(given)} applies to your own images only (--data.name folder); {name} has a "
            "fixed form: leave the option out"
        )
    root = Path(root).expanduser()
    hint = _hint(name, root, depth=0) if own and root.is_dir() else ""
    if hint and reading.form == "auto" and not listing.has_table(root):
        raise ValueError(
            f"data.root: {root} can be read in two ways{hint} (--data.name); or by its folders, as "
            "people or splits (--data.form folders, splits): add one of these options"
        )
    try:
        with _without_garbage_collection():
            dataset = _module(name).load(root, reading) if own else _module(name).load(root)
    except layout.LayoutError as error:
        raise ValueError(f"{root} is not {name}: {error}{_hint(name, root)}") from error
    if hint:
        dataset.warnings.append(f"read as a folder of your own images{hint}")
    elif own and not listing.has_table(root):
        dataset.warnings.extend(_released_names(dataset))
    _check(dataset)
    for line in [*dataset.warnings, *map(describe_difference, differences(dataset))]:
        logger.warning("%s: %s", name, line)
    return dataset


@contextlib.contextmanager
def _without_garbage_collection():
    """Suspend the garbage collector: it frees nothing here, and takes a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def passport(name: str) -> Passport:
    """Rights in a data set, as its authors state them.

    Args:
        name: One of `names()`.
    """
    return _module(name).PASSPORT


def _module(name: str):
    return importlib.import_module(f"viewsynth.data.{name}")


def _hint(name: str, root: str | Path, depth: int = layout.DEPTH) -> str:
    """Names of other data sets that the folder may hold, as the end of a message."""
    others = [(other, _module(other)) for other in names() if other != name]
    fitting = [
        other
        for other, module in others
        if module.PARTS and layout.looks_like(root, module.PARTS, module.NAME, depth)
    ]
    return f"; it looks like {' or '.join(fitting)}" if fitting else ""


def _released_names(dataset: Dataset) -> list[str]:
    """Warn of files that are read as a person each, but named as in a released data set."""
    flat = [sample.name for sample in dataset.samples if "/" not in sample.name]
    released = [(name, _module(name)) for name in names() if _module(name).PARTS]
    fitting = [
        name
        for name, module in released
        if flat and 2 * sum(bool(module.NAME.match(file)) for file in flat) > len(flat)
    ]
    if not fitting:
        return []
    return [
        f"the {len(flat)} files are read as one person each, although {flat[0]} is named as in "
        f"{' or '.join(fitting)}, whose file names contain the person; give the whole data set "
        "with its --data.name, or a metadata.csv"
    ]


def _check(dataset: Dataset) -> None:
    """Add warnings of problems that any layout can have."""
    if bad := [reject for reject in dataset.rejects if reject.kind != "skipped"]:
        dataset.warnings.append(
            f"{len(bad)} rows, files or folders cannot be used and are left out (rejects.jsonl), "
            f"e.g. {bad[0].source}: {bad[0].reason}"
        )
    splits = {sample.split for sample in dataset.samples}
    if missing := {"query", "gallery"} - splits if splits & {"query", "gallery"} else None:
        dataset.warnings.append(f"there is no {missing.pop()} image: no protocol is offered")
    shared = sorted({s.pid for s in dataset.train} & _tested(dataset))
    if shared:
        dataset.warnings.append(
            f"{len(shared)} identities are in train and in query or gallery, e.g. "
            f"{', '.join(shared[:3])}: evaluation refuses them"
        )


def _tested(dataset: Dataset) -> set[str]:
    every = [some for p in dataset.protocols.values() for some in (p.query, p.gallery)]
    return {sample.pid for some in every for sample in some}


def counts(dataset: Dataset) -> dict[str, int]:
    """Numbers of images, identities and cameras of each split, and the sizes of every protocol.

    Args:
        dataset: The data set.

    Returns:
        Counts by name, e.g. "train images", "identities", "query identities", "test
        identities" (of all protocols), "A->G query", "A->G gallery", "A->G valid queries".
    """
    found: dict[str, int] = {"images": len(dataset.samples)}
    found["identities"] = len({sample.pid for sample in dataset.samples})
    groups: dict[str, list] = {}
    for sample in dataset.samples:
        groups.setdefault(sample.split, []).append(sample)
    for split in sorted(groups):
        found[f"{split} images"] = len(groups[split])
        found[f"{split} identities"] = len({s.pid for s in groups[split]})
        found[f"{split} cameras"] = len({s.camid for s in groups[split]})
    found["test identities"] = len(_tested(dataset))
    for name, protocol in dataset.protocols.items():
        found[f"{name} query"] = len(protocol.query)
        found[f"{name} gallery"] = len(protocol.gallery)
        found[f"{name} valid queries"] = protocol.valid_queries
    return found


def count_by(dataset: Dataset, key: str) -> dict[str, Counter]:
    """Number of samples by split and value of a field.

    Args:
        dataset: The data set.
        key: Field of `Sample`: camid, platform or view.
    """
    found: dict[str, Counter] = {}
    for sample in dataset.samples:
        found.setdefault(sample.split, Counter())[getattr(sample, key)] += 1
    return found


def differences(dataset: Dataset) -> list[tuple[Published, int]]:
    """Published counts that differ from those of the files, each with the count of the files."""
    found = counts(dataset)
    return [(p, found.get(p.what, 0)) for p in dataset.published if found.get(p.what, 0) != p.count]


def describe_difference(difference: tuple[Published, int]) -> str:
    """A difference as a sentence."""
    published, found = difference
    return f"{published.what}: {found} here, {published.count} published ({published.source})"
