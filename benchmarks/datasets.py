# SPDX-License-Identifier: Apache-2.0
"""Time of loading a data set of CARGO's size, 108,563 images: total and per stage.

    python benchmarks/datasets.py [--folder DIR] [--repeats 3]

Creates files of a few bytes in a temporary folder of DIR and removes them afterwards; their content
is irrelevant, because loading decodes nothing. The first load is "cold" if the kernel's disk caches
could be dropped, which needs root; else it is "warm", because the files were just written.
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
from viewsynth.data import cargo, layout, loading

# Images and people. The published split has 102,475 images; the gallery is filled up to all images.
SIZES = {"train": (51_451, 2_500), "query": (312, 149), "gallery": (108_563 - 51_763, 2_500)}
DROP_CACHES = Path("/proc/sys/vm/drop_caches")
STAGES = {  # stage: module and function
    "list the files": (layout, "scan"),
    "names to samples": (layout, "samples"),
    "protocols": (layout, "directions"),
    "fingerprint": (layout, "fingerprint"),
    "counts, differences": (loading, "differences"),
}


@dataclass(frozen=True)
class Options:
    """What to measure."""

    folder: Path | None = None
    """Parent folder of the files; None = the system's folder for temporary files."""
    repeats: int = 3
    """Number of warm loads, whose median is printed."""


def main(options: Options) -> None:
    """Create the files, load them and print the table."""
    logging.disable(logging.WARNING)  # about the unknown number of images
    root = Path(tempfile.mkdtemp(prefix="viewsynth-datasets-", dir=options.folder))
    try:
        began = time.perf_counter()
        count = create(root)
        created = time.perf_counter() - began
        cold = drop_caches()
        loads = [load(root) for _ in range(options.repeats + 1)]
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print(
        f"{machine()}\n{count:,} files, created in {created:.1f} s; first load "
        f"{'cold' if cold else 'warm: disk caches could not be dropped'}\n"
    )
    print("| | first, s | again, s |\n|---|---|---|")
    for stage in loads[0]:
        again = statistics.median(one[stage] for one in loads[1:])
        print(f"| {stage} | {loads[0][stage]:.2f} | {again:.2f} |")
    print(f"\nresident memory at the end: {psutil.Process().memory_info().rss / 2**20:.0f} MiB")


def create(root: Path) -> int:
    """Create folders like those of CARGO, with people and cameras in turn; returns the count."""
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


def drop_caches() -> bool:
    """Drop the kernel's disk caches; returns whether that was possible."""
    try:
        os.sync()
        DROP_CACHES.write_text("3")
    except OSError:
        return False
    return True


def load(root: Path) -> dict[str, float]:
    """Load the data set; returns the seconds of each stage, of the rest and in total."""
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
    assert len(dataset.samples) == expected and not dataset.rejects, "files are missing"
    return seconds | {"rest": whole - sum(seconds.values()), "**total**": whole}


if __name__ == "__main__":
    main(tyro.cli(Options))
