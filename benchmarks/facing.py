# SPDX-License-Identifier: Apache-2.0
"""Which side of a person a crop shows, and whether they ride: what is told, against the truth.

    python benchmarks/facing.py WORLD [--people 200]

The ground images of test people of a world are parsed as `generate` does it. Front or back by the
pose model, by the completion network, and by both (`viewsynth.reconstruct.facing.vote`), in per
cent of wrong answers; riders by the rule of `viewsynth.reconstruct.crop_flags` and by the network.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import tyro
from PIL import Image
from tqdm import tqdm

from viewsynth.reconstruct import canvas, complete, facing
from viewsynth.reconstruct.crop_flags import posture
from viewsynth.reconstruct.parse import parse
from viewsynth.reconstruct.tflite import Model
from viewsynth.runtime import weights

CLEAR = 60  # degrees from front or back within which a view counts as one


@dataclass(frozen=True)
class Config:
    """A world in, wrong answers out."""

    world: tyro.conf.Positional[Path]
    """Folder of a `viewsynth world`."""
    people: int = 200
    """Number of test people."""


def crops(world: Path, people: int) -> Iterator[dict]:
    """Rows of the truth of the ground images of test people."""
    chosen: list[str] = []
    with (world / "truth.jsonl").open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if row["view"] != "ground" or row["split"] not in ("query", "gallery"):
                continue
            if row["pid"] not in chosen and len(chosen) < people:
                chosen.append(row["pid"])
            if row["pid"] in chosen:
                yield row


@torch.no_grad()
def answers(image: np.ndarray, poses: Model, network: complete.Completer) -> dict[str, bool]:
    """What is told of one crop."""
    crop = SimpleNamespace(image=image, parse=parse(image, poses))
    given = complete.stack(
        canvas.tensors([canvas.rough(image, crop.parse.mask, crop.parse.points)])
    )
    given[:, complete.BODY] = 0
    found = network(given)
    told = {
        "pose model": crop.parse.front,
        "network": float(found.azimuth[0, 0]) > 0,
        "rider by the rule": bool(posture(crop.parse)),
        "rider by the network": float(found.rider[0]) > 0,
    }
    facing.vote([crop], network)
    return {**told, "both": crop.parse.front}


def main() -> None:
    """Print the tables."""
    config = tyro.cli(Config)
    torch.set_num_threads(1)
    poses, network = Model(weights.pose_model()), complete.load(weights.completion())
    rows = list(crops(config.world, config.people))
    told = []
    for row in tqdm(rows, unit="crop"):
        with Image.open(config.world / row["file_name"]) as file:
            told.append(answers(np.asarray(file.convert("RGB")), poses, network))
    cosine = np.cos(np.radians([row["azimuth"] for row in rows]))
    ways = ("pose model", "network", "both")
    wrong = {way: np.array([one[way] for one in told]) != (cosine > 0) for way in ways}
    clear = abs(cosine) > np.cos(np.radians(CLEAR))
    sets = {
        "all": np.full(len(rows), True),
        f"within {CLEAR}° of front or back": clear,
        "… fronts": clear & (cosine > 0),
        "… backs": clear & (cosine < 0),
    }
    sys.stdout.write(f"| wrong, % | crops | {' | '.join(ways)} |\n|{'---|' * 5}\n")
    for name, mine in sets.items():
        cells = " | ".join(f"{100 * wrong[way][mine].mean():.1f}" for way in ways)
        sys.stdout.write(f"| {name} | {mine.sum()} | {cells} |\n")
    rides = np.array([row["pose"]["kind"] == "cycle" for row in rows])
    sys.stdout.write(f"\n| riders ({rides.sum()}) | found, % | others taken for riders, % |\n")
    sys.stdout.write("|---|---|---|\n")
    for way in ("rider by the rule", "rider by the network"):
        flagged = np.array([one[way] for one in told])
        found, false = 100 * flagged[rides].mean(), 100 * flagged[~rides].mean()
        sys.stdout.write(f"| {way.removeprefix('rider ')} | {found:.1f} | {false:.1f} |\n")


if __name__ == "__main__":
    main()
