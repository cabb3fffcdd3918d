# SPDX-License-Identifier: Apache-2.0
"""Comparison: the people of one chunk, from the world's files to rows of figures.

`Comparer` is loaded once per worker; a chunk is computed whole, so its rows depend on nothing but
its people. Its part is written last, and is what a second run trusts.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from viewsynth import judge, reconstruct
from viewsynth.diffusion import refine
from viewsynth.diffusion.options import Refine
from viewsynth.evaluate.fidelity import baselines, features, measures, methods, observer, repair
from viewsynth.records import Person
from viewsynth.runtime import provenance
from viewsynth.runtime.files import write
from viewsynth.runtime.images import png
from viewsynth.world import truth
from viewsynth.world.truth import Instant, Picture

CHUNK = 4  # people
# Folders and files of the code that decides the figures.
CODE = (
    "bodies",
    "reconstruct",
    "render",
    "evaluate/fidelity",
    "cameras.py",
    "judge",
    "metrics",
    "records.py",
    "runtime/weights.py",
)
ENGINE, REID = ("diffusion",), ("reid",)  # those of what need not be there


@dataclass(frozen=True)
class Job:
    """What a worker needs to know.

    Args:
        world: Folder of the world.
        output: Folder of the comparison.
        observer: Its file.
        models: Name -> file of each model, "pose" and "detector".
        mark: Fingerprint of everything that decides the figures; a part carries it.
        seed: Of the sensor's noise.
        shown: Pids whose pictures are kept for the sheet.
        engine: The diffusion that repairs, see `refine.find`; None = there is none.
        refine: How it is used.
        reid: Folder of a ReID model that `viewsynth train` saved, or None.
        device: Where those two compute.
    """

    world: Path
    output: Path
    observer: Path
    models: dict[str, Path]
    mark: str
    seed: int
    shown: tuple[str, ...]
    engine: refine.Found | None = None
    refine: Refine = field(default_factory=Refine)
    reid: Path | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class Chunk:
    """People that are computed together."""

    name: str
    moments: tuple[Instant, ...]

    @property
    def pids(self) -> list[str]:
        """Who they are, in order."""
        return list(dict.fromkeys(moment.pid for moment in self.moments))


def chunks(moments: list[Instant]) -> list[Chunk]:
    """The instants in chunks of `CHUNK` people, in their order."""
    pids = list(dict.fromkeys(moment.pid for moment in moments))
    return [
        Chunk(some[0], tuple(m for m in moments if m.pid in some))
        for some in (pids[k : k + CHUNK] for k in range(0, len(pids), CHUNK))
    ]


def code(engine: bool = False, reid: bool = False) -> str:
    """Of what decides the figures: what was edited must be computed again."""
    return provenance.code(*CODE, *(ENGINE if engine else ()), *(REID if reid else ()))


def part(job: Job, chunk: Chunk) -> dict | None:
    """What was found for a chunk, None where that is still to be done.

    Raises: ValueError: if the folder holds another comparison.
    """
    path = part_path(job, chunk)
    if not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    if found["mark"] != job.mark:
        raise ValueError(
            f"{job.output} holds a comparison of another world, observer, engine, ReID model, seed "
            "or version of the code; give --output a new folder, so that both can be looked at "
            "side by side"
        )
    return found if found["pids"] == chunk.pids else None


def part_path(job: Job, chunk: Chunk) -> Path:
    """Where the part of a chunk lies."""
    return job.output / "parts" / f"{chunk.name}.json"


def start(job: Job) -> Callable[[Chunk], None]:
    """Load the tools of a worker, and return the function that does one chunk."""
    import torch

    torch.set_num_threads(1)  # sums depend on the number of threads
    from viewsynth import bodies

    tools = reconstruct.load(bodies.load("anny"), job.models["pose"], job.models["detector"])
    repairer = repair.load(job.engine, job.refine, job.device) if job.engine else None
    spaces = features.load(job.observer, job.reid, job.device)
    return Comparer(job, tools, observer.load(job.observer), repairer, spaces).do


class Comparer:
    """What a worker holds.

    Args:
        tools: See `reconstruct.load`.
        network: The observer.
        repairer: The engine, if there is one.
        spaces: What makes features of whole pictures, by name, see `features.load`; None = the
            observer alone.
    """

    def __init__(
        self,
        job: Job,
        tools: reconstruct.Tools,
        network: observer.Network,
        repairer: repair.Repairer | None = None,
        spaces: features.Spaces | None = None,
    ):
        self.job, self.tools, self.network, self.repairer = job, tools, network, repairer
        self.spaces = spaces or {"observer": features.of_observer(network)}

    def do(self, chunk: Chunk) -> None:
        """Compute a chunk and write its part."""
        ground = [[truth.read(self.job.world, row) for row in m.ground] for m in chunk.moments]
        outcomes = reconstruct.reconstruct(
            [[truth.sample(self.job.world, row) for row in m.ground] for m in chunk.moments],
            [[picture.image for picture in pictures] for pictures in ground],
            self.tools,
        )
        rows, rejects, beside = [], [], []
        for moment, pictures, outcome in zip(chunk.moments, ground, outcomes, strict=True):
            if why := judge.refusal(outcome.person, outcome.rejects):
                rejects.append({"pid": moment.pid, "instant": moment.name, "reason": why})
            else:
                rows += self._rows(moment, outcome.person, pictures)
                found = features.rows([picture.image for picture in pictures], self.spaces)
                beside += [{"pid": moment.pid, "features": each} for each in found]
        part = {
            "mark": self.job.mark,
            "pids": chunk.pids,
            "rows": rows,
            "ground": beside,
            "rejects": rejects,
        }
        write(part_path(self.job, chunk), json.dumps(part).encode())

    def _rows(self, moment: Instant, person: Person, ground: list[Picture]) -> list[dict]:
        """A row for every drone view and method of an instant."""
        drone = [truth.read(self.job.world, row) for row in moment.drone]
        drone = [true for true in drone if true.mask.any()]
        moment = dataclasses.replace(moment, drone=tuple(true.row for true in drone))
        if not drone:
            return []
        made = self._made(moment, person, ground, drone)
        if moment.pid in self.job.shown:
            self._keep(moment, ground, drone, made)
        rows, seen = [], []
        for true, views in zip(drone, made, strict=True):
            for name, view in views.items():
                rows.append(
                    {
                        "pid": moment.pid,
                        "instant": moment.name,
                        "method": name,
                        "view": true.row["file_name"],
                        "elevation": true.row["elevation"],
                        "occlusion": true.row.get("occlusion", 0.0),
                        "fallback": person.fallback,
                        **_rounded(_figures(true, name, views)),
                    }
                )
                seen.append(observer.letterbox(view.image, view.mask))
        embedding, degrees = observer.look(self.network, np.stack(seen))
        for row, vector, angle in zip(rows, embedding, degrees, strict=True):
            row["elevation_error"] = round(abs(float(angle) - row["elevation"]), 3)
            row["embedding"] = [round(float(value), 4) for value in vector]
        whole = [view.whole for views in made for view in views.values()]
        having = [row for row, picture in zip(rows, whole, strict=True) if picture is not None]
        found = features.rows([picture for picture in whole if picture is not None], self.spaces)
        for row, vectors in zip(having, found, strict=True):
            row["features"] = vectors
        return rows

    def _made(self, moment: Instant, person: Person, ground, drone) -> list[dict]:
        """Every method's picture of every drone view."""
        parsed = baselines.parse_all(ground, self.tools)
        drawn = methods.bodies_of(moment, person, ground, parsed, self.tools)
        made = methods.make(drawn, ground, parsed, drone, self.tools, self.job.seed)
        if self.repairer is None:
            return made
        more = self.repairer.make(drawn, person, ground, drone, made, self.tools, self.job.seed)
        return [views | others for views, others in zip(made, more, strict=True)]

    def _keep(self, moment: Instant, ground, drone, made) -> None:
        """Keep the pictures of a person for the sheet."""
        folder = shown_folder(self.job.output, moment.pid, moment.name)
        for number, picture in enumerate(ground):
            write(folder / f"ground_{number}.png", png(picture.image))
        for number, (true, views) in enumerate(zip(drone, made, strict=True)):
            write(folder / f"{number}_photo.png", png(true.image))
            for name, view in views.items():
                write(folder / f"{number}_{name}.png", png(view.image))
                if view.whole is not None:
                    write(folder / f"{number}_{name}_whole.png", png(view.whole))


def shown_folder(output: Path, pid: str, name: str) -> Path:
    """Where the pictures of an instant lie that the sheet shows."""
    return output / "pictures" / f"{pid}_{name}"


def _figures(true: Picture, name: str, views: dict[str, methods.Made]) -> dict[str, float]:
    """The figures of one method's picture."""
    if name == "true":
        return {}
    if name not in repair.METHODS:
        return measures.compare(true, views[name])
    base = views[repair.BASE[name]]
    return measures.compare(true, views[name], base) | repair.outlines(true, name, views)


def _rounded(row: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in row.items()}
