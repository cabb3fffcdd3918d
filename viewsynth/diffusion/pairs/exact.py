# SPDX-License-Identifier: Apache-2.0
"""Exact pairs: people of a rendered world, rendered in the true pose at the true drone camera.

A person is reconstructed from the ground images of one instant as in `generate`, then posed, placed
and scaled by the truth of each drone image. Only what a rendering lacks remains to be trained
(cloth, hair, the unseen side, the look of the drone's camera), not the person's position.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from viewsynth import judge, reconstruct
from viewsynth.diffusion.pairs.pair import ChunkPairs, Pair, camera, nearest
from viewsynth.diffusion.pairs.true_pose import in_true_pose
from viewsynth.records import Person, seed_of
from viewsynth.render import foreground
from viewsynth.world import truth
from viewsynth.world.truth import Instant, TrueImage

ALONE = 0.5  # share of the training pairs whose person is reconstructed from a single photo
HIDDEN = 0.3  # targets in which a larger share of the person is hidden are rejected


def plan(world: Path, people: int | None, skip: int, split: str) -> list[Instant]:
    """The instants to make pairs of.

    Training people get all drone images of the training split, not only those of the instant: since
    the truth gives the pose of each, they are as exact.

    Args:
        world: Folder of `viewsynth world`.
        people: See `truth.instants`.
        skip: See `truth.instants`.
        split: See `truth.instants`.

    Raises:
        FileNotFoundError: See `truth.instants`.
        ValueError: See `truth.instants`.
    """
    moments = truth.instants(world, people, skip, split)
    if split != "train":
        return moments
    others = truth.aerial_rows(world, {moment.pid for moment in moments})
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
) -> ChunkPairs:
    """Make the pairs of a chunk.

    Args:
        moments: Instants of its people.
        world: Folder of `viewsynth world`.
        split: "train" or "test".
        size: Height and width of the model's images, pixels.
        tools: `reconstruct.Tools`.
        seed: Seed of the choice of photos.
    """
    chunk = ChunkPairs()
    ground = [_read(world, moment.ground, chunk) for moment in moments]
    drone = [_read(world, _visible(moment, chunk), chunk) for moment in moments]
    choices = [
        [_choose_photos(true, len(own), split, seed) for true in some] if own else []
        for own, some in zip(ground, drone, strict=True)
    ]
    wanted = sorted({(k, photos) for k, some in enumerate(choices) for photos in some})
    outcomes = reconstruct.reconstruct(
        [[truth.sample(world, ground[k][p].row) for p in photos] for k, photos in wanted],
        [[ground[k][p].image for p in photos] for k, photos in wanted],
        tools,
    )
    found = dict(zip(wanted, outcomes, strict=True))
    for k, own in enumerate(ground):
        first = len(chunk.photos)
        chunk.photos += [picture.image for picture in own]
        accepted = []
        for true, photos in zip(drone[k] if own else [], choices[k], strict=True):
            outcome = found[k, photos]
            if why := judge.rejection_reason(outcome.person, outcome.rejects):
                chunk.reject(true.row["pid"], true.row["file_name"], why)
            else:
                accepted.append((true, outcome.person))
        if accepted:
            chunk.pairs += _pairs(accepted, own, first, split, size, tools)
    return chunk


def _pairs(
    accepted: list[tuple[TrueImage, Person]],
    ground: list[TrueImage],
    first: int,
    split: str,
    size: tuple[int, int],
    tools,
) -> list[Pair]:
    """The pairs of one instant.

    Args:
        accepted: Drone images, each with its reconstructed person.
        ground: Ground images of the instant.
        first: Index of the first of them in `ChunkPairs.photos`.
        split: "train" or "test".
        size: Height and width of the model's images, pixels.
        tools: `reconstruct.Tools`.
    """
    rows, people = [true.row for true, _ in accepted], [person for _, person in accepted]
    meshes = in_true_pose(people, rows, tools, true_size=True)
    places = {picture.row["file_name"]: k for k, picture in enumerate(ground)}
    pairs = []
    for (true, person), mesh in zip(accepted, meshes, strict=True):
        used = [source for source in person.sources if source["used"]]
        # The fitted angles, because the true ones are unknown when views are generated.
        best = used[nearest(true.row["azimuth"], [one["azimuth"] for one in used])]
        place = places[best["file"]]
        row = _row(true, ground[place], best, split) | {"photos": len(used)}
        window = foreground.resize_canvas(true.camera, size)
        pairs.append(Pair(mesh, window, first + place, true.image, true.mask, row))
    return pairs


def _choose_photos(true: TrueImage, count: int, split: str, seed: int) -> tuple[int, ...]:
    """Indices of the ground images that the person of a drone image is reconstructed from.

    For training, one or all of them, because users have one photo of a person or several; for
    testing, all.
    """
    rng = np.random.default_rng(seed_of(seed, "photos", true.row["file_name"]))
    share, one = rng.random(), int(rng.integers(count))
    return (one,) if split == "train" and share < ALONE else tuple(range(count))


def _visible(moment: Instant, chunk: ChunkPairs) -> list[dict]:
    """Rows of the drone images in which enough of the person is visible."""
    rows = []
    for row in moment.drone:
        hidden = float(row.get("occlusion") or 0.0)
        if hidden > HIDDEN:
            chunk.reject(moment.pid, row["file_name"], f"{hidden:.0%} of the person is hidden")
        else:
            rows.append(row)
    return rows


def _read(world: Path, rows: Sequence[dict], chunk: ChunkPairs) -> list[TrueImage]:
    """The images that can be read and show the person."""
    found = []
    for row in rows:
        try:
            picture = truth.read(world, row)
        except (OSError, ValueError) as error:
            chunk.reject(row["pid"], row["file_name"], f"cannot be read: {error}", "fault")
            continue
        if picture.mask.any():
            found.append(picture)
        else:
            chunk.reject(row["pid"], row["file_name"], "the person is not visible")
    return found


def _row(true: TrueImage, photo: TrueImage, fitted: dict, split: str) -> dict:
    row = true.row
    angles = fitted["elevation"], fitted["azimuth"]
    numbers = camera(row["elevation"], row["azimuth"], row["distance"], true.image, angles)
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
