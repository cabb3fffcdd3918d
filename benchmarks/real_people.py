# SPDX-License-Identifier: Apache-2.0
r"""Retrieval of real people from the air by models that were trained in different ways.

    python benchmarks/real_people.py --air AIR --ground GROUND [--run RUN] \
        --arms untouched=FOLDER 'ground=DIR/a/*/model' 'views=DIR/e/*/model'

AIR/<pid>/*.png or *.jpg are true aerial crops, the queries; GROUND/<pid>/ ground crops of the same
people, as for `identity.py`. An arm is a name and the folder of a model: `model/` of a training
run, or that of `viewsynth convert`; with wildcards it has a model for each seed. The first arm is
what the others are compared with.

The gallery has one vector per person, the mean of the features of the ground crops; with `--run`,
also that with the views of a run of `generate` on GROUND at elevations of 30 to 60 degrees, both
counting the same. Features of an image and of its mirror image are added. Scores are means over a
person's queries, then seeds, then people. Intervals are 95 % bootstraps over people, paired in
differences; they do not include the seeds, whose standard deviation stands next to them.

A trained model normalises its features by a batch norm of its own, a converted one does not, which
alone changes margins: compare it with a model that was trained with `--optim.rate 0`.
"""

from __future__ import annotations

import glob
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import identity_images
import numpy as np
import torch
import tyro
from identity import enough, oblique
from identity_scores import InputError, centre, interval_cell, scores, unit

from viewsynth import metrics
from viewsynth.config import fail
from viewsynth.reid import encoders
from viewsynth.runtime.images import resized

BATCH = 64  # images in a forward pass
Embed = Callable[[Sequence[np.ndarray]], np.ndarray]
Images = dict[str, list[np.ndarray]]  # of each person


@dataclass(frozen=True)
class Config:
    """Crops and models in, tables out."""

    air: Path
    """AIR/<pid>/*.png, true aerial crops."""
    ground: Path
    """GROUND/<pid>/*.png, ground crops."""
    arms: tuple[str, ...]
    """Each NAME=FOLDER; wildcards in FOLDER stand for the seeds."""
    run: Path | None = None
    """Run of `generate` on GROUND, whose views are added to the gallery."""
    device: str = "cpu"
    """Device of the models."""
    threads: int = 1
    """Threads of torch; results may depend on it in the last digit."""


def parse_arms(given: Sequence[str]) -> dict[str, list[Path]]:
    """Folders of the models of each arm.

    Args:
        given: Values of `--arms`.

    Raises:
        InputError: If one has another form, a name is given twice, or there is no such folder.
    """
    arms: dict[str, list[Path]] = {}
    for one in given:
        name, _, folder = one.partition("=")
        if not name or not folder or name in arms:
            raise InputError(f"--arms {one}: expected NAME=FOLDER, and another NAME for each arm")
        arms[name] = sorted(map(Path, glob.glob(folder)))  # noqa: PTH207 (may be absolute)
        if not arms[name]:
            raise InputError(f"--arms {one}: there is no such folder")
    return arms


# ---- features ------------------------------------------------------------------------------------


def embedder(folder: Path, device: str = "cpu") -> Embed:
    """The features of a model, for images and their mirror images.

    Args:
        folder: A trained method or a converted backbone.
        device: Device of the model.

    Returns:
        A function from images, uint8 [H, W, 3] each, to rows of unit length, float32 [N, D].

    Raises:
        InputError: If it cannot be loaded.
    """
    try:
        encoder = encoders.load(str(folder), device=device)
    except (FileNotFoundError, ValueError) as error:
        raise InputError(f"--arms: {error}") from error

    def embed(images: Sequence[np.ndarray]) -> np.ndarray:
        pixels = np.stack([resized(image, encoder.size) for image in images])
        both = torch.from_numpy(np.stack([pixels, pixels[:, :, ::-1]], 1)).flatten(0, 1)
        found = torch.cat([encoder.encode(some) for some in both.split(BATCH)])
        return unit(found.unflatten(0, (-1, 2)).sum(1).numpy())

    return embed


def results(air: Images, ground: Images, views: Images, embed: Embed) -> dict[str, np.ndarray]:
    """Scores of each person by kind of gallery.

    Args:
        air: True aerial crops.
        ground: Ground crops of the same people, in the same order.
        views: Views of them; empty = none.
        embed: See `embedder`.

    Returns:
        Of `identity_scores.scores`.  [P, 3] each
    """
    queries = [embed(own) for own in air.values()]
    single = [
        np.stack([centre(embed(images[pid])) for pid in air])
        for images in (ground, views)
        if images
    ]
    kinds = ("ground crops", "ground crops + our views at 30-60")
    return {
        kinds[count]: scores(queries, unit(sum(single[: count + 1])))
        for count in range(len(single))
    }


# ---- tables --------------------------------------------------------------------------------------


def tables(arms: dict[str, list[dict[str, np.ndarray]]]) -> str:
    """The tables of all galleries: each arm, and its difference to the first one.

    Args:
        arms: `results` of each seed of each arm.
    """
    lines, [first, *others] = [], list(arms)
    columns = "mAP | rank-1 | margin"
    for kind in arms[first][0]:
        found = {name: np.stack([one[kind] for one in seeds]) for name, seeds in arms.items()}
        lines += ["", f"| gallery: {kind} | seeds | {columns} | SD over seeds: {columns} |"]
        lines += ["|---|" + "---|" * 7]
        for name, seeds in found.items():
            own = [interval_cell(metrics.interval(column), 3) for column in seeds.mean(0).T]
            lines += [f"| {name} | {len(seeds)} | {' | '.join([*own, *_spread(seeds)])} |"]
        if others:
            lines += ["", f"| minus {first} | {columns} |", "|---|---|---|---|"]
        for name in others:
            pairs = zip(found[name].mean(0).T, found[first].mean(0).T, strict=True)
            own = [interval_cell(metrics.difference(*pair), 3) for pair in pairs]
            lines += [f"| {name} | {' | '.join(own)} |"]
    return "\n".join(lines)


def _spread(seeds: np.ndarray) -> list[str]:
    """Standard deviations of the means over people, [S, P, 3]; "-" for a single seed."""
    if len(seeds) < 2:
        return ["-"] * 3
    return [f"{value:.3f}" for value in seeds.mean(1).std(0, ddof=1)]


# ---- command -------------------------------------------------------------------------------------


def measure(asked: Config) -> None:
    """Read the inputs, load one model after another and print the tables.

    Args:
        asked: The command line.
    """
    arms = parse_arms(asked.arms)
    files = identity_images.crop_files(asked.air, asked.ground)
    air, ground = (identity_images.read_all(some) for some in files)
    views: Images = {}
    if asked.run:
        made = identity_images.read_views(asked.run, list(air))
        views = {pid: [view.image for view in own if oblique(view)] for pid, own in made.items()}
        missing = [pid for pid, own in views.items() if not own]
        used = enough(list(air), missing, "view at 30-60 degrees")
        air, ground, views = ({pid: one[pid] for pid in used} for one in (air, ground, views))
    torch.set_num_threads(asked.threads)
    counts = [sum(map(len, images.values())) for images in (air, ground, views)]
    print(f"{len(air)} people, {counts[0]} aerial queries, {counts[1]} ground crops, ", end="")
    print(f"{counts[2]} views", flush=True)
    found = {
        name: [results(air, ground, views, embedder(folder, asked.device)) for folder in folders]
        for name, folders in arms.items()
    }
    print(tables(found))


def main() -> None:
    """Run the benchmark."""
    try:
        measure(tyro.cli(Config, description=__doc__))
    except InputError as error:
        fail(Path(sys.argv[0]).name, str(error))


if __name__ == "__main__":
    main()
