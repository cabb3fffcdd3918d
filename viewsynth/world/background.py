# SPDX-License-Identifier: Apache-2.0
"""Background of an image: ground, walls, parked cars and sky, evaluated along camera rays.

scenes (place) -> this module -> capture. The ground is the plane y = 0 with a pattern (`grounds`);
upright walls (`backdrops`) bound it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from viewsynth.world import backdrops, grounds
from viewsynth.world.backdrops import Wall
from viewsynth.world.noise import noise
from viewsynth.world.scenes import AIR, Place

# Colour of the sky at the zenith and at the horizon, linear light.
SKY = {
    "sun": ((0.30, 0.48, 0.85), (0.75, 0.86, 1.0)),
    "hazy": ((0.62, 0.74, 0.92), (0.95, 0.97, 1.0)),
    "overcast": ((0.80, 0.84, 0.90), (0.95, 0.97, 1.0)),
    "dusk": ((0.16, 0.24, 0.42), (0.62, 0.52, 0.46)),
}
FAR = 400.0  # distance at which the ground ends, metres


def render(
    place: Place,
    origin: np.ndarray,
    rays: np.ndarray,
    pixel: float,
    lit: Callable[[np.ndarray], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Render what a camera sees of a place without people.

    Args:
        place: The place.
        origin: Camera centre in the person's frame, metres.  [3]
        rays: Unit rays in the person's frame.  float32 [N, 3]
        pixel: Angle between neighbouring rays, radians.
        lit: Light on ground points of the person's frame, [M, 3] -> [M, 3].

    Returns:
        Linear light, float32 [N, 3], and distance to what is seen, metres [N].
    """
    turn = place.turn()
    rays_in = rays @ turn.T
    origin_in = (place.inward(origin[None].astype(np.float32)))[0]
    down = np.maximum(-rays[:, 1], np.float32(1e-5))
    reach = np.where(rays[:, 1] < -1e-5, np.float32(origin[1]) / down, np.inf).astype(np.float32)
    met = [_meet_wall(w, origin_in, rays_in, reach, pixel) for w in place.walls]
    met = [m for m in met if m is not None]
    # Ground behind a wall that covers a pixel fully need not be evaluated.
    hidden = np.full(len(rays), np.inf, np.float32)
    for _, seen, away, _, share in met:
        full = share > 0.999
        hidden[seen[full]] = np.minimum(hidden[seen[full]], away[full])
    light = np.zeros((len(rays), 3), np.float32)
    floor = np.flatnonzero((reach < FAR) & (reach < hidden * 1.001))
    sky = np.flatnonzero(reach >= FAR)
    light[sky] = _sky(place, rays_in[sky])
    if len(floor):
        points = origin.astype(np.float32) + rays[floor] * reach[floor, None]
        span = reach[floor] * np.float32(pixel) / np.sqrt(np.maximum(down[floor], 0.03))
        inside = place.inward(points)
        albedo = grounds.paint(place.ground, inside[:, 0], inside[:, 2], span)
        light[floor] = albedo * lit(points) * _under_cars(place, inside)[:, None]
    distance = np.minimum(reach, np.float32(FAR))
    for wall in sorted(met, key=lambda m: -m[0].distance):
        _put_wall(place, wall, light, distance, pixel)
    _put_cars(place, origin_in, rays_in, pixel, light, distance)
    if place.haze:
        veil = (1 - np.exp(-place.haze * distance / 100))[:, None]
        light += (AIR - light) * veil
    return light, distance


def _meet_wall(w: Wall, origin, rays, reach, pixel):
    """Rays that reach a wall before they reach the ground.

    Args:
        w: The wall.
        origin: Camera centre in the frame of the place, metres.  [3]
        rays: Unit rays in the frame of the place.  [N, 3]
        reach: Distance to the ground, metres.  [N]
        pixel: Angle between neighbouring rays, radians.

    Returns:
        The wall, indices of the rays [M], their length [M], metres along and up the wall [2, M],
        share of the pixel [M]; None if there are none or the camera is behind the wall.
    """
    rad = math.radians(w.heading)
    out = np.float32([math.sin(rad), 0, math.cos(rad)])
    gap = np.float32(w.distance - float(out @ origin))
    towards = rays @ out
    far = np.minimum(reach * (1 + pixel) + 0.1, np.float32(FAR))
    seen = np.flatnonzero(towards * far > gap) if gap > 0.5 else np.empty(0)
    if not len(seen):
        return None
    away = gap / towards[seen]
    x, y, z = (origin[k] + rays[seen, k] * away for k in range(3))
    along = x * out[2] - z * out[0]
    share = backdrops.cover(w, along, y, away * np.float32(pixel))
    kept = np.flatnonzero(share > 0)
    flat = np.stack([along[kept], y[kept]])
    return (w, seen[kept], away[kept], flat, share[kept]) if len(kept) else None


def _put_wall(place: Place, met: tuple, light, distance, pixel: float) -> None:
    """Blend a wall over what is farther away; `light` and `distance` change in place."""
    w, seen, away, (u, y), share = met
    rad = math.radians(w.heading)
    facing = max(0.0, -float(place.sun @ np.float32([math.sin(rad), 0, math.cos(rad)])))
    open_ = np.flatnonzero(away <= distance[seen] * 1.001 + 0.05)
    seen, away, u, y, share = seen[open_], away[open_], u[open_], y[open_], share[open_]
    shade = backdrops.colour(w, u, y, away * np.float32(pixel))
    sun = place.sun_light * facing * (0.7 if math.isinf(place.cover[1]) else 0.0)
    corner = 0.55 + 0.45 * np.clip(y / 1.2, 0, 1) ** 0.5
    shade = shade * (0.62 * place.sky_light * corner[:, None] + 0.12 * place.sun_light + sun)
    light[seen] += (shade - light[seen]) * share[:, None]
    near = seen[share > 0.5]
    distance[near] = np.minimum(distance[near], away[share > 0.5])


def _put_cars(place: Place, origin, rays, pixel, light, distance) -> None:
    """Blend the cars behind the person; `light` and `distance` change in place."""
    person = np.float32([place.at[0], 1.0, place.at[1]])
    ahead = person - origin
    if ahead[1] < -0.8 * np.linalg.norm(ahead):
        return  # seen from high above, a crop of a person does not reach the cars
    middle = rays.mean(0)
    spread = (rays @ middle).min() / np.linalg.norm(middle)
    roof_light = place.sky_light + place.sun_light * place.sun[1]
    side_light = 0.55 * place.sky_light + 0.2 * place.sun_light
    for parked in place.cars:
        away = np.float32([parked.at[0], 0.7, parked.at[1]]) - origin
        metres = np.linalg.norm(away)
        beyond = (away @ ahead) / (ahead @ ahead)
        angle = math.acos(min(1.0, float(away @ middle / metres / np.linalg.norm(middle))))
        if beyond < 1.0 or angle > math.acos(spread) + 2.6 / metres:
            continue
        share, reach, shade = backdrops.meet_car(
            parked, origin, rays, pixel, roof_light, side_light
        )
        seen = (share > 0) & (reach < distance)
        light[seen] += (shade[seen] - light[seen]) * share[seen, None]
        distance[seen] = reach[seen]


def _under_cars(place: Place, points: np.ndarray) -> np.ndarray:
    """Factor that darkens ground points under parked cars, [N, 3] -> [N]."""
    light = np.ones(len(points), np.float32)
    for parked in place.cars:
        rad = math.radians(parked.heading)
        x, z = points[:, 0] - parked.at[0], points[:, 2] - parked.at[1]
        along = np.abs(x * math.sin(rad) + z * math.cos(rad)) - parked.size[0] / 2
        across = np.abs(x * math.cos(rad) - z * math.sin(rad)) - parked.size[1] / 2
        light *= 1 - 0.75 * np.clip(0.6 - np.maximum(along, across) / 0.5, 0, 1)
    return light


def _sky(place: Place, rays: np.ndarray) -> np.ndarray:
    """The sky along rays, brightest near the horizon, with clouds, [N, 3] -> [N, 3]."""
    up = np.clip(rays[:, 1], 0, 1)
    zenith, horizon = (np.float32(c) for c in SKY[place.weather])
    colour = horizon + (zenith - horizon) * (up**0.5)[:, None]
    if place.weather in ("sun", "hazy"):
        flat = rays[:, [0, 2]] / (up + 0.12)[:, None] + place.salt % 89
        cloud = np.clip(noise("cloud", flat[:, 0], flat[:, 1], 0.02, 9.0) * 0.8 + 0.1, 0, 1)
        colour += (1.05 - colour) * cloud[:, None]
    return colour * (1.25 if place.level == 1.0 else 0.9)
