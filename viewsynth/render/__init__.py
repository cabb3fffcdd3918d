# SPDX-License-Identifier: Apache-2.0
"""Render: textured meshes and cameras in, per-pixel geometry and colour out.

- `views`: aerial views of people, from shots to images (`render_views`).
- `scene`: ground, light and shadow around the person.
- `sensor`: blur, noise and JPEG of the virtual camera.
- `foreground`: the person alone, without ground and sensor model.
- `meshes`: what is drawn, surfaces of any topology with textures of any size (`Mesh`).
- `shade`: what a rasterizer backend returns -> normals, uv, colour and seen map.

A rasterizer backend is one file of this folder with a function `rasterize`, found by its module
name: `zbuffer` (pure torch, the default) and `pytorch3d` (needs a build of pytorch3d).
"""

from __future__ import annotations

from viewsynth.runtime.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "meshes": ["Mesh"],
        "options": ["Sensor"],
        "shade": ["Buffers", "backends", "render"],
        "views": ["Shot", "render_views"],
        "zbuffer": ["rasterize"],
    },
)
