# SPDX-License-Identifier: Apache-2.0
"""Images per second of `viewsynth world`, and time per stage.

    python benchmarks/world.py [--people 24] [--images 20] [--processes 0] [--memory 16 160]

Stages are timed in one worker with one thread, by wrapping functions of the library; time in a
nested timed function counts for the inner one only. The rate is that of the whole command, from its
start to the contact sheet. `--memory 16 160` generates worlds of 16 and of 160 people and prints
the peak of resident memory.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import tyro
from render import machine

from generate import Clock, now, watch, workers_of
from viewsynth.runtime import workers
from viewsynth.world import writer

PROGRAM = "from viewsynth import cli; cli.main()"
PARALLEL = "encode + write"  # runs in threads in parallel to the other stages
# Stage -> functions that it consists of, in the modules that call them. Missing names are an error.
STAGES = {
    "plan": ("world.rig:plan", "world.rig:instant"),
    "dress": ("world.character:Character.__init__", "world.people:identity"),
    "pose": ("world.shots:_posed",),
    "raster": ("world.solids:rasterize",),
    "light, shadow map": ("world.lights:light",),
    "shade people": ("world.solids:shade",),
    "background": ("world.background:render",),
    "sensor": ("world.sensor:sense",),
    "rows": ("world.rows:image_row", "world.rows:person_row"),
    PARALLEL: ("world.writer:jpeg", "world.writer:indexed", "runtime.writer:write"),
}


def one_worker(people: int, images: int) -> tuple[dict[str, np.ndarray], int]:
    """Seconds by stage and number of images, after a warm-up with one person.

    Runs in a separate process with one thread.
    """
    clock = Clock()
    clock.install(STAGES)
    with tempfile.TemporaryDirectory() as folder:
        do = writer.start(Path(folder), seed=0)
        warm, *tasks = writer.tasks(Path(folder), people + 1, images, 1, chunk=1)
        do(warm)
        clock.seconds.clear()
        began = now()
        for task in tasks:
            do(task)
        total = now() - began
        _, lost = writer.join(Path(folder))
        assert not lost, f"{lost[0]['reason']}: the measurement is invalid"
    return {**clock.seconds, "total": total}, sum(task.count for task in tasks)


def stages(people: int, images: int) -> None:
    """Print the table of one worker."""
    os.environ.update(dict.fromkeys(workers.ONE_THREAD, "1"))
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        found, pictures = pool.submit(one_worker, people, images).result()
    for name in workers.ONE_THREAD:
        del os.environ[name]
    total = found.pop("total")
    inline = {stage: found.get(stage, np.zeros(2)) for stage in STAGES if stage != PARALLEL}
    inline["other"] = total - sum(inline.values())
    print(f"\none worker, one thread, {people} people, {pictures} images")
    print(f"{'stage':>18} {'s':>8} {'CPU s':>8} {'ms':>7} {'CPU ms':>7} {'share':>6}")

    def row(stage: str, seconds: np.ndarray, share: str) -> None:
        each = 1000 * seconds / pictures
        times = f"{seconds[0]:8.2f} {seconds[1]:8.2f} {each[0]:7.1f} {each[1]:7.1f}"
        print(f"{stage:>18} {times} {share:>6}")

    for stage, seconds in inline.items():
        row(stage, seconds, f"{seconds[1] / total[1]:.0%}")
    row("total", total, "100%")
    row(PARALLEL, found.get(PARALLEL, np.zeros(2)), "parallel")
    rates = [pictures / seconds for seconds in total]
    print(f"{'':>18} {rates[0]:.1f} images/s, by CPU time {rates[1]:.1f}", flush=True)


def whole(people: int, images: int, processes: int) -> tuple[float, dict]:
    """Run the whole command; returns its seconds and memory, see `watch`."""
    with tempfile.TemporaryDirectory() as folder:
        options = {"people": people, "images-per-person": images, "workers": processes}
        argv = [sys.executable, "-c", PROGRAM, "world", "--output", f"{folder}/world"]
        argv += [word for key, value in options.items() for word in (f"--{key}", str(value))]
        began = time.perf_counter()
        with Path(folder, "log").open("w+") as log:
            process = subprocess.Popen(argv, stderr=log)
            peaks = watch(process)
            seconds = time.perf_counter() - began
            if process.returncode:
                log.seek(0)
                raise SystemExit(f"world failed ({process.returncode}):\n{log.read()[-3000:]}")
        files = [p.stat().st_size for p in Path(folder, "world").rglob("*") if p.is_file()]
    return seconds, peaks | {"size": sum(files)}


def main(
    people: int = 24,
    images: int = 20,
    stage_people: int = 8,
    processes: int = 0,
    memory: tuple[int, ...] = (),
) -> None:
    """Print the tables.

    Args:
        people: People of the timed world; each has one instant, i.e. 5 more images.
        images: Images per person.
        stage_people: People for the table of stages; 0 = no such table.
        processes: Workers; 0 = one per core.
        memory: Numbers of people; measure worlds of these sizes instead of the two tables.
    """
    print(machine(), flush=True)
    if stage_people and not memory:
        stages(stage_people, images)
    used = processes or workers_of()
    print(f"\nthe whole command, {used} workers, including start-up and contact sheet")
    print(
        f"{'people':>7} {'images':>9} {'s':>8} {'images/s':>9} {'kB each':>8} "
        f"{'GB worker':>10} {'GB main':>8}"
    )
    for count in memory or (people,):
        seconds, found = whole(count, images, processes)
        pictures = count * (images + 5)
        print(
            f"{count:>7} {pictures:>9} {seconds:8.1f} {pictures / seconds:9.1f} "
            f"{found['size'] / pictures / 1000:8.1f} {found['worker']:10.2f} {found['main']:8.2f}"
            f"  fifths {found['fifths']}",
            flush=True,
        )


if __name__ == "__main__":
    tyro.cli(main)
