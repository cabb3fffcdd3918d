# SPDX-License-Identifier: Apache-2.0
"""Camera conventions: by hand, as round trips, and measured in rendered images."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from viewsynth import cameras
from viewsynth.render import Mesh, views
from viewsynth.render.options import CHIP, LENS, Sensor

ANGLES = st.tuples(
    st.sampled_from([0.0, 90.0, -90.0]) | st.floats(-90, 90, width=32),
    st.floats(0, 359.5, width=32),
    st.floats(0.5, 200, width=32),
    st.floats(0, 2, width=32),
)


def orbit(*numbers):
    return cameras.orbit(*(torch.tensor([float(v)]) for v in numbers))


# ---- by hand -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("elevation", "azimuth", "centre"),
    [
        (0, 0, (0, 1, 10)),  # in front of the person, who faces +z
        (0, 90, (10, 1, 0)),  # at the person's left, +x
        (0, 180, (0, 1, -10)),
        (0, 270, (-10, 1, 0)),
        (90, 0, (0, 11, 0)),
        (30, 0, (0, 6, 8.660254)),
    ],
)
def test_camera_position(elevation, azimuth, centre):
    pose = orbit(elevation, azimuth, 10, 1)[0]
    assert torch.allclose(-pose[:3, :3].T @ pose[:3, 3], torch.tensor(centre).float(), atol=1e-5)


def see(pose, *points):
    """Pixels of world points in an image of 100 x 200 (H x W)."""
    view = cameras.Cameras(pose, cameras.pinhole(torch.tensor([300.0]), (100, 200)), (100, 200))
    return view.project(torch.tensor([points]))[0][0]


@pytest.mark.parametrize("azimuth", [0, 45, 200])
@pytest.mark.parametrize("elevation", [0, 40, 90])
def test_positions_in_the_image(elevation, azimuth):
    middle, top = see(orbit(elevation, azimuth, 10, 1), (0.0, 1.0, 0.0), (0.0, 1.5, 0.0))
    assert torch.allclose(middle, torch.tensor([100.0, 50.0]), atol=1e-3)
    assert top[1] < 50 - 1 or elevation == 90  # up in the world is up in the image
    assert abs(top[0] - 100) < 1e-2


def test_left_and_right():
    """From the front the left hand, +x, is on the right; from above the nose points down."""
    assert see(orbit(0, 0, 10, 1), (0.5, 1.0, 0.0))[0, 0] > 110
    assert see(orbit(0, 180, 10, 1), (0.5, 1.0, 0.0))[0, 0] < 90
    assert see(orbit(90, 0, 10, 1), (0.0, 1.0, 0.5))[0, 1] > 60
    assert see(orbit(0, 90, 10, 1), (0.0, 1.0, 0.5))[0, 0] < 90  # from the left, front is left


def test_pytorch3d_by_hand():
    """A camera at (0, 0, 5) that looks at the origin: pytorch3d's x goes left, y up, z forward."""
    rotation, translation = cameras.to_pytorch3d(orbit(0, 0, 5, 0))
    view = torch.tensor([1.0, 2.0, 3.0]) @ rotation[0] + translation[0]
    assert torch.allclose(view, torch.tensor([-1.0, 2.0, 2.0]), atol=1e-6)


def test_opengl_by_hand():
    """The same camera in OpenGL: x right, y up, z towards the eye."""
    pose = cameras.to_opengl(orbit(0, 0, 5, 0))[0]
    view = pose @ torch.tensor([1.0, 2.0, 3.0, 1.0])
    assert torch.allclose(view[:3], torch.tensor([1.0, 2.0, -2.0]), atol=1e-6)


def test_zero123_by_hand():
    """20 degrees higher is a smaller polar angle; a quarter turn to the left is -90 in zero123."""
    polar, sine, cosine, metres = cameras.to_zero123((10, 0, 1.5), (30, 90, 2.0))
    assert np.allclose([polar, sine, cosine, metres], [np.deg2rad(-20), -1, 0, 0.5])


def test_focal_length_spans_the_image():
    focal = cameras.focal_length(40, 2160)
    assert np.isclose(np.rad2deg(2 * np.arctan(1080 / focal)), 40)
    with pytest.raises(ValueError, match="vfov must be in"):
        cameras.focal_length(180, 100)


@pytest.mark.parametrize("numbers", [(91, 0, 5, 1), (-90.5, 0, 5, 1), (0, 0, 0, 1), (0, 0, -1, 1)])
def test_invalid_cameras_are_refused(numbers):
    with pytest.raises(ValueError, match="must be"):
        orbit(*numbers)


# ---- round trips -------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(ANGLES)
def test_orbit_and_back(numbers):
    elevation, azimuth, distance, height = numbers
    found = [float(v) for v in cameras.angles_of(orbit(*numbers), torch.tensor([height]))]
    assert abs(found[0] - elevation) < 0.06  # asin is flat at the zenith
    assert abs((found[1] - azimuth + 180) % 360 - 180) < 1e-2
    assert abs(found[2] - distance) < 1e-4 * max(1, distance)


@settings(max_examples=50, deadline=None)
@given(ANGLES)
def test_converters_and_back(numbers):
    pose = orbit(*numbers)
    assert torch.allclose(cameras.from_pytorch3d(*cameras.to_pytorch3d(pose)), pose)
    assert torch.allclose(cameras.to_opengl(cameras.to_opengl(pose)), pose)
    rotation = pose[0, :3, :3]
    assert torch.allclose(rotation @ rotation.T, torch.eye(3), atol=1e-5)
    assert torch.linalg.det(rotation) > 0.999


@settings(max_examples=50, deadline=None)
@given(ANGLES, st.integers(0, 60), st.integers(0, 40), st.integers(2, 80), st.integers(2, 80))
def test_a_window_shows_the_same_points(numbers, left, top, width, height):
    size = (100, 120)
    whole = cameras.Cameras(orbit(*numbers), cameras.pinhole(torch.tensor([150.0]), size), size)
    box = torch.tensor([[left, top, left + width, top + height]]).float()
    part = whole.window(box, (3 * height, 2 * width))
    points = torch.tensor([[[0.1, numbers[3], 0.2], [-0.1, numbers[3] + 0.1, 0.0]]])
    (a, za), (b, zb) = whole.project(points), part.project(points)
    expected = (a - box[:, None, :2]) * torch.tensor([2.0, 3.0])
    assert torch.equal(za, zb)
    assert torch.allclose(b, expected, rtol=1e-4, atol=2e-2)


def test_a_window_does_not_depend_on_its_canvas():
    """A view on a canvas shared with wider views has the same camera as alone."""
    for side in range(1, 400):
        whole = cameras.Cameras(
            torch.eye(4)[None], cameras.pinhole(torch.tensor([3000.0]), (9, 9)), (9, 9)
        )
        box = torch.tensor([[7.0, 5.0, 7.0 + side, 5.0 + side]])
        part = whole.window(box, (2 * side, 2 * side))
        assert torch.equal(part.intrinsics[0, [0, 1], [0, 1]], torch.tensor([6000.0, 6000.0]))


LENSES = st.floats(-0.15, 0.1)


@settings(max_examples=50, deadline=None)
@given(LENSES, st.floats(-1.3, 1.3), st.floats(-0.7, 0.7))
def test_distortion_round_trip(k1, x, y):
    """`undistort` inverts `distort`, beyond the corners of the widest image."""
    flat, k1 = torch.tensor([x, y], dtype=torch.float64), torch.tensor(k1, dtype=torch.float64)
    bent = cameras.distort(flat, k1)
    assert torch.allclose(bent, flat * (1 + k1 * (flat**2).sum()), atol=1e-9)
    if 1 + 3 * k1 * (flat**2).sum() > 0.1:  # near the fold the inverse is ill-conditioned
        assert torch.allclose(cameras.undistort(bent, k1), flat, atol=1e-6)


def test_distortion_by_hand():
    """A point at x / z = 0.5 with k1 = -0.1 goes to 0.5 (1 - 0.025); windows keep the lens."""
    size = (100, 200)
    matrix, pose = cameras.pinhole(torch.tensor([100.0]), size), torch.eye(4)[None]
    bent = cameras.Cameras(pose, matrix, size, torch.tensor([-0.1]))
    plain = cameras.Cameras(pose, matrix, size)
    points = torch.tensor([[[1.0, 0.0, 2.0], [0.0, 0.0, 3.0], [40.0, 0.0, 1.0]]])
    (found, depth), (pin, _) = bent.project(points), plain.project(points)
    assert torch.allclose(found[0, :2], torch.tensor([[100 + 48.75, 50.0], [100.0, 50.0]]))
    assert torch.equal(depth, points[..., 2])
    assert found[0, 2, 0] > 200  # points far outside are not folded back into the image
    box = torch.tensor([[20.0, 10, 60, 90]])
    part = bent.window(box, (160, 80))
    assert torch.allclose(part.project(points)[0], (found - box[:, None, :2]) * 2, atol=1e-3)
    none = cameras.Cameras(pose, matrix, size, torch.tensor([0.0]))
    assert torch.allclose(none.project(points)[0], pin)


# ---- measured in images ------------------------------------------------------------------------

MARKS = np.float32(
    [
        [0.00, 1.66, 0.00],
        [0.50, 1.10, 0.08],
        [-0.45, 0.75, 0.15],
        [0.12, 0.95, 0.55],
        [-0.18, 0.50, -0.50],
        [0.42, 0.06, -0.32],
        [-0.35, 1.35, -0.30],
        [-0.10, 0.10, 0.42],
    ]
)
HUES = np.float32(
    [
        [1, 0, 0],
        [0, 1, 0],
        [0, 0, 1],
        [1, 1, 0],
        [1, 0, 1],
        [0, 1, 1],
        [1, 0.5, 0],
        [0.5, 0, 1],
    ]
)


def marked_person():
    """Eight small octahedra in their own colours instead of a person."""
    tips = np.float32([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]]) * 0.045
    sides = [(a, b, c) for a in (0, 1) for b in (2, 3) for c in (4, 5)]
    faces = np.concatenate([np.array(sides) + 6 * k for k in range(len(MARKS))])
    vertices = (MARKS[:, None] + tips).reshape(-1, 3)
    side = 64
    texture = torch.zeros((side, side, 3), dtype=torch.uint8)
    for k, hue in enumerate(HUES):
        texture[:, 8 * k : 8 * k + 8] = torch.from_numpy(hue * 255).byte()
    uvs = torch.tensor([[(8 * k + 4) / side, 0.5] for k in range(len(MARKS))])
    return Mesh(
        torch.from_numpy(vertices),
        torch.from_numpy(faces),
        uvs,
        torch.arange(len(MARKS)).repeat_interleave(8)[:, None].expand(-1, 3),
        texture,
        torch.full((side, side), 255, dtype=torch.uint8),
    )


def centres(view):
    """Position of each mark in the whole camera image, found by its colour in the crop."""
    picture = view.image.astype(np.float32) / 255
    blobs, count = ndimage.label(view.mask)
    found = {}
    for blob in range(1, count + 1):
        rows, columns = np.nonzero(blobs == blob)
        hue = np.median(picture[rows, columns], axis=0)
        nearest = int(np.linalg.norm(HUES - hue / hue.max(), axis=1).argmin())
        at = np.stack([columns, rows], 1)
        extent = np.ptp(at, axis=0) + 1
        if extent.min() > 15 and extent.max() < 35:  # else one mark hides a part of another
            found[nearest] = (at.min(0) + at.max(0) + 1) / 2 + view.box[:2]
    return found


def solve(found, focal, size):
    """The camera pose from the marks' positions: affine start, then reprojection error.

    Nothing of the project takes part in this.
    """
    points = MARKS[list(found)].astype(float)
    pixels = np.stack(list(found.values())) - [size[1] / 2, size[0] / 2]
    flat, *_ = np.linalg.lstsq(np.c_[points, np.ones(len(points))], pixels, rcond=None)
    scale = np.linalg.norm(flat[:3], axis=0).mean()
    u, _, v = np.linalg.svd(flat[:3].T)
    first = u @ v[:2]
    start = np.stack([*first, np.cross(*first)])
    metres = focal / scale
    shift = [*(flat[3] / scale), metres]

    def residual(p):
        local = Rotation.from_rotvec(p[:3]).apply(points) + p[3:]
        return (local[:, :2] / local[:, 2:] * focal - pixels).ravel()

    p0 = np.r_[Rotation.from_matrix(start).as_rotvec(), shift]
    p = least_squares(residual, p0, loss="soft_l1", x_scale="jac").x
    rotation = Rotation.from_rotvec(p[:3]).as_matrix()
    eye = -rotation.T @ p[3:] - [0, MARKS[0, 1] / 2 + 0.0225, 0]
    right = rotation[0]
    return (
        np.rad2deg(np.arcsin(eye[1] / np.linalg.norm(eye))),
        np.rad2deg(np.arctan2(-right[2], right[0])) % 360,
        np.linalg.norm(eye),
    )


@pytest.mark.parametrize(
    "axis",
    [
        ("elevation", [(e, 25) for e in (0, 15, 30, 45, 60, 75, 90)]),
        ("azimuth", [(40, a) for a in (0, 60, 90, 180, 215, 270, 330)]),
    ],
    ids=lambda axis: axis[0],
)
def test_measured_angles_are_the_requested_ones(axis, tmp_path):
    name, asked = axis
    values = {**LENS, **CHIP, "noise": 0.005, "jpeg": 95}
    sensor = Sensor(pixels=500, vfov=40, **values)
    shots = [views.Shot(0, float(e), float(a), f"{e} {a}") for e, a in asked]
    taken = views.render_views([marked_person()], ["p"], shots, sensor, 0)
    tall = max(view.image.shape[0] for view in taken)
    row = [np.pad(v.image, ((0, tall - v.image.shape[0]), (0, 4), (0, 0))) for v in taken]
    Image.fromarray(np.concatenate(row, axis=1)).save(tmp_path / f"{name}.png")
    for (elevation, azimuth), view in zip(asked, taken, strict=True):
        found = centres(view)
        assert len(found) >= 6
        measured = solve(found, sensor.focal, sensor.size)
        assert abs(measured[0] - elevation) < 0.5, (elevation, azimuth, measured)
        assert abs((measured[1] - azimuth + 180) % 360 - 180) < 0.5, (elevation, azimuth, measured)
        assert abs(measured[2] / view.distance - 1) < 0.1
