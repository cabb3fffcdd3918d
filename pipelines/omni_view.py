# SPDX-License-Identifier: Apache-2.0
"""Reconstruct people and show them from all sides: a sheet of views and a GLB file per person.

python pipelines/omni_view.py [preset.yaml] [--data.root DIR] [the options of generate.py]

Runs `generate` with a dense grid of cameras, then `export body` and `export sheet`. Without
--data.root, `generate` renders a few people of its own demo.
"""

from __future__ import annotations

import dataclasses
import sys

from viewsynth import config
from viewsynth.commands import export, generate, piped

ELEVATIONS = (0.0, 15.0, 30.0, 45.0, 60.0, 75.0, 90.0)
AZIMUTHS = (0.0, 45.0, 90.0, 135.0, 180.0, 225.0, 270.0, 315.0)


def main(argv: list[str] | None = None) -> int:
    """Run the pipeline; returns the exit status of the first command that fails, else 0."""
    asked = config.parse(generate.Config, argv, "omni_view.py")
    views = asked.views
    if views.sample is None:
        grid = {
            "elevations": views.elevations or ELEVATIONS,
            "azimuths": views.azimuths or AZIMUTHS,
        }
        views = dataclasses.replace(views, **grid)
    asked = dataclasses.replace(asked, views=views)
    if status := generate.run(asked):
        return status
    for kind in ("body", "sheet"):
        if status := export.run(export.Config(kind, asked.folder)):
            return status
    sys.stderr.write(f"look at {asked.folder / 'export'}: sheet/*.png and body/*.glb\n")
    return 0


if __name__ == "__main__":
    with piped():
        sys.exit(main())
