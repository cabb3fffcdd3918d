# SPDX-License-Identifier: Apache-2.0
"""The frozen input list of a run (`run.json`): its people, their files' hashes, and the chunks.

The people are assigned to chunks in the order of the list, once; people that are added later form
new chunks.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from viewsynth.config import differences
from viewsynth.records import Reject, Sample, seed_of, to_dict
from viewsynth.runtime.files import folder_of, ignores_case, sha256, stem_of, write

FORMAT = 1
DECIDES = ("format", "settings", "root", "chunks", "rejects", "people")


@dataclass(frozen=True)
class Entry:
    """One person of the input list: all crops of one (pid, outfit).

    Args:
        pid: Identity.
        outfit: Clothing label.
        samples: The samples, in the order of the data set.
        sha256: SHA-256 of every file of the samples, in hex; "" = it could not be read.
    """

    pid: str
    outfit: str
    samples: tuple[Sample, ...]
    sha256: tuple[str, ...] = ()

    @property
    def stem(self) -> str:
        """File name of the person, without suffix."""
        return stem_of(self.pid, self.outfit)

    @property
    def files(self) -> set[tuple[Path, str]]:
        """The files and their hashes."""
        return set(zip([p for s in self.samples for p in s.paths], self.sha256, strict=True))


@dataclass
class Frozen:
    """The contents of `run.json`.

    Args:
        settings: The options that affect pixels or rows.
        root: Folder that the paths of the samples are relative to.
        people: The input list.
        chunks: (name, start, stop) of each chunk; start and stop are indices into the list.
        rejects: Rejects from reading the data set.
        facts: Versions, host and timings, for readers; never compared.
    """

    settings: dict
    root: Path
    people: list[Entry] = field(default_factory=list)
    chunks: list[tuple[str, int, int]] = field(default_factory=list)
    rejects: list[dict] = field(default_factory=list)
    facts: dict = field(default_factory=dict)


def random_subset(samples: list[Sample], count: int, seed: int) -> list[Sample]:
    """A random subset of the samples of each person.

    Args:
        samples: All samples.
        count: Largest number of samples per (pid, outfit).
        seed: Seed of the choice.

    Returns:
        The chosen samples, in their order.
    """
    groups: dict[tuple[str, str], list[Sample]] = {}
    for sample in sorted(samples, key=lambda s: (seed_of(seed, "few", s.pid, s.name), s.name)):
        groups.setdefault((sample.pid, sample.outfit), []).append(sample)
    chosen = {sample.name for some in groups.values() for sample in some[:count]}
    return [sample for sample in samples if sample.name in chosen]


def entries(samples: list[Sample]) -> list[Entry]:
    """Group samples into people and hash their files.

    Args:
        samples: The samples, in the order of the data set.

    Returns:
        One entry per (pid, outfit), in the order of their first samples.

    Raises:
        ValueError: if two pids would be the same on disk or in the rows.
    """
    groups: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.pid, sample.outfit), []).append(sample)
    pids = {pid for pid, _ in groups}
    for pid in pids:
        whole, mark, number = pid.rpartition("#")
        if mark and number.isdigit() and whole in pids:
            raise ValueError(
                f"pids {whole!r} and {pid!r}: the second is the name that a further person in an "
                "image of the first would get; rename one"
            )
    files = [path for sample in samples for path in sample.paths]
    with ThreadPoolExecutor(8) as pool:
        hashed = dict(zip(files, pool.map(sha256, files), strict=True))
    return [
        Entry(pid, outfit, tuple(group), tuple(hashed[p] for s in group for p in s.paths))
        for (pid, outfit), group in groups.items()
    ]


def freeze(
    run: Path, settings: dict, root: Path, people: list[Entry], rejects: list[Reject], chunk: int
) -> Frozen:
    """Write the input list of a run, or extend the existing one.

    New people form new chunks; people who are missing now stay in the list.

    Args:
        run: Folder of the run.
        settings: The options that affect pixels or rows.
        root: Folder that the paths of the samples are relative to.
        people: The people of this call.
        rejects: Rejects from reading the data set.
        chunk: People per chunk, > 0.

    Returns:
        The input list of the run.

    Raises:
        ValueError: if the folder holds a run of another configuration, or a person has other
            images than before.
    """
    refuse_same_folder(run, people)
    if (run / "run.json").exists():
        frozen = read(run)
        refuse_other_settings(run, frozen.settings, settings)
        people = _new_people(run, frozen, people)
    else:
        frozen = Frozen(settings, root)
    for start in range(0, len(people), chunk):
        first, last = len(frozen.people), len(frozen.people) + len(people[start : start + chunk])
        frozen.people += people[start : start + chunk]
        frozen.chunks.append((f"{len(frozen.chunks):05d}", first, last))
    frozen.rejects = [to_dict(reject) for reject in rejects]
    save(run, frozen)
    return frozen


def refuse_other_settings(run: Path, old: dict, new: dict) -> None:
    """Refuse to continue a run with other settings.

    Args:
        run: Folder of the run, for the message.
        old: Settings of the run.
        new: Settings of this call.

    Raises:
        ValueError: if they differ; the message has both values.
    """
    if "refine" in new:  # absent in runs from before the refine stage
        old = {"refine": {"engine": "none"}} | old
    if changed := differences(old, new):
        said = "; ".join(f"{key}: {a!r} there, {b!r} now" for key, a, b in changed)
        raise ValueError(
            f"{run} holds a run of another configuration ({said}); give another --output, or "
            "the values of that run"
        )


def refuse_same_folder(run: Path, people: list[Entry]) -> None:
    """Refuse pids that differ in case only, if the file system ignores case.

    Args:
        run: Folder of the run.
        people: The people of the run.

    Raises:
        ValueError: if two people would share a folder.
    """
    names: dict[str, str] = {}
    for pid in dict.fromkeys(entry.pid for entry in people):
        other = names.setdefault(folder_of(pid).lower(), pid)
        if other != pid and ignores_case(run):
            raise ValueError(
                f"pids {other!r} and {pid!r} differ in case only, and the file system of {run} "
                "ignores case; rename one or write elsewhere"
            )


def _new_people(run: Path, frozen: Frozen, people: list[Entry]) -> list[Entry]:
    """The people that are not in the list yet; refuses known people with other images."""
    known = {(entry.pid, entry.outfit): index for index, entry in enumerate(frozen.people)}
    new = []
    for entry in people:
        index = known.get((entry.pid, entry.outfit))
        if index is None:
            new.append(entry)
            continue
        old = frozen.people[index]
        same = _compared(old, frozen.root) == _compared(entry, frozen.root) and all(
            a == b or not a or not b for a, b in zip(old.sha256, entry.sha256, strict=True)
        )
        if not same:
            other = sorted({path.name for path, _ in {*old.files} ^ {*entry.files}})
            raise ValueError(
                f"the images of {entry.pid!r} are not those that {run} was started with: "
                f"{', '.join(other[:3]) or 'other metadata'} ({len(old.sha256)} file(s) there, "
                f"{len(entry.sha256)} now); put them back or give another --output"
            )
        frozen.people[index] = entry if not all(old.sha256) else old
    return new


def _compared(entry: Entry, root: Path) -> list[dict]:
    return [_sample_to_json(sample, root) for sample in entry.samples]


def save(run: Path, frozen: Frozen) -> None:
    """Write `run.json`.

    Args:
        run: Folder of the run.
        frozen: Its contents.
    """
    people = [
        {
            "pid": e.pid,
            "outfit": e.outfit,
            "sha256": list(e.sha256),
            "samples": _compared(e, frozen.root),
        }
        for e in frozen.people
    ]
    tree = {"format": FORMAT, "settings": frozen.settings, "root": frozen.root.as_posix()}
    lists = {"chunks": frozen.chunks, "rejects": frozen.rejects, "people": people}
    own = {"sha256": digest(tree | lists), "facts": frozen.facts}
    text = json.dumps(tree | own, indent=1)[:-2]
    for key, values in lists.items():  # one line each, for readers of the file
        text += f',\n "{key}": [\n' + ",\n".join(f"  {json.dumps(v)}" for v in values) + "\n ]"
    write(run / "run.json", (text + "\n}\n").encode())


def digest(tree: dict) -> str:
    """SHA-256 of what decides a run, in hex: all of `run.json` but the facts, and the hash itself.

    Args:
        tree: Contents of `run.json`, as JSON types.
    """
    decides = {key: tree[key] for key in DECIDES}
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def read(run: Path) -> Frozen:
    """Read `run.json`.

    Args:
        run: Folder of the run.

    Returns:
        Its contents.

    Raises:
        FileNotFoundError: if there is no `run.json`.
        ValueError: if it cannot be read.
    """
    path = run / "run.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{run} is no run of viewsynth: it has no run.json; give a folder that `viewsynth "
            "generate` wrote"
        )
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        if tree["format"] != FORMAT:
            raise ValueError(f"format {tree['format']} is not {FORMAT}")
        root = Path(tree["root"])
        people = [
            Entry(
                e["pid"],
                e["outfit"],
                tuple(_sample_from_json(s, root) for s in e["samples"]),
                tuple(e["sha256"]),
            )
            for e in tree["people"]
        ]
        chunks = [(name, first, last) for name, first, last in tree["chunks"]]
        return Frozen(tree["settings"], root, people, chunks, tree["rejects"], tree["facts"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} cannot be read: {error!r}; restore it, or start anew") from error


_DEFAULTS = {
    f.name: f.default for f in dataclasses.fields(Sample) if f.default is not dataclasses.MISSING
}


def _sample_to_json(sample: Sample, root: Path) -> dict:
    values = {
        f.name: getattr(sample, f.name)
        for f in dataclasses.fields(sample)
        if f.name not in _DEFAULTS or getattr(sample, f.name) != _DEFAULTS[f.name]
    }
    paths = [p.relative_to(root) if p.is_relative_to(root) else p for p in sample.paths]
    values["paths"] = [path.as_posix() for path in paths]
    return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}


def _sample_from_json(values: dict, root: Path) -> Sample:
    values = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    return Sample(**{**values, "paths": tuple(root / path for path in values["paths"])})
