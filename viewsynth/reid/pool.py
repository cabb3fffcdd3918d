# SPDX-License-Identifier: Apache-2.0
"""Pool: what is trained on. Real training samples, and the rows of runs of `generate`.

data -> `split` -> `build` -> `Pool`, which `sampler` draws from and `pixels` reads. A synthetic
picture keeps its person's label, has a camera of its own and a weight in the losses.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from viewsynth.data import layout
from viewsynth.data.frames import is_video
from viewsynth.records import PLATFORMS, VIEWS, Reject, Sample, seed_of
from viewsynth.runtime.files import inside, sha256

METADATA = "metadata.jsonl"
NO_VIDEO = (
    "a training takes pictures: save its frames as pictures in a folder in its place (generate and "
    "evaluate read videos)"
)
Weight = Literal["judge", "seen", "none"]
WEIGHTS = {"judge": "weight", "seen": "seen_ratio", "none": None}  # the field of a row
By = Literal["view", "platform"]  # the field of a sample that tells its view

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Pool:
    """Pictures to learn from.

    Args:
        samples: One picture each.
        labels: Index into `pids`.  int64 [N]
        cameras: Those of synthetic pictures are none of the real ones.  int64 [N]
        views: Index into `view_names`.  int64 [N]
        synthetic: bool [N]
        weights: In the losses, in (0, 1]; 1 for real pictures.  float32 [N]
        pids: The identities, sorted.
        view_names: ground and aerial, or the platforms that there are.
        by: Which of the two.
    """

    samples: list[Sample]
    labels: np.ndarray
    cameras: np.ndarray
    views: np.ndarray
    synthetic: np.ndarray
    weights: np.ndarray
    pids: list[str]
    view_names: tuple[str, ...]
    by: By

    @property
    def classes(self) -> int:
        """How many identities there are."""
        return len(self.pids)

    def keep(self, usable: np.ndarray) -> Pool:
        """The pool without some pictures; identities that have none left are gone.

        Args:
            usable: Which ones to keep.  bool [N]
        """
        if usable.all():
            return self
        kept = [self.samples[n] for n in np.flatnonzero(usable)]
        return _pool(kept, self.weights[usable], self.by, self.view_names)


# ---- real pictures ----------------------------------------------------------------------------


def split(samples: Sequence[Sample], share: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Training and validation samples, apart by identity, whatever the order of the samples.

    Args:
        share: Of the identities that go to validation, in [0, 1); 0 = none.
        seed: Of the run.
    Raises: ValueError: if nobody is left for one of the two.
    """
    if not 0 <= share < 1:
        raise ValueError(f"the share of validation identities must be in [0, 1), got {share}")
    pids = {sample.pid for sample in samples}
    ordered = sorted(pids, key=lambda pid: (seed_of(seed, "validation", pid), pid))
    count = max(2, round(share * len(pids))) if share else 0  # one is always found
    if count >= len(pids):
        raise ValueError(
            f"{count} of {len(pids)} identities for validation leave nobody to learn from; lower "
            "the share, or give more people"
        )
    chosen = set(ordered[:count])
    return [s for s in samples if s.pid not in chosen], [s for s in samples if s.pid in chosen]


def pictures(samples: Iterable[Sample]) -> tuple[list[Sample], list[Reject]]:
    """Samples of one picture each: a tracklet becomes one a frame; and the videos, left out, told.

    Raises: ValueError: if all are videos.
    """
    found, videos = [], []
    for sample in samples:
        if is_video(sample.paths[0]):
            videos.append(sample)
        elif len(sample.paths) == 1:
            found.append(sample)
        else:
            found += [
                replace(sample, paths=(path,), name=f"{sample.name}#frame{number:05d}")
                for number, path in enumerate(sample.paths)
            ]
    if videos:
        said = f"{len(videos)} samples are videos ({_few([s.name for s in videos])}); {NO_VIDEO}"
        if not found:
            raise ValueError(f"there are no pictures to learn from: {said}")
        logger.warning("%s; they are left out", said)
    rejects = [
        Reject(source=str(s.paths[0]), stage="input", reason=f"a video; {NO_VIDEO}", pid=s.pid)
        for s in videos
    ]
    return found, rejects


def build(
    train: Sequence[Sample],
    runs: Iterable[Path] = (),
    weight: Weight = "judge",
    *,
    everyone: Sequence[Sample] | None = None,
    tested: AbstractSet[str] = frozenset(),
    least: float = 0.0,
    views: int | None = None,
    repeat: int = 0,
    by: By = "view",
    view_names: tuple[str, ...] = (),
) -> Pool:
    """The pool of real samples and synthetic runs, in the same order however they come.

    Args:
        train: Real samples; a tracklet becomes one picture a frame.
        runs: Folders that `generate` left, made from pictures of the same identities.
        weight: What weighs a synthetic picture: the judge's `weight`, its `seen_ratio`, or 1.
        everyone: All real training samples, of which `train` may be a part (without those of the
            validation, or of one view only); synthetic pictures of the other people are left out.
            None = `train`.
        tested: Identities of query and gallery; none of them may be in `everyone` or in a run.
        least: Synthetic pictures that weigh less are left out, and always those which the judge
            gave no weight.  [0, 1]
        views: At most this many of each (pid, outfit) and run, the first by name (random cameras
            are named in the order of drawing); None = all.
        repeat: A control: so many real pictures of each identity once more, as synthetic ones with
            cameras of their own, so that a batch is made up as with a run, but shows nothing new.
        by: What tells the views apart.
        view_names: Those of another pool, whose numbers are to be used; () = its own.

    Raises:
        FileNotFoundError: if a run is not there or not finished.
        ValueError: if a run is of another data set, shows tested or unknown identities, or if
            nothing is left.
    """
    if weight not in WEIGHTS:
        raise ValueError(f"the weight must be one of {', '.join(WEIGHTS)}; got {weight!r}")
    if not 0 <= least <= 1 or (views is not None and views < 1):
        raise ValueError(f"least must be in [0, 1] and views > 0; got {least} and {views}")
    if not train:
        raise ValueError("there are no training pictures; see that the data set has a train split")
    everyone = train if everyone is None else everyone
    people = {sample.pid for sample in everyone}
    if shared := sorted(people & tested):
        raise ValueError(
            f"{len(shared)} identities are in train and in query or gallery: {_few(shared)}; a "
            "model that learnt them cannot be evaluated: take them out of one of the two"
        )
    frames = sorted(pictures(train)[0], key=lambda s: (s.pid, s.name))
    folders = [Path(run).expanduser().resolve() for run in runs]
    if twice := [folder for folder, count in Counter(folders).items() if count > 1]:
        raise ValueError(f"the synthetic run {twice[0]} is given twice")
    short = Counter(folder.name for folder in folders)
    samples = frames + _repeated(frames, repeat)
    weights = [1.0] * len(samples)
    for folder in folders:
        rows = _rows(folder)
        _check(folder, rows, everyone, people, tested)
        left_out = people - {sample.pid for sample in train}
        rows, values = _chosen(folder, rows, weight, left_out, least, views)
        name = folder.name if short[folder.name] == 1 else folder.as_posix()
        samples = samples + [_sample(folder, name, row) for row in rows]
        weights += values
    return _pool(samples, np.array(weights, np.float32), by, view_names)


def inputs(learnt: Pool, validated: Sequence[Sample], *opened) -> dict[str, tuple[Path, dict]]:
    """Every picture that a run looks at and what it is told of it, for `fingerprint.compare`.

    Args:
        learnt, validated: All that were given.
        opened: `pixels.Pixels` of both, as far as they can be read; None = there are none.
    """
    readable = {sample.name for pixels in opened if pixels for sample in pixels.samples}
    weights = learnt.weights.tolist() + [1.0] * len(validated)
    told = ("pid", "camid", "platform", "view", "box")
    return {
        sample.name: (
            sample.paths[0],
            {key: getattr(sample, key) for key in told}
            | {"weight": weight, "readable": sample.name in readable},
        )
        for sample, weight in zip([*learnt.samples, *validated], weights, strict=True)
    }


def _repeated(frames: list[Sample], count: int) -> list[Sample]:
    """So many copies of each identity's pictures, in turn."""
    own: dict[str, list[Sample]] = {}
    for frame in frames:
        own.setdefault(frame.pid, []).append(frame)
    taken = [(some[n % len(some)], n) for some in own.values() for n in range(count)]
    return [
        replace(s, name=f"{s.name}#repeat{n}", camid=f"{s.camid}#repeat", source="synthetic")
        for s, n in taken
    ]


def _pool(samples: list[Sample], weights: np.ndarray, by: By, names: tuple[str, ...] = ()) -> Pool:
    pids = sorted({sample.pid for sample in samples})
    label = {pid: number for number, pid in enumerate(pids)}
    found = {getattr(sample, by) for sample in samples}
    names = names or (VIEWS[::-1] if by == "view" else tuple(sorted(found)))
    if strange := sorted(found - set(names)):
        raise ValueError(f"there are pictures of {', '.join(strange)}, but none to learn from")
    # Real cameras first: their numbers do not hang on which synthetic pictures there are.
    cameras = sorted({(s.source == "synthetic", s.camid) for s in samples})
    camera = {key: number for number, key in enumerate(cameras)}
    synthetic = np.array([s.source == "synthetic" for s in samples])
    return Pool(
        samples=samples,
        labels=np.array([label[s.pid] for s in samples], np.int64),
        cameras=np.array([camera[s.source == "synthetic", s.camid] for s in samples], np.int64),
        views=np.array([names.index(getattr(s, by)) for s in samples], np.int64),
        synthetic=synthetic,
        weights=weights.astype(np.float32),
        pids=pids,
        view_names=names,
        by=by,
    )


# ---- synthetic pictures -----------------------------------------------------------------------


def _rows(run: Path) -> list[dict]:
    """The rows of a run, checked as far as they are used."""
    path = run / METADATA
    if not run.is_dir():
        raise FileNotFoundError(f"data.synthetic: there is no folder {run}")
    if not path.is_file():
        raise FileNotFoundError(
            f"data.synthetic: {run} has no {METADATA}, so it is no run of generate, or one that "
            "was stopped: run generate again until it ends"
        )
    rows = []
    for line, row in layout.json_rows(path):
        problem = str(row) if isinstance(row, Exception) else _problem(row)
        if problem:
            raise ValueError(
                f"{path}:{line}: {problem}; run generate again with the same options, it writes "
                "the file anew"
            )
        rows.append(row)
    if not rows:
        raise ValueError(f"{path} has no rows: generate kept no picture, see {run}/rejects.jsonl")
    return sorted(rows, key=lambda row: row["file_name"])


def _problem(row: dict) -> str:
    """What is wrong with a row, "" if nothing is."""
    for key in ("file_name", "pid", "camid"):
        if not isinstance(row.get(key), str) or not row[key]:
            return f"{key} must be a text, got {row.get(key)!r}"
    for key, allowed in (
        ("source", ("synthetic",)),
        ("view", VIEWS),
        ("platform", PLATFORMS),
        ("split", ("train",)),
    ):
        if row.get(key) not in allowed:
            return f"{key} must be {' or '.join(allowed)}, got {row.get(key)!r}"
    for key in ("weight", "seen_ratio"):
        value = row.get(key)
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            return f"{key} must be a number in [0, 1], got {value!r}"
    elevation = row.get("elevation", 0.0)
    if not isinstance(elevation, int | float) or not math.isfinite(elevation):
        return f"elevation must be a finite number, got {elevation!r}"
    return ""


def _check(run: Path, rows: list[dict], everyone: Sequence[Sample], known, tested) -> None:
    """Refuse a run that shows the wrong people."""
    shown = sorted({row["pid"] for row in rows})
    if found := [pid for pid in shown if pid in tested]:
        raise ValueError(
            f"data.synthetic: {run} shows {len(found)} identities of query or gallery: "
            f"{_few(found)}; make it from training pictures only"
        )
    unknown = [pid for pid in shown if pid not in known]
    if len(unknown) == len(shown):
        raise ValueError(
            f"data.synthetic: {run} is a synthetic set of another data set: it shows "
            f"{_scope(unknown[0])} ({_few(unknown)}), the training pictures are of "
            f"{_scope(everyone[0].pid)} ({_few(sorted(known))}); make one of these with generate"
        )
    if unknown:
        raise ValueError(
            f"data.synthetic: {len(unknown)} of the {len(shown)} identities of {run} are not among "
            f"those that are trained on: {_few(unknown)}; make the run from the same pictures"
        )
    _same_pictures(run, rows, everyone)


def _same_pictures(run: Path, rows: list[dict], everyone: Sequence[Sample]) -> None:
    """Refuse a run whose people only bear the same names, as those of another world do.

    Rows know the SHA-256 of their sources: one picture of each person is compared, if it is there.
    """
    path_of = {
        sample.name if len(sample.paths) == 1 else f"{sample.name}/{path.name}": path
        for sample in everyone
        for path in sample.paths
    }
    seen: set[str] = set()
    for row in rows:
        for source in row.get("sources") or ():
            name, digest = source.get("file"), source.get("sha256")
            if row["pid"] in seen or name not in path_of or not digest:
                continue
            seen.add(row["pid"])
            if sha256(path_of[name]) != digest:
                raise ValueError(
                    f"data.synthetic: {run} is a synthetic set of another data set, or of an older "
                    f"state of this one: {name} is not the picture that it was made from; make it "
                    "anew with generate"
                )
    if not seen:
        raise ValueError(
            f"data.synthetic: none of the pictures that {run} was made from is among the training "
            "pictures: it is a synthetic set of another data set with the same names of people"
        )


def _chosen(
    run: Path, rows: list[dict], weight: Weight, left_out, least: float, views: int | None
) -> tuple[list[dict], list[float]]:
    """The rows that are used and what they weigh."""
    key, kept, values = WEIGHTS[weight], [], []
    why: Counter[str] = Counter()
    count: Counter[tuple] = Counter()
    for row in rows:
        value, person = float(row[key]) if key else 1.0, (row["pid"], row.get("outfit"))
        if row["pid"] in left_out:
            why["are of identities that are left out, e.g. for validation"] += 1
        elif row["weight"] <= 0 or value <= 0 or value < least:
            why[f"weigh too little (weight {weight!r}, at least {least:g})"] += 1
        elif views is not None and count[person] >= views:
            why["are beyond the views asked for"] += 1
        else:
            count[person] += 1
            kept.append(row)
            values.append(value)
    if not kept:
        said = "; ".join(f"{number} {text}" for text, number in why.items())
        raise ValueError(
            f"data.synthetic: no picture of {run} is left of {len(rows)}: {said}; lower the least "
            "weight, choose another weight, or train without it"
        )
    return kept, values


def _sample(run: Path, name: str, row: dict) -> Sample:
    """A row as a sample. Raises ValueError if its file lies elsewhere."""
    elevation = row.get("elevation")
    return Sample(
        paths=(inside(run, row["file_name"]),),
        name=f"{name}/{row['file_name']}",
        pid=row["pid"],
        camid=row["camid"],
        platform=row["platform"],
        view=row["view"],
        source="synthetic",
        outfit=row.get("outfit") or "",
        elevation=None if elevation is None else float(elevation),
    )


def _scope(pid: str) -> str:
    scope, mark, _ = pid.partition("/")
    return repr(scope) if mark else "a folder of pictures"


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
