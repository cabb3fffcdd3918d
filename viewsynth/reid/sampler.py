# SPDX-License-Identifier: Apache-2.0
"""PK sampler: each batch has P identities and K images of each, real and synthetic.

reid.pool -> `Plan.batch(step)` -> reid.pixels. A batch is a pure function of (seed, step),
independent of earlier batches and of the number of processes, so a resumed run sees the same ones.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from viewsynth.records import seed_of
from viewsynth.reid.pool import Pool


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """The batches of a run.

    Source: P x K of Hermans et al. 2017 (arXiv 1703.07737). The mixture is ours: at least half of
    the K images of every identity are real, further synthetic ones may be added to them, and the
    last step has real images only.

    Args:
        pool: The training pool.
        people: P, the number of identities in a batch, all different.
        pictures: K, the number of images of each, without those of `added`.
        added: Number of synthetic images of each on top of those, in every batch, so that all
            batches have P * (K + added) images. They follow `until` as well.
        synthetic: Share of synthetic images among those of an identity, [0, 0.5], in the mean over
            the steps, at most K // 2 images. An identity without synthetic images gets real ones
            instead, of `added` as well; where there are too few of either, they are repeated.
        until: Fraction of the run after which the share and the number of added synthetic images
            fall linearly in the mean, to 0 at the last step, where real ones take their places,
            [0, 1]; 1 = both are constant.
        steps: Number of steps of the whole run.
        seed: Seed of the run.

    Raises:
        ValueError: If such batches cannot be sampled from the pool.
    """

    pool: Pool
    people: int
    pictures: int
    added: int = 0
    synthetic: float = 0.5
    until: float = 0.75
    steps: int
    seed: int = 0

    def __post_init__(self):
        for key, low, high in (
            ("people", 1, math.inf),
            ("pictures", 1, math.inf),
            ("added", 0, math.inf),
            ("steps", 1, math.inf),
            ("synthetic", 0, 0.5),
            ("until", 0, 1),
        ):
            if not low <= (value := getattr(self, key)) <= high:
                raise ValueError(f"{key} must be in [{low}, {high}], got {value}")
        if self.people > self.pool.classes:
            raise ValueError(
                f"a batch of {self.people} people cannot be drawn from {self.pool.classes} "
                f"identities; set people to {self.pool.classes} or less"
            )
        if self.synthetic and self.pool.synthetic.any() and self.pictures < 2:
            raise ValueError(
                "pictures must be at least 2 with synthetic images, which are at most half of the "
                f"images of a person; got {self.pictures}"
            )
        mixed = self.synthetic or self.added
        counted = self.pool.labels if mixed else self.pool.labels[~self.pool.synthetic]
        if self.each > 1 and np.bincount(counted, minlength=1).max() <= 1:
            raise ValueError(
                f"every identity has one image, but a batch takes {self.each} of each: they "
                "would all be the same, and the triplet loss would be useless; add images, e.g. "
                "with viewsynth generate, or set pictures to 1 to train on the identity loss alone"
            )

    @property
    def each(self) -> int:
        """Number of images of each identity in a batch, with the added ones."""
        return self.pictures + self.added

    @property
    def epoch(self) -> int:
        """Number of steps that show each identity once; the last one is filled up."""
        return math.ceil(self.pool.classes / self.people)

    def share(self, step: int) -> float:
        """The expected share of synthetic images at a step, where an identity has any."""
        return self._expected(step) / self.each

    def _expected(self, step: int) -> float:
        """The expected number of synthetic images of an identity that has any."""
        done = step / max(self.steps - 1, 1)
        fall = 1.0 if self.until == 1 else min(1.0, max(0.0, (1 - done) / (1 - self.until)))
        return self.synthetic * fall * self.pictures + self.added * fall

    def batch(self, step: int) -> np.ndarray:
        """The images of a step, identity by identity, real ones first.

        Args:
            step: Step of the run, >= 0.

        Returns:
            Indices into the pool.  int64 [people * each]
        """
        rng = np.random.default_rng(seed_of(self.seed, "batch", step))
        aim, most = self._expected(step), self.pictures // 2 + self.added
        chosen = []
        for label in self._identities(step):
            groups, made = self._by_identity[label]
            # Rounded at random, so that the mean over the steps is the expected share.
            wanted = min(int(aim + rng.random()), most) if made else 0
            real = _spread(groups, rng)[: self.each - wanted]
            wanted = wanted if real else self.each
            chosen += _fill(real, self.each - wanted)
            chosen += _fill(rng.permutation(made).tolist(), wanted)
        return np.array(chosen, np.int64)

    def part(self, number: int, parts: int) -> slice:
        """The slots of a batch that form one of several equal parts.

        Args:
            number: Which part, [0, parts).
            parts: Number of parts: processes times accumulated steps.

        Raises:
            ValueError: If the identities cannot be divided evenly.
        """
        if self.people % parts:
            raise ValueError(
                f"{self.people} people cannot be shared by {parts} processes (times accumulated "
                f"steps); set people to a multiple of {parts}"
            )
        if parts > 1 and self.people // parts < 2:
            raise ValueError(
                f"{self.people} people in {parts} parts leave one a part, which has no negatives; "
                "use more people or fewer parts"
            )
        size = self.people // parts * self.each
        return slice(number * size, (number + 1) * size)

    def _identities(self, step: int) -> np.ndarray:
        """Labels of the identities of a step: each epoch goes through all in a random order."""
        epoch, place = divmod(step, self.epoch)
        rng = np.random.default_rng(seed_of(self.seed, "epoch", epoch))
        order = rng.permutation(self.pool.classes)
        at = np.arange(place * self.people, (place + 1) * self.people)
        return order[at % self.pool.classes]

    @cached_property
    def _by_identity(self) -> list[tuple[list[list[list[int]]], list[int]]]:
        """For each identity, its real images by view and camera, and its synthetic images."""
        pool = self.pool
        own: list[tuple[dict, list[int]]] = [({}, []) for _ in pool.pids]
        for number, label in enumerate(pool.labels.tolist()):
            views, made = own[label]
            if pool.synthetic[number]:
                made.append(number)
            else:
                cameras = views.setdefault(int(pool.views[number]), {})
                cameras.setdefault(int(pool.cameras[number]), []).append(number)
        return [
            ([list(cameras.values()) for cameras in views.values()], made) for views, made in own
        ]


def _spread(views: list[list[list[int]]], rng: np.random.Generator) -> list[int]:
    """All real images of an identity, alternating between views and, within these, cameras."""
    return _turns(
        [_turns([rng.permutation(c).tolist() for c in cameras], rng) for cameras in views], rng
    )


def _turns(queues: list[list[int]], rng: np.random.Generator) -> list[int]:
    """Round robin over queues in a random order: the first of each, then the second of each."""
    if len(queues) > 1:
        queues = [queues[n] for n in rng.permutation(len(queues))]
    rounds = itertools.zip_longest(*queues)
    return [number for some in rounds for number in some if number is not None]


def _fill(numbers: list[int], count: int) -> list[int]:
    """The first `count` numbers, repeated from the start if there are fewer."""
    return list(itertools.islice(itertools.cycle(numbers), count))
