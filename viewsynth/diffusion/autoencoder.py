# SPDX-License-Identifier: Apache-2.0
"""Training of the small autoencoder, whose latents have a sixth as many values as the image.

It is trained on the images of the pairs (targets, source crops, renderings) before the UNet, and
is frozen afterwards. Only models with `--model.base small` train one; Stable Diffusion has its own.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from viewsynth.diffusion.latents import CHUNK
from viewsynth.diffusion.options import AutoencoderOptimization
from viewsynth.diffusion.pairs.stored import Pairs
from viewsynth.records import seed_of
from viewsynth.training import loop
from viewsynth.training.loop import Run
from viewsynth.training.rows import Draws, Plan, RowTask

SCALES = 3  # of the loss: full, half and quarter resolution
EDGES = 1.0  # weight of the differences between neighbouring pixels; values have 1
# Lightness, red-green, yellow-blue. Colours vary a third as much as lightness. With equal weights
# the best PSNR gave colours up for sharper edges: pink clothes were decoded beige.
CHROMA = 3.0
OPPONENT = ((1.0, 1.0, 1.0), (CHROMA, -CHROMA, 0.0), (CHROMA / 2, CHROMA / 2, -CHROMA))
UNIT = 0.01  # weight of the loss that pulls latents towards mean 0 and deviation 1
WINDOW = 2  # side of an image divided by the side of a training window
MEASURED = 2048  # pairs on which the scale of the latents is measured


def train(
    vae, pairs: Pairs, rows: list[int], settings: AutoencoderOptimization, seed: int, run: Run
):
    """Train an autoencoder to the last step, and scale its latents to deviation 1.

    Args:
        vae: `AutoencoderTiny`; its weights are changed.
        pairs: Training data.
        rows: Numbers of the pairs that are used.
        settings: Steps, learning rate, noise.
        seed: Seed of the run.
        run: See `loop.Run`; the model that `validate` gets is a `Coder`.

    Returns:
        The autoencoder to use; its config has the `scaling_factor`.
    """

    def name(row: int) -> str:
        return f"pair {rows[row]} ({pairs.rows[rows[row]]['pid']})"

    vae.requires_grad_(True)
    seed = seed_of(seed, "autoencoder")
    plan, losses = Plan(settings, len(rows), seed, name), Reconstruction(pairs, rows, settings)
    coder = loop.learn(Coder(vae), RowTask(plan, losses), run)
    vae = coder.vae.requires_grad_(False).eval()
    order = np.random.default_rng(seed_of(seed, "scale")).permutation(len(rows))
    set_scale(vae, pairs, [rows[k] for k in order[:MEASURED]])
    return vae


class Coder(nn.Module):
    """An autoencoder with noise on its latents, as a module that accelerate can wrap."""

    def __init__(self, vae):
        super().__init__()
        self.vae = vae

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Encode, add noise, decode.

        Args:
            images: float [N, 3, H, W] in [-1, 1].
            noise: Added to the latents.  [N, C, h, w]

        Returns:
            The decoded images, and the latents without noise.
        """
        latents = self.vae.encode(images).latents
        return self.vae.decode(latents + noise).sample, latents


class Reconstruction:
    """Reconstruction loss of the autoencoder, and the loss on the moments of its latents."""

    def __init__(self, pairs: Pairs, rows: list[int], settings: AutoencoderOptimization):
        self.pairs, self.rows, self.noise = pairs, rows, settings.noise

    def __call__(self, model: nn.Module, average, rows: np.ndarray, draws: Draws) -> dict:
        """See `rows.Losses`."""
        vae, pairs = average.vae, [self.rows[row] for row in rows.tolist()]
        x = self._windows(pairs, draws.uniform(4)).to(vae.device) * 2 - 1
        factor = 2 ** (len(vae.config.encoder_block_out_channels) - 1)
        grid = [side // factor for side in x.shape[-2:]]
        noise = self.noise * draws.normal(vae.config.latent_channels, *grid).to(vae.device)
        found, latents = model(x, noise)
        return {
            "picture": reconstruction_loss(found.float(), x),
            "unit": UNIT * moment_loss(latents.float()),
        }

    def _windows(self, pairs: list[int], draw: Tensor) -> Tensor:
        """A window of one image of each pair: targets twice as often as renderings and crops.

        A quarter of an image trains as well as all of it in a quarter of the time, because the
        receptive field of a latent is smaller than the window.

        Args:
            pairs: Numbers of the pairs.
            draw: Random numbers: which image, whether mirrored, position.  [B, 4] in [0, 1)
        """
        conditions, target, _ = self.pairs.batch(pairs)
        kinds = torch.stack(
            [target, target, conditions.render, conditions.source[conditions.person]]
        )
        size, cut = target.shape[-2:], [side // WINDOW for side in target.shape[-2:]]
        rows = []
        for row, (kind, flip, *at) in enumerate(draw.tolist()):
            image = kinds[int(kind * len(kinds)), row]
            top, left = (int(a * (side - c + 1)) for a, side, c in zip(at, size, cut, strict=True))
            window = image[:, top : top + cut[0], left : left + cut[1]]
            rows.append(window.flip(-1) if flip < 0.5 else window)
        return torch.stack(rows)


def images(pairs: Pairs, rows: list[int]) -> Tensor:
    """Targets, renderings and source crops of some pairs.  float [N, 3, H, W] in [-1, 1]."""
    conditions, target, _ = pairs.batch(rows)
    return torch.cat([target, conditions.render, conditions.source]) * 2 - 1


def reconstruction_loss(one: Tensor, other: Tensor) -> Tensor:
    """Mean absolute difference of opponent colours, values and gradients, at several scales.

    Source: gradients: Mathieu et al., ICLR 2016 (arXiv 1511.05440), eq. 6 with alpha 1; colours and
    scales are ours.

    Args:
        one: RGB.  [N, 3, H, W]
        other: RGB.  [N, 3, H, W]
    """
    total, (one, other) = 0.0, (opponent(x) for x in (one, other))
    for scale in range(SCALES):
        if scale:
            one, other = (functional.avg_pool2d(x, 2) for x in (one, other))
        total = total + functional.l1_loss(one, other)
        for axis in (-2, -1):
            total = total + EDGES * functional.l1_loss(one.diff(dim=axis), other.diff(dim=axis))
    return total / SCALES


def opponent(images: Tensor) -> Tensor:
    """Opponent colours of RGB images, see `OPPONENT`.  [N, 3, H, W] -> [N, 3, H, W]."""
    return torch.einsum("oc,nchw->nohw", images.new_tensor(OPPONENT), images)


def moment_loss(latents: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the channels from mean 0 and deviation 1, times two."""
    mean, variance = latents.mean((0, 2, 3)), latents.var((0, 2, 3))
    return (mean.square() + variance - 1 - (variance + 1e-6).log()).mean()


@torch.no_grad()
def set_scale(vae, pairs: Pairs, rows: list[int]) -> None:
    """Set the `scaling_factor` in the config with which the latents have deviation 1.

    Source: Rombach et al., CVPR 2022 (arXiv 2112.10752), app. G.
    """
    squares = count = 0.0
    for start in range(0, len(rows), CHUNK):
        some = rows[start : start + CHUNK]
        latents = vae.encode(images(pairs, some).to(vae.device)).latents.float()
        squares, count = squares + float(latents.square().sum()), count + latents.numel()
    vae.register_to_config(scaling_factor=round((squares / count) ** -0.5, 4))


@torch.no_grad()
def quality(vae, pairs: Pairs, rows: list[int]) -> tuple[float, float]:
    """Quality of decoded targets, renderings and source crops.

    Returns:
        PSNR in dB, mean over the images; share of the colour contrast that is kept (1 = all).
    """
    found, colours = [], np.zeros(2)
    for start in range(0, len(rows), CHUNK):
        some = rows[start : start + CHUNK]
        x = images(pairs, some).to(vae.device)
        again = vae.decode(vae.encode(x).latents).sample.float().clamp(-1, 1)
        error = ((again - x) / 2).square().flatten(1).mean(1)
        found += (-10 * error.clamp(min=1e-10).log10()).tolist()
        true, made = (opponent(one)[:, 1:].flatten(1) for one in (x, again))
        colours += float((true * made).sum()), float(true.square().sum())
    return float(np.mean(found)), float(colours[0] / max(colours[1], 1e-6))
