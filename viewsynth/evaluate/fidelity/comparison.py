# SPDX-License-Identifier: Apache-2.0
"""Compares predicted and true drone views for one chunk of people of a world.

A worker creates one `Comparer` and computes whole chunks, so the rows of a chunk depend on its
people only. The part of a chunk is written last; a restarted run skips chunks with a part.
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
from viewsynth.render.options import Scene, Sensor
from viewsynth.runtime import provenance
from viewsynth.runtime.files import write
from viewsynth.runtime.images import png
from viewsynth.world import truth
from viewsynth.world.truth import Instant, TrueImage

CHUNK = 4  # people
# Folders and files of the code that determines the results.
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
    "world/truth.py",
    "diffusion/pairs/true_pose.py",
)
ENGINE, REID = ("diffusion",), ("reid",)  # the same for the optional models


@dataclass(frozen=True)
class Job:
    """Settings of a worker.

    Args:
        world: Folder of the world.
        output: Folder of the comparison.
        observer: File of the observer.
        models: Files of `weights.reconstruction`.
        mark: Fingerprint of everything that determines the results; stored in every part.
        seed: Seed of the sensor noise.
        shown: Pids whose images are kept for the contact sheet.
        engine: Diffusion model that repairs the views, see `refine.find`; None = none.
        refine: Options of the diffusion model.
        reid: Folder of a ReID model of `viewsynth train`; None = none.
        device: Device of the diffusion and ReID models.
        sensor: Sensor model of the views.
        scene: Ground and light of the views.
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
    sensor: Sensor = Sensor()
    scene: Scene = Scene()


@dataclass(frozen=True)
class Chunk:
    """People that are computed together."""

    name: str
    moments: tuple[Instant, ...]

    @property
    def pids(self) -> list[str]:
        """Identities of the chunk, in order."""
        return list(dict.fromkeys(moment.pid for moment in self.moments))


def chunks(moments: list[Instant]) -> list[Chunk]:
    """Divide the instants into chunks of `CHUNK` people, in their order."""
    pids = list(dict.fromkeys(moment.pid for moment in moments))
    return [
        Chunk(people[0], tuple(m for m in moments if m.pid in people))
        for people in (pids[k : k + CHUNK] for k in range(0, len(pids), CHUNK))
    ]


def code(engine: bool = False, reid: bool = False) -> str:
    """Hash of the code that determines the results.

    Args:
        engine: Whether a diffusion model is used.
        reid: Whether a ReID model is used.
    """
    return provenance.code_digest(*CODE, *(ENGINE if engine else ()), *(REID if reid else ()))


def part(job: Job, chunk: Chunk) -> dict | None:
    """Stored results of a chunk; None if it must be computed.

    Args:
        job: Settings of the comparison.
        chunk: People of the chunk.

    Raises:
        ValueError: If the folder holds the results of another comparison.
    """
    path = part_path(job, chunk)
    if not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    if found["mark"] != job.mark:
        raise ValueError(
            f"{job.output} holds a comparison with another world, observer, engine, ReID model, "
            "sensor, scene, seed or version of the code; give --output a new folder"
        )
    return found if found["pids"] == chunk.pids else None


def part_path(job: Job, chunk: Chunk) -> Path:
    """Path of the part of a chunk."""
    return job.output / "parts" / f"{chunk.name}.json"


def start(job: Job) -> Callable[[Chunk], None]:
    """Load the models of a worker.

    Args:
        job: Settings of the comparison.

    Returns:
        Function that computes one chunk.
    """
    import torch

    torch.set_num_threads(1)  # sums depend on the number of threads
    from viewsynth import bodies

    tools = reconstruct.load(bodies.load("anny"), job.models)
    look = job.sensor, job.scene
    repairer = repair.load(job.engine, job.refine, job.device, *look) if job.engine else None
    spaces = features.load(job.observer, job.reid, job.device)
    return Comparer(job, tools, observer.load(job.observer), repairer, spaces).compute


class Comparer:
    """Computes chunks with the models of a worker.

    Args:
        job: Settings of the comparison.
        tools: See `reconstruct.load`.
        network: The observer.
        repairer: Diffusion model; None = none.
        spaces: Feature spaces of whole images, see `features.load`; None = the observer only.
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

    def compute(self, chunk: Chunk) -> None:
        """Compute a chunk and write its part."""
        ground = [[truth.read(self.job.world, row) for row in m.ground] for m in chunk.moments]
        outcomes = reconstruct.reconstruct(
            [[truth.sample(self.job.world, row) for row in m.ground] for m in chunk.moments],
            [[picture.image for picture in pictures] for pictures in ground],
            self.tools,
        )
        rows, rejects, ground_rows = [], [], []
        for moment, pictures, outcome in zip(chunk.moments, ground, outcomes, strict=True):
            if reason := judge.rejection_reason(outcome.person, outcome.rejects):
                rejects.append({"pid": moment.pid, "instant": moment.name, "reason": reason})
            else:
                rows += self._rows(moment, outcome.person, pictures)
                found = features.rows([picture.image for picture in pictures], self.spaces)
                ground_rows += [{"pid": moment.pid, "features": each} for each in found]
        part = {
            "mark": self.job.mark,
            "pids": chunk.pids,
            "rows": rows,
            "ground": ground_rows,
            "rejects": rejects,
        }
        write(part_path(self.job, chunk), json.dumps(part).encode())

    def _rows(self, moment: Instant, person: Person, ground: list[TrueImage]) -> list[dict]:
        """Results of every drone view and method of an instant."""
        drone = [truth.read(self.job.world, row) for row in moment.drone]
        drone = [true for true in drone if true.mask.any()]
        moment = dataclasses.replace(moment, drone=tuple(true.row for true in drone))
        if not drone:
            return []
        predictions = self._predict(moment, person, ground, drone)
        if moment.pid in self.job.shown:
            self._keep(moment, ground, drone, predictions)
        rows, inputs, photo = [], [], {}
        if len(ground) == 1:
            photo = {"photo": measures.photo_bin(ground[0].row["azimuth"])}
        for true, views in zip(drone, predictions, strict=True):
            for name, view in views.items():
                rows.append(
                    {
                        "pid": moment.pid,
                        "instant": moment.name,
                        "method": name,
                        "view": true.row["file_name"],
                        "elevation": true.row["elevation"],
                        "angle": measures.nearest_angle(
                            true.row["azimuth"], [one.row["azimuth"] for one in ground]
                        ),
                        **photo,
                        "occlusion": true.row.get("occlusion", 0.0),
                        "fallback": person.fallback,
                        **_rounded(_measure(true, name, views)),
                    }
                )
                inputs.append(observer.letterbox(view.image, view.mask))
        embedding, degrees = observer.predict(self.network, np.stack(inputs))
        for row, vector, angle in zip(rows, embedding, degrees, strict=True):
            row["elevation_error"] = round(abs(float(angle) - row["elevation"]), 3)
            row["embedding"] = [round(float(value), 4) for value in vector]
        whole = [view.whole for views in predictions for view in views.values()]
        with_whole = [row for row, image in zip(rows, whole, strict=True) if image is not None]
        found = features.rows([image for image in whole if image is not None], self.spaces)
        for row, vectors in zip(with_whole, found, strict=True):
            row["features"] = vectors
        return rows

    def _predict(self, moment: Instant, person: Person, ground, drone) -> list[dict]:
        """Predictions of all methods for every drone view."""
        tools, seed = self.tools, self.job.seed
        parsed = baselines.parse_all(ground, tools)
        bodies = methods.posed_bodies(moment, person, ground, parsed, tools)
        look = self.job.sensor, self.job.scene
        predictions = methods.predict(bodies, ground, parsed, drone, seed, *look)
        if self.repairer is None:
            return predictions
        repaired = self.repairer.predict(bodies, person, ground, drone, predictions, seed)
        return [views | more for views, more in zip(predictions, repaired, strict=True)]

    def _keep(self, moment: Instant, ground, drone, predictions) -> None:
        """Write the images of a person for the contact sheet."""
        folder = shown_folder(self.job.output, moment.pid, moment.name)
        for number, picture in enumerate(ground):
            write(folder / f"ground_{number}.png", png(picture.image))
        for number, (true, views) in enumerate(zip(drone, predictions, strict=True)):
            write(folder / f"{number}_photo.png", png(true.image))
            for name, view in views.items():
                write(folder / f"{number}_{name}.png", png(view.image))
                if view.whole is not None:
                    write(folder / f"{number}_{name}_whole.png", png(view.whole))


def shown_folder(output: Path, pid: str, name: str) -> Path:
    """Folder of the images of an instant for the contact sheet."""
    return output / "pictures" / f"{pid}_{name}"


def _measure(true: TrueImage, name: str, views: dict[str, methods.Prediction]) -> dict[str, float]:
    """Measures of one method's prediction."""
    if name == "true":
        return {}
    if name not in repair.METHODS:
        return measures.compare(true, views[name])
    base = views[repair.BASE[name]]
    return measures.compare(true, views[name], base) | repair.reference_ious(true, name, views)


def _rounded(row: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in row.items()}
