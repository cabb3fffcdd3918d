# SPDX-License-Identifier: Apache-2.0
"""Images of one colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def put(folder: Path, image: np.ndarray, name: str = "a.png") -> Path:
    """Write an image; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(folder / name)
    return folder / name


def flat(*colour: int) -> np.ndarray:
    """An image of one colour."""
    return np.full((40, 20, 3), colour, np.uint8)
