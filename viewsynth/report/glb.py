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
        poser: See `viewsynth.reconstruct.posing.Poser`.
        mode: Pose, see `viewsynth.reconstruct.posing.posed`.

    Returns:
        Content of the file; equal people give equal bytes.
    """
    import trimesh
    from trimesh.visual.material import PBRMaterial

    from viewsynth.reconstruct.posing import posed
    from viewsynth.render.shade import vertex_normals

    body = poser.body
    vertices = posed([person], poser, mode)
    normals = vertex_normals(vertices, body.faces)[0].cpu().numpy()
    corner, place = _split(body.faces.cpu().numpy(), body.face_uvs.cpu().numpy())
    material = PBRMaterial(
        baseColorTexture=Image.fromarray(person.texture), metallicFactor=0.0, roughnessFactor=1.0
    )
    mesh = trimesh.Trimesh(
        vertices=vertices[0].cpu().numpy()[corner[:, 0]],
        faces=place,
        vertex_normals=normals[corner[:, 0]],
        visual=trimesh.visual.TextureVisuals(
            uv=body.uvs.cpu().numpy()[corner[:, 1]], material=material
        ),
        metadata={
            "pid": person.pid,
            "body": person.body,
            "licence": body.licence,
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
