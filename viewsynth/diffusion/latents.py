# SPDX-License-Identifier: Apache-2.0
"""Training data of the UNet: encoded pairs, and the split into training and validation people."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import torch
from torch import Tensor

from viewsynth.diffusion.conditions import Conditions
from viewsynth.diffusion.networks import to_grid
from viewsynth.diffusion.pairs.stored import Pairs
from viewsynth.diffusion.pipeline import Encoded, ViewDiffusionPipeline
from viewsynth.records import seed_of

CHUNK = 64  # pairs that are encoded at once


def held_out(pairs: Pairs, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Split the training pairs into those to train on and those of held-out people.

    Args:
        pairs: All pairs.
        share: Share of the people to hold out, [0, 1); 0 = none.
        seed: Seed of the run; decides which people.

    Returns:
        Numbers of the pairs to train on, and of the held-out ones.

    Raises:
        ValueError: If no pair would be left to train on.
    """
    own = [k for k, row in enumerate(pairs.rows) if row["split"] == "train"]
    if not own:
        raise ValueError(
            f"data.pairs: none of {len(pairs)} pairs is of the split train; pairs of test people "
            "are for evaluation only"
        )
    pids = sorted({pairs.rows[k]["pid"] for k in own}, key=lambda p: seed_of(seed, "held out", p))
    count = max(round(share * len(pids)), 1) if share else 0
    if len(pids) <= count:
        raise ValueError(
            f"data.validation: {count} of {len(pids)} training people would be held out, which "
            "leaves nobody to train on; give more people or --data.validation 0"
        )
    kept = set(pids[:count])
    held = [k for k in own if pairs.rows[k]["pid"] in kept]
    return [k for k in own if pairs.rows[k]["pid"] not in kept], held


class Latents:
    """Encoded pairs in half precision: the training data of the UNet.

    Row k < N is pair `rows[k]`. With `mirror`, row N + k is the same pair mirrored left to right,
    with the sign of the azimuth changed.

    Args:
        pipeline: Its autoencoder and identity encoder encode the pairs.
        pairs: All pairs.
        rows: Numbers of the pairs to encode.
        mirror: Whether mirrored pairs are added.
    """

    def __init__(
        self, pipeline: ViewDiffusionPipeline, pairs: Pairs, rows: list[int], mirror: bool = True
    ):
        self.pairs, self.rows = pairs, rows
        found, targets, masks = [], [], []
        for flip in (False, True)[: 1 + mirror]:
            for start in range(0, len(rows), CHUNK):
                conditions, target, mask = pairs.batch(rows[start : start + CHUNK])
                mask = torch.ones_like(target[:, :1]) if mask is None else mask
                if flip:
                    conditions, target, mask = mirrored(conditions, target, mask)
                found.append(_half(pipeline.encode(conditions)))
                targets.append(pipeline.to_latents(target).half())
                masks.append(to_grid(mask, tuple(targets[-1].shape[-2:])).to(targets[-1]))
        # Autocast does not support float16 on a CPU.
        with torch.autocast(targets[0].device.type, enabled=False):
            self.encoded, self.target, self.mask = (
                _joined(found),
                torch.cat(targets),
                torch.cat(masks),
            )
        exact = [pairs.rows[row]["kind"] == "exact" for row in rows]
        self.exact = torch.tensor(exact * (1 + mirror), device=self.target.device)

    def __len__(self) -> int:
        return len(self.target)

    def name(self, row: int) -> str:
        """Name of a row in messages."""
        number = self.rows[row % len(self.rows)]
        pair = self.pairs.rows[number]
        return f"pair {number} ({pair['pid']}, {pair['kind']}, {pair['elevation']:.0f} degrees)"

    def shares(self, rows: np.ndarray, background: float) -> Tensor:
        """Weight of each latent in the loss, with mean 1 in a row.

        Args:
            rows: Numbers of the rows.
            background: Weight of latents outside the person, relative to those of the person.

        Returns:
            float32 [B, 1, h, w].
        """
        mask = self.mask[torch.from_numpy(rows).to(self.mask.device)].float()
        weight = background + (1 - background) * mask
        return weight / weight.mean((1, 2, 3), keepdim=True)

    def take(self, rows: np.ndarray) -> tuple[Encoded, Tensor, Tensor]:
        """Conditions, latents of the targets [B, C, h, w], and whether each pair is exact [B]."""
        at = torch.from_numpy(rows).to(self.target.device)
        some, photos = self.encoded.take(at), self.encoded.person[at]
        names = ("render", "seen", "normals")
        encoded = replace(
            some,
            source=some.source[photos].float(),
            identity=some.identity[photos].float(),
            person=torch.arange(len(at), device=at.device),
            **{name: getattr(some, name).float() for name in names},
        )
        return encoded, self.target[at].float(), self.exact[at]


def mirrored(
    conditions: Conditions, target: Tensor, mask: Tensor
) -> tuple[Conditions, Tensor, Tensor]:
    """Mirror pairs left to right."""
    normals = conditions.normals.flip(-1) * conditions.normals.new_tensor([-1, 1, 1])[:, None, None]
    camera = conditions.camera.clone()
    camera[:, 2] *= -1
    flipped = {name: getattr(conditions, name).flip(-1) for name in ("source", "render", "seen")}
    conditions = replace(conditions, **flipped, normals=normals, camera=camera)
    return conditions, target.flip(-1), mask.flip(-1)


def _half(encoded: Encoded) -> Encoded:
    names = ("source", "identity", "render", "seen", "normals")
    return replace(encoded, **{name: getattr(encoded, name).half() for name in names})


def _joined(parts: list[Encoded]) -> Encoded:
    """Concatenate encoded batches; each pair keeps its source crops."""
    before = np.cumsum([0] + [len(part.source) for part in parts])[:-1].tolist()
    parts = [replace(part, person=part.person + n) for part, n in zip(parts, before, strict=True)]
    return Encoded(
        **{f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Encoded)}
    )
