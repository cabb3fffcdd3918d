# SPDX-License-Identifier: Apache-2.0
"""The small autoencoder: pictures to latents a sixth of their numbers, and back.

It is trained on the pictures of the pairs (targets, photos, renderings) before the UNet is, and
stays as it is then. Only the bundled class has its own; Stable Diffusion brings one.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from viewsynth.diffusion.options import AutoencoderOptimization
from viewsynth.diffusion.pairs.stored import Pairs
from viewsynth.diffusion.training import CHUNK
from viewsynth.records import seed_of
from viewsynth.training import loop
from viewsynth.training.loop import Run
from viewsynth.training.rows import Draws, Plan, RowTask

SCALES = 3  # of the loss: the picture, its half, its quarter
EDGES = 1.0  # weight of the differences between neighbours beside that of the values
# Light, red against green, yellow against blue. Colours vary a third as much as light and would be
# given up for sharper edges, at the best PSNR: pink clothes came back beige.
CHROMA = 3.0
OPPONENT = ((1.0, 1.0, 1.0), (CHROMA, -CHROMA, 0.0), (CHROMA / 2, CHROMA / 2, -CHROMA))
UNIT = 0.01  # weight of the pull of the latents towards mean 0 and deviation 1
WINDOW = 2  # sides of a picture are this many times those of what is learnt from
MEASURED = 2048  # pairs that the scale of the latents is measured on


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
    plan, losses = Plan(settings, len(rows), seed, name), Rebuilding(pairs, rows, settings)
    coder = loop.learn(Coder(vae), RowTask(plan, losses), run)
    vae = coder.vae.requires_grad_(False).eval()
    order = np.random.default_rng(seed_of(seed, "scale")).permutation(len(rows))
    set_scale(vae, pairs, [rows[k] for k in order[:MEASURED]])
    return vae


class Coder(nn.Module):
    """An autoencoder with noise on its latents, in a form that a launcher can wrap."""

    def __init__(self, vae):
        super().__init__()
        self.vae = vae

    def forward(self, pictures: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures again, and their latents  [N, C, h, w].

        Args:
            pictures: float [N, 3, H, W] in [-1, 1].
            noise: On the latents.  [N, C, h, w]
        """
        latents = self.vae.encode(pictures).latents
        return self.vae.decode(latents + noise).sample, latents


class Rebuilding:
    """How far pictures are from what is decoded."""

    def __init__(self, pairs: Pairs, rows: list[int], settings: AutoencoderOptimization):
        self.pairs, self.rows, self.noise = pairs, rows, settings.noise

    def __call__(self, model: nn.Module, average, rows: np.ndarray, draws: Draws) -> dict:
        """See `rows.Losses`."""
        vae, pairs = average.vae, [self.rows[row] for row in rows.tolist()]
        x = self._pictures(pairs, draws.uniform(4)).to(vae.device) * 2 - 1
        factor = 2 ** (len(vae.config.encoder_block_out_channels) - 1)
        grid = [side // factor for side in x.shape[-2:]]
        noise = self.noise * draws.normal(vae.config.latent_channels, *grid).to(vae.device)
        found, latents = model(x, noise)
        return {"picture": apart(found.float(), x), "unit": UNIT * unit(latents.float())}

    def _pictures(self, pairs: list[int], draw: Tensor) -> Tensor:
        """A window of one picture of each pair: targets twice as often as renderings and photos.

        A quarter of the pixels of a picture teaches as much as all of them, at a quarter of the
        time: no latent sees further.

        Args:
            draw: Which picture, whether mirrored, and where.  [B, 4] in [0, 1)
        """
        conditions, target, _ = self.pairs.batch(pairs)
        kinds = torch.stack(
            [target, target, conditions.render, conditions.source[conditions.person]]
        )
        size, cut = target.shape[-2:], [side // WINDOW for side in target.shape[-2:]]
        rows = []
        for row, (kind, flip, *at) in enumerate(draw.tolist()):
            picture = kinds[int(kind * len(kinds)), row]
            top, left = (int(a * (side - c + 1)) for a, side, c in zip(at, size, cut, strict=True))
            window = picture[:, top : top + cut[0], left : left + cut[1]]
            rows.append(window.flip(-1) if flip < 0.5 else window)
        return torch.stack(rows)


def pictures(pairs: Pairs, rows: list[int]) -> Tensor:
    """Targets, renderings and photos of some pairs, each once.  float [N, 3, H, W] in [-1, 1]"""
    conditions, target, _ = pairs.batch(rows)
    return torch.cat([target, conditions.render, conditions.source]) * 2 - 1


def apart(one: Tensor, other: Tensor) -> Tensor:
    """Absolute differences of light and colours, values and edges, at several scales.

    Source: the edges: Mathieu et al., ICLR 2016 (arXiv 1511.05440), eq. 6 with alpha 1; the colours
    and scales are ours.

    Args:
        one, other: RGB.  [N, 3, H, W]
    """
    total, (one, other) = 0.0, (opponent(x) for x in (one, other))
    for scale in range(SCALES):
        if scale:
            one, other = (functional.avg_pool2d(x, 2) for x in (one, other))
        total = total + functional.l1_loss(one, other)
        for axis in (-2, -1):
            total = total + EDGES * functional.l1_loss(one.diff(dim=axis), other.diff(dim=axis))
    return total / SCALES


def opponent(pictures: Tensor) -> Tensor:
    """Planes of `OPPONENT`.  RGB [N, 3, H, W] -> [N, 3, H, W]"""
    return torch.einsum("oc,nchw->nohw", pictures.new_tensor(OPPONENT), pictures)


def unit(latents: Tensor) -> Tensor:
    """How far the channels are from mean 0 and deviation 1."""
    mean, variance = latents.mean((0, 2, 3)), latents.var((0, 2, 3))
    return (mean.square() + variance - 1 - (variance + 1e-6).log()).mean()


@torch.no_grad()
def set_scale(vae, pairs: Pairs, rows: list[int]) -> None:
    """Write the factor that gives the latents deviation 1 into the config.

    Source: Rombach et al., CVPR 2022 (arXiv 2112.10752), app. G.
    """
    squares = count = 0.0
    for start in range(0, len(rows), CHUNK):
        some = rows[start : start + CHUNK]
        latents = vae.encode(pictures(pairs, some).to(vae.device)).latents.float()
        squares, count = squares + float(latents.square().sum()), count + latents.numel()
    vae.register_to_config(scaling_factor=round((squares / count) ** -0.5, 4))


@torch.no_grad()
def quality(vae, pairs: Pairs, rows: list[int]) -> tuple[float, float]:
    """PSNR of decoded targets, renderings and photos, dB, mean over the pictures; and what share of
    the strength of their colours comes back.
    """
    found, colours = [], np.zeros(2)
    for start in range(0, len(rows), CHUNK):
        some = rows[start : start + CHUNK]
        x = pictures(pairs, some).to(vae.device)
        again = vae.decode(vae.encode(x).latents).sample.float().clamp(-1, 1)
        error = ((again - x) / 2).square().flatten(1).mean(1)
        found += (-10 * error.clamp(min=1e-10).log10()).tolist()
        true, made = (opponent(one)[:, 1:].flatten(1) for one in (x, again))
        colours += float((true * made).sum()), float(true.square().sum())
    return float(np.mean(found)), float(colours[0] / max(colours[1], 1e-6))
