# SPDX-License-Identifier: Apache-2.0
"""Stored completion examples of drawn figures, without rendering or fitting."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from viewsynth.completion import stored
from viewsynth.reconstruct.canvas import HEAD, LEGS, SIZE, TORSO
from viewsynth.runtime.files import write


def folder(root: Path, people: int = 6, images: int = 2) -> Path:
    """Write examples: an ellipse of a colour of its own, whose back is darker than its front."""
    arrays, rows = {}, []
    down, across = (np.indices(SIZE) + 0.5 - np.reshape(SIZE, (2, 1, 1)) / 2) / [[[80]], [[30]]]
    for number in range(people):
        for index in range(images):
            rng = np.random.default_rng((number, index))
            room = np.sqrt(np.maximum(1 - down**2 - across**2, 0)).astype(np.float32)
            person = room > 0
            colour = np.where(person[..., None], rng.uniform(60, 220, 3), 0)
            image = np.where(person[..., None], colour, 128) + rng.normal(0, 6, (*SIZE, 3))
            kind = np.where(person, 4 + number % 3, 0)
            one = {
                "image": image.clip(0, 255).astype(np.uint8),
                "mask": (255 * person).astype(np.uint8),
                "inside": np.full(SIZE, 255, np.uint8),
                "body": np.stack([0.01 * across, 0.1 * room]).astype(np.float16),
                "parts": (person * np.select([down < -0.5, down < 0], [HEAD, TORSO], LEGS)).astype(
                    np.uint8
                ),
                "sheets": np.stack([0 * room + 0.02 * person, 0.15 * room]).astype(np.float16),
                "colour": np.stack([colour, 0.5 * colour]).astype(np.uint8),
                "kind": np.stack([kind, kind]).astype(np.uint8),
            }
            for name, value in one.items():
                arrays.setdefault(name, []).append(value)
            rows.append(
                {
                    "pid": f"{number:04d}",
                    "name": f"{number}/{index}",
                    "motion": "cycle" if number == 0 else "walk",
                    "angles": [10.0, float(rng.uniform(0, 360))],
                    "fitted": [8.0, float(rng.uniform(0, 360))],
                    "detail": 1.2,
                    "overlap": 1.0,
                    "shard": "all",
                    "place": len(rows),
                }
            )
    data = stored.shard(arrays)
    write(root / stored.SHARDS / "all.safetensors", data)
    stored.finish(root, {}, rows, {"all": (len(data), hashlib.sha256(data).hexdigest())})
    return root
