# SPDX-License-Identifier: Apache-2.0
"""Exact pairs: a world's people, drawn in the true pose where a drone truly saw them.

The person is reconstructed from the ground photos of a moment as `generate` does, then posed,
placed and scaled by the truth of each drone picture: what is left to learn is what a drawing lacks
(cloth, hair, the unseen side, the look of the drone's camera), not where the person is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from viewsynth import judge, reconstruct
from viewsynth.diffusion.pairs.parts import Made, Pair, camera, nearest
from viewsynth.diffusion.pairs.true_pose import in_true_pose
from viewsynth.records import seed_of
from viewsynth.render import foreground
from viewsynth.world import truth
from viewsynth.world.truth import Instant, Picture

ALONE = 0.5  # share of the pairs of training people whose person comes from one photo
HIDDEN = 0.3  # a target of which more is hidden tells little of the person


def plan(world: Path, people: int | None, skip: int, split: str) -> list[Instant]:
    """The moments of some people.

    Training people's come with all drone pictures that may be learnt from: those of other moments
    are as exact, for the truth tells the pose of each.
    Raises: see `truth.instants`.
    """
    moments = truth.instants(world, people, skip, split)
    if split != "train":
        return moments
    others = truth.drone_pictures(world, {moment.pid for moment in moments})
    count = dict.fromkeys(others, 0)
    for moment in moments:
        count[moment.pid] = count.get(moment.pid, 0) + 1
    done, out = dict.fromkeys(count, 0), []
    for moment in moments:
        more = others.get(moment.pid, [])[done[moment.pid] :: count[moment.pid]]
        done[moment.pid] += 1
        out.append(dataclasses.replace(moment, drone=(*moment.drone, *more)))
    return out


def make(
    moments: list[Instant], world: Path, split: str, size: tuple[int, int], tools, seed: int
) -> Made:
    """The pairs of some moments."""
    made = Made()
    ground = [_read(world, moment.ground, made) for moment in moments]
    drone = [_read(world, _shown(moment, made), made) for moment in moments]
    wishes = [
        [_wish(true, len(own), split, seed) for true in some] if own else []
        for own, some in zip(ground, drone, strict=True)
    ]
    wanted = sorted({(k, photos) for k, some in enumerate(wishes) for photos in some})
    outcomes = reconstruct.reconstruct(
        [[truth.sample(world, ground[k][p].row) for p in photos] for k, photos in wanted],
        [[ground[k][p].image for p in photos] for k, photos in wanted],
        tools,
    )
    found = dict(zip(wanted, outcomes, strict=True))
    for k, own in enumerate(ground):
        first = len(made.photos)
        made.photos += [picture.image for picture in own]
        pairs = []
        for true, chosen in zip(drone[k] if own else [], wishes[k], strict=True):
            if why := judge.refusal(found[k, chosen].person, found[k, chosen].rejects):
                made.reject(true.row["pid"], true.row["file_name"], why)
            else:
                pairs.append((true, found[k, chosen].person, chosen))
        if not pairs:
            continue
        bodies = in_true_pose(
            [person for _, person, _ in pairs],
            [true.row for true, _, _ in pairs],
            tools,
            true_size=True,
        )
        for (true, person, chosen), vertices in zip(pairs, bodies, strict=True):
            used = [source for source in person.sources if source["used"]]
            # As fitted: nobody who generates knows the true angles of a photo.
            best = used[nearest(true.row["azimuth"], [one["azimuth"] for one in used])]
            at = {truth.sample(world, own[p].row).name: p for p in chosen}[best["file"]]
            row = _row(true, own[at], best, split) | {"photos": len(used)}
            window = foreground.resize_canvas(true.camera, size)
            made.pairs.append(
                Pair(vertices, person, window, first + at, true.image, true.mask, row)
            )
    return made


def _wish(true: Picture, count: int, split: str, seed: int) -> tuple[int, ...]:
    """Which of the ground photos the person of a drone picture is reconstructed from.

    Some users have one photo of a person and others several; to measure, all are taken.
    """
    rng = np.random.default_rng(seed_of(seed, "photos", true.row["file_name"]))
    share, one = rng.random(), int(rng.integers(count))
    return (one,) if split == "train" and share < ALONE else tuple(range(count))


def _shown(moment: Instant, made: Made) -> list[dict]:
    """The rows of those drone pictures that show enough of the person."""
    rows = []
    for row in moment.drone:
        hidden = float(row.get("occlusion") or 0.0)
        if hidden > HIDDEN:
            made.reject(moment.pid, row["file_name"], f"{hidden:.0%} of the person is hidden")
        else:
            rows.append(row)
    return rows


def _read(world: Path, rows: Sequence[dict], made: Made) -> list[Picture]:
    """The pictures that can be read and show somebody."""
    found = []
    for row in rows:
        try:
            picture = truth.read(world, row)
        except (OSError, ValueError) as error:
            made.reject(row["pid"], row["file_name"], f"cannot be read: {error}", "fault")
            continue
        if picture.mask.any():
            found.append(picture)
        else:
            made.reject(row["pid"], row["file_name"], "nothing of the person is in sight")
    return found


def _row(true: Picture, photo: Picture, fitted: dict, split: str) -> dict:
    row = true.row
    numbers = camera(
        row["elevation"],
        row["azimuth"],
        row["distance"],
        true.image,
        (fitted["elevation"], fitted["azimuth"]),
    )
    return {
        "pid": row["pid"],
        "kind": "exact",
        "split": split,
        "instant": row["instant"],
        "elevation": numbers[0],
        "camera": numbers,
        "target": row["file_name"],
        "photo": photo.row["file_name"],
        "occlusion": float(row.get("occlusion") or 0.0),
    }
