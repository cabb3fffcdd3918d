# SPDX-License-Identifier: Apache-2.0
"""Test a model for shortcuts: tell synthetic from real images by its features.

viewsynth probe --model outputs/train/model --data.name world --data.root DIR
    --data.synthetic outputs/made --output outputs/probe

Linear probes on the frozen features of training images, cross-validated by identity: synthetic
against real aerial images (the test for shortcuts), synthetic against real ground images, and, for
comparison, real aerial against real ground images. The output folder gets `probe.json`; the
accuracies are printed.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from viewsynth import data
from viewsynth.config import check_range
from viewsynth.data import Reading, Source
from viewsynth.runtime.files import write
from viewsynth.runtime.workers import make_accelerator

BATCH = 256  # images in a forward pass
PAIRS = (
    ("synthetic", "real aerial"),
    ("synthetic", "real ground"),
    ("real aerial", "real ground"),
)


@dataclass(frozen=True)
class Data(Reading, Source):
    """Images whose features are probed."""

    synthetic: tuple[Path, ...] = ()
    """Runs of generate with views of the same people."""


@dataclass(frozen=True)
class Config:
    """A model, real and synthetic training images in, accuracies of linear probes out."""

    data: Data = field(default_factory=Data)
    model: str = ""
    """Folder of a model of viewsynth train, or hub id."""
    size: tuple[int, int] = (256, 128)
    """Height and width of the images in pixels, for models that are not of viewsynth train."""
    per_person: int = 4
    """Largest number of images of each kind per person."""
    cache: Path | None = Path("outputs/cache")
    """Folder of resized images, shared with train; None = no cache."""
    output: Path = Path("outputs/probe")
    """Folder of the result."""
    seed: int = 0
    """Seed of the choice of images and of the folds."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the model; auto = cuda if there is one."""

    def __post_init__(self):
        check_range("per_person", self.per_person, 1, 10_000)


def run(config: Config) -> int:
    """Probe, write and print; returns 0."""
    from viewsynth.reid import encoders, pool
    from viewsynth.reid.pixels import Pixels

    given = {
        "--model": config.model,
        "--data.root": config.data.root,
        "--data.synthetic": config.data.synthetic,
    }
    if missing := [option for option, value in given.items() if not value]:
        raise ValueError(
            f"give --model, --data.root and --data.synthetic; missing: {', '.join(missing)}"
        )
    dataset = data.load(config.data.name, config.data.root, config.data)
    real = [sample for sample in dataset.train if sample.source == "real"]
    train_pool = pool.build(real, config.data.synthetic, pool.Selection("none"))
    kinds = np.array(
        [
            "synthetic" if made else f"real {('ground', 'aerial')[view]}"
            for made, view in zip(train_pool.synthetic, train_pool.views, strict=True)
        ]
    )
    rng = np.random.default_rng(config.seed)
    chosen = _few(train_pool.labels, kinds, config.per_person, rng)
    train_pool, kinds = train_pool.keep(chosen), kinds[chosen]
    device = str(make_accelerator(config.device).device)
    encoder = encoders.load(config.model, config.size, device=device)
    pixels = Pixels.open(train_pool.samples, encoder.size, config.cache, bar=True)
    kinds, count = kinds[pixels.usable], len(pixels.samples)
    features = np.concatenate(
        [
            encoder.encode(
                pixels.get(range(start, min(start + BATCH, count))),
                encoder.views_of(pixels.samples[start : start + BATCH]),
            ).numpy()
            for start in range(0, count, BATCH)
        ]
    )
    rows = list(_rows(features, kinds, [sample.pid for sample in pixels.samples], config.seed))
    tree = {"model": encoder.name, "fingerprint": encoder.fingerprint, "rows": rows}
    write(config.output.expanduser() / "probe.json", (json.dumps(tree, indent=1) + "\n").encode())
    for row in rows:
        value, low, high = (100 * number for number in row["accuracy"])
        sys.stdout.write(f"{row['apart']}: {value:.1f} % [{low:.1f}, {high:.1f}], chance 50 %\n")
    return 0


def _few(labels: np.ndarray, kinds: np.ndarray, most: int, rng) -> np.ndarray:
    """Mask of the used images, at most `most` of each kind and person."""
    chosen, seen = np.zeros(len(labels), bool), {}
    for n in rng.permutation(len(labels)).tolist():
        key = (int(labels[n]), str(kinds[n]))
        seen[key] = seen.get(key, 0) + 1
        chosen[n] = seen[key] <= most
    return chosen


def _rows(features: np.ndarray, kinds: np.ndarray, pids: list[str], seed: int):
    """One row per pair of kinds that both occur, see `evaluate.compare.table.PROBES`."""
    from viewsynth.evaluate.probe import probe

    for one, other in PAIRS:
        which = (kinds == one) | (kinds == other)
        if {one, other} <= set(kinds.tolist()):
            own = [pid for pid, used in zip(pids, which, strict=True) if used]
            found = probe(features[which], kinds[which] == one, own, seed)
            yield {"apart": f"{one} from {other}", **dataclasses.asdict(found)}
