# SPDX-License-Identifier: Apache-2.0
"""Views per second of the renderer with all its outputs, compared with pytorch3d if installed.

    python benchmarks/render.py [--people 8] [--views 8] [--seconds 4]

A row is for triangle id, depth, barycentric weights, normal, uv, colour and seen map of
`people x views` images of the Anny body (27,420 triangles) that fill the height of the canvas, at
elevations from 0 to 90. "2 x 1" = two processes with one thread each, as in a run of `generate` on
two cores. "views" are finished views of 128 pixels per person: 2x supersampling, ground, shadow,
sensor model and JPEG.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import platform
import time
from pathlib import Path

import torch
import tyro

from viewsynth import bodies, cameras
from viewsynth.render import shade, views
from viewsynth.render.options import Sensor

SIZES = ((256, 128), (512, 256))


def scene(people: int, count: int, size: tuple[int, int], side: int, device: str) -> dict:
    """Arguments of `shade.render`: `people` standing bodies with `count` cameras each."""
    body = bodies.load("anny", device)
    shape = body.shape_mean.expand(people, -1)
    vertices = bodies.stand(body.vertices(shape, body.pose_mean.expand(people, -1, -1)))
    total = people * count
    height = vertices[:, :, 1].amax(1).cpu()
    mesh = torch.arange(people).repeat_interleave(count)
    distance = torch.full((total,), 30.0)
    pose = cameras.orbit(
        torch.linspace(0, 90, count).repeat(people),
        torch.arange(total) * 47.0,
        distance,
        height[mesh] / 2,
    )
    matrix = cameras.pinhole(0.95 * size[0] * distance / height[mesh], size)
    generator = torch.Generator().manual_seed(0)
    texture = torch.randint(0, 256, (people, side, side, 4), generator=generator).byte().to(device)
    return {
        "vertices": vertices.detach(),
        "faces": body.faces,
        "mesh": mesh.to(device),
        "uvs": body.uvs,
        "cameras": cameras.Cameras(pose.to(device), matrix.to(device), size),
        "face_uvs": body.face_uvs,
        "texture": texture[..., :3].contiguous(),
        "seen": texture[..., 3].contiguous(),
    }


def rate(call, pictures: int, seconds: float, device: str = "cpu") -> float:
    """Images per second of a call: the best of all rounds within `seconds`."""

    def once() -> float:
        start = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    times, end = [once()], time.perf_counter() + seconds
    while time.perf_counter() < end:
        times.append(once())
    return pictures / min(times)


def ours(people, count, size, side, seconds, threads, device="cpu", backend="zbuffer") -> float:
    torch.set_num_threads(threads)
    job = scene(people, count, size, side, device)
    return rate(lambda: shade.render(**job, backend=backend), people * count, seconds, device)


def pictures(people, count, seconds, threads) -> float:
    """Finished views per second."""
    torch.set_num_threads(threads)
    body = bodies.load("anny")
    shape = body.shape_mean.expand(people, -1)
    vertices = bodies.stand(body.vertices(shape, body.pose_mean.expand(people, -1, -1))).detach()
    job = scene(people, 1, (16, 16), 256, "cpu")
    textures, seens = list(job["texture"].numpy()), list(job["seen"].numpy())
    shots = [
        views.Shot(p, 90.0 * k / max(1, count - 1), 47.0 * k, str(k))
        for p in range(people)
        for k in range(count)
    ]
    pids = [str(p) for p in range(people)]
    return rate(
        lambda: views.render_views(vertices, body, textures, seens, pids, shots, Sensor(), 0),
        len(shots),
        seconds,
    )


def _worker(barrier, results, function, arguments) -> None:
    barrier.wait()
    results.put(function(*arguments))


def side_by_side(function, *arguments) -> float:
    """Sum of the rates of two processes with one thread that run at the same time."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    crew = [
        context.Process(target=_worker, args=(barrier, results, function, arguments))
        for _ in range(2)
    ]
    for process in crew:
        process.start()
    total = sum(results.get() for _ in crew)
    for process in crew:
        process.join()
    return total


def machine() -> str:
    """Description of the machine: processor, cores, load and versions."""
    info = Path("/proc/cpuinfo")
    names = [
        line.split(":", 1)[1].strip()
        for line in (info.read_text().splitlines() if info.exists() else [])
        if line.startswith("model name")
    ]
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    name = names[0] if names else platform.processor() or platform.machine()
    return (
        f"{name}, {os.cpu_count()} cores, load {load:.1f} before the run; torch "
        f"{torch.__version__}, Python {platform.python_version()}"
    )


def main(people: int = 8, views: int = 8, seconds: float = 4.0) -> None:
    """Print the table.

    Args:
        people: People per batch.
        views: Cameras per person.
        seconds: Measuring time of each row.
    """
    print(machine())
    print(f"batch: {people} people x {views} views\n")
    print(f"{'canvas':>9} {'texture':>8} {'how':>24} {'views/s':>9}")

    def row(canvas, side, how, value):
        print(f"{canvas:>9} {side:>8} {how:>24} {value:9.1f}", flush=True)

    for size in SIZES:
        name, best = f"{size[0]}x{size[1]}", 0.0
        for side in (256, 1024):
            for threads in (1, 2):
                found = ours(people, views, size, side, seconds, threads)
                best = max(best, found if side == 256 else 0)
                row(name, side, f"zbuffer, {threads} thread(s)", found)
            found = side_by_side(ours, people, views, size, side, seconds, 1)
            row(name, side, "zbuffer, 2 x 1 thread", found)
        if importlib.util.find_spec("pytorch3d"):
            slow = ours(1, 1, size, 256, 0, 2, backend="pytorch3d")
            row(name, 256, "pytorch3d, 2 threads", slow)
            print(f"{'':>18} zbuffer in one process is {best / slow:.0f} times as fast")
        if torch.cuda.is_available():
            name_gpu = torch.cuda.get_device_name()
            found = ours(8 * people, views, size, 256, seconds, 2, "cuda")
            row(name, 256, f"zbuffer, {name_gpu}", found)
    row("views", 256, "1 thread", pictures(people, views, seconds, 1))
    row("views", 256, "2 x 1 thread", side_by_side(pictures, people, views, seconds, 1))


if __name__ == "__main__":
    tyro.cli(main)
