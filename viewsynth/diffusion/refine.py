# SPDX-License-Identifier: Apache-2.0
"""Refine: repair rendered views with the view-aware diffusion model.

`render.views` -> this module -> `judge`. `find` checks a model before anything is loaded; each
worker loads one `Refiner`. The seen map comes from the geometry and is not changed.
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

from viewsynth.cameras import Cameras, join
from viewsynth.config import check_range
from viewsynth.diffusion.options import Refine
from viewsynth.records import Person, View
from viewsynth.render import foreground
from viewsynth.render.meshes import Mesh
from viewsynth.render.options import Sensor
from viewsynth.render.sensor import expose
from viewsynth.runtime import hub
from viewsynth.runtime.files import sha256
from viewsynth.runtime.images import BY_MODEL, WITH_MODEL

if TYPE_CHECKING:  # importing diffusers takes seconds, and most runs do not refine
    from viewsynth.diffusion.conditions import Conditions
    from viewsynth.diffusion.pipeline import ViewDiffusionPipeline

BUNDLED = Path(__file__).parent / "bundled"
PIPELINE, KINDS = "ViewDiffusionPipeline", (".json", ".safetensors")
BATCH = {"cpu": 8, "cuda": 64}  # views per batch; the fixed shape keeps rows independent
# Metres around the rendered body that the model's pixels fill, and metres over which they then fade
# into the rendered ground. In drone images of our world, at most 6 % of the true person's pixels
# are over 5 cm outside the rendered body (hair, coats, bags), and at most 1 % over 12 cm.
ROOM, FADE = 0.05, 0.07


# ---- before loading ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """A model that can be loaded.

    Args:
        folder: Folder of the pipeline.
        size: Height and width of its images, pixels.
        licence: Licence of its weights, as stated in the folder.
        files: Files that affect its images.
    """

    folder: Path
    size: tuple[int, int]
    licence: str
    files: tuple[Path, ...]


def find(options: Refine, whole: bool = True) -> Found | None:
    """Find and check the model that the options name.

    Args:
        options: Options of the stage.
        whole: Whether to fetch the weights of a model on the hub, not only its configuration.

    Returns:
        The model; None for the engine "none".

    Raises:
        FileNotFoundError: If the model is not here and cannot be fetched from the hub.
        ValueError: If it is not a `ViewDiffusionPipeline`, or its schedule has too few steps.
    """
    if (engine := options.engine) == "none":
        return None
    from viewsynth.diffusion import loading

    if engine == "bundled" and not BUNDLED.is_dir():
        raise ValueError(
            "refine.engine bundled: this version of viewsynth comes without a refiner; give the "
            "folder or hub id of one (`viewsynth train-diffusion` trains one), or none"
        )
    wanted = ["*.json", "*.safetensors"] if whole else ["*.json"]
    folder = BUNDLED if engine == "bundled" else hub.local_folder(engine, wanted)
    index = loading.index(PIPELINE, folder)
    try:
        config = json.loads((folder / "conditioner" / "config.json").read_text(encoding="utf-8"))
        height, width = map(int, config["size"])
        check_range("size", min(height, width), 16, 4096, "pixels")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"refine.engine: {folder}/conditioner/config.json does not say the size of the "
            f"model's images ({error!r}); expected a complete folder written by `viewsynth "
            "train-diffusion` or save_pretrained"
        ) from error
    _check_steps(folder, options)
    files = [folder / hub.INDEX]
    complete = whole or folder in (BUNDLED, Path(engine).expanduser())
    for name in sorted(k for k, kind in index.items() if isinstance(kind, list) and kind[0]):
        own = [p for p in sorted((folder / name).glob("*")) if p.suffix in KINDS]
        if complete and name != "scheduler" and not any(p.suffix == ".safetensors" for p in own):
            raise FileNotFoundError(
                f"refine.engine: {folder / name} contains no safetensors; copy or fetch the whole "
                "folder again"
            )
        files += own
    licence = str(index.get("licence") or "unknown")
    return Found(folder, (height, width), licence, tuple(files))


def _check_steps(folder: Path, options: Refine) -> None:
    """Check that the schedule of a distilled model has enough steps."""
    file = folder / "scheduler" / "scheduler_config.json"
    config = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if config.get("_class_name") == "LCMScheduler":
        most = int(config.get("original_inference_steps", 50) * options.strength)
        if options.steps > most:
            raise ValueError(
                f"refine.steps must be at most {most} at a strength of {options.strength}, got "
                f"{options.steps}: {folder} was distilled from that many, for 1 to 4 steps"
            )


def settings(options: Refine) -> dict:
    """The options that affect the images, as plain values."""
    if options.engine == "none":
        return {"engine": "none"}
    folder = Path(options.engine).expanduser()
    own = options.engine != "bundled" and folder.is_dir()
    engine = folder.resolve().as_posix() if own else options.engine
    return dataclasses.asdict(options) | {"engine": engine}


def revision(found: Found, options: Refine) -> dict:
    """Record of a refiner for the rows: SHA-256 of its weights and configurations, and options."""
    total = hashlib.sha256()
    for path in found.files:
        name = path.relative_to(found.folder).as_posix()
        total.update(f"{name} {sha256(path)}\n".encode())
    used = dataclasses.asdict(options)
    return {"weights": total.hexdigest()} | {k: v for k, v in used.items() if k != "engine"}


def digital_source_type(options: Refine) -> str:
    """IPTC digital source type of the refined images, see `runtime.images.jpeg`."""
    own = options.background == "generated" and options.strength == 1
    alone = own and options.keep_seen == 0
    return BY_MODEL if alone else WITH_MODEL


# ---- in a worker ---------------------------------------------------------------------------------


def load(folder: Path, options: Refine, device: str) -> Refiner:
    """Load a model that `find` found.

    Args:
        folder: Folder of the pipeline.
        options: Options of the stage.
        device: Device of the run. On a GPU the networks run in float16, the sampler in float32.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If the weights do not match the model; the message names the keys.
    """
    from diffusers.utils import logging

    from viewsynth.diffusion.pipeline import ViewDiffusionPipeline

    before = logging.get_verbosity()
    logging.set_verbosity_error()  # else every worker repeats warnings about unused config keys
    logging.disable_progress_bar()
    try:
        pipeline = ViewDiffusionPipeline.from_pretrained(folder).to(device)
        if device.startswith("cuda"):
            pipeline.to(torch.float16)
    finally:
        logging.set_verbosity(before)
    return Refiner(pipeline, options)


class Refiner:
    """A loaded model with the options of the stage.

    Args:
        pipeline: Pipeline on its device.
        options: Options of the stage.
    """

    def __init__(self, pipeline: ViewDiffusionPipeline, options: Refine):
        self.pipeline, self.options = pipeline, options
        self.batch = BATCH[pipeline.device.type]

    def fitted(self, image: np.ndarray) -> Tensor:
        """Stretch an image to the model's size: uint8 [h, w, 3] -> float [3, H, W] in [0, 1]."""
        from viewsynth.diffusion.image_processing import preprocess

        return preprocess(image, self.pipeline.size)

    def __call__(
        self,
        views: Sequence[View],
        mesh: Sequence[int],
        seeds: Sequence[int],
        people: Sequence[Person],
        photos: Sequence[Sequence[Tensor]],
        meshes: Sequence[Mesh],
        sensor: Sensor,
    ) -> list[View]:
        """Repair views, each independent of the others; only their images change.

        Args:
            views: Views rendered with `sensor.without_chip()`.
            mesh: Index of the person that each view shows.
            seeds: Seed of everything random in each view.
            people: The P people.
            photos: Source images of each person, those that are `used_sources`, see `fitted`.
            meshes: What was rendered of each person.
            sensor: The whole sensor model.
        """
        given = self.conditions(views, mesh, people, photos, meshes, sensor)
        images = self.sample(given, views, seeds)
        return [
            dataclasses.replace(view, image=self.finish(image, view, sensor, seed))
            for image, view, seed in zip(images, views, seeds, strict=True)
        ]

    def conditions(
        self,
        views: Sequence[View],
        mesh: Sequence[int],
        people: Sequence[Person],
        photos: Sequence[Sequence[Tensor]],
        meshes: Sequence[Mesh],
        sensor: Sensor,
        cameras: Cameras | None = None,
    ) -> Conditions:
        """Conditions of views, each with the person's source image of the nearest azimuth.

        Args:
            views: See `__call__`.
            mesh: See `__call__`.
            people: See `__call__`.
            photos: See `__call__`.
            meshes: See `__call__`.
            sensor: See `__call__`.
            cameras: Cameras of the views at the model's size; None = those of the sensor.
        """
        from viewsynth.diffusion.conditions import Conditions

        nearest = [(k, _nearest(view, people[k])) for view, k in zip(views, mesh, strict=True)]
        needed = sorted(set(nearest))
        if cameras is None:
            size, tall = self.pipeline.size, sensor.picture_height
            cameras = join([foreground.crop_camera(view, size, tall) for view in views])
        rendered = foreground.render(meshes, torch.tensor(mesh), cameras)
        sources = [used_sources(people[k])[n] for k, n in nearest]
        camera = [_camera_row(*pair) for pair in zip(views, sources, strict=True)]
        return Conditions(
            source=torch.stack([photos[k][n] for k, n in needed]),
            person=torch.tensor([needed.index(pair) for pair in nearest]),
            render=rendered.render.clamp(0, 1),
            seen=rendered.seen.clamp(0, 1),
            normals=rendered.normals,
            camera=torch.tensor(camera, dtype=torch.float32),
        )

    def sample(
        self,
        given: Conditions,
        views: Sequence[View],
        seeds: Sequence[int],
        kept: Sequence[str] = (),
    ) -> Tensor:
        """Sample images of views.

        Args:
            given: Their conditions, see `conditions`.
            views: Views whose images the sampler starts from.
            seeds: Seed of each view.
            kept: See `ViewDiffusionPipeline.sample`; () = all.

        Returns:
            float32 [V, 3, H, W] in [0, 1], on the CPU.
        """
        from viewsynth.diffusion.conditions import CONDITION_GROUPS

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
            kept=kept or CONDITION_GROUPS,
        ).cpu()

    def finish(self, made: Tensor, view: View, sensor: Sensor, seed: int) -> np.ndarray:
        """Resize a generated image to the view's crop, blend in the ground, apply the sensor.

        What follows the lens in the sensor model is applied to the whole crop: noise and JPEG are
        finer than what an autoencoder reproduces, and applying them once leaves no seam between
        person and ground. Light and lens are not applied: the rendered view already has them.

        Args:
            made: Generated image.  float [3, H, W] in [0, 1]
            view: The view as it was rendered.
            sensor: The whole sensor model.
            seed: Seed of the view.

        Returns:
            uint8 [h, w, 3].
        """
        size = view.image.shape[:2]
        image = functional.interpolate(made[None], size, mode="bicubic", antialias=True)[0]
        image = image.clamp(0, 1)
        if self.options.background == "kept":
            ground = torch.from_numpy(view.image).permute(2, 0, 1).float() / 255
            image = torch.lerp(ground, image, blend_mask(view, sensor))
        return expose(image, sensor.chip(), seed)


def used_sources(person: Person) -> list[dict]:
    """The photos of a person that its reconstruction used."""
    return [one for one in person.sources if one.get("used", True) and "mesh" not in one]


def _nearest(view: View, person: Person) -> int:
    """Index of the used source whose azimuth is nearest to the view's."""
    from viewsynth.diffusion.conditions import relative_azimuth

    turns = [abs(relative_azimuth(view.azimuth, one["azimuth"])) for one in used_sources(person)]
    return int(np.argmin(turns))


def _camera_row(view: View, source: dict) -> tuple[float, ...]:
    """A row of `Conditions.camera` for a view and its source."""
    from viewsynth.diffusion.conditions import camera_row

    height, width = view.image.shape[:2]
    angles = source["elevation"], source["azimuth"]
    return camera_row(view.elevation, view.azimuth, view.distance, width / height, angles)


def blend_mask(view: View, sensor: Sensor) -> Tensor:
    """Blending weight of the generated image where the rendered ground is kept.

    1 on the body and within `ROOM` around it, where hair, clothes and bags may be that were not
    rendered; then it falls to 0 over `FADE`.

    Args:
        view: The view as it was rendered.
        sensor: Sensor model of the run.

    Returns:
        float32 [h, w] in [0, 1].
    """
    pixels = sensor.focal / view.distance  # of a metre at the person's distance
    # If the mask is empty, every pixel is far away.
    away = ndimage.distance_transform_edt(~view.mask) if view.mask.any() else np.inf
    rise = np.clip((ROOM + FADE - away / pixels) / FADE, 0, 1) * np.ones(view.mask.shape)
    return torch.from_numpy(rise * rise * (3 - 2 * rise)).float()
