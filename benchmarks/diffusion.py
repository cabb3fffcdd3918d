# SPDX-License-Identifier: Apache-2.0
"""Images per second of the view-aware diffusion, compared with diffusers' image-to-image pipeline.

    python benchmarks/diffusion.py [--device auto] [--models sd small] [--cases 1 4-guided 20]
    python benchmarks/diffusion.py --quick          # small networks, to check that it works

Models: a UNet and an autoencoder of the size of Stable Diffusion 1.5 at 256 x 128, with the full
and the tiny decoder; and the architecture of the bundled model at 128 x 64, with a tiny
autoencoder. All weights are random. Each table is for one model, dtype and number of steps. Its
first row, "plain", is `StableDiffusionImg2ImgPipeline` with the same weights, batch, dtype,
scheduler and steps, at strength 1 and with an encoded prompt. Our pipeline follows, first without
optimisations, then with one more optimisation per row. Every row includes encoding and decoding,
and ours also the encoding of photo and rendering and the copying of seen pixels. Before timing, the
predictions of the UNets and the outputs of our rows are checked to be equal, except for distilled
guidance, which omits the second prediction.

Rows are timed in turns. "x plain" is the ratio of the medians over all rounds, "in a round" the
smallest and largest ratio within a round. CPU time is that of all threads. Memory is the peak of a
call above the memory in use before it. On a CPU, cases with more than 4 steps have the first and
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
from turns import Row, idle_cpu_time

from viewsynth.runtime.workers import cores

GUIDANCE = 3.0
LONG = 4  # steps; with more, a row takes minutes on a CPU
Case = Literal["1", "1-guided", "4", "4-guided", "20", "20-guided"]
CASES: dict[str, tuple[Case, ...]] = {
    "cpu": ("1", "4-guided", "20"),
    "cuda": ("1", "4", "4-guided", "20-guided"),
}
QUICK: tuple[Case, ...] = ("1", "1-guided")
BATCH = {"cpu": {"sd": 2, "small": 16}, "cuda": {"sd": 64, "small": 256}}
ROUNDS = {"cpu": {"sd": 1, "small": 3}, "cuda": {"sd": 5, "small": 5}}
PHOTOS = 4  # views per photo


@dataclass(frozen=True)
class Options:
    """What to measure."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the networks."""
    models: tuple[Literal["sd", "small"], ...] = ("small", "sd")
    """Models to measure."""
    dtype: Literal["auto", "float32", "bf16"] = "auto"
    """Type of the networks; auto = bf16 for the large model and on a GPU, else float32."""
    cases: tuple[Case, ...] = ()
    """Steps, with or without guidance; () = a selection for the device."""
    batch: int = 0
    """Views per batch; 0 = a default for the device. Four views share a photo."""
    rounds: int = 0
    """Rounds, in each of which every row is timed once; 0 = a default for the device."""
    threads: int = 0
    """Threads of torch; 0 = all cores."""
    compile: bool = False
    """Add a row with torch.compile on a CPU."""
    quick: bool = False
    """Check that it works, with small networks, two views and one round."""


@dataclass(eq=False)
class Timed(Row):
    """A row, with the increase of memory in each of its turns, bytes."""

    peaks: list[int] = field(default_factory=list)


def rows(scene: Scene, compiled: bool, ends: bool) -> list[Timed]:
    """Rows of a table: plain, then ours with one more optimisation in each row.

    Args:
        scene: Shared settings.
        compiled: Whether to add a row with torch.compile.
        ends: Whether to have only plain and ours with all optimisations.
    """
    way, ways = Way(), [Way()]
    steps = {
        "shared": "+ photo encoded once",
        "one": "+ guidance in one call",
        "static": "+ static shapes",
        "last": "+ channels last",
        "tiny": "+ tiny autoencoder",
        "distilled": "+ guidance distilled",
        "compiled": "+ torch.compile",
    }
    skipped = {"one", "distilled"} if scene.guidance == 1 else set()
    skipped |= {"distilled"} if scene.steps > LONG else set()
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
        call(1)  # compiles and selects kernels
        found.append(Timed(name, lambda call=call: call(scene.steps), []))
    return found


def measure(found: list[Timed], rounds: int, device: str) -> None:
    """Time all rows in turns."""
    for number in range(rounds):
        for row in found[number % len(found) :] + found[: number % len(found)]:
            with Peak(device) as peak:
                before, began = idle_cpu_time(), time.perf_counter()
                row.step()
                if device == "cuda":
                    torch.cuda.synchronize()
                row.seconds.append(time.perf_counter() - began)
                row.cpu.append(idle_cpu_time() - before)
            row.peaks.append(peak.rise)


def print_rows(found: list[Timed], batch: int) -> None:
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
    """Measure and print all cases of a model, in a separate process."""
    from diffusers.utils import logging

    logging.set_verbosity_error()  # suppress warnings about intended settings
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
        print_rows(found, batch)


def main(options: Options) -> None:
    """Print the tables."""
    if options.device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
        options = dataclasses.replace(options, device=device)
    print(f"{machine()}\n{options.threads or cores()} threads", flush=True)
    if options.device == "cpu":
        print("skipped without a GPU: large batches and, without --compile, torch.compile")
    for model in options.models:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as one:
            one.submit(table, model, options).result()


if __name__ == "__main__":
    main(tyro.cli(Options))
