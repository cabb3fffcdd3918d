# SPDX-License-Identifier: Apache-2.0
"""Refine: drawn views in, what a view-aware diffusion makes of them out.

synthesis (`views.take`) -> here -> judge. `find` looks at a model before anything is loaded; a
worker loads one `Refiner`. Which pixels were seen is told by the geometry and stays.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from viewsynth import cameras
from viewsynth.cameras import Cameras
from viewsynth.config import within
from viewsynth.diffusion.options import Refine
from viewsynth.records import Person, View, seed_of
from viewsynth.render import foreground
from viewsynth.render.options import Sensor
from viewsynth.render.sensor import expose
from viewsynth.runtime import hub
from viewsynth.runtime.files import sha256
from viewsynth.runtime.images import BY_MODEL, WITH_MODEL

if TYPE_CHECKING:  # diffusers takes seconds to import: only who refines waits for it
    from viewsynth.diffusion.conditions import Conditions
    from viewsynth.diffusion.pipeline import ViewDiffusionPipeline

BUNDLED = Path(__file__).parent / "bundled"
PIPELINE, KINDS = "ViewDiffusionPipeline", (".json", ".safetensors")
BATCH = {"cpu": 8, "cuda": 64}  # views at once: every call has this shape, so rows stay alone
# Metres around the drawn body that are the model's, and over which its ground fades into ours. Of
# the true person's pixels in drone pictures of our world at most 6 % lie more than 5 cm off the
# body that is drawn there (hair, coats, bags), and at most 1 % more than 12 cm.
ROOM, FADE = 0.05, 0.07


# ---- before anything is loaded -------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """A model that can be loaded.

    Args:
        folder: Where it lies.
        size: Height and width of its pictures, pixels.
        licence: Of its weights, as they say.
        files: Everything that decides its pictures.
    """

    folder: Path
    size: tuple[int, int]
    licence: str
    files: tuple[Path, ...]


def find(options: Refine, whole: bool = True) -> Found | None:
    """The model that the options name, None for "none".

    Args:
        options: Also looked at: whether the model can do that many steps.
        whole: False = of a model on the hub fetch only what says what it is, not the weights.

    Raises:
        FileNotFoundError: if it is not here and cannot be had; the message says how to.
        ValueError: if it is something else than a pipeline of ours, or cannot do the steps.
    """
    if (engine := options.engine) == "none":
        return None
    from viewsynth.diffusion import loading

    if engine == "bundled" and not BUNDLED.is_dir():
        raise ValueError(
            "refine.engine bundled: this version of viewsynth comes without a refiner; give the "
            "folder or hub id of one (`viewsynth train-diffusion` makes one), or none"
        )
    wanted = ["*.json", "*.safetensors"] if whole else ["*.json"]
    folder = BUNDLED if engine == "bundled" else hub.folder_of(engine, wanted)
    index = loading.index(PIPELINE, folder)
    try:
        told = json.loads((folder / "conditioner" / "config.json").read_text(encoding="utf-8"))
        height, width = map(int, told["size"])
        within("size", min(height, width), 16, 4096, "pixels")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"refine.engine: {folder}/conditioner/config.json does not say the size of the "
            f"model's pictures ({error!r}); expected a folder as `viewsynth train-diffusion` or "
            "save_pretrained leaves it, whole"
        ) from error
    _check_steps(folder, options)
    files = [folder / hub.INDEX]
    here = whole or folder in (BUNDLED, Path(engine).expanduser())
    for name in sorted(k for k, kind in index.items() if isinstance(kind, list) and kind[0]):
        own = [p for p in sorted((folder / name).glob("*")) if p.suffix in KINDS]
        if here and name != "scheduler" and not any(p.suffix == ".safetensors" for p in own):
            raise FileNotFoundError(
                f"refine.engine: {folder / name} holds no safetensors; copy or fetch the whole "
                "folder again"
            )
        files += own
    licence = str(index.get("licence") or "unknown")
    return Found(folder, (height, width), licence, tuple(files))


def _check_steps(folder: Path, options: Refine) -> None:
    """Refuse more steps than a distilled model's schedule has, before anything is loaded."""
    file = folder / "scheduler" / "scheduler_config.json"
    told = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if told.get("_class_name") == "LCMScheduler":
        most = int(told.get("original_inference_steps", 50) * options.strength)
        if options.steps > most:
            raise ValueError(
                f"refine.steps must be at most {most} at a strength of {options.strength}, those "
                f"that {folder} was distilled from, got {options.steps}; it was made for 1 to 4"
            )


def settings(options: Refine) -> dict:
    """The options as far as they change a picture."""
    if options.engine == "none":
        return {"engine": "none"}
    folder = Path(options.engine).expanduser()
    own = options.engine != "bundled" and folder.is_dir()
    engine = folder.resolve().as_posix() if own else options.engine
    return dataclasses.asdict(options) | {"engine": engine}


def revision(found: Found, options: Refine) -> dict:
    """What rows say of a refiner: SHA-256 of its weights and configurations, and how it is used."""
    total = hashlib.sha256()
    for path in found.files:
        name = path.relative_to(found.folder).as_posix()
        total.update(f"{name} {sha256(path)}\n".encode())
    used = dataclasses.asdict(options)
    return {"weights": total.hexdigest()} | {k: v for k, v in used.items() if k != "engine"}


def source(options: Refine) -> str:
    """Which kind of picture IPTC calls this, see `pictures.jpeg`."""
    own = options.background == "generated" and options.strength == 1
    alone = own and options.keep_seen == 0
    return BY_MODEL if alone else WITH_MODEL


def optics(sensor: Sensor) -> Sensor:
    """The part of the sensor that the drawn ground goes through before a refiner."""
    return dataclasses.replace(sensor, noise=0.0, jpeg=0)


# ---- in a worker ---------------------------------------------------------------------------------


def load(folder: Path, options: Refine, device: str) -> Refiner:
    """Load a model that `find` found.

    Args:
        device: Of the run. On a GPU the networks run in float16, the sampler in float32.
    Raises: FileNotFoundError, ValueError: if it is damaged; the message names the keys.
    """
    from diffusers.utils import logging

    from viewsynth.diffusion.pipeline import ViewDiffusionPipeline

    before = logging.get_verbosity()
    logging.set_verbosity_error()  # every worker would warn of configurations that are as they are
    logging.disable_progress_bar()
    try:
        pipeline = ViewDiffusionPipeline.from_pretrained(folder).to(device)
        if device.startswith("cuda"):
            pipeline.to(torch.float16)
    finally:
        logging.set_verbosity(before)
    return Refiner(pipeline, options)


class Refiner:
    """A model and how it is used.

    Args:
        pipeline: On its device.
    """

    def __init__(self, pipeline: ViewDiffusionPipeline, options: Refine):
        self.pipeline, self.options = pipeline, options
        self.batch = BATCH[pipeline.device.type]

    def fitted(self, picture: np.ndarray) -> Tensor:
        """A picture as the model takes it.  uint8 [h, w, 3] -> float [3, H, W] in [0, 1]"""
        from viewsynth.diffusion.sampling import fitted

        return fitted(picture, self.pipeline.size)

    def __call__(
        self,
        views: Sequence[View],
        mesh: Sequence[int],
        seeds: Sequence[int],
        people: Sequence[Person],
        photos: Sequence[Sequence[Tensor]],
        vertices: Tensor,
        body,
        sensor: Sensor,
    ) -> list[View]:
        """The same views with other pixels; none hangs on the others.

        Args:
            views: Taken with `optics(sensor)`.
            mesh: Which of the people each view shows.
            seeds: One a view, of everything random in it.
            people: Those that were drawn.
            photos: Of each person those of its sources that are `used`, see `fitted`.
            vertices: As they were drawn, metres.  [P, V, 3]
            body: Their `viewsynth.bodies.Body`.
            sensor: The whole sensor.
        """
        given = self.conditions(views, mesh, people, photos, vertices, body, sensor)
        made = self.sample(given, views, seeds)
        return [
            dataclasses.replace(view, image=self.finish(picture, view, sensor, seed))
            for picture, view, seed in zip(made, views, seeds, strict=True)
        ]

    def conditions(
        self,
        views: Sequence[View],
        mesh: Sequence[int],
        people: Sequence[Person],
        photos: Sequence[Sequence[Tensor]],
        vertices: Tensor,
        body,
        sensor: Sensor,
        windows: Cameras | None = None,
    ) -> Conditions:
        """What the model is told of some views: of each person the photo nearest in azimuth.

        Args:
            windows: The views' cameras at the model's size, if they are not those of `sensor`.
        """
        from viewsynth.diffusion.conditions import Conditions
        from viewsynth.diffusion.photo import turned

        sources = [used(person) for person in people]
        nearest = []
        for view, k in zip(views, mesh, strict=True):
            turns = [abs(turned(view.azimuth - one["azimuth"])) for one in sources[k]]
            nearest.append((k, int(np.argmin(turns))))
        needed = sorted(set(nearest))
        if windows is None:
            size, tall = self.pipeline.size, sensor.picture_height
            windows = cameras.join([foreground.crop_camera(view, size, tall) for view in views])
        drawn = foreground.render(
            vertices,
            body,
            [one.texture for one in people],
            [one.seen for one in people],
            torch.tensor(mesh),
            windows,
        )
        numbers = [
            (
                view.elevation,
                sources[k][n]["elevation"],
                turned(view.azimuth - sources[k][n]["azimuth"]),
                view.distance,
                view.image.shape[1] / view.image.shape[0],
            )
            for view, (k, n) in zip(views, nearest, strict=True)
        ]
        return Conditions(
            source=torch.stack([photos[k][n] for k, n in needed]),
            person=torch.tensor([needed.index(pair) for pair in nearest]),
            render=drawn.render.clamp(0, 1),
            seen=drawn.seen.clamp(0, 1),
            normals=drawn.normals,
            camera=torch.tensor(numbers, dtype=torch.float32),
        )

    def sample(
        self,
        given: Conditions,
        views: Sequence[View],
        seeds: Sequence[int],
        kept: Sequence[str] = (),
    ) -> Tensor:
        """The model's pictures of views.

        Args:
            given: See `conditions`.
            views: What it begins with.
            kept: See `ViewDiffusionPipeline.sample`; () = all.
        Returns: float32 [V, 3, H, W] in [0, 1], on the CPU.
        """
        from viewsynth.diffusion.conditions import KEPT

        options = self.options
        return self.pipeline.sample(
            given,
            options.steps,
            options.guidance,
            [torch.Generator().manual_seed(seed) for seed in seeds],
            options.keep_seen,
            self.batch,
            strength=options.strength,
            start=torch.stack([self.fitted(one.image) for one in views]),
            kept=kept or KEPT,
        ).cpu()

    def finish(self, made: Tensor, view: View, sensor: Sensor, seed: int) -> np.ndarray:
        """What the model made, in the view's box.  float [3, H, W] -> uint8 [h, w, 3]

        Of the sensor, the noise and the JPEG are added to all of it: their grain, finer than what
        passes an autoencoder, lies on the pixels of the final crop, and one grain on person and
        ground leaves no seam. The blur is not: it is part of the drone pictures that the model
        learnt from; the drawn ground has had it.
        """
        size = view.image.shape[:2]
        picture = functional.interpolate(made[None], size, mode="bicubic", antialias=True)[0]
        picture = picture.clamp(0, 1)
        if self.options.background == "kept":
            ground = torch.from_numpy(view.image).permute(2, 0, 1).float() / 255
            picture = torch.lerp(ground, picture, share(view, sensor))
        noise = torch.Generator().manual_seed(seed_of(seed, "noise"))
        return expose(picture, dataclasses.replace(sensor, blur=0.0), noise)


def used(person: Person) -> list[dict]:
    """The sources that a person was made from."""
    return [one for one in person.sources if one.get("used", True)]


def share(view: View, sensor: Sensor) -> Tensor:
    """How much of each pixel is the model's where the ground is kept.

    All of it on the body and `ROOM` around it, where hair, clothes and bags may be that were not
    drawn; then, over `FADE`, less and less.
    Returns: float32 [h, w] in [0, 1].
    """
    pixels = sensor.focal / view.distance  # a metre at the person
    # Where nothing is in sight every pixel is far away.
    away = ndimage.distance_transform_edt(~view.mask) if view.mask.any() else np.inf
    rise = np.clip((ROOM + FADE - away / pixels) / FADE, 0, 1) * np.ones(view.mask.shape)
    return torch.from_numpy(rise * rise * (3 - 2 * rise)).float()
