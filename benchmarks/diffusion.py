# SPDX-License-Identifier: Apache-2.0
"""Pictures per second of the view-aware diffusion, beside diffusers' plain image-to-image.

    python benchmarks/diffusion.py [--device auto] [--models sd small] [--cases 1 4-guided 20]
    python benchmarks/diffusion.py --quick          # a few channels: to see that it works

Models: a UNet and an autoencoder of the size of Stable Diffusion 1.5 at 256 x 128, with the tiny
decoder beside the full one; and the bundled model's class at 128 x 64, whose autoencoder is tiny.
All weights are random. A table is a model, a dtype and a number of steps. It begins with
`StableDiffusionImg2ImgPipeline` of the same weights, batch, dtype, scheduler and steps, at strength
1 and with its prompt encoded already; then comes ours, first without what makes it fast, then with
one more of that in each row. Every way is the whole way from pictures to pictures, ours with photo
and rendering encoded and seen pixels set back. Before a clock starts, the UNets must predict the
same, and so must our ways, but for the guidance that distillation leaves in the weights: a model of
few steps needs no second prediction.

Rows take turns. "x plain" is a ratio of the medians of all rounds, "in a round" the least and the
largest ratio of one round; CPU time is that of all threads; memory is what a call needs at its peak
beside weights and whatever else lies there. On a CPU, cases above 4 steps have the first and the
last rows only. torch.compile has a row on a GPU, and on a CPU with `--compile`, where it takes
minutes.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

import torch
import tyro
from img2img import Peak, Scene, Way, networks
from render import machine
from turns import Row, settled

from viewsynth.runtime.workers import cores

GUIDANCE = 3.0
LONG = 4  # steps; with more of them, a CPU takes minutes a row
Case = Literal["1", "1-guided", "4", "4-guided", "20", "20-guided"]
CASES: dict[str, tuple[Case, ...]] = {
    "cpu": ("1", "4-guided", "20"),
    "cuda": ("1", "4", "4-guided", "20-guided"),
}
QUICK: tuple[Case, ...] = ("1", "1-guided")
BATCH = {"cpu": {"sd": 2, "small": 16}, "cuda": {"sd": 64, "small": 256}}
ROUNDS = {"cpu": {"sd": 1, "small": 3}, "cuda": {"sd": 5, "small": 5}}
PHOTOS = 4  # views of a photo


@dataclass(frozen=True)
class Options:
    """What to measure."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the networks are."""
    models: tuple[Literal["sd", "small"], ...] = ("small", "sd")
    """Which ones."""
    dtype: Literal["auto", "float32", "bf16"] = "auto"
    """Of the networks; auto = bf16 for the large one and on a GPU, else float32."""
    cases: tuple[Case, ...] = ()
    """Steps, with or without guidance; () = those that suit the device."""
    batch: int = 0
    """Views at once; 0 = what suits the device. Four are of one photo."""
    rounds: int = 0
    """In each of which every row has its turn; 0 = what suits the device."""
    threads: int = 0
    """Of torch; 0 = all cores."""
    compile: bool = False
    """A row of torch.compile on a CPU, too."""
    quick: bool = False
    """To see that it works: a few channels, two views, one round."""


@dataclass(eq=False)
class Timed(Row):
    """A row, and how far memory rose in each of its turns, bytes."""

    peaks: list[int] = field(default_factory=list)


def rows(scene: Scene, compiled: bool, ends: bool) -> list[Timed]:
    """Plain, then ours with ever more of what makes it fast.

    Args:
        ends: Only plain, and ours with all.
    """
    way, ways = Way(), [Way()]
    steps = {
        "shared": "+ photo encoded once",
        "one": "+ guidance in one call",
        "static": "+ static shapes",
        "last": "+ channels last",
        "tiny": "+ tiny autoencoder",
        "learnt": "+ guidance distilled",
        "compiled": "+ torch.compile",
    }
    skipped = {"one", "learnt"} if scene.guidance == 1 else set()
    skipped |= {"learnt"} if scene.steps > LONG else set()
    skipped |= set() if compiled else {"compiled"}
    skipped |= {"tiny"} if scene.parts["full"] is None else set()
    for key, name in steps.items():
        way = dataclasses.replace(way, name=name, **{key: True})
        if key in skipped:
            way = dataclasses.replace(way, **{key: key == "one"})
        else:
            ways.append(way)
    if ends:
        full = [w for w in ways if not w.tiny][-1:]
        ways = [dataclasses.replace(w, name="ours, all") for w in full]
        if scene.parts["full"] is not None:
            ways.append(dataclasses.replace(ways[0], name="ours, all, tiny autoencoder", tiny=True))
    calls = {"plain": scene.theirs(False)}
    if scene.parts["full"] is not None:
        calls["plain, tiny autoencoder"] = scene.theirs(True)
    calls |= {way.name: scene.ours(way) for way in ways}
    found = []
    for name, call in calls.items():
        call(1)  # compiles, and finds its kernels
        found.append(Timed(name, lambda call=call: call(scene.steps), []))
    return found


def measure(found: list[Timed], rounds: int, device: str) -> None:
    """Let the rows take turns."""
    for number in range(rounds):
        for row in found[number % len(found) :] + found[: number % len(found)]:
            with Peak(device) as peak:
                before, began = settled(), time.perf_counter()
                row.step()
                if device == "cuda":
                    torch.cuda.synchronize()
                row.seconds.append(time.perf_counter() - began)
                row.cpu.append(settled() - before)
            row.peaks.append(peak.rise)


def told(found: list[Timed], batch: int) -> None:
    """Print the rows, compared with the first."""
    print("| | images/s | x plain | in a round | by CPU time | CPU s/image | MB at the peak |")
    print("|---|---|---|---|---|---|---|")
    base = found[0]
    for row in found:
        middle, spent = statistics.median(row.seconds), statistics.median(row.cpu)
        ratios = [one / own for one, own in zip(base.seconds, row.seconds, strict=True)]
        print(
            f"| {row.name} | {batch / middle:.3g} | "
            f"{statistics.median(base.seconds) / middle:.2f} | "
            f"{min(ratios):.2f} to {max(ratios):.2f} | "
            f"{statistics.median(base.cpu) / spent:.2f} | {spent / batch:.3g} | "
            f"{max(row.peaks) / 2**20:,.0f} |",
            flush=True,
        )


def table(model: str, options: Options) -> None:
    """Measure and print all cases of a model. Runs in a process of its own."""
    from diffusers.utils import logging

    logging.set_verbosity_error()  # of configurations and dtypes that are as they should be
    torch.set_num_threads(options.threads or cores())
    device, small = options.device, model == "small"
    half = options.dtype == "bf16" or (options.dtype == "auto" and (device == "cuda" or not small))
    dtype = torch.bfloat16 if half else torch.float32
    batch = 2 if options.quick else options.batch or BATCH[device][model]
    rounds = 1 if options.quick else options.rounds or ROUNDS[device][model]
    parts = networks(small, options.quick)
    for part in parts.values():
        if isinstance(part, torch.nn.Module):
            part.to(device, dtype).eval().requires_grad_(False)
    size = parts["conditioner"].config.size
    for number, case in enumerate(options.cases or (QUICK if options.quick else CASES[device])):
        steps, guided = int(case.split("-")[0]), case.endswith("guided")
        photos = max(1, batch // PHOTOS)
        scene = Scene(parts, batch, photos, steps, GUIDANCE if guided else 1.0)
        if not number:
            scene.agree()
        print(
            f"\n{'small' if small else 'SD-1.5 size'}, {size[0]} x {size[1]}, {steps} steps"
            f"{', guided' if guided else ''}, {batch} views of {photos} photos, "
            f"{'bf16' if half else 'float32'}, {rounds} rounds\n",
            flush=True,
        )
        ends = device == "cpu" and steps > LONG and not small
        found = rows(scene, device == "cuda" or options.compile, ends)
        measure(found, rounds, device)
        told(found, batch)


def main(options: Options) -> None:
    """Print the tables."""
    if options.device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
        options = dataclasses.replace(options, device=device)
    print(f"{machine()}\n{options.threads or cores()} threads", flush=True)
    if options.device == "cpu":
        print("skipped, for want of a GPU: large batches and, but for --compile, torch.compile")
    for model in options.models:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as one:
            one.submit(table, model, options).result()


if __name__ == "__main__":
    main(tyro.cli(Options))
