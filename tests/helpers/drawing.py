# SPDX-License-Identifier: Apache-2.0
"""`generate` with a chunk function that paints coloured rectangles: its machinery, in seconds.

python tests/helpers/drawing.py [--options of generate]

A source file whose name starts with `bad` becomes a quality reject; with `fault` it raises and with
`die` it kills the worker, both until a file `.mended` lies in its folder. DRAWING_SECONDS slows
each view.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from viewsynth import config
from viewsynth.commands import generate
from viewsynth.generate.options import camera
from viewsynth.generate.worker import relative
from viewsynth.records import Person, Reject
from viewsynth.runtime.files import folder_of, stem_of
from viewsynth.runtime.images import filmstrip, jpeg, png
from viewsynth.runtime.licences import Passport


def prepare(config):
    passports = {"data": Passport("drawn", config.data.licence), "body": Passport("b", "CC0-1.0")}
    return {}, {"pose": "0" * 64}, passports


def load(job):
    return 7  # the tools: a number of rows that are painted


def make(task, job, tools, put):
    made, rows, rejects = [], [], []
    people = [_person(entry, job) for entry in task.entries]
    for entry, person in zip(task.entries, people, strict=True):
        if isinstance(person, Reject):
            rejects.append(person)
            continue
        file = f"people/{entry.stem}.safetensors"
        made.append({"pid": entry.pid, "outfit": entry.outfit, "file": file})
        put(file, person.to_bytes)
        put(f"report/fit/{entry.stem}_0.jpg", filmstrip, [person.texture] * 3)
    made += task.made
    for one in made:
        person = next((p for p in people if isinstance(p, Person) and p.pid == one["pid"]), None)
        person = person or Person.load(job.run / one["file"])
        for name in task.views:
            rows.append(_view(person, one["outfit"], name, job, tools, put))
    return made, rows, rejects


def _person(entry, job):
    path = entry.samples[0].paths[0]
    source = relative(path, job.root)
    mended = (path.parent / ".mended").exists()
    if path.name.startswith("bad"):
        return Reject(source=source, stage="parse", reason="no person in it", pid=entry.pid)
    if path.name.startswith("fault") and not mended:
        raise RuntimeError(f"cannot draw {path.name}")
    if path.name.startswith("die") and not mended:
        os.kill(os.getpid(), signal.SIGKILL)
    colour = np.frombuffer(hashlib.sha256(path.read_bytes()).digest()[:3], np.uint8)
    empty = np.zeros(3, np.float32)
    return Person(
        pid=entry.pid,
        body="anny",
        shape=empty,
        pose=np.zeros((1, 3), np.float32),
        offsets=empty,
        scale=1.0,
        texture=np.broadcast_to(colour, (8, 8, 3)).copy(),
        seen=np.full((8, 8), 255, np.uint8),
        sources=[{"file": source, "sha256": entry.sha256[0], "camid": "c"}],
    )


def _view(person, outfit, name, job, tools, put):
    time.sleep(float(os.environ.get("DRAWING_SECONDS", "0")))
    elevation, azimuth = camera(name, job.config.seed, person.pid, outfit)
    stem = f"{folder_of(person.pid)}/{outfit + '+' if outfit else ''}{name}"
    image = np.full((40, 20, 3), person.texture[0, 0], np.uint8)
    image[:tools, :] = int(elevation) + int(azimuth) % 100
    put(f"images/{stem}.jpg", jpeg, image)
    put(f"seen/{stem}.png", png, image[..., 0])
    return {
        "file_name": f"images/{stem}.jpg",
        "seen_file_name": f"seen/{stem}.png",
        "pid": person.pid,
        "outfit": outfit,
        "person": f"people/{stem_of(person.pid, outfit)}.safetensors",
        "elevation": elevation,
        "azimuth": azimuth,
        "seen_ratio": 1.0,
        "weight": 1.0,
        "height": 40,
        "fallback": "",
        "sources": [{k: s[k] for k in ("file", "sha256")} for s in person.sources],
        "seed": job.config.seed,
        "licences": job.licences,
    }


def photos(root: Path, names: list[str]) -> Path:
    """Write a folder of small images, named `<pid>/<name>.jpg`."""
    for name in names:
        path, colour = root / name, hashlib.sha256(name.encode()).digest()[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(np.full((60, 30, 3), colour, np.uint8)))
    return root


if __name__ == "__main__":
    parsed = config.parse(generate.Config, sys.argv[1:], "drawing")
    try:
        status = generate.run(parsed, prepare, load, make)
    except (ValueError, OSError) as error:
        config.fail("drawing", str(error))
    sys.exit(status)
