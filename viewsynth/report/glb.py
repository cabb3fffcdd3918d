# SPDX-License-Identifier: Apache-2.0
"""Exports a reconstructed person as a GLB file: one textured mesh for any glTF viewer.

glTF uses our conventions: metres, y up, front towards +z. Only its texture coordinate v points down
and ours up, which trimesh converts on export.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from viewsynth.records import Person

SYNTHETIC = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeSynthetic"


def write(person: Person, poser, mode: str = "relaxed") -> bytes:
    """Encode a person as GLB, in the pose of the run's views.

    Args:
        person: Reconstructed person.
        poser: See `viewsynth.reconstruct.posing.Poser`; None for an own mesh.
        mode: Pose, see `viewsynth.reconstruct.posing.posed`.

    Returns:
        Content of the file; equal people give equal bytes.
    """
    import trimesh
    from trimesh.visual.material import PBRMaterial

    from viewsynth.reconstruct import posing

    [drawn] = posing.meshes([person], poser, mode)
    vertices, faces, uvs, face_uvs, texture, normals = (
        tensor.cpu().numpy()
        for tensor in (
            *(drawn.vertices, drawn.faces, drawn.uvs, drawn.face_uvs),
            *(drawn.texture, drawn.normals),
        )
    )
    corner, place = _split(faces, face_uvs)
    material = PBRMaterial(
        baseColorTexture=Image.fromarray(texture), metallicFactor=0.0, roughnessFactor=1.0
    )
    mesh = trimesh.Trimesh(
        vertices=vertices[corner[:, 0]],
        faces=place,
        vertex_normals=normals[corner[:, 0]],
        visual=trimesh.visual.TextureVisuals(uv=uvs[corner[:, 1]], material=material),
        metadata={
            "pid": person.pid,
            "body": person.body,
            "licence": poser.body.passport.licence if poser else "that of the mesh",
            "digitalSourceType": SYNTHETIC,
            "fingerprint": person.fingerprint,
        },
        process=False,
    )
    return trimesh.Scene({"person": mesh}).export(file_type="glb", include_normals=True)


def _split(faces: np.ndarray, face_uvs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split vertices at the seams of the atlas: glTF has one texture coordinate per vertex.

    Returns:
        Old vertex and texture coordinate of every new vertex [N, 2], and new faces [F, 3].
    """
    pairs = np.stack([faces.reshape(-1), face_uvs.reshape(-1)], 1)
    corner, place = np.unique(pairs, axis=0, return_inverse=True)
    return corner, place.reshape(-1, 3)
