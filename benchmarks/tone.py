# SPDX-License-Identifier: Apache-2.0
"""Colours of reconstructed clothes against their true ones in a world, under neutral light.

    python benchmarks/tone.py WORLD [--people 30]

Test people are reconstructed from their ground images. The median colour that each part of the body
gets is compared with the colour of its fabric (CIEDE2000), for garments of one colour, after one
gain of linear light for all people, because nothing tells how bright the light was. Rows: crops
averaged as they are, without shading, and in one tone, by rules and with the exposure that
completion says. Means over people with 95 % bootstrap intervals.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import tyro
from tqdm import tqdm

from viewsynth import bodies, reconstruct
from viewsynth.metrics.colours import delta_e, lab, linear, srgb
from viewsynth.metrics.intervals import interval
from viewsynth.reconstruct import fitting, people, quality, texture, tone
from viewsynth.reconstruct.crops import Outcome
from viewsynth.reconstruct.texture import GROUPS
from viewsynth.runtime import weights
from viewsynth.world import truth

LEAST = 60  # texels of a part that the crops must show
ONE_COLOUR = ("plain", "heather", "knit", "denim", "leather", "down")
BARE = ("none", "bald", "shaved")  # kinds of hair
HAIR = len(GROUPS)
PARTS = {
    "hair": (HAIR,),
    "skin": tuple(GROUPS.index(name) for name in ("hand", "neck", "head")),
    "upper": (GROUPS.index("torso"),),
    "lower": (GROUPS.index("thigh"),),
    "shoes": (GROUPS.index("foot"),),
}
GAINS = 2.0 ** np.arange(-1, 1.5, 0.125)


@dataclass(frozen=True)
class Config:
    """A world in, ΔE by part out."""

    world: tyro.conf.Positional[Path]
    """Folder of a `viewsynth world` with instants."""
    people: int = 30
    """Number of test people."""
    skip: int = 0
    """Number of test people to skip first."""


def true_colours(person: dict) -> dict[str, np.ndarray]:
    """Colour of each part under neutral light, where it has one.

    Args:
        person: Row of the world's `people.jsonl`.

    Returns:
        sRGB in [0, 255] by part.  [3] each
    """
    outfit, found = person["outfit"], {"skin": person["skin"]}
    if not outfit["headwear"] and person["hair"]["kind"] not in BARE:
        found["hair"] = person["hair"]["colour"]
    outer, bottom = outfit["outer"], outfit["bottom"]
    upper = outer or outfit["top"]
    if _one_colour(upper) and not (outer and outer.get("open", 0) >= 0.15):
        found["upper"] = upper["fabric"]["colours"][0]
    if _one_colour(bottom) and not (outer and outer["length"] >= 0.8):
        found["lower"] = bottom["fabric"]["colours"][0]
    found["shoes"] = outfit["shoes"]["fabric"]["colours"][0]
    return {part: np.array(colour) * 255 for part, colour in found.items()}


def _one_colour(garment: dict | None) -> bool:
    return bool(
        garment
        and garment["fabric"]["kind"] in ONE_COLOUR
        and len(garment["fabric"]["colours"]) == 1
    )


def colours(config: Config) -> Iterator[tuple[str, str, str, np.ndarray, np.ndarray]]:
    """Way, pid, part, made and true colour of every part that is seen."""
    tools = reconstruct.load(bodies.load("anny"), weights.reconstruction())
    rows = (config.world / "people.jsonl").read_text("utf-8").splitlines()
    known = {row["pid"]: row for row in map(json.loads, rows)}
    for moment in tqdm(truth.instants(config.world, config.people, config.skip), unit="person"):
        images = [truth.read(config.world, row).image for row in moment.ground]
        samples = [truth.sample(config.world, row) for row in moment.ground]
        found = fitting.fitted([samples], [images], tools, [Outcome(person=None)])
        if found is None:
            continue
        true = true_colours(known[moment.pid])
        for way, paint in ways(found, tools).items():
            for part, numbers in PARTS.items():
                seen = np.isin(tools.atlas.part, numbers) & (paint.weight > 0.15)
                if part in true and seen.sum() > LEAST:
                    yield way, moment.pid, part, np.median(paint.colour[seen], 0), true[part]


def ways(found: fitting.Fitted, tools: reconstruct.Tools) -> dict[str, texture.Paint]:
    """The fused colours of one person by each way."""
    crops = found.crops
    images, masks = [one.image for one in crops], [one.parse.mask for one in crops]
    shown = texture.project(tools.body, tools.atlas, found.fit, found.vertices, images, masks)
    scores = [quality.of_crop(c, found.fit, k, shown[k].overlap) for k, c in enumerate(crops)]
    good = [k for k, one in enumerate(scores) if quality.misfits(one) < 2] or range(len(crops))
    with mock.patch.object(texture.shading, "removed", lambda image, *_: image):
        lit = texture.project(tools.body, tools.atlas, found.fit, found.vertices, images, masks)
    plain = [lambda colour, part: colour] * len(good)
    paints = [shown[k].paint for k in good]
    trust = [scores[k]["trust"] for k in good]
    own = people.guesses(found, tools)

    def fused(exposures: list[float]) -> texture.Paint:
        seen = [shown[k].image for k in good]
        tones = tone.tones(paints, seen, tools.atlas, trust, exposures)
        return texture.fuse(paints, tones, tools.atlas)

    return {
        "as they are": texture.fuse([lit[k].paint for k in good], plain, tools.atlas),
        "without shading": texture.fuse(paints, plain, tools.atlas),
        "in one tone, by rules": fused([0.0] * len(good)),
        "in one tone, with completion": fused([own[k].exposure for k in good]),
    }


def errors(found: list, gain: float) -> list[float]:
    """ΔE of each made colour after a gain of linear light."""
    return [float(delta_e(lab(srgb(linear(made) * gain)), lab(true))) for *_, made, true in found]


def main() -> None:
    """Print the table."""
    config = tyro.cli(Config)
    torch.set_num_threads(1)
    every = list(colours(config))
    parts = [*PARTS, "all"]
    sys.stdout.write(f"| crops | {' | '.join(parts)} | gain |\n|{'---|' * (len(parts) + 2)}\n")
    for way in dict.fromkeys(one[0] for one in every):
        rows = [one for one in every if one[0] == way]
        gain = min(GAINS, key=lambda g: np.mean(errors(rows, g)))
        cells, off = [], errors(rows, gain)
        for part in parts:
            by_person: dict[str, list[float]] = {}
            for row, error in zip(rows, off, strict=True):
                if part in (row[2], "all"):
                    by_person.setdefault(row[1], []).append(error)
            mean, low, high = interval([np.mean(values) for values in by_person.values()])
            cells.append(f"{mean:.1f} [{low:.1f}, {high:.1f}]")
        sys.stdout.write(f"| {way} | {' | '.join(cells)} | {gain:.2f} |\n")


if __name__ == "__main__":
    main()
