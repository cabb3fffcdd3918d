# SPDX-License-Identifier: Apache-2.0
"""Crops, people and views per second of `generate`, and time per stage.

    python benchmarks/generate.py [--people 128] [--views 8] [--cache DIR] [--memory 100 1000]

People are rendered first, two crops each, and kept in the cache folder for later runs; this time is
not counted. Model files and the body are loaded before any measurement.

Stages are timed in one worker with one thread, by wrapping functions of the library; time in a
nested timed function counts for the inner one only. The rates are those of the whole command with
all cores, from its start to the finished report. `--memory 100 1000` runs `generate` on 100 and on
1,000 images and prints the peak of resident memory.
"""

from __future__ import annotations

import functools
import importlib
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import torch
import tyro
from render import machine

from viewsynth import data, manifest
from viewsynth.commands.generate import Config
from viewsynth.config import to_dict
from viewsynth.generate import chunk, worker
from viewsynth.generate.options import Views
from viewsynth.runtime import weights, workers
from viewsynth.world import shots

ROOT = Path(__file__).resolve().parents[1]
PARALLEL = "encode + write"  # runs in threads in parallel to the other stages
# Stage -> functions that it consists of, in the modules that call them. Missing names are an error.
STAGES = {
    "read": ("data.images:read", "generate.gather:sha256"),
    "find, crowd": ("reconstruct.find:find", "reconstruct.crowd:is_crowd"),
    "parse": ("reconstruct.crops:parse", "reconstruct.facing:resolve"),
    "rim colours": ("reconstruct.matting:foreground_colours",),
    "targets": ("reconstruct.targets:targets",),
    "fit": ("reconstruct.fit:fit",),
    "project": ("reconstruct.texture:project",),
    "tone, fuse, fill": (
        "reconstruct.tone:tones",
        "reconstruct.texture:fuse",
        "reconstruct.fill:complete",
    ),
    "completion": ("reconstruct.canvas:canvases", "reconstruct.guess:guesses"),
    "relief": ("reconstruct.relief:relief",),
    "surface": ("reconstruct.surface:fuse",),
    "charts": ("reconstruct.exposure:expose", "reconstruct.charts:paint"),
    "pose": ("reconstruct.posing:meshes",),
    "render": ("render.shade:render",),
    "ground, shadow": ("render.scene:compose",),
    "frame, sensor": ("render.views:render_views",),
    PARALLEL: (
        "generate.chunk:jpeg",
        "generate.chunk:png",
        "generate.chunk:filmstrip",
        "records:Person.to_bytes",
        "runtime.writer:write",
    ),
}


def now() -> np.ndarray:
    """Elapsed time and CPU time of this thread, seconds."""
    return np.array([time.perf_counter(), time.thread_time()])


class Clock:
    """Accumulates elapsed and CPU seconds by stage and thread, without nested stages.

    On a busy machine only the CPU times are comparable.
    """

    def __init__(self):
        self.seconds: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(2))
        self._lock, self._inside = threading.Lock(), threading.local()

    def around(self, stage: str, function):
        """Wrap a function with a timer."""

        @functools.wraps(function)
        def timed(*args, **kwargs):
            stack = self._inside.__dict__.setdefault("stack", [])
            stack.append(np.zeros(2))
            began = now()
            try:
                return function(*args, **kwargs)
            finally:
                spent = now() - began
                own = spent - stack.pop()
                if stack:
                    stack[-1] += spent
                with self._lock:
                    self.seconds[stage] += own

        return timed

    def install(self, stages: dict[str, tuple[str, ...]]) -> None:
        """Wrap all functions of the stages with timers."""
        for stage, places in stages.items():
            for place in places:
                module, _, name = place.partition(":")
                owner = importlib.import_module(f"viewsynth.{module}")
                *parents, name = name.split(".")
                for parent in parents:
                    owner = getattr(owner, parent)
                setattr(owner, name, self.around(stage, getattr(owner, name)))


def people_in(cache: Path, count: int) -> Path:
    """Folder with `count` rendered people, two crops each; created if it is missing."""
    root = cache / f"rendered-{count}"
    if not (root / "metadata.jsonl").exists():  # written last
        print(f"rendering {count} people into {root}", flush=True)
        shots.write_folder(root, count)
    return root


def copies(root: Path, target: Path, pictures: int) -> Path:
    """Fill a new folder with a number of images: repeated copies under new names."""
    samples = data.load("folder", root).samples
    pids = sorted({sample.pid for sample in samples})
    number = 0
    for turn in range(pictures):
        for pid in pids:
            for sample in (sample for sample in samples if sample.pid == pid):
                if number == pictures:
                    return target
                path = target / f"{turn:04d}-{pid}" / sample.paths[0].name
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(sample.paths[0], path)
                number += 1
    return target


def cameras(count: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Grid of `count` cameras, with as many of the elevations 30, 45, 60 and 90 as divide it."""
    elevations = (30.0, 45.0, 60.0, 90.0)[: next(n for n in (4, 3, 2, 1) if count % n == 0)]
    share = count // len(elevations)
    return elevations, tuple(360.0 * k / share for k in range(share))


# ---- one worker ----------------------------------------------------------------------------------


def one_worker(root: Path, count: int, views: Views) -> dict[str, np.ndarray]:
    """Seconds by stage for `count` people of a folder, after a warm-up with one chunk.

    Runs in a separate process with one thread.
    """
    clock = Clock()
    clock.install(STAGES)
    with tempfile.TemporaryDirectory() as folder:
        config = Config(views=views, device="cpu", output=Path(folder))
        models = weights.reconstruction(config.reconstruct.complete)
        job = worker.Job(Path(folder), root, config, "cpu", models, {}, {})
        entries = manifest.entries(data.load("folder", root).samples)[:count]
        work = worker.start(job, chunk.load_tools, chunk.make_chunk)
        size, names = config.chunk, views.names()
        tasks = [
            manifest.Task(f"{k:05d}", f"{k:05d}", tuple(entries[k : k + size]), (), names)
            for k in range(0, len(entries), size)
        ]
        work(tasks[0])
        clock.seconds.clear()
        began = now()
        for task in tasks:
            work(task)
        total = now() - began
        for part in sorted(Path(folder, "parts").glob("*.jsonl")):
            lost = json.loads(part.read_text().splitlines()[0])["part"]["faults"]
            assert not lost, f"{part.name}: {lost} faults; the measurement is invalid"
    return {**clock.seconds, "total": total}


def stages(root: Path, count: int, views: Views) -> None:
    """Print the table of one worker."""
    for name in workers.ONE_THREAD:
        os.environ[name] = "1"
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        found = pool.submit(one_worker, root, count, views).result()
    for name in workers.ONE_THREAD:
        del os.environ[name]
    total = found.pop("total")
    inline = {stage: found.get(stage, np.zeros(2)) for stage in STAGES if stage != PARALLEL}
    inline["other"] = total - sum(inline.values())
    pictures = count * len(views.names())
    print(f"\none worker, one thread, {2 * count} crops x {len(views.names())} views")
    print(f"{'stage':>18} {'s':>8} {'CPU s':>8} {'ms/crop':>8} {'ms/view':>8} {'share':>6}")

    def row(stage: str, seconds: np.ndarray, share: str) -> None:
        a, b = 1000 * seconds[0] / (2 * count), 1000 * seconds[0] / pictures
        print(f"{stage:>18} {seconds[0]:8.2f} {seconds[1]:8.2f} {a:8.1f} {b:8.1f} {share:>6}")

    for stage, seconds in inline.items():
        row(stage, seconds, f"{seconds[0] / total[0]:.0%}")
    row("total", total, "100%")
    row(PARALLEL, found.get(PARALLEL, np.zeros(2)), "parallel")
    for kind, spent in zip(("", "by CPU time: "), total, strict=True):
        per_second = f"{2 * count / spent:.2f} crops/s, {count / spent:.2f} people/s"
        print(f"{'':>18} {kind}{per_second}, {pictures / spent:.1f} views/s", flush=True)


# ---- the whole command ---------------------------------------------------------------------------


def command(root: Path, output: Path, views: Views, device: str) -> list[str]:
    grid = to_dict(views)
    argv = [sys.executable, str(ROOT / "generate.py"), "--data.root", str(root)]
    argv += ["--output", str(output), "--device", device]
    for key in ("elevations", "azimuths"):
        argv += [f"--views.{key}", *(f"{value:g}" for value in grid[key])]
    return argv


def whole(root: Path, views: Views, device: str) -> tuple[float, dict]:
    """Run the whole command; returns its seconds and memory in GB, see `watch`."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "run"
        began = time.perf_counter()
        with Path(folder, "log").open("w+") as log:
            process = subprocess.Popen(command(root, output, views, device), stderr=log)
            peaks = watch(process)
            seconds = time.perf_counter() - began
            if process.returncode:
                log.seek(0)
                raise SystemExit(f"generate failed ({process.returncode}):\n{log.read()[-3000:]}")
        kept = len((output / "metadata.jsonl").read_text().splitlines())
    return seconds, peaks | {"views": kept}


def watch(process: subprocess.Popen, every: float = 0.5) -> dict:
    """Watch the resident memory of a run until it ends.

    Returns: GB: peak of the main process, peak of any worker, and the median over workers in each
        fifth of the running time.
    """
    main, worker, history = 0.0, 0.0, []
    while process.poll() is None:
        try:
            own = psutil.Process(process.pid)
            main = max(main, own.memory_info().rss / 1e9)
            sizes = [_resident(child) for child in own.children(recursive=True)]
        except psutil.NoSuchProcess:
            break
        sizes = [size for size in sizes if size > 0.2]  # without shells and resource tracker
        worker = max([worker, *sizes])
        if sizes:
            history.append(statistics.median(sizes))
        time.sleep(every)
    process.wait()
    fifths = [history[len(history) * k // 5 : len(history) * (k + 1) // 5] for k in range(5)]
    return {
        "main": main,
        "worker": worker,
        "fifths": [round(statistics.median(part), 2) for part in fifths if part],
    }


def _resident(process: psutil.Process) -> float:
    try:
        return process.memory_info().rss / 1e9
    except psutil.Error:
        return 0.0


def rates(root: Path, count: int, views: Views) -> None:
    """Print the rates of the whole command on the CPU and on a GPU if there is one."""
    print("\nthe whole command, including start-up and report")
    cores = workers_of()
    devices = {"cpu": f"{cores} workers"}
    if torch.cuda.is_available():
        devices["cuda"] = torch.cuda.get_device_name()
    head = f"{'':>18} {'s':>8} {'crops/s':>8} {'people/s':>9} {'views/s':>8} {'GB a worker':>12}"
    print(head)
    for device, name in devices.items():
        seconds, found = whole(root, views, device)
        per = f"{2 * count / seconds:8.2f} {count / seconds:9.2f} {found['views'] / seconds:8.1f}"
        print(f"{name:>18} {seconds:8.1f} {per} {found['worker']:12.2f}", flush=True)


def workers_of() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def footprint(root: Path, sizes: tuple[int, ...], views: Views, cache: Path) -> None:
    """Print the peaks of resident memory for runs of several sizes."""
    print("\nresident memory, GB; fifths: medians over the workers in each fifth of a run")
    print(f"{'images':>9} {'s':>8} {'worker':>7} {'main':>6}  fifths")
    peaks = []
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            seconds, found = whole(copies(root, Path(folder) / "data", size), views, "cpu")
        peaks.append(found["worker"])
        line = f"{size:>9} {seconds:8.1f} {found['worker']:7.2f} {found['main']:6.2f}"
        print(f"{line}  {found['fifths']}", flush=True)
    growth = peaks[-1] / peaks[0] - 1
    print(f"{'':>9} the peak of a worker grows by {growth:+.0%} from {sizes[0]} to {sizes[-1]}")


def main(
    people: int = 128,
    views: int = 8,
    stage_people: int = 32,
    cache: Path | None = None,
    memory: tuple[int, ...] = (),
) -> None:
    """Print the tables.

    Args:
        people: Number of rendered people, two crops each.
        views: Views per person.
        stage_people: Maximum number of people for the table of stages; 0 = no such table.
        cache: Folder of the rendered people; None = a temporary one.
        memory: Numbers of images; measure runs of these sizes instead of the two tables.
    """
    with tempfile.TemporaryDirectory() as folder:
        where = (cache or Path(folder)).expanduser().absolute()
        where.mkdir(parents=True, exist_ok=True)
        elevations, azimuths = cameras(views)
        wanted = Views(elevations=elevations, azimuths=azimuths)
        root = people_in(where, people)
        print(machine(), flush=True)
        if memory:
            footprint(root, memory, wanted, where)
            return
        if stage_people:
            stages(root, min(people, stage_people), wanted)
        rates(root, people, wanted)


if __name__ == "__main__":
    tyro.cli(main)
