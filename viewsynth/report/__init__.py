# SPDX-License-Identifier: Apache-2.0
"""Report: images and pages to look at.

- `sheet`: contact sheets and the page of a run.
- `preview`: grids of a diffusion model in training.
- `glb`: a person as a GLB file.
"""

from __future__ import annotations

from viewsynth.runtime.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "sheet": ["Tile", "draw", "write_report"],
    },
)
