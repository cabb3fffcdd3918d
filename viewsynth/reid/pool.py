# SPDX-License-Identifier: Apache-2.0
"""Training pool: real training samples and the synthetic images of runs of `generate`.

data -> `split` -> `build` -> `Pool` -> reid.sampler, reid.pixels. A synthetic image keeps the label
of its person and has a camera id of its own and a weight in the losses, see reid.synthetic.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from viewsynth.data.frames import is_video
from viewsynth.records import Reject, Sample, seed_of
from viewsynth.reid import attributes, methods
from viewsynth.reid.synthetic import (
    Selection,
    check_people,
    read_rows,
    sample_of,
    select,
)
from viewsynth.runtime.messages import first_names

NO_VIDEO = (
    "training reads images only: replace the video with a folder of its frames (generate and "
    "evaluate read videos)"
)
By = Literal["view", "platform"]  # field of a sample that defines its view

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Pool:
    """Training images with their labels.

    Args:
        samples: One image each.
        labels: Index into `pids`.  int64 [N]
        cameras: Numbers of the cameras; real and synthetic images share none.  int64 [N]
        views: Index into `view_names`.  int64 [N]
        synthetic: Whether an image is synthetic.  bool [N]
        weights: Weights in the losses, (0, 1]; 1 for real images.  float32 [N]
        pids: The identities, sorted.
        view_names: ("ground", "aerial"), or the platforms, sorted.
        by: Field of a sample that defines its view.
        attributes: Of `attributes.table`, with `with_attributes`; else none.  int8 [N, A]
        attribute_names: Names of the attributes.
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
    attributes: np.ndarray
    attribute_names: tuple[str, ...]

    @property
    def classes(self) -> int:
        """Number of identities."""
        return len(self.pids)

    def keep(self, usable: np.ndarray) -> Pool:
        """The pool with some images only, without the identities that have none left.

        Args:
            usable: Which images to keep.  bool [N]
        """
        if usable.all():
            return self
        kept = [self.samples[n] for n in np.flatnonzero(usable)]
        kept = _pool(kept, self.weights[usable], self.by, self.view_names)
        own = self.attributes[usable]
        return replace(kept, attributes=own, attribute_names=self.attribute_names)

    def with_attributes(self) -> Pool:
        """The pool with the attributes of its people, for methods that learn from them.

        Raises:
            ValueError: If images of a person contradict each other.
        """
        names, values = attributes.table(self.samples)
        return replace(self, attributes=values, attribute_names=names)

    def without_identities(self) -> Pool:
        """The pool with a label of its own for every image, for methods that learn without them."""
        names = [sample.name for sample in self.samples]
        return replace(self, labels=np.arange(len(names)), pids=names)


# ---- real samples -------------------------------------------------------------------------------


def split(samples: Sequence[Sample], share: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Training and validation samples with disjoint identities, independent of the samples' order.

    Args:
        samples: Real training samples.
        share: Fraction of the identities for validation, [0, 1); 0 = none.
        seed: Seed of the run.

    Returns:
        Training samples and validation samples.

    Raises:
        ValueError: If no identity is left to train on.
    """
    if not 0 <= share < 1:
        raise ValueError(f"the share of validation identities must be in [0, 1), got {share}")
    pids = {sample.pid for sample in samples}
    ordered = sorted(pids, key=lambda pid: (seed_of(seed, "validation", pid), pid))
    count = max(2, round(share * len(pids))) if share else 0  # retrieval among one is always right
    if count >= len(pids):
        raise ValueError(
            f"{count} of {len(pids)} identities for validation leave none to train on; lower the "
            "share, or give more people"
        )
    chosen = set(ordered[:count])
    return [s for s in samples if s.pid not in chosen], [s for s in samples if s.pid in chosen]


def single_images(samples: Iterable[Sample]) -> tuple[list[Sample], list[Reject]]:
    """Samples of one image each; videos are left out.

    Args:
        samples: Images, tracklets and videos.

    Returns:
        The samples, a tracklet as one sample for each frame; and a reject for each video.

    Raises:
        ValueError: If all samples are videos.
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
        shown = first_names([sample.name for sample in videos])
        text = f"{len(videos)} samples are videos ({shown}); {NO_VIDEO}"
        if not found:
            raise ValueError(f"there are no images to train on: {text}")
        logger.warning("%s; they are left out", text)
    rejects = [
        Reject(source=str(s.paths[0]), stage="input", reason=f"a video; {NO_VIDEO}", pid=s.pid)
        for s in videos
    ]
    return found, rejects


# ---- the pool -----------------------------------------------------------------------------------


def build(
    train: Sequence[Sample],
    runs: Iterable[Path] = (),
    selection: Selection | None = None,
    *,
    everyone: Sequence[Sample] | None = None,
    tested: AbstractSet[str] = frozenset(),
    repeat: int = 0,
    by: By = "view",
    view_names: tuple[str, ...] = (),
) -> Pool:
    """The pool of real samples and synthetic runs, independent of the order of the samples.

    Args:
        train: Real samples; a tracklet becomes one image for each frame.
        runs: Output folders of `generate`, generated from images of the same identities.
        selection: Which synthetic images are used, and their weights; None = all that the judge
            kept, with its weights.
        everyone: All real training samples if `train` is a part of them; synthetic images of the
            identities that are not in `train` are left out. None = `train`.
        tested: Identities of query and gallery, which may be neither in `everyone` nor in a run.
        repeat: Control: real images of each identity that are added again as synthetic ones, so
            that batches are composed as with a run, but show nothing new.
        by: Field of a sample that defines its view.
        view_names: View names of another pool, to share its numbering; () = those of this pool.

    Raises:
        FileNotFoundError: if a run does not exist or is not finished.
        ValueError: if a run is of another data set, or shows tested or unknown identities.
    """
    if not train:
        raise ValueError("there are no training images; the data set needs a train split")
    everyone = train if everyone is None else everyone
    _check_disjoint({sample.pid for sample in everyone}, tested)
    real = sorted(single_images(train)[0], key=lambda s: (s.pid, s.name))
    real += _repeated(real, repeat)
    made, weights = _synthetic(runs, selection or Selection(), train, everyone, tested)
    weights = np.array([1.0] * len(real) + weights, np.float32)
    return _pool(real + made, weights, by, view_names)


def inputs(pool: Pool, validation: Sequence[Sample], *opened) -> dict[str, tuple[Path, dict]]:
    """Every image of a run with the properties that training uses, for `fingerprint.compare`.

    Args:
        pool: The training pool.
        validation: Validation samples.
        opened: `pixels.Pixels` of both, which hold the readable images; None = there are none.

    Returns:
        Sample name -> file and properties.
    """
    readable = {sample.name for pixels in opened if pixels for sample in pixels.samples}
    weights = pool.weights.tolist() + [1.0] * len(validation)
    used = ("pid", "camid", "platform", "view", "box")
    return {
        sample.name: (
            sample.paths[0],
            {key: getattr(sample, key) for key in used}
            | {"weight": weight, "readable": sample.name in readable},
        )
        for sample, weight in zip([*pool.samples, *validation], weights, strict=True)
    }


def _check_disjoint(people: AbstractSet[str], tested: AbstractSet[str]) -> None:
    if shared := sorted(people & tested):
        raise ValueError(
            f"{len(shared)} identities are in train and in query or gallery: "
            f"{first_names(shared)}; "
            "a model trained on them cannot be evaluated: remove them from one of the two"
        )


def _synthetic(
    runs: Iterable[Path],
    selection: Selection,
    train: Sequence[Sample],
    everyone: Sequence[Sample],
    tested: AbstractSet[str],
) -> tuple[list[Sample], list[float]]:
    """Samples and weights of the images of all runs that are used, see `build`."""
    left_out = {sample.pid for sample in everyone} - {sample.pid for sample in train}
    samples, weights = [], []
    for folder, name in _named(runs):
        rows = read_rows(folder)
        check_people(folder, rows, everyone, tested)
        rows, values = select(folder, rows, selection, left_out)
        samples += [sample_of(folder, name, row) for row in rows]
        weights += values
    return samples, weights


def _named(runs: Iterable[Path]) -> list[tuple[Path, str]]:
    """Folders of runs with the names that their samples start with: the shortest unique ones."""
    folders = [Path(run).expanduser().resolve() for run in runs]
    if twice := [folder for folder, count in Counter(folders).items() if count > 1]:
        raise ValueError(f"the synthetic run {twice[0]} is given twice")
    count = Counter(folder.name for folder in folders)
    return [(f, f.name if count[f.name] == 1 else f.as_posix()) for f in folders]


def _repeated(frames: list[Sample], count: int) -> list[Sample]:
    """Copies of `count` images of each identity, its images in turn, marked as synthetic."""
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
    names = names or (methods.VIEWS if by == "view" else tuple(sorted(found)))
    if unknown := sorted(found - set(names)):
        raise ValueError(
            f"there are images of {', '.join(unknown)}, but the training images are all of "
            f"{', '.join(names)}"
        )
    # Real cameras first: their numbers do not depend on which synthetic images there are.
    cameras = sorted({(s.source == "synthetic", s.camid) for s in samples})
    camera = {key: number for number, key in enumerate(cameras)}
    return Pool(
        samples=samples,
        labels=np.array([label[s.pid] for s in samples], np.int64),
        cameras=np.array([camera[s.source == "synthetic", s.camid] for s in samples], np.int64),
        views=np.array([names.index(getattr(s, by)) for s in samples], np.int64),
        synthetic=np.array([s.source == "synthetic" for s in samples]),
        weights=weights.astype(np.float32),
        pids=pids,
        view_names=names,
        by=by,
        attributes=np.zeros((len(samples), 0), np.int8),
        attribute_names=(),
    )
