# SPDX-License-Identifier: Apache-2.0
"""Views per second of the renderer with all its outputs, compared with pytorch3d if installed.

    python benchmarks/render.py [--people 8] [--views 8] [--seconds 4]

A row is for triangle id, depth, barycentric weights, normal, uv, colour and seen map of
`people x views` images of the Anny body (27,420 triangles) that fill the height of the canvas, at
elevations from 0 to 90. "shared": all people have one topology and texture size; "own": each has
its triangles in its own random order, and its own texture size. The two take turns, and "ratio" is
own : shared. "2 x 1" = two processes with one thread each, as in a run of `generate` on two cores.
"views" are finished views of 128 pixels per person: 2x supersampling, ground, shadow, sensor model
and JPEG.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import platform
import time
from dataclasses import replace
from pathlib import Path

import torch
import tyro

from viewsynth import bodies, cameras
from viewsynth.render import shade, views
from viewsynth.render.meshes import Mesh
from viewsynth.render.options import Sensor

SIZES = ((256, 128), (512, 256))


def people_of(count: int, side: int, own: bool, device: str = "cpu") -> list[Mesh]:
    """Standing bodies, each with a texture of about `side` x `side` texels."""
    body = bodies.load("anny", device)
    shape = body.shape_mean.expand(count, -1)
    vertices = bodies.stand(body.vertices(shape, body.pose_mean.expand(count, -1, -1))).detach()
    draw, meshes = torch.Generator().manual_seed(0), []
    for k in range(count):
        wide = side + own * (16 * k - 8 * count)
        texels = torch.randint(0, 256, (side, wide, 4), generator=draw).byte().to(device)
        faces, face_uvs = body.faces, body.face_uvs
        if own:
            order = torch.randperm(len(faces), generator=draw).to(device)
            faces, face_uvs = faces[order], face_uvs[order]
        texture, seen = texels[..., :3].contiguous(), texels[..., 3].contiguous()
        meshes.append(Mesh(vertices[k], faces, body.uvs, face_uvs, texture, seen))
    return meshes


def fresh(meshes: list[Mesh]) -> list[Mesh]:
    """The same meshes without what they have computed, as in every chunk of a run."""
    return [replace(mesh) for mesh in meshes]


def rates(calls, pictures: int, seconds: float, device: str = "cpu") -> list[float]:
    """Images per second of calls that take turns: the best of all rounds within `seconds`."""

    def once(call) -> float:
        start = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    times, end = [[once(call) for call in calls]], time.perf_counter() + seconds
    while time.perf_counter() < end:
        times.append([once(call) for call in calls])
    return [pictures / min(column) for column in zip(*times, strict=True)]


def ours(
    people, count, size, side, seconds, threads, device="cpu", backend="zbuffer"
) -> list[float]:
    """Images per second with a shared topology and with own ones."""
    torch.set_num_threads(threads)
    total = people * count
    mesh = torch.arange(people).repeat_interleave(count)
    distance = torch.full((total,), 30.0)
    kinds = [people_of(people, side, own, device) for own in (False, True)]
    height = torch.stack([one.vertices[:, 1].max() for one in kinds[0]]).cpu()[mesh]
    angles = torch.linspace(0, 90, count).repeat(people), torch.arange(total) * 47.0
    pose = cameras.orbit(*angles, distance, height / 2)
    matrix = cameras.pinhole(0.95 * size[0] * distance / height, size)
    job = cameras.Cameras(pose.to(device), matrix.to(device), size), mesh.to(device), backend
    calls = [lambda some=some: shade.render(fresh(some), *job) for some in kinds]
    return rates(calls, total, seconds, device)


def pictures(people, count, seconds, threads) -> list[float]:
    """Finished views per second with a shared topology and with own ones."""
    torch.set_num_threads(threads)
    shots = [
        views.Shot(p, 90.0 * k / max(1, count - 1), 47.0 * k, str(k))
        for p in range(people)
        for k in range(count)
    ]
    pids = [str(p) for p in range(people)]
    kinds = [people_of(people, 256, own) for own in (False, True)]
    calls = [
        lambda some=some: views.render_views(fresh(some), pids, shots, Sensor(), 0)
        for some in kinds
    ]
    return rates(calls, len(shots), seconds)


def _worker(barrier, results, function, arguments) -> None:
    barrier.wait()
    results.put(function(*arguments))


def side_by_side(function, *arguments) -> list[float]:
    """Sums of the rates of two processes with one thread that run at the same time."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    crew = [
        context.Process(target=_worker, args=(barrier, results, function, arguments))
        for _ in range(2)
    ]
    for process in crew:
        process.start()
    total = [sum(pair) for pair in zip(*(results.get() for _ in crew), strict=True)]
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
    print(f"{'canvas':>9} {'texture':>8} {'how':>24} {'shared':>9} {'own':>9} {'ratio':>6}")

    def row(canvas, side, how, value):
        shared, own = value
        print(
            f"{canvas:>9} {side:>8} {how:>24} {shared:9.1f} {own:9.1f} {own / shared:6.2f}",
            flush=True,
        )

    for size in SIZES:
        name, best = f"{size[0]}x{size[1]}", 0.0
        for side in (256, 1024):
            for threads in (1, 2):
                found = ours(people, views, size, side, seconds, threads)
                best = max(best, found[0] if side == 256 else 0)
                row(name, side, f"zbuffer, {threads} thread(s)", found)
            found = side_by_side(ours, people, views, size, side, seconds, 1)
            row(name, side, "zbuffer, 2 x 1 thread", found)
        if importlib.util.find_spec("pytorch3d"):
            slow = ours(1, 1, size, 256, 0, 2, backend="pytorch3d")
            row(name, 256, "pytorch3d, 2 threads", slow)
            print(f"{'':>18} zbuffer in one process is {best / slow[0]:.0f} times as fast")
        if torch.cuda.is_available():
            name_gpu = torch.cuda.get_device_name()
            found = ours(8 * people, views, size, 256, seconds, 2, "cuda")
            row(name, 256, f"zbuffer, {name_gpu}", found)
    row("views", 256, "1 thread", pictures(people, views, seconds, 1))
    row("views", 256, "2 x 1 thread", side_by_side(pictures, people, views, seconds, 1))


if __name__ == "__main__":
    tyro.cli(main)
