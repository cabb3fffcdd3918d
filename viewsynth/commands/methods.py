# SPDX-License-Identifier: Apache-2.0
"""List the ReID methods: what is known of each, what it needs, its cost, what was published.

viewsynth methods [--published cargo] [--backbone google/vit-base-patch16-224]

Costs are those of a backbone with the method on it, on this machine; "x" is over the baseline,
measured in turns in the same run. A method that does not fit the backbone is listed without them.
Published figures are Rank-1 / mAP in per cent, under the name of the protocol; their sources chose
checkpoints on the test set unless they say otherwise. Of a method that is known from its abstract
or title only, the figures say nothing about what this project makes of it.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from viewsynth.config import check_range
from viewsynth.reid import methods
from viewsynth.runtime.files import write

if TYPE_CHECKING:
    from torch import nn

    from viewsynth.reid.batches import Batch

BASE = "baseline"
PEOPLE, VIEWS, ATTRIBUTES = 8, 2, 15  # of the images that costs are measured on
COLUMNS = ("method", "known from", "needs", "told at test time", "parameters, M", "GFLOPs")
TIMES = ("step, ms", "x", "features, ms/image", "x", "x of GFLOPs")


@dataclass(frozen=True)
class Config:
    """Methods in, a table out."""

    names: tuple[str, ...] = ()
    """Methods to list; none = all."""
    backbone: str = "small_vit"
    """Backbone that costs are measured with: hub id, folder, small, small_vit or small_clip."""
    size: tuple[int, int] = (128, 64)
    """Height and width of the images, pixels."""
    batch: int = 32
    """Images of a training step."""
    rounds: int = 5
    """Rounds in which each method is timed once; the median counts. 0 = no times."""
    published: str = ""
    """List the published figures of a data set instead: cargo, ag_reid_v1, ag_reid_v2, lagper,
    cp2108."""
    output: Path | None = None
    """File that the table is also written to."""

    def __post_init__(self):
        check_range("batch", self.batch, PEOPLE, 4096)
        check_range("rounds", self.rounds, 0, 1000)


def run(config: Config) -> int:
    """Print the table; returns 0."""
    names = config.names or tuple(methods.names())
    for name in names:
        methods.needs(name)  # refuses an unknown name
    text = published(names, config.published) if config.published else costs(names, config)
    sys.stdout.write(text)
    if config.output:
        write(config.output.expanduser(), text.encode())
    return 0


def published(names: tuple[str, ...], data: str) -> str:
    """Table of the published figures on a data set.

    Args:
        names: Methods.
        data: Name of the data set.

    Raises:
        ValueError: If no method has figures on it.
    """
    found = {name: methods.published(name).get(data, {}) for name in names}
    protocols = list(dict.fromkeys(key for row in found.values() for key in row))
    if not protocols:
        known = sorted({key for name in methods.names() for key in methods.published(name)})
        raise ValueError(
            f"published: no figures are known of {data!r}; there are some of {', '.join(known)}"
        )
    rows = [["method", "known from", *protocols]]
    for name, row in found.items():
        if row:
            cells = [" / ".join(f"{value:.2f}" for value in row.get(key, ())) for key in protocols]
            rows.append([name, methods.known(name), *cells])
    return _table(rows)


def costs(names: tuple[str, ...], config: Config) -> str:
    """Table of needs and costs.

    Args:
        names: Methods.
        config: Backbone, sizes and rounds.
    """
    from viewsynth.reid import backbones

    built = {}
    for name in dict.fromkeys((BASE, *names)):
        try:
            text = "text" in methods.needs(name)
            backbone = backbones.load(config.backbone, config.size, text=text)
            told = {"attributes": list(map(str, range(ATTRIBUTES)))}
            more = told if methods.wants(name, "attributes") else {}
            classes = PEOPLE if methods.identities(name) else config.batch
            built[name] = methods.build(name, backbone, classes, **more)
        except backbones.UnfitError:  # listed without costs
            continue
    given = _batch(config)
    steps = _timed({n: _step(m, given) for n, m in built.items()}, config.rounds)
    features = _timed({n: _features(m, given) for n, m in built.items()}, config.rounds)
    flops = {n: _flops(m, given) / config.batch / 1e9 for n, m in built.items()}
    rows = [[*COLUMNS, *(TIMES if config.rounds else ())]]
    for name in names:
        facts = [
            methods.known(name),
            ", ".join(methods.needs(name)) or "-",
            methods.told(name) or "-",
        ]
        if name not in built:
            rows.append([name, *facts, *("-" for _ in rows[0][4:])])
            continue
        size = sum(p.numel() for p in built[name].parameters()) / 1e6
        row = [name, *facts, f"{size:.2f}", f"{flops[name]:.3f}"]
        if config.rounds:
            step, one = steps[name], features[name] / config.batch
            row += [f"{1e3 * step:.0f}", f"{step / steps[BASE]:.2f}", f"{1e3 * one:.2f}"]
            row += [f"{features[name] / features[BASE]:.2f}", f"{flops[name] / flops[BASE]:.2f}"]
        rows.append(row)
    return _table(rows)


def _batch(config: Config) -> Batch:
    """Noise, of a few people in both views."""
    import torch

    from viewsynth.reid.batches import Batch

    count = config.batch
    number = torch.arange(count)
    return Batch(
        images=torch.rand(count, 3, *config.size, generator=torch.Generator().manual_seed(0)),
        labels=number % PEOPLE,
        cameras=number % VIEWS,
        views=number // PEOPLE % VIEWS,
        synthetic=torch.zeros(count, dtype=torch.bool),
        weights=torch.ones(count),
        attributes=(number[:, None] // 2 ** torch.arange(ATTRIBUTES) % 2).to(torch.int8),
        indices=number,
        texts=[f"person {n % PEOPLE}" for n in range(count)],
        names=[str(n) for n in range(count)],
    )


def _step(model: nn.Module, batch: Batch) -> Callable[[], None]:
    """A training step without the optimizer."""

    def step() -> None:
        model.train()
        model.zero_grad()
        sum(model(batch).values()).backward()

    return step


def _features(model: nn.Module, batch: Batch) -> Callable[[], None]:
    """The features of the batch."""
    import torch

    def features() -> None:
        with torch.inference_mode():
            _compute(model, batch)

    return features


def _timed(calls: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median seconds of each call; all are called in turns, so that load affects them alike."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1 if rounds else 0):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if turn:  # the first one warms up
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items() if values}


def _flops(model: nn.Module, batch: Batch) -> int:
    """Floating-point operations of the features: two for each multiplication with addition."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:  # it cannot follow inference mode
        _compute(model, batch)
    return counter.get_total_flops()


def _compute(model: nn.Module, batch: Batch) -> None:
    told = (batch.views,) if methods.told_views(model) else ()
    model.eval().features(batch.images, *told)


def _table(rows: list[list[str]]) -> str:
    """Rows as a Markdown table with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines) + "\n"
