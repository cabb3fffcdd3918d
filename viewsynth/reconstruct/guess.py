# SPDX-License-Identifier: Apache-2.0
"""Guesses: what completion says of the crops, where the surface and its charts can use it.

canvas, complete -> this module -> surface (thickness), charts (colours of what no crop sees).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from viewsynth.bodies import PARTS, Body
from viewsynth.metrics.colours import linear, srgb
from viewsynth.reconstruct.canonical import Canonical
from viewsynth.reconstruct.canvas import METRE, SIZE, Canvas, resampled, tensors
from viewsynth.reconstruct.complete import KINDS, UNIT, Completer, Completion, stack

LOOSE = [KINDS.index(name) for name in ("skirt", "coat")]  # kinds that go around both legs
NEARBY = 0.05  # metres that a sheet may be further from the body than on the canvas
DARK = 0.01  # linear light that is added before logarithms
MOST = np.log(3.0)  # largest change to the tone of a crop
# Certainty of a colour: log odds, and how they fall with its expected error, so that it is the
# probability of an error below 10 (CIEDE2000) on the people whom training held out.
ODDS, SLOPE = -0.39, 2.57
TYPICAL = -1.0  # stops over neutral light, mean over 2,031 ground crops of the world
LEAST = 10  # pixels from which a kind has a light of its own


@dataclass(frozen=True)
class Guess:
    """What completion says of one crop, on its canvas.

    Args:
        box: See `Canvas.box`.
        maps: Depth of the middle between the sheets of the clothed trunk, as of `Fit.project`; half
            their distance; distance from the drawn trunk; metres; and how sure the first two are,
            1 / metre of expected error, 0 where rules are to be used.  float32 [4, H, W]
        anchors: Canonical position of the nearest point of the drawn trunk, of its nearest and its
            farthest surface.  float32 [2, 3, H, W]
        colours: Of front and back in even light, RGB in [0, 255].  float32 [2, H, W, 3]
        certainty: Of the colours of the back, in (0, 1), see `ODDS`.  float32 [H, W]
        kinds: Of front and back, see `KINDS`.  uint8 [2, H, W]
        mask: Person probability.  float32 [H, W]
        exposure: How much brighter the crop's light is than that of a typical crop, stops.
    """

    box: np.ndarray
    maps: np.ndarray
    anchors: np.ndarray
    colours: np.ndarray
    certainty: np.ndarray
    kinds: np.ndarray
    mask: np.ndarray
    exposure: float

    def places(self, pixels: Tensor) -> Tensor:
        """Canvas pixels of crop pixels, [M, 2]."""
        low, high = (torch.from_numpy(side).to(pixels) for side in (self.box[:2], self.box[2:]))
        return (pixels - low) / (high - low) * torch.tensor(SIZE[::-1]).to(pixels)

    def distance(
        self, canonical: np.ndarray, pixels: Tensor, depth: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Signed distances of points of the trunk from the sheets.

        Args:
            canonical: The points in the canonical pose.  float32 [M, 3]
            pixels: The same points in the crop.  float32 [M, 2]
            depth: Their depth, metres.  float32 [M]

        Returns:
            Metres, inside negative, and how sure they are; 0 = rules are to be used.  [M] each
        """
        at = self.places(pixels).cpu().numpy().T[::-1] - 0.5
        last = np.subtract(SIZE, 1)[:, None]
        beside = ((at < 0) | (at > last)).any(0)  # of the canvas
        at = np.clip(at, 0, last)
        middle, half, beyond = (
            ndimage.map_coordinates(one, at, order=1, mode="nearest") for one in self.maps[:3]
        )
        rows, columns = at.round().astype(int)
        near = self.anchors[:, :, rows, columns]
        away = np.linalg.norm(canonical.T - near, axis=1).min(0)
        sheets = np.maximum(np.abs(depth - middle) - half, away - (1.25 * beyond + half + NEARBY))
        return sheets, np.where(beside, 0, self.maps[3, rows, columns])

    def toned(self, image: np.ndarray) -> np.ndarray:
        """The colours of the back in the tone of a crop.

        What the crop shows of a kind, compared with the guess of the front, tells the change: the
        guesses are in the light that the crop had, and errors of both are alike.

        Args:
            image: The crop in the tone in which it is used, RGB in [0, 255].  [h, w, 3]

        Returns:
            RGB in [0, 255], float32 [H, W, 3].
        """
        shown = resampled(image.clip(0, 255).round().astype(np.uint8), self.box, "edge")
        front, back = (np.log(linear(one) + DARK) for one in self.colours)
        change = np.log(linear(shown) + DARK) - front
        seen = (self.mask > 0.7) & (self.kinds[0] > 0)
        if not seen.any():
            return self.colours[1]
        gains = np.tile(np.median(change[seen], axis=0), (len(KINDS), 1))
        for kind in range(1, len(KINDS)):
            here = seen & (self.kinds[0] == kind)
            if here.sum() > LEAST:
                gains[kind] = np.median(change[here], axis=0)
        light = np.exp(back + np.clip(gains, -MOST, MOST)[self.kinds[1]]) - DARK
        return srgb(light).astype(np.float32)


@torch.no_grad()
def guesses(
    model: Completer, body: Body, canonical: Canonical, canvases: Sequence[Canvas]
) -> list[Guess]:
    """Run completion on crops.

    Args:
        model: The network.
        body: The body.
        canonical: Its canonical pose.
        canvases: Of the crops.
    """
    device = next(model.parameters()).device
    found = model(stack({k: v.to(device) for k, v in tensors(canvases).items()}))
    return [_guess(body, canonical, one, found, k) for k, one in enumerate(canvases)]


def _guess(body: Body, canonical: Canonical, one: Canvas, found: Completion, k: int) -> Guess:
    """The guess of one crop."""
    kinds = found.kind[k].argmax(1).byte().cpu().numpy()
    drawn = one.faces[0] >= 0
    if drawn.any():
        away, nearest = ndimage.distance_transform_edt(~drawn, return_indices=True)
    else:
        away, nearest = np.full(SIZE, np.inf), np.indices(SIZE)
    faces = np.maximum(one.faces, 0)[:, nearest[0], nearest[1]]
    corners = canonical.vertices.cpu().numpy()[body.faces.cpu().numpy()[faces]]
    limb = _legs(body)[faces]
    apart = (limb[0] != limb[1]) & (limb > 0).all(0)  # one part of a leg before another
    used = ~apart | np.isin(kinds, LOOSE).any(0)
    used &= one.inside > 0.5  # no outline cuts what lies beyond the crop
    sure = used * np.exp(-found.depth_scale[k].cpu().numpy()) / UNIT
    maps = [one.middle + found.middle[k].cpu().numpy(), found.half[k].cpu().numpy(), away / METRE]
    return Guess(
        box=one.box,
        maps=np.stack([*maps, sure]).astype(np.float32),
        anchors=corners.mean(3).transpose(0, 3, 1, 2),
        colours=255 * found.colour[k].movedim(1, -1).cpu().numpy(),
        certainty=torch.sigmoid(ODDS - found.colour_scale[k, 1] * SLOPE).cpu().numpy(),
        kinds=kinds,
        mask=one.mask,
        exposure=float(found.light[k].mean()) / np.log(2) - TYPICAL,
    )


def _legs(body: Body) -> np.ndarray:
    """Of every face the part of a leg, counted from 1, 0 elsewhere, [F]."""
    legs = ("thigh", "shank", "foot")
    number = np.array([name.endswith(legs) * (1 + k) for k, name in enumerate(PARTS)])
    return number[body.parts.cpu().numpy()[body.faces[:, 0].cpu().numpy()]]
