# SPDX-License-Identifier: Apache-2.0
"""`Synthesizer`: reconstruct people from images and render them from above.

The interface for notebooks and programs. `viewsynth.generate.chunk`, and with it the command
`generate`, computes its people and views with the same object.
"""

from __future__ import annotations

import os
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from viewsynth import bodies, judge, reconstruct
from viewsynth.diffusion import refine
from viewsynth.diffusion.options import Refine
from viewsynth.generate import gather, inputs
from viewsynth.generate.options import camera
from viewsynth.generate.rendered import RenderedView, camera_names, to_rendered_view
from viewsynth.generate.worker import relative
from viewsynth.reconstruct import Outcome, Tools, own_mesh, posing
from viewsynth.records import MESH, Person, View, seed_of
from viewsynth.render import views as rendering
from viewsynth.render.options import Scene, Sensor
from viewsynth.runtime import weights
from viewsynth.runtime.devices import find_device, one_thread
from viewsynth.runtime.images import COMPOSITE

CHUNK = 8  # people that are fitted together, as `generate` does by default
SLICE = 64  # views that are rendered before the first of them is handed out


@dataclass(frozen=True, eq=False)
class Subject:
    """A person to render.

    Args:
        person: The person.
        outfit: Label of the clothes; part of the seeds of the refiner.
        photos: With a refiner, what `Synthesizer.photos` returns.
    """

    person: Person
    outfit: str = ""
    photos: Sequence[Tensor] = field(default_factory=list)


class Synthesizer:
    """Reconstruct people from ground images and render aerial views of them.

    The constructor fetches the models, which are cached; the very first time it builds the body
    model as well, which takes about a minute. Not for several threads at once: calls set the number
    of torch's threads for the process.

    Examples:
        >>> synthesizer = viewsynth.Synthesizer()
        >>> person = synthesizer.reconstruct(["front.jpg", "back.jpg"])
        >>> view = synthesizer.render(person, elevation=60, azimuth=30)
        >>> view.image.save("view.png")
        >>> turn = synthesizer.render(person, elevation=45, azimuth=range(0, 360, 30))

    Args:
        body: Body model, a module of `viewsynth.bodies`: "anny" or "smplx".
        device: "auto" (a GPU if torch sees one), "cpu", "cuda" or "cuda:N".
        refiner: Repairs the views: folder, hub id, "bundled" or `diffusion.options.Refine` or None.
        pose_model: Your own pose_landmark_full.tflite; None = fetched.
        detector: Your own pose_detection.tflite; None = fetched.
        smplx: SMPLX_NEUTRAL.npz, which you have a licence for; with body "smplx".
        complete: What no photo shows: "learned", "rules" or a file of `train-completion`.

    Raises:
        ValueError: If an argument is not one of these, or a file is not what it should be.
        FileNotFoundError: If a file or model does not exist or cannot be fetched.

    Attributes:
        tools: `viewsynth.reconstruct.Tools`: the body and the pose models.
        refiner: `viewsynth.diffusion.refine.Refiner`, or None.
    """

    def __init__(
        self,
        body: str = "anny",
        device: str | torch.device = "auto",
        refiner: str | os.PathLike | Refine | None = None,
        pose_model: str | os.PathLike | None = None,
        detector: str | os.PathLike | None = None,
        smplx: str | os.PathLike | None = None,
        complete: str | os.PathLike = "learned",
    ):
        if body not in bodies.names():
            raise ValueError(f"body must be one of {', '.join(bodies.names())}; got {body!r}")
        if smplx and body != "smplx":
            raise ValueError(f"smplx is the model file of the body 'smplx'; got body {body!r}")
        device = find_device(device)
        options = {"path": weights.smplx_model(smplx)} if smplx else {}
        if not isinstance(refiner, Refine):
            refiner = Refine(engine="none" if refiner is None else os.fspath(refiner))
        # Everything is checked and fetched before the first model is loaded.
        refine.find(refiner, whole=False)
        files = weights.reconstruction(complete, pose_model, detector)
        found = refine.find(refiner)
        with one_thread():
            tools = reconstruct.load(bodies.load(body, device, **options), files)
            loaded = refine.load(found.folder, refiner, str(device)) if found else None
        self._keep(tools, loaded)

    @classmethod
    def from_models(cls, tools: Tools, refiner: refine.Refiner | None = None) -> Synthesizer:
        """A synthesizer of models that are loaded already, as the workers of `generate` make it.

        Args:
            tools: The body and the pose models, see `viewsynth.reconstruct.load`.
            refiner: See `viewsynth.diffusion.refine.load`; None = none.
        """
        made = cls.__new__(cls)
        made._keep(tools, refiner)
        return made

    def _keep(self, tools: Tools, refiner: refine.Refiner | None) -> None:
        self.tools, self.refiner = tools, refiner
        self._photos: dict[int, list[Tensor]] = {}  # of the persons that this object made, by id

    # ---- for notebooks ---------------------------------------------------------------------------

    def reconstruct(
        self,
        images: inputs.ImageLike | Sequence,
        elevation: float | Sequence | None = None,
        pid: str | Sequence[str] | None = None,
        crops: str = "auto",
    ) -> Person | list[Person | None]:
        """Reconstruct one person, or several people together.

        Images that are not tight crops of one person are searched for people, as in `generate`.

        Args:
            images: The images of one person, each a path, a PIL image or a uint8 array [H, W, 3]
                (sRGB), or a single one of these; or a list of lists: one list per person. EXIF
                orientation and colour profiles of files and PIL images are applied.
            elevation: Of the camera of each image, degrees above the horizon; None = estimated.
                One number for all; or one per image, and of several people one such value each.
            pid: Identity, or one per person; the seeds of the views depend on it.
                None = "person", or "person-0", "person-1" ...
            crops: Whether the images are tight crops of one person: "yes", "no", or "auto" (decide
                by size and shape).

        Returns:
            The person. Of several people a list, with None for those that cannot be reconstructed:
            one bad image does not cost the others. A warning gives the reason, and that of each
            single image that is not used.

        Raises:
            ValueError: If the (only) person cannot be reconstructed, with the reason; or if the
                arguments do not match.
            TypeError: If an image is something else.
            FileNotFoundError: If a path does not exist.
        """
        if crops not in gather.CROPS:
            raise ValueError(f"crops must be one of {', '.join(gather.CROPS)}; got {crops!r}")
        requests, several = inputs.requests(images, elevation, pid)
        people: list[Person | None] = []
        with one_thread():
            for first in range(0, len(requests), CHUNK):
                people += self._people(requests[first : first + CHUNK], crops)
        for request, person in zip(requests, people, strict=True):
            reasons = "; ".join(request.problems)
            if person is None and not several:
                raise ValueError(f"{request.pid!r} cannot be reconstructed: {reasons}")
            if reasons:
                what = "cannot be reconstructed" if person is None else "not all images are used"
                warnings.warn(f"{request.pid!r}: {what}: {reasons}", stacklevel=2)
        return people if several else people[0]

    def _people(self, requests: list[inputs.Request], crops: str) -> list[Person | None]:
        """The people of one chunk; the reasons of failures go into the requests."""
        for request in requests:
            inputs.prepare(request, self.tools, crops)
        people: list[Person | None] = []
        outcomes = self.outcomes([request.group for request in requests], Path())
        for request, outcome in zip(requests, outcomes, strict=True):
            request.problems += [f"{one.source}: {one.reason}" for one in outcome.rejects]
            person = outcome.person
            if person is not None and not (verdict := judge.judge_person(person)).keep:
                request.problems += verdict.reasons
                person = None
            if person is not None and self.refiner:
                self._photos[id(person)] = self.photos(person, request.group)
                weakref.finalize(person, self._photos.pop, id(person), None)
            people.append(person)
        return people

    def render(
        self,
        person: Person | Sequence[Person | None],
        elevation: float | Sequence[float] = 60,
        azimuth: float | Sequence[float] = 0,
        pose: str = "relaxed",
        sensor: Sensor | None = None,
        seed: int = 0,
        root: str | os.PathLike = ".",
        scene: Scene | None = None,
    ) -> RenderedView | list:
        """Render people from above.

        The same person, camera, seed and options give the same image as `generate`, to the byte
        where it computed the person alone (`--chunk 1`). With a refiner this holds for people
        without an outfit label, which is part of its seeds.

        Args:
            person: A person, or several; None among them stays None.
            elevation: Degrees above the horizon, 0 to 90; 90 looks straight down.
            azimuth: Degrees; 0 sees the person's front, 90 the person's left side.
                Of elevation and azimuth either may be a list, or both of the same length.
            pose: "fitted" (as in the images), "walk" (the nearest of a few walking and standing
                poses) or "relaxed" (more than half way there, which is truest from above).
            sensor: The virtual camera; None = that of `generate`.
            seed: Seed of ground, light and noise, together with the pid and the camera.
            root: Folder of the sources, which a refiner reads again for a person from a file.
            scene: Ground and light; None = those of `generate`.

        Returns:
            A view; with lists of angles a list of views; of several people a list of these.

        Raises:
            TypeError: If an argument is not a person.
            ValueError: If an argument is out of range, the person has another body, or the sources
                cannot be read.
        """
        if pose not in posing.MODES:
            raise ValueError(f"pose must be one of {', '.join(posing.MODES)}; got {pose!r}")
        if isinstance(person, Person):
            return self.render([person], elevation, azimuth, pose, sensor, seed, root, scene)[0]
        if not isinstance(person, Iterable):
            raise TypeError(f"person must be a Person or a list, got {type(person).__name__}")
        names = camera_names(elevation, azimuth)
        options = pose, sensor or Sensor(), seed, scene or Scene()
        subjects = [None if one is None else self._subject(one, Path(root)) for one in person]
        # One person at a time: views do not depend on who else is rendered.
        rows = [one and self._rendered(one, names, *options) for one in subjects]
        single = np.ndim(elevation) == np.ndim(azimuth) == 0
        return [row and row[0] for row in rows] if single else rows

    def _rendered(
        self, subject: Subject, names: list[str], pose: str, sensor: Sensor, seed: int, scene: Scene
    ) -> list[RenderedView]:
        """One person from the cameras of these names."""
        pid = subject.person.pid
        shots = [rendering.Shot(0, *camera(name, seed, pid), name) for name in names]
        kind = refine.digital_source_type(self.refiner.options) if self.refiner else COMPOSITE
        with one_thread():
            views = list(self.views([subject], shots, pose, sensor, seed, scene))
        return [to_rendered_view(view, sensor, kind) for view in views]

    def _subject(self, person: Person, root: Path) -> Subject:
        """A person with what the refiner needs."""
        if not isinstance(person, Person):
            raise TypeError(f"expected a Person or None in the list, got {type(person).__name__}")
        if person.body not in (self.tools.body.name, MESH):
            raise ValueError(
                f"{person.pid!r} was reconstructed with the body {person.body!r}, this synthesizer "
                f"has {self.tools.body.name!r}: render with Synthesizer(body={person.body!r})"
            )
        if self.refiner is None or id(person) in self._photos:
            return Subject(person, photos=self._photos.get(id(person), []))
        try:
            return Subject(person, photos=self.photos_of(person, root))
        except gather.UnusableError as error:
            raise ValueError(
                f"{error.source}: {error}, or give `root`, the folder that it is relative to"
            ) from error

    # ---- for the commands as well ----------------------------------------------------------------

    def outcomes(
        self,
        groups: Sequence[gather.PersonCrops],
        root: Path,
        alike: Callable[[list[np.ndarray], list[int]], np.ndarray] | None = None,
    ) -> list[Outcome]:
        """Reconstruct the people of one chunk from their crops.

        Args:
            groups: The crops of each person.
            root: Folder that the files of the persons' sources are to be relative to.
            alike: See `viewsynth.reconstruct.reconstruct`.

        Returns:
            One outcome per group, in their order.
        """
        outcomes = reconstruct.reconstruct(
            [group.samples for group in groups],
            [group.images for group in groups],
            self.tools,
            [group.sha256 for group in groups],
            alike,
            [group.mesh for group in groups],
        )
        for group, outcome in zip(groups, outcomes, strict=True):
            if outcome.person is None and group.mesh is not None:
                outcome.person = own_mesh.person(group.mesh, group.first.pid)
            if (person := outcome.person) is None:
                continue
            person.quality["found"] = group.found
            own = [group.mesh_sample] if group.mesh_sample else []
            samples = {sample.name: sample for sample in [*group.samples, *own]}
            for source in person.sources:
                sample = samples[source["file"]]
                source |= {"sample": sample.name, "box": sample.box and list(sample.box)}
                if sample.frame is not None:
                    source["frame"] = sample.frame
                source["file"] = relative(sample.paths[0], root)
        return outcomes

    def photos(self, person: Person, group: gather.PersonCrops) -> list[Tensor]:
        """The crops that a person was made from, as the refiner takes them; none without one.

        Args:
            person: As `outcomes` returned it.
            group: Its crops.

        Returns:
            float32 [3, H, W] in [0, 1] for each source that is used.

        Raises:
            gather.UnusableError: If there is no photo.
        """
        if self.refiner is None:
            return []
        if not refine.used_sources(person):
            raise gather.no_photo(person)
        crops = {s.name: image for s, image in zip(group.samples, group.images, strict=True)}
        return [self.refiner.fitted(crops[one["sample"]]) for one in refine.used_sources(person)]

    def photos_of(self, person: Person, root: Path) -> list[Tensor]:
        """The same for a loaded person, whose source images are read again; none without a refiner.

        Args:
            person: The person.
            root: Folder that the files of its sources are relative to.

        Raises:
            gather.UnusableError: If a source is no longer what it was.
        """
        if self.refiner is None:
            return []
        return [self.refiner.fitted(crop) for crop in gather.source_crops(person, root)]

    def views(
        self,
        subjects: Sequence[Subject],
        shots: Sequence[rendering.Shot],
        pose: str,
        sensor: Sensor,
        seed: int,
        scene: Scene = Scene(),  # noqa: B008
    ) -> Iterator[View]:
        """Pose, render and, with a refiner, refine.

        Args:
            subjects: The people; their bodies are posed in one batch, meshes are drawn as they are.
            shots: The cameras, each of one of the people.
            pose: See `viewsynth.reconstruct.posing.posed`.
            sensor: The virtual camera.
            seed: The run's seed.
            scene: Ground and light.

        Yields:
            One view per shot, in their order; none depends on the other shots.
        """
        if not subjects:
            return
        people = [subject.person for subject in subjects]
        meshes = posing.meshes(people, self.tools.poser, pose)
        pids = [person.pid for person in people]
        optics = sensor.without_chip() if self.refiner else sensor
        for first in range(0, len(shots), SLICE):  # bounds the memory
            some = list(shots[first : first + SLICE])
            views = rendering.render_views(meshes, pids, some, optics, seed, scene)
            if self.refiner:
                seeds = [
                    seed_of(seed, pids[s.person], subjects[s.person].outfit, s.name, "refine")
                    for s in some
                ]
                views = self.refiner(
                    views,
                    [shot.person for shot in some],
                    seeds,
                    people,
                    [subject.photos for subject in subjects],
                    meshes,
                    sensor,
                )
            yield from views
