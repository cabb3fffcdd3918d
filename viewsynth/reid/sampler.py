# SPDX-License-Identifier: Apache-2.0
"""Sampler: which pictures make the batch of a step. P identities, K pictures of each.

pool -> `Plan.batch(step)` -> pixels. A batch is a pure function of (seed, step): it does not know
what was drawn before, by whom, or in how many processes, so a resumed run sees the same pictures.
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

    Source: P x K of Hermans et al. 2017 (arXiv 1703.07737); the mixture is ours: real pictures are
    at least half of every identity's, and the last step has no others.

    Args:
        pool: What is drawn from.
        people: P, identities in a batch, all different.
        pictures: K, pictures of each.
        synthetic: Share of an identity's pictures that are synthetic, in [0, 0.5], rounded down
            to whole pictures; where it has none, real ones take their place, where it has too few
            they are repeated.
        until: Part of the run after which that share falls, linearly, to 0 at the last step, in
            [0, 1]; 1 = it never falls.
        steps: Of the whole run.
        seed: Of the run.
    Raises: ValueError: if such batches cannot be drawn from the pool.
    """

    pool: Pool
    people: int
    pictures: int
    synthetic: float = 0.5
    until: float = 0.75
    steps: int
    seed: int = 0

    def __post_init__(self):
        for key, low, high in (
            ("people", 1, math.inf),
            ("pictures", 1, math.inf),
            ("steps", 1, math.inf),
            ("synthetic", 0, 0.5),
            ("until", 0, 1),
        ):
            if not low <= (value := getattr(self, key)) <= high:
                raise ValueError(f"{key} must be in [{low}, {high}], got {value}")
        if self.people > self.pool.classes:
            raise ValueError(
                f"a batch of {self.people} people cannot be drawn from {self.pool.classes} "
                f"identities; take at most {self.pool.classes}"
            )
        if self.synthetic and self.pool.synthetic.any() and self.pictures < 2:
            raise ValueError(
                "one picture of each person leaves no room for synthetic ones, which are at most "
                "half; take at least 2 pictures of each"
            )
        counted = self.pool.labels if self.synthetic else self.pool.labels[~self.pool.synthetic]
        if self.pictures > 1 and np.bincount(counted, minlength=1).max() <= 1:
            raise ValueError(
                f"every identity has one picture, but a batch takes {self.pictures} of each: they "
                "would all be the same, and the triplet loss would learn nothing; add pictures "
                "(viewsynth generate makes some), or take 1 a person and the identity loss alone"
            )

    @property
    def epoch(self) -> int:
        """Steps in which everybody is seen once; the last one is filled up with some of them."""
        return math.ceil(self.pool.classes / self.people)

    def share(self, step: int) -> float:
        """The share of synthetic pictures that a step aims at."""
        done = step / max(self.steps - 1, 1)
        fall = 1.0 if self.until == 1 else min(1.0, max(0.0, (1 - done) / (1 - self.until)))
        return self.synthetic * fall

    def batch(self, step: int) -> np.ndarray:
        """The pictures of a step, identity by identity, each with its real ones first.

        Returns: Indices into the pool.  int64 [people * pictures]
        """
        rng = np.random.default_rng(seed_of(self.seed, "batch", step))
        aim, most = self.share(step) * self.pictures, self.pictures // 2
        chosen = []
        for label in self._identities(step):
            groups, made = self._own[label]
            # Rounded at random, so that the mean is what was aimed at.
            wanted = min(int(aim + rng.random()), most) if made else 0
            real = _spread(groups, rng)[: self.pictures - wanted]
            wanted = wanted if real else self.pictures
            chosen += _fill(real, self.pictures - wanted)
            chosen += _fill(rng.permutation(made).tolist(), wanted)
        return np.array(chosen, np.int64)

    def part(self, number: int, parts: int) -> slice:
        """The slots of a batch that one of several processes (or accumulated steps) computes.

        Raises: ValueError: if the identities cannot be dealt out evenly.
        """
        if self.people % parts:
            raise ValueError(
                f"{self.people} people cannot be shared by {parts} processes (times accumulated "
                f"steps); take a multiple of {parts}"
            )
        if parts > 1 and self.people // parts < 2:
            raise ValueError(
                f"{self.people} people in {parts} parts leave one a part, who has no negatives; "
                "take more people or fewer parts"
            )
        each = self.people // parts * self.pictures
        return slice(number * each, (number + 1) * each)

    def _identities(self, step: int) -> np.ndarray:
        epoch, place = divmod(step, self.epoch)
        rng = np.random.default_rng(seed_of(self.seed, "epoch", epoch))
        order = rng.permutation(self.pool.classes)
        at = np.arange(place * self.people, (place + 1) * self.people)
        return order[at % self.pool.classes]

    @cached_property
    def _own(self) -> list[tuple[list[list[list[int]]], list[int]]]:
        """Of every identity: its real pictures by view and camera, and its synthetic ones."""
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
    """All real pictures of an identity, views taking turns, and in each view the cameras."""
    return _turns(
        [_turns([rng.permutation(c).tolist() for c in cameras], rng) for cameras in views], rng
    )


def _turns(queues: list[list[int]], rng: np.random.Generator) -> list[int]:
    """Queues in a random order, the first of each, then the second of each, ..."""
    if len(queues) > 1:
        queues = [queues[n] for n in rng.permutation(len(queues))]
    rounds = itertools.zip_longest(*queues)
    return [number for some in rounds for number in some if number is not None]


def _fill(numbers: list[int], count: int) -> list[int]:
    """The first `count`, from the beginning again where there are fewer."""
    return list(itertools.islice(itertools.cycle(numbers), count))
