# SPDX-License-Identifier: Apache-2.0
"""A file in the format of SMPL-X, made of capsules, because the real one is not free."""

import numpy as np
from smplx.joint_names import JOINT_NAMES
from smplx.vertex_ids import vertex_ids

VERTICES = 10475  # the package's landmark vertices have fixed numbers
AROUND, ALONG = 12, 6
# T-pose, metres; sided joints on the left only.
JOINTS = {
    "pelvis": (0, 0, 0),
    "spine1": (0, 0.11, -0.01),
    "spine2": (0, 0.24, 0),
    "spine3": (0, 0.30, 0),
    "neck": (0, 0.5, -0.02),
    "head": (0, 0.58, 0.01),
    "jaw": (0, 0.6, 0.03),
    "hip": (0.09, -0.09, 0),
    "knee": (0.1, -0.47, 0),
    "ankle": (0.1, -0.87, -0.03),
    "foot": (0.11, -0.93, 0.1),
    "collar": (0.07, 0.42, 0),
    "shoulder": (0.17, 0.42, -0.01),
    "elbow": (0.43, 0.42, -0.02),
    "wrist": (0.68, 0.42, 0),
    "eye": (0.03, 0.66, 0.08),
}
# (joint, where its capsule ends, radius); sided ones are mirrored.
CAPSULES = (
    ("pelvis", (0, 0.11, 0), 0.13),
    ("spine1", (0, 0.24, 0), 0.13),
    ("spine2", (0, 0.3, 0), 0.13),
    ("spine3", (0, 0.46, 0), 0.14),
    ("neck", (0, 0.58, 0), 0.05),
    ("head", (0, 0.75, 0.01), 0.08),
    ("left_hip", (0.1, -0.47, 0), 0.08),
    ("left_knee", (0.1, -0.87, -0.03), 0.05),
    ("left_ankle", (0.11, -0.93, 0.1), 0.04),
    ("left_foot", (0.11, -0.93, 0.16), 0.03),
    ("left_collar", (0.17, 0.42, -0.01), 0.06),
    ("left_shoulder", (0.43, 0.42, -0.02), 0.05),
    ("left_elbow", (0.68, 0.42, 0), 0.04),
    ("left_wrist", (0.85, 0.42, 0), 0.03),
)
MARKS = {
    "nose": (0, 0.64, 0.1),
    "leye": (0.03, 0.66, 0.09),
    "reye": (-0.03, 0.66, 0.09),
    "lear": (0.08, 0.64, 0),
    "rear": (-0.08, 0.64, 0),
    "LBigToe": (0.1, -0.94, 0.18),
    "RBigToe": (-0.1, -0.94, 0.18),
    "LHeel": (0.1, -0.95, -0.06),
    "RHeel": (-0.1, -0.95, -0.06),
}


def _place(joint: str) -> np.ndarray:
    side, _, name = joint.rpartition("_")
    key = "eye" if "eye" in joint else name
    if key not in JOINTS:  # fingers
        key, offset = "wrist", (0.1, 0, 0)
    else:
        offset = (0, 0, 0)
    point = np.add(JOINTS[key], offset)
    return point * ([-1, 1, 1] if joint.startswith("right") else [1, 1, 1])


def _capsule(start, end, radius) -> tuple[np.ndarray, np.ndarray]:
    """A closed tube whose first ring is centred on `start`: points and outward triangles."""
    axis = np.subtract(end, start) / np.linalg.norm(np.subtract(end, start))
    side = np.cross(axis, [0, 0, 1] if abs(axis[2]) < 0.9 else [1, 0, 0])
    side /= np.linalg.norm(side)
    other = np.cross(axis, side)
    turn = 2 * np.pi * np.arange(AROUND) / AROUND
    ring = radius * (np.cos(turn)[:, None] * side + np.sin(turn)[:, None] * other)
    points = [np.add(start, t * np.subtract(end, start)) + ring for t in np.linspace(0, 1, ALONG)]
    points = np.concatenate(
        [*points, [np.subtract(start, radius / 2 * axis)], [end + radius / 2 * axis]]
    )
    k = np.arange(AROUND)
    j = (k + 1) % AROUND
    faces = [
        np.stack([k + AROUND * r, j + AROUND * r, j + AROUND * (r + 1)], 1)
        for r in range(ALONG - 1)
    ]
    faces += [
        np.stack([k + AROUND * r, j + AROUND * (r + 1), k + AROUND * (r + 1)], 1)
        for r in range(ALONG - 1)
    ]
    last = AROUND * (ALONG - 1)
    faces += [np.stack([j, k, np.full(AROUND, AROUND * ALONG)], 1)]
    faces += [np.stack([k + last, j + last, np.full(AROUND, AROUND * ALONG + 1)], 1)]
    return points, np.concatenate(faces)


def write(path, atlas: bool = False):
    """Write the file, with texture coordinates (vt, ft) if `atlas`."""
    names = list(JOINT_NAMES[:55])
    joints = np.array([_place(name) for name in names])
    marks = {vertex_ids["smplx"][name]: at for name, at in MARKS.items()}
    free = (k for k in range(VERTICES) if k not in marks)
    template, weights = np.zeros((VERTICES, 3)), np.zeros((VERTICES, 55))
    weights[:, 0] = 1
    regressor, faces = np.zeros((55, VERTICES)), []
    for joint, end, radius in CAPSULES:
        for flip in (1, -1) if joint.startswith("left") else (1,):
            name = joint if flip == 1 else joint.replace("left", "right")
            points, triangles = _capsule(joints[names.index(joint)], np.array(end), radius)
            index = np.array([next(free) for _ in points])
            template[index] = points * [flip, 1, 1]
            weights[index] = np.eye(55)[names.index(name)]
            regressor[names.index(name), index[:AROUND]] = 1 / AROUND
            faces.append(index[triangles][:, ::flip])
    used = np.unique(np.concatenate(faces))
    for vertex, at in marks.items():
        template[vertex] = at
        near = used[np.linalg.norm(template[used] - at, axis=1).argmin()]
        weights[vertex] = weights[near]
    for row in np.flatnonzero(regressor.sum(1) == 0):
        regressor[row, used[np.linalg.norm(template[used] - joints[row], axis=1).argmin()]] = 1
    faces = np.concatenate(faces)
    shapedirs = np.zeros((VERTICES, 3, 20))
    shapedirs[:, :, 0], shapedirs[:, 0, 1] = 0.03 * template, 0.1 * template[:, 0]
    parents = [_parent(name, names) for name in names]
    extra = (
        {
            "vt": np.random.default_rng(0).random((len(faces) * 3, 2)),
            "ft": np.arange(len(faces) * 3).reshape(-1, 3),
        }
        if atlas
        else {}
    )
    np.savez_compressed(
        path,
        v_template=template,
        f=faces.astype(np.uint32),
        shapedirs=shapedirs,
        posedirs=np.zeros((VERTICES, 3, 486)),
        J_regressor=regressor,
        weights=weights,
        kintree_table=np.array([parents, range(55)]),
        hands_componentsl=np.eye(45),
        hands_componentsr=np.eye(45),
        hands_meanl=np.zeros(45),
        hands_meanr=np.zeros(45),
        lmk_faces_idx=np.zeros(51, np.int64),
        lmk_bary_coords=np.full((51, 3), 1 / 3),
        **extra,
    )
    return path


def _parent(name: str, names: list[str]) -> int:
    side, _, short = name.rpartition("_")
    chain = {
        "pelvis": None,
        "hip": "pelvis",
        "spine1": "pelvis",
        "knee": "hip",
        "spine2": "spine1",
        "ankle": "knee",
        "spine3": "spine2",
        "foot": "ankle",
        "neck": "spine3",
        "collar": "spine3",
        "head": "neck",
        "shoulder": "collar",
        "elbow": "shoulder",
        "wrist": "elbow",
        "jaw": "head",
    }
    if "eye" in name:
        parent = "head"
    elif short in chain:
        parent = chain[short]
    else:  # fingers: 2 follows 1, 1 follows the wrist
        parent = "wrist" if short[-1] == "1" else f"{short[:-1]}{int(short[-1]) - 1}"
        side = name.partition("_")[0]
    if parent is None:
        return -1
    return names.index(parent if parent in names else f"{side}_{parent}")


def body(path, **options):
    """Load the body of a file without the warning about its licence."""
    import warnings

    from viewsynth import bodies

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bodies.load("smplx", path=path, **options)
