# SPDX-License-Identifier: Apache-2.0
"""Photo: what a user calls the pipeline with in, conditions of wished-for views out.

Where nothing else than a photo was given, it reconstructs and renders with the package's own
models. `generate` has people and cameras already and does not come here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from viewsynth.data.images import rgb
from viewsynth.diffusion.conditions import CLOSE, DARK, Conditions
from viewsynth.diffusion.sampling import fitted
from viewsynth.records import Person, Sample
from viewsynth.render.options import Sensor

FRONT = (10.0, 0.0)  # elevation and azimuth, degrees, of a photo of which nothing else is known
TALL = 1.68  # metres: the mean adult, for a distance that was not given
SMALLEST = 16  # pixels of a photo's side


def conditions_of(
    size: tuple[int, int],
    image: Image.Image | Tensor | Sequence[Image.Image],
    elevation: float | Sequence[float],
    azimuth: float | Sequence[float],
    distance: float | None = None,
    render: Image.Image | Tensor | Sequence[Image.Image] | None = None,
    seen: Tensor | None = None,
    normals: Tensor | None = None,
) -> Conditions:
    """Conditions of a photo and what came with it, see `ViewDiffusionPipeline.__call__`.

    Raises: ValueError: if something does not fit, before anything is computed.
    """
    images = [_photo(one, number) for number, one in enumerate(_each(image, "image"))]
    if distance is not None and not 0 < distance < 1e6:
        raise ValueError(f"distance must be in (0, 1e6) metres, got {distance}")
    if render is None:
        if seen is not None or normals is not None:
            raise ValueError("seen and normals belong to a rendering: give render too, or neither")
        return conditions_from_photo(images, elevation, azimuth, distance, size)
    if seen is None or normals is None:
        raise ValueError("render needs seen and normals of the same view (render.foreground.render)")
    views = _each(render, "render")
    person, highs, turns = matched(len(images), elevation, azimuth, len(views))
    metres = distance
    if metres is None:
        metres = Sensor().distance_to(TALL)
    camera = [
        (high, FRONT[0], turned(turn - FRONT[1]), metres, view.shape[-1] / view.shape[-2])
        for high, turn, view in zip(highs, turns, views, strict=True)
    ]
    return Conditions(
        source=torch.stack([fitted(one, size) for one in images]),
        person=torch.tensor(person),
        render=torch.cat([to_size(view[None], size) for view in views]).clamp(0, 1),
        seen=to_size(seen, size),
        normals=to_size(normals, size),
        camera=torch.tensor(camera, dtype=torch.float32),
    )


def to_size(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """Planes at the model's size, antialiased.  float [B, K, H, W]"""
    if planes.ndim != 4 or not planes.is_floating_point():
        raise ValueError(
            f"planes must be float [B, channels, H, W], got {planes.dtype} {list(planes.shape)}"
        )
    if tuple(planes.shape[-2:]) == tuple(size):
        return planes
    return functional.interpolate(planes, tuple(size), mode="bilinear", antialias=True)


def _each(given: Image.Image | Tensor | Sequence, name: str) -> list[Tensor]:
    """Pictures as float [3, H, W] in [0, 1], whatever they came as."""
    if isinstance(given, Tensor):
        if given.ndim not in (3, 4) or given.shape[-3] != 3 or not given.is_floating_point():
            raise ValueError(
                f"{name}: a tensor must be float [B, 3, H, W] in [0, 1], got {given.dtype} "
                f"{list(given.shape)}"
            )
        if given.numel() and (float(given.min()) < -CLOSE or float(given.max()) > 1 + CLOSE):
            raise ValueError(
                f"{name} must be in [0, 1], got [{float(given.min()):.3g}, "
                f"{float(given.max()):.3g}]; divide by 255 if it holds bytes"
            )
        return list(given if given.ndim == 4 else given[None])
    many = [given] if isinstance(given, Image.Image) else list(given)
    if not many or not all(isinstance(one, Image.Image) for one in many):
        kinds = sorted({type(one).__name__ for one in many}) or ["none"]
        raise ValueError(f"{name} must be PIL pictures or a float tensor, got {', '.join(kinds)}")
    plain = [one.convert("RGB") if one.has_transparency_data else one for one in many]
    upright = [rgb(one, f"{name} {number}") for number, one in enumerate(plain)]
    return [fitted(one, one.shape[:2]) for one in upright]


def _photo(picture: Tensor, number: int) -> Image.Image:
    """A photo that can be used."""
    height, width = picture.shape[-2:]
    if min(height, width) < SMALLEST:
        raise ValueError(
            f"photo {number} has {height} x {width} pixels (height x width); at least {SMALLEST} "
            "along a side are needed"
        )
    if not bool(picture.isfinite().all()):
        raise ValueError(f"photo {number} holds NaN or infinity; look where it was made")
    if float(picture.max()) < DARK:
        raise ValueError(f"photo {number} is black: nothing can be seen of a person; leave it out")
    stored = (picture.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)
    return Image.fromarray(stored.cpu().numpy())


def conditions_from_photo(
    image: Image.Image | Sequence[Image.Image],
    elevation: float | Sequence[float],
    azimuth: float | Sequence[float],
    distance: float | None,
    size: tuple[int, int],
) -> Conditions:
    """Reconstruct the people of photos, and draw them at the wished-for cameras.

    Args:
        image: A photo of one standing person, a crop or a larger picture; or several.
        elevation: Degrees above the horizon, [0, 90].
        azimuth: Degrees from the person's front towards the person's left.
        distance: Metres; None = that at which a person is 128 pixels high for our drone's camera.
        size: Height and width of the model, pixels.
    Returns: Conditions; the rows are as `matched` says.

    Raises:
        ValueError: if a photo shows nobody who could be reconstructed, or counts do not match.
        FileNotFoundError: if the pose models cannot be had; the message says how.
    """
    from viewsynth import cameras
    from viewsynth.reconstruct import posing
    from viewsynth.render import foreground, views

    images = [image] if isinstance(image, Image.Image) else list(image)
    person, elevations, azimuths = matched(len(images), elevation, azimuth)
    tools = _tools()
    crops = [_crop(one, number, tools) for number, one in enumerate(images)]
    people = _reconstructed(crops, tools)
    vertices = posing.posed(people, tools.poser)
    solid = vertices[:, torch.unique(tools.body.faces)]
    sensor = Sensor(distance=distance)
    frames = [
        views.frame(solid[k], views.Shot(k, high, turn, "photo"), sensor, np.full(4, sensor.margin))
        for k, high, turn in zip(person, elevations, azimuths, strict=True)
    ]
    windows = cameras.join([foreground.crop_camera(frame, size, sensor.picture_height) for frame in frames])
    drawn = foreground.render(
        vertices,
        tools.body,
        [one.texture for one in people],
        [one.seen for one in people],
        torch.tensor(person),
        windows,
    )
    sources = [people[k].sources[0] for k in person]
    camera = [
        (
            frame.elevation,
            source["elevation"],
            turned(frame.azimuth - source["azimuth"]),
            frame.distance,
            frame.size[1] / frame.size[0],
        )
        for frame, source in zip(frames, sources, strict=True)
    ]
    return Conditions(
        source=torch.stack([fitted(crop, size) for crop in crops]),
        person=torch.tensor(person),
        render=drawn.render,
        seen=drawn.seen,
        normals=drawn.normals,
        camera=torch.tensor(camera, dtype=torch.float32),
    )


def matched(
    photos: int,
    elevation: float | Sequence[float],
    azimuth: float | Sequence[float],
    views: int | None = None,
) -> tuple[list[int], list[float], list[float]]:
    """Which photo and which camera each view has.

    One photo and many cameras, many photos and one camera, or as many of the one as of the other.

    Args:
        views: How many there are, if renderings say so.
    Returns: photo, elevation and azimuth of each view.
    Raises: ValueError: if the numbers do not match, or an elevation is out of range.
    """
    angles = [
        [float(x) for x in np.atleast_1d(np.asarray(value, np.float64))]
        for value in (elevation, azimuth)
    ]
    count = views or max(photos, *map(len, angles))
    for name, got in (
        ("image", photos),
        ("elevation", len(angles[0])),
        ("azimuth", len(angles[1])),
    ):
        if got not in (1, count):
            raise ValueError(
                f"{photos} photos, {len(angles[0])} elevations and {len(angles[1])} azimuths do "
                f"not match: {name} must be one for all views, or {count}; got {got}"
            )
    for high in angles[0]:
        if not 0 <= high <= 90:
            raise ValueError(f"elevation must be in [0, 90] degrees above the horizon, got {high}")
    for turn in angles[1]:
        if not np.isfinite(turn):
            raise ValueError(f"azimuth must be a number of degrees, got {turn}")
    person = list(range(photos)) if photos == count else [0] * count
    high, turn = (value if len(value) == count else value * count for value in angles)
    return person, high, turn


def turned(azimuth: float) -> float:
    """The same direction in [-180, 180) degrees."""
    return (azimuth + 180) % 360 - 180


@lru_cache(maxsize=1)
def _tools():
    """The body and the pose models, once per process."""
    from viewsynth import bodies, reconstruct
    from viewsynth.runtime import weights

    return reconstruct.load(bodies.load("anny"), weights.pose_model(), weights.detector_model())


def _crop(image: Image.Image, number: int, tools) -> np.ndarray:
    """The one person of a picture."""
    from viewsynth.reconstruct import find

    picture = np.asarray(image.convert("RGB"))
    if find.is_tight(picture):
        return picture
    boxes = find.find(picture, tools.detector)
    if len(boxes) != 1:
        raise ValueError(
            f"photo {number} shows {len(boxes) or 'no'} whole people: crop it to one standing "
            "person, head to feet, 1.5 to 4 times as high as wide"
        )
    left, top, right, bottom = map(int, boxes[0])
    return np.ascontiguousarray(picture[top:bottom, left:right])


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
