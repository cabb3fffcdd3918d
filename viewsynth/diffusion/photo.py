# SPDX-License-Identifier: Apache-2.0
"""Conditions from photos: the input side of `ViewDiffusionPipeline.__call__`.

Without a rendering, the person in the photo is reconstructed and rendered with the package's own
models. `generate` has persons and cameras already and does not use this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from viewsynth.data.images import rgb
from viewsynth.diffusion.conditions import CLOSE, DARK, Conditions, camera_row
from viewsynth.diffusion.image_processing import preprocess
from viewsynth.records import Person, Sample
from viewsynth.render.options import Sensor

if TYPE_CHECKING:
    from viewsynth.render.foreground import Foreground
    from viewsynth.render.meshes import Mesh
    from viewsynth.render.views import Frame

FRONT = (10.0, 0.0)  # elevation and azimuth, degrees, assumed of a photo without other information
TALL = 1.68  # metres: mean adult height, for the distance if none is given
SMALLEST = 16  # shortest side of a photo, pixels


def conditions_of(
    image: Image.Image | Tensor | Sequence[Image.Image],
    elevation: float | Sequence[float],
    azimuth: float | Sequence[float],
    distance: float | None,
    size: tuple[int, int],
    rendering: Foreground | None = None,
) -> Conditions:
    """Conditions of views of the people in photos.

    Args:
        image: See `ViewDiffusionPipeline.__call__`.
        elevation: See `ViewDiffusionPipeline.__call__`.
        azimuth: See `ViewDiffusionPipeline.__call__`.
        distance: See `ViewDiffusionPipeline.__call__`.
        size: Height and width of the model's images, pixels.
        rendering: See `ViewDiffusionPipeline.__call__`.

    Raises:
        ValueError: If an argument cannot be used, or a person cannot be reconstructed.
    """
    photos = [_photo(one, number) for number, one in enumerate(_each(image, "image"))]
    if distance is not None and not 0 < distance < 1e6:
        raise ValueError(f"distance must be in (0, 1e6) metres, got {distance}")
    if rendering is None:
        return conditions_from_photo(photos, elevation, azimuth, distance, size)
    renders = torch.stack(_each(rendering.render, "rendering.render"))
    person, elevations, azimuths = broadcast(len(photos), elevation, azimuth, len(renders))
    metres = Sensor().distance_to(TALL) if distance is None else distance
    aspect = renders.shape[-1] / renders.shape[-2]
    camera = [
        camera_row(*angles, metres, aspect, FRONT)
        for angles in zip(elevations, azimuths, strict=True)
    ]
    return Conditions(
        source=torch.stack([preprocess(one, size) for one in photos]),
        person=torch.tensor(person),
        render=to_size(renders, size).clamp(0, 1),
        seen=to_size(rendering.seen, size),
        normals=to_size(rendering.normals, size),
        camera=torch.tensor(camera, dtype=torch.float32),
    )


def to_size(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize planes to the model's size, antialiased.

    Args:
        planes: float [B, K, H, W].
        size: Height and width, pixels.

    Raises:
        ValueError: If the planes are not float with 4 dimensions.
    """
    if planes.ndim != 4 or not planes.is_floating_point():
        raise ValueError(
            f"planes must be float [B, channels, H, W], got {planes.dtype} {list(planes.shape)}"
        )
    if tuple(planes.shape[-2:]) == tuple(size):
        return planes
    return functional.interpolate(planes, tuple(size), mode="bilinear", antialias=True)


def _each(given: Image.Image | Tensor | Sequence, name: str) -> list[Tensor]:
    """Images as float [3, H, W] in [0, 1], from any accepted type."""
    if isinstance(given, Tensor):
        if given.ndim not in (3, 4) or given.shape[-3] != 3 or not given.is_floating_point():
            raise ValueError(
                f"{name}: a tensor must be float [B, 3, H, W] in [0, 1], got {given.dtype} "
                f"{list(given.shape)}"
            )
        if given.numel() and (float(given.min()) < -CLOSE or float(given.max()) > 1 + CLOSE):
            raise ValueError(
                f"{name} must be in [0, 1], got [{float(given.min()):.3g}, "
                f"{float(given.max()):.3g}]; divide values of [0, 255] by 255"
            )
        return list(given if given.ndim == 4 else given[None])
    images = [given] if isinstance(given, Image.Image) else list(given)
    if not images or not all(isinstance(one, Image.Image) for one in images):
        kinds = sorted({type(one).__name__ for one in images}) or ["none"]
        raise ValueError(f"{name} must be PIL images or a float tensor, got {', '.join(kinds)}")
    opaque = [one.convert("RGB") if one.has_transparency_data else one for one in images]
    upright = [rgb(one, f"{name} {number}") for number, one in enumerate(opaque)]
    return [preprocess(one, one.shape[:2]) for one in upright]


def _photo(image: Tensor, number: int) -> Image.Image:
    """Check a photo; returns it as a PIL image."""
    height, width = image.shape[-2:]
    if min(height, width) < SMALLEST:
        raise ValueError(
            f"photo {number} has {height} x {width} pixels (height x width); each side must have "
            f"at least {SMALLEST}"
        )
    if not bool(image.isfinite().all()):
        raise ValueError(f"photo {number} contains NaN or infinity; correct how it was computed")
    if float(image.max()) < DARK:
        raise ValueError(f"photo {number} is black (no value reaches {DARK:.3f}); leave it out")
    stored = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)
    return Image.fromarray(stored.cpu().numpy())


def conditions_from_photo(
    image: Image.Image | Sequence[Image.Image],
    elevation: float | Sequence[float],
    azimuth: float | Sequence[float],
    distance: float | None,
    size: tuple[int, int],
) -> Conditions:
    """Reconstruct the people in photos and render them from target cameras.

    Args:
        image: Photo of one standing person, cropped or not; or several.
        elevation: Degrees above the horizon, [0, 90].
        azimuth: Degrees from the person's front towards the person's left.
        distance: Metres; None = the distance at which the person is 128 pixels high in the default
            camera.
        size: Height and width of the model's images, pixels.

    Returns:
        Conditions, with the rows in the order of `broadcast`.

    Raises:
        ValueError: If no person can be reconstructed from a photo, or the numbers of photos and
            cameras do not match.
        FileNotFoundError: If the pose models are missing and cannot be downloaded.
    """
    from viewsynth import cameras
    from viewsynth.reconstruct import posing
    from viewsynth.render import foreground

    photos = [image] if isinstance(image, Image.Image) else list(image)
    person, elevations, azimuths = broadcast(len(photos), elevation, azimuth)
    tools = _tools()
    crops = [_crop(one, number, tools) for number, one in enumerate(photos)]
    people = _reconstructed(crops, tools)
    meshes = posing.meshes(people, tools.poser)
    frames = _frames(meshes, person, zip(elevations, azimuths, strict=True), distance)
    windows = cameras.join([foreground.crop_camera(frame, size) for frame in frames])
    rendering = foreground.render(meshes, torch.tensor(person), windows)
    camera = []
    for k, frame in zip(person, frames, strict=True):
        source = people[k].sources[0]
        aspect = frame.size[1] / frame.size[0]
        angles = (source["elevation"], source["azimuth"])
        camera.append(camera_row(frame.elevation, frame.azimuth, frame.distance, aspect, angles))
    return Conditions(
        source=torch.stack([preprocess(crop, size) for crop in crops]),
        person=torch.tensor(person),
        render=rendering.render,
        seen=rendering.seen,
        normals=rendering.normals,
        camera=torch.tensor(camera, dtype=torch.float32),
    )


def _frames(meshes: list[Mesh], person: list[int], angles, distance: float | None) -> list[Frame]:
    """The frame of each view, with the default camera and margin."""
    from viewsynth.render import views

    sensor = Sensor(distance=distance)
    room = np.full(4, np.mean(sensor.margin))
    return [
        views.frame(meshes[k].points, views.Shot(k, *pair, "photo"), sensor, room)
        for k, pair in zip(person, angles, strict=True)
    ]


def broadcast(
    images: int,
    elevation: float | Sequence[float],
    azimuth: float | Sequence[float],
    views: int | None = None,
) -> tuple[list[int], list[float], list[float]]:
    """Broadcast images, elevations and azimuths against each other; those of length 1 are repeated.

    Args:
        images: Number of source images.
        elevation: Degrees above the horizon, [0, 90]; one value, or one per view.
        azimuth: Degrees; one value, or one per view.
        views: Number of views, if renderings determine it.

    Returns:
        Index of the source image, elevation and azimuth of each view.

    Raises:
        ValueError: If the numbers do not match, or an angle is out of range.
    """
    elevations, azimuths = (
        [float(x) for x in np.atleast_1d(np.asarray(value, np.float64))]
        for value in (elevation, azimuth)
    )
    count = views or max(images, len(elevations), len(azimuths))
    for name, got in (
        ("image", images),
        ("elevation", len(elevations)),
        ("azimuth", len(azimuths)),
    ):
        if got not in (1, count):
            raise ValueError(
                f"{images} photos, {len(elevations)} elevations and {len(azimuths)} azimuths do "
                f"not match: {name} must have one value, or {count}; got {got}"
            )
    for one in elevations:
        if not 0 <= one <= 90:
            raise ValueError(f"elevation must be in [0, 90] degrees above the horizon, got {one}")
    for one in azimuths:
        if not np.isfinite(one):
            raise ValueError(f"azimuth must be a finite number of degrees, got {one}")
    person = list(range(images)) if images == count else [0] * count
    elevations, azimuths = (
        value if len(value) == count else value * count for value in (elevations, azimuths)
    )
    return person, elevations, azimuths


@lru_cache(maxsize=1)
def _tools():
    """The body and the pose models, loaded once per process."""
    from viewsynth import bodies, reconstruct
    from viewsynth.runtime import weights

    return reconstruct.load(bodies.load("anny"), weights.reconstruction())


def _crop(image: Image.Image, number: int, tools) -> np.ndarray:
    """Crop a photo to its one person, unless it is a tight crop already."""
    from viewsynth.reconstruct import find

    pixels = np.asarray(image.convert("RGB"))
    if find.is_tight(pixels):
        return pixels
    boxes = find.find(pixels, tools.detector)
    if len(boxes) != 1:
        raise ValueError(
            f"photo {number} shows {len(boxes) or 'no'} whole people, expected one: crop it to one "
            "standing person, head to feet, 1.5 to 4 times as high as wide"
        )
    left, top, right, bottom = map(int, boxes[0])
    return np.ascontiguousarray(pixels[top:bottom, left:right])


def _reconstructed(crops: list[np.ndarray], tools) -> list[Person]:
    from viewsynth import reconstruct

    samples = [
        Sample(paths=(Path(f"photo {k}"),), pid=f"photo {k}", name=f"photo {k}")
        for k in range(len(crops))
    ]
    outcomes = reconstruct.reconstruct([[one] for one in samples], [[one] for one in crops], tools)
    for number, outcome in enumerate(outcomes):
        if outcome.person is None:
            why = "; ".join(reject.reason for reject in outcome.rejects)
            raise ValueError(f"photo {number} cannot be reconstructed: {why}")
    return [outcome.person for outcome in outcomes]
