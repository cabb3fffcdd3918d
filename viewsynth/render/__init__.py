# SPDX-License-Identifier: Apache-2.0
"""Render: posed, textured meshes and cameras in, per-pixel geometry and colour out.

A backend is one file of this folder with a function `rasterize`; `load` finds it by name:
`zbuffer` (ours, pure torch, the default) and `pytorch3d` (for those who have built it).
`shade` turns what a backend returns into normals, uv, colour and seen, the same for all backends.
"""
