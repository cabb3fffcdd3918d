# SPDX-License-Identifier: Apache-2.0
"""Images and their ground truth, compared with rays cast at a person who is a box."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from viewsynth import cameras
from viewsynth.world import LABELS, capture, lights, props, scenes, sensor, solids

OCCLUDER, TOP = LABELS.index("occluder"), LABELS.index("top")
HALF = np.float32([0.25, 0.85, 0.15])  # half sizes of the box, metres


class Box:
    """A box in place of a person: closed, with many small triangles and keypoints inside."""

    def __init__(self, colour=(0.6, 0.3, 0.3)):
        n = 12
        at = np.linspace(-1, 1, n + 1)
        a, b = (t.ravel() for t in np.meshgrid(at, at, indexing="ij"))
        i, j = (t.ravel() for t in np.meshgrid(np.arange(n), np.arange(n), indexing="ij"))
        p = i * (n + 1) + j
        quad = np.stack([p, p + n + 1, p + n + 2, p, p + n + 2, p + 1], 1).reshape(-1, 3)
        points, faces, normals = [], [], []
        for axis in range(3):
            for sign in (-1, 1):
                side = np.zeros((len(a), 3))
                side[:, axis] = sign
                side[:, (axis + 1) % 3], side[:, (axis + 2) % 3] = a, b
                faces.append((quad if sign > 0 else quad[:, ::-1]) + len(a) * len(points))
                points.append(side * HALF + [0, HALF[1], 0])
                normals.append(np.eye(3)[axis] * sign * np.ones((len(a), 1)))
        self.vertices = np.concatenate(points).astype(np.float32)
        self.normals = np.concatenate(normals).astype(np.float32)
        self.faces = np.concatenate(faces).astype(np.int64)
        self.keypoints = np.random.default_rng(0).uniform(-0.9, 0.9, (21, 3)).astype(np.float32)
        self.keypoints = self.keypoints * HALF + np.float32([0, HALF[1], 0])
        self.colour = np.float32(colour)

    def shade(self, face, bary):
        normal = self.normals[self.faces[face][:, 0]]
        return np.tile(self.colour, (len(face), 1)), normal, np.full(len(face), TOP, np.uint8)


def rng(*numbers):
    return np.random.default_rng(numbers)


def lens(platform="cctv", **changes):
    return dataclasses.replace(sensor.sample_lens(rng(1), platform, revision=1), **changes)


def sunny_place():
    place = scenes.sample_place(rng(2), ground="concrete", weather="sun")
    return dataclasses.replace(place, dapple=0.0, cover=(0.0, np.inf))


def shoot(station, camera=None, person=None, seed=3, others=()):
    return capture.photograph(
        person or Box(), station, sunny_place(), camera or lens(), rng(seed), others
    )


def station(elevation=12.0, azimuth=30.0, distance=9.0, offset=(0.2, -0.1), roll=1.5):
    return capture.Station(
        elevation=elevation, azimuth=azimuth, distance=distance, offset=offset, roll=roll
    )


def rays_of(photo, per=1):
    """Rays through `per` x `per` points of every pixel, from the camera of the photo."""
    height, width = photo.labels.shape
    across = (np.arange(width * per) + 0.5) / per
    down = (np.arange(height * per) + 0.5) / per
    x, y = np.meshgrid(across, down)
    matrix = photo.intrinsics.astype(float)
    bent = np.stack([(x - matrix[0, 2]) / matrix[0, 0], (y - matrix[1, 2]) / matrix[1, 1]], -1)
    flat = bent.copy()
    for _ in range(60):  # independent of `cameras.undistort`
        flat = bent / (1 + photo.k1 * (flat**2).sum(-1, keepdims=True))
    rays = np.concatenate([flat, np.ones_like(x)[..., None]], -1)
    rays = rays @ photo.world_to_camera[:3, :3].astype(float)
    pose = photo.world_to_camera.astype(float)
    return -pose[:3, :3].T @ pose[:3, 3], rays


def hits(origin, rays, centre=(0.0, 0.85, 0.0)):
    """Whether rays hit the box, and the distance of the hit."""
    with np.errstate(divide="ignore"):
        a, b = ((centre + s * HALF - origin) / rays for s in (-1, 1))
    enter, leave = np.minimum(a, b).max(-1), np.maximum(a, b).min(-1)
    return (enter < leave) & (leave > 0), enter


CASES = [
    ("cctv", station(), {"k1": -0.15}),
    ("cctv", station(25, 200, 9, (-0.36, 0.15), -4), {"k1": 0.05}),
    ("wearable", station(2, 100, 9, (0.36, 0.05), 6), {}),
    ("drone", station(75, 300, 30, (0.3, -0.3), 2), {}),
    ("drone", station(90, 45, 60, (0.0, 0.0), 0), {}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c[0]} {c[1].elevation:.0f}")
def test_mask_is_where_rays_hit_the_person(case):
    platform, view, changes = case
    photo = shoot(view, lens(platform, **changes))
    assert photo.image.shape[:2] == photo.labels.shape and photo.image.dtype == np.uint8
    met = hits(*rays_of(photo, 4))[0].reshape(photo.labels.shape[0], 4, -1, 4).mean((1, 3))
    mask = photo.labels == TOP
    front = photo.labels == OCCLUDER
    assert (mask | front)[met > 0.8].all() and not mask[met < 0.2].any()
    assert mask.sum() > 100


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c[0]} {c[1].elevation:.0f}")
def test_camera_of_the_photo_projects_keypoints_and_target(case):
    platform, view, changes = case
    camera = lens(platform, **changes)
    photo = shoot(view, camera)
    crop = cameras.Cameras(
        torch.from_numpy(photo.world_to_camera)[None],
        torch.from_numpy(photo.intrinsics)[None],
        photo.labels.shape,
        torch.tensor([photo.k1]),
    )
    pixels, _ = crop.project(torch.from_numpy(Box().keypoints)[None])
    assert np.allclose(pixels[0], photo.keypoints[:, :2], atol=1e-3)
    target, _ = crop.project(torch.tensor([[[0.0, photo.target_height, 0.0]]]))
    height, width = camera.frame
    expected = [(0.5 + view.offset[0]) * width, (0.5 + view.offset[1]) * height]
    assert np.allclose(target[0, 0] + torch.tensor(photo.box[:2]), expected, atol=0.3)
    eye = -photo.world_to_camera[:3, :3].T @ photo.world_to_camera[:3, 3]
    away = eye - [0, photo.target_height, 0]
    assert abs(np.linalg.norm(away) - view.distance) < 1e-3 * view.distance
    assert abs(np.rad2deg(np.arcsin(away[1] / view.distance)) - view.elevation) < 0.1


@settings(max_examples=60, deadline=None)
@given(st.floats(-5, 45), st.floats(0, 359), st.floats(-0.4, 0.4), st.floats(-0.4, 0.4))
def test_cameras_without_roll_are_level(elevation, azimuth, x, y):
    eye = capture.frame_camera(station(elevation, azimuth, 8.0, (x, y), 0.0), lens(), 0.85)
    axes = eye.world_to_camera[0, :3, :3]
    assert abs(float(axes[0, 1])) < 1e-5 and float(axes[1, 1]) < 0
    assert torch.allclose(axes @ axes.T, torch.eye(3), atol=1e-5) and torch.linalg.det(axes) > 0.9


def test_roll_turns_the_image_about_the_target():
    straight, turned = (
        capture.frame_camera(station(10, 0, 8.0, (0.0, 0.0), r), lens(k1=0.0), 0.85)
        for r in (0.0, 10.0)
    )
    points = torch.tensor([[[0.0, 0.85, 0.0], [0.0, 1.35, 0.0]]])
    (a, b), (c, d) = straight.project(points)[0][0], turned.project(points)[0][0]
    assert torch.allclose(a, c, atol=1e-2)
    assert d[0] > c[0] + 5  # clockwise: a point above the target moves right
    assert abs(float(b[0] - a[0])) < 1e-2


def test_people_in_front_occlude_and_people_behind_do_not():
    """Another box between camera and person: labels, keypoints and occlusion agree with rays."""
    view = station(15, 0, 8.0, (0.0, 0.0), 0.0)
    alone = shoot(view)
    front = shoot(view, others=((Box(), (0.3, 1.5), 0.0),))
    behind = shoot(view, others=((Box(), (0.3, -1.5), 0.0),))
    assert alone.occlusion < 0.25 and np.array_equal(behind.labels, alone.labels)
    origin, rays = rays_of(front)
    person, near = hits(origin, rays)
    other, nearer = hits(origin, rays, (0.3, 0.85, 1.5))
    blocked = other & (nearer < np.where(person, near, np.inf))
    assert (front.labels[blocked] == OCCLUDER).mean() > 0.97
    hidden = (person & blocked).sum() / person.sum()
    assert abs(front.occlusion - 1 + (1 - hidden) * (1 - alone.occlusion)) < 0.03
    inside = (front.keypoints[:, :2] > 1).all(1)
    inside &= (front.keypoints[:, :2] < np.array(blocked.shape[::-1]) - 1).all(1)
    column, row = front.keypoints[inside, :2].astype(int).T
    covered = blocked[row, column]
    assert covered.any() and not front.keypoints[inside, 2][covered].any()
    assert np.array_equal(
        front.keypoints[inside, 2][~covered] > 0, alone.keypoints[inside, 2][~covered] > 0
    )


def test_keypoints_on_the_far_side_are_hidden():
    person = Box()
    person.keypoints[:] = [0, 0.85, -0.14]
    person.keypoints[:5] = [0.0, 1.6, 0.14]  # the face looks along +z
    person.keypoints[11:13, 2] = 0.0  # hips lie inside
    front, back = (shoot(station(5, a, 8.0), person=person).keypoints[:, 2] for a in (0, 180))
    assert front[:5].all() and front[11:13].all() and not front[5:11].any()
    assert not back[:5].any() and back[5:].all()


def test_parts_outside_the_crop_count_as_occluded():
    """Occlusion of cut crops of a box is relative to the silhouette in uncut crops."""
    view = station(10, 0, 12.0, (0.0, 0.0), 0.0)
    photos = [shoot(view, seed=seed) for seed in range(24)]
    photos = [p for p in photos if not (p.labels == OCCLUDER).any()]
    assert len(photos) > 12
    areas = np.array([(p.labels == TOP).sum() for p in photos])
    occlusion = np.array([p.occlusion for p in photos])
    assert (occlusion == 0).sum() > 5 and (occlusion > 0.02).sum() > 1
    assert np.allclose(occlusion, 1 - areas / areas.max(), atol=0.02)


@settings(max_examples=200, deadline=None)
@given(
    st.floats(-300, 2000),
    st.floats(-300, 1200),
    st.floats(3, 600),
    st.floats(3, 900),
    st.integers(0, 10_000),
)
def test_boxes_are_whole_pixels_in_the_frame(left, top, width, height, seed):
    body = np.array([left, top, left + width, top + height])
    box = capture._detector_box(body, lens(frame=(1080, 1920)), rng(seed))
    assert np.array_equal(box, np.round(box))
    assert (box[:2] >= 0).all() and box[2] <= 1920 and box[3] <= 1080
    assert (box[2:] - box[:2] >= 8).all()


def test_some_boxes_cut_off_a_side():
    body, cut = np.array([800.0, 300, 900, 600]), np.zeros(4)
    for seed in range(2000):
        box = capture._detector_box(body, lens(frame=(1080, 1920)), rng(seed))
        cut += (box - body) * [1, 1, -1, -1] > 4
    assert (cut / 2000 > 0.01).all() and (cut / 2000 < 0.15).all(), cut


def test_images_are_reproducible():
    first, again, other = shoot(station()), shoot(station()), shoot(station(), seed=4)
    assert np.array_equal(first.image, again.image) and np.array_equal(first.labels, again.labels)
    assert first.box != other.box


def test_shadow_on_the_ground_is_where_rays_to_the_sun_hit_the_person():
    person, place = Box(), sunny_place()
    light = lights.light(place, [person], 0.01)
    x, z = rng(5).uniform(-3, 3, (2, 4000))
    points = np.stack([x, 0 * x, z], 1).astype(np.float32)
    got = light.ground(points).mean(1)
    shaded, _ = hits(points, place.own_sun()[None] + 0 * points)
    soft = np.zeros(len(points), bool)
    for dx, dz in rng(6).normal(0, 3 * place.penumbra + 0.02, (24, 2)):
        moved = points + np.float32([dx, 0, dz])
        soft |= hits(moved, place.own_sun()[None] + 0 * points)[0] != shaded
    full = float((place.sky_light + place.sun_light * place.own_sun()[1]).mean())
    away = np.hypot(x, z) > 1.0
    assert shaded.sum() > 20
    assert (got[~shaded & ~soft & away] > 0.85 * full).all()
    assert (got[shaded & ~soft] < 1.1 * place.sky_light.mean()).all()


def test_the_side_towards_the_sun_is_brighter():
    person, place = Box(), sunny_place()
    light = lights.light(place, [person], 0.01)
    sun = place.own_sun()
    axis = 0 if abs(sun[0]) > abs(sun[2]) else 2
    ends = np.zeros((2, 3), np.float32)
    ends[:, axis] = np.sign(sun[axis]) * HALF[axis] * np.float32([1, -1])
    ends[:, 1] = 0.9
    normals = np.zeros((2, 3), np.float32)
    normals[:, axis] = np.sign(ends[:, axis])
    lit, dark = light.surface(ends, normals).mean(1)
    assert lit > 1.5 * dark > 0


@pytest.mark.parametrize("samples", [2, 3, 4])
def test_sample_weights_sum_to_one(samples):
    index = rng(samples).integers(-1, 2, (samples**2, 500)).astype(np.int16)
    index[:, :100] = 0
    weights = solids.sample_weights(index)
    assert np.allclose(weights.sum(0), 1)
    few = weights[:, :100].reshape(samples, samples, -1)
    assert np.allclose(few.sum(0), 1 / samples) and np.allclose(few.sum(1), 1 / samples)


@pytest.mark.parametrize("kind", props.KINDS)
def test_props_stand_on_the_ground(kind):
    prop = props.sample_prop(rng(1), kind, (1.0, -2.0), 30.0)
    low, high = prop.vertices.min(0), prop.vertices.max(0)
    assert abs(low[1]) < 0.01 and 0.4 < high[1] < 6
    assert low[0] < 1.0 < high[0] and low[2] < -2.0 < high[2]
    assert np.allclose(np.linalg.norm(prop.normals, axis=1), 1, atol=1e-3)
    albedo, normal, label = prop.shade(
        np.arange(len(prop.faces)), np.full((len(prop.faces), 3), 1 / 3, np.float32)
    )
    outward = prop.vertices[prop.faces].mean(1) - [1.0, prop.vertices[:, 1].mean(), -2.0]
    assert kind == "sign" or ((normal * outward).sum(1) > 0).mean() > 0.9
    assert albedo.min() > 0 and albedo.max() < 1 and not label.any()


def test_lenses_stay_in_their_ranges():
    for platform, height, low, high in (
        ("drone", 2160, 30, 55),
        ("cctv", 1080, 35, 60),
        ("wearable", 1080, 50, 65),
    ):
        lenses = [sensor.sample_lens(rng(n), platform) for n in range(60)]
        assert all(low <= one.vfov <= high and -0.15 <= one.k1 <= 0.05 for one in lenses)
        assert max(one.frame[0] for one in lenses) == height
    with pytest.raises(ValueError, match="platform must be one of"):
        sensor.sample_lens(rng(0), "satellite")


def test_sensor_keeps_order_and_size():
    camera = lens(jpeg=95, noise=0.0, motion=0.0, auto=0.0, coring=0.0)
    ramp = np.tile(np.linspace(0.02, 0.6, 96, dtype=np.float32)[None, :, None], (40, 1, 3))
    image = sensor.sense(ramp, camera, 1.0, rng(1))
    assert image.shape == ramp.shape and image.dtype == np.uint8
    columns = image.mean((0, 2))[4:-4]
    assert (np.diff(columns) > -1.5).all() and columns[-1] > columns[0] + 60
    brighter = sensor.sense(ramp, dataclasses.replace(camera, gain=(1.6, 1.6, 1.6)), 1.0, rng(1))
    assert brighter.mean() > image.mean() + 5


def test_automatic_exposure_and_noise_in_low_light():
    flat = np.full((64, 64, 3), 0.2, np.float32)
    camera = lens(auto=1.0, motion=0.0, noise=0.015, drift=0.0)
    bright, dim = (sensor.sense(flat * f, camera, 1.0, rng(2)).mean() for f in (1.5, 0.5))
    assert abs(bright - dim) < 12
    day, night = (sensor.sense(flat, camera, level, rng(2)).std() for level in (1.0, 0.1))
    assert night > 1.2 * day
