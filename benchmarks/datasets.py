# SPDX-License-Identifier: Apache-2.0
"""Loading a data set of CARGO's size, 108,563 pictures: seconds in all, and where they go.

    python benchmarks/datasets.py [--folder DIR] [--repeats 3]

Files of a few bytes are made in a temporary folder of DIR and removed afterwards: nothing is
decoded when a data set is loaded, so their content does not matter. "cold" is the first load after
the kernel was asked to forget what it knows of the disk, which it only does for root; else the
files were just written and are known. The rest are repeats.
"""

from __future__ import annotations

import logging
import os
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import tyro
from render import machine

from viewsynth import data
from viewsynth.data import cargo, layout

# The published split has 102,475 pictures; the gallery is filled up to all that CARGO has.
SIZES = {"train": (51_451, 2_500), "query": (312, 149), "gallery": (108_563 - 51_763, 2_500)}
FORGET = Path("/proc/sys/vm/drop_caches")
STAGES = {  # stage: module and function
    "list the files": (layout, "scan"),
    "names to samples": (layout, "samples"),
    "protocols": (layout, "directions"),
    "fingerprint": (layout, "fingerprint"),
    "counts, differences": (data, "differences"),
}


@dataclass(frozen=True)
class Options:
    """What to measure."""

    folder: Path | None = None
    """Where the files are made; None = the system's folder for temporary files."""
    repeats: int = 3
    """Warm loads; the median is told."""


def main(options: Options) -> None:
    """Make the files, load them, print the table."""
    logging.disable(logging.WARNING)  # no such release was published
    root = Path(tempfile.mkdtemp(prefix="viewsynth-datasets-", dir=options.folder))
    try:
        began = time.perf_counter()
        count = make(root)
        made = time.perf_counter() - began
        cold = forget()
        loads = [load(root) for _ in range(options.repeats + 1)]
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print(
        f"{machine()}\n{count:,} files, made in {made:.1f} s; first load "
        f"{'cold' if cold else 'warm: the kernel did not forget'}\n"
    )
    print("| | first, s | again, s |\n|---|---|---|")
    for stage in loads[0]:
        again = statistics.median(one[stage] for one in loads[1:])
        print(f"| {stage} | {loads[0][stage]:.2f} | {again:.2f} |")
    print(f"\nresident memory at the end: {psutil.Process().memory_info().rss / 2**20:.0f} MiB")


def make(root: Path) -> int:
    """CARGO's folders: every person in every camera in turn."""
    for split, (images, people) in SIZES.items():
        for camera in range(1, cargo.CAMERAS + 1):
            (root / split / f"Cam{camera}").mkdir(parents=True)
        first = 0 if split == "train" else 2_500
        for index in range(images):
            camera, pid = index * 7 % cargo.CAMERAS + 1, first + index % people
            name = f"Cam{camera}/Cam{camera}_day_{pid}_{index}.jpg"
            handle = os.open(root / split / name, os.O_CREAT | os.O_WRONLY)
            os.write(handle, b"picture")
            os.close(handle)
    return sum(images for images, _ in SIZES.values())


def forget() -> bool:
    """Make the kernel read directories from the disk again; returns whether it does."""
    try:
        os.sync()
        FORGET.write_text("3")
    except OSError:
        return False
    return True


def load(root: Path) -> dict[str, float]:
    """Seconds of each stage, of the rest and of all."""
    seconds = dict.fromkeys(STAGES, 0.0)
    before = {stage: getattr(*place) for stage, place in STAGES.items()}

    def timed(stage, function):
        def call(*arguments):
            began = time.perf_counter()
            try:
                return function(*arguments)
            finally:
                seconds[stage] += time.perf_counter() - began

        return call

    for stage, (module, name) in STAGES.items():
        setattr(module, name, timed(stage, before[stage]))
    try:
        began = time.perf_counter()
        dataset = data.load("cargo", root)
        whole = time.perf_counter() - began
    finally:
        for stage, (module, name) in STAGES.items():
            setattr(module, name, before[stage])
    expected = sum(images for images, _ in SIZES.values())
    assert len(dataset.samples) == expected and not dataset.rejects, "not all were found"
    return seconds | {"rest": whole - sum(seconds.values()), "**all**": whole}


if __name__ == "__main__":
    main(tyro.cli(Options))
