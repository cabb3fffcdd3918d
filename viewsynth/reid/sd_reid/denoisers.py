# SPDX-License-Identifier: Apache-2.0
"""Denoisers: what tells the noise in a latent. A UNet with Stable Diffusion's weights, a small one
from scratch, or an MLP.

All are called alike: `denoiser(latents, times, context, down, up)`, with the tokens of
`conditions.Fusion` and the maps of `conditions.Pyramid`.
"""

from __future__ import annotations

import hashlib
from contextvars import ContextVar
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from viewsynth.reid.sd_reid.conditions import Level
from viewsynth.reid.sd_reid.latents import CHANNELS, Grid
from viewsynth.runtime import hub
from viewsynth.runtime.files import sha256

SMALL, MLP = "small", "mlp"
SMALL_CONFIG = {
    "in_channels": CHANNELS,
    "out_channels": CHANNELS,
    "block_out_channels": [32, 64, 64],
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    "layers_per_block": 1,
    "attention_head_dim": 8,
    "norm_num_groups": 8,
}
LEARNS = (".attn2.to_k.", ".attn2.to_v.")  # of the decoder, where the weights are others'
FILES = ["unet/config.json"] + [
    f"unet/diffusion_pytorch_model{end}.safetensors" for end in ("", "-0*")
]
# Maps for the decoder of the UNet that runs now. Not in the module: several threads may call one.
UP: ContextVar[tuple[Tensor, ...]] = ContextVar("up", default=())


class UNet(nn.Module):
    """A UNet of diffusers with maps of the view added to its cross-attention blocks.

    Source: SD-ReID, sections 2.2 and 2.3 of its release: maps are added at the end of each
    encoder's block, before it is halved (as T2I-Adapter does), and after the last attention of each
    decoder's block. With weights of Stable Diffusion only the keys and values of the decoder's
    cross-attention learn.

    Args:
        unet: A `UNet2DConditionModel`.
        frozen: Whether its weights are others'.
    """

    base = ""  # SHA-256 of the weights that it began with, where they are others'

    def __init__(self, unet: nn.Module, frozen: bool):
        super().__init__()
        self.unet, self.frozen = unet, frozen
        if frozen:
            for name, parameter in unet.named_parameters():
                inside = name.startswith("up_blocks.") and any(part in name for part in LEARNS)
                parameter.requires_grad_(inside)
            unet.enable_gradient_checkpointing()
        for number, block in enumerate(filter(_crossed, unet.up_blocks)):
            block.attentions[-1].register_forward_hook(partial(_add, number))

    @property
    def context(self) -> int:
        """Width of the tokens that it attends to."""
        return self.unet.config.cross_attention_dim

    def levels(self) -> tuple[list[Level], list[Level]]:
        """Blocks that take a map, on the way down and on the way up."""
        config = self.unet.config
        widths, count = config.block_out_channels, len(config.block_out_channels)
        down = [
            Level(widths[n], 2**n)
            for n, block in enumerate(self.unet.down_blocks)
            if _crossed(block)
        ]
        up = [
            Level(widths[::-1][n], 2 ** (count - 1 - n))
            for n, block in enumerate(self.unet.up_blocks)
            if _crossed(block)
        ]
        return down, up

    def forward(
        self, latents: Tensor, times: Tensor, context: Tensor, down: list[Tensor], up: list[Tensor]
    ) -> Tensor:
        """The noise in latents.

        Args:
            latents: [B, 4, h, w]
            times: int64 [B]
            context: [B, T, C]
            down, up: Maps, or empty lists.
        """
        told = UP.set(tuple(up))
        try:
            return self.unet(
                latents,
                times,
                context,
                return_dict=False,
                down_intrablock_additional_residuals=list(down) or None,
            )[0]
        finally:
            UP.reset(told)


def _add(number: int, module: nn.Module, given: tuple, out: tuple) -> tuple:
    """Add a map to what the last attention of a decoder's block gives."""
    maps = UP.get()
    return (out[0] + maps[number], *out[1:]) if maps else out


def _crossed(block: nn.Module) -> bool:
    return getattr(block, "has_cross_attention", False)


class Perceptron(nn.Module):
    """An MLP instead of a UNet: what is to be denoised, the time, and all tokens; it takes no maps.

    Source: DiffReID's finding that an MLP denoises features for a fraction of the cost; blocks as
    in Li et al., MAR, NeurIPS 2024 (arXiv 2406.11838), section 3: the condition scales and shifts.

    Args:
        grid: Of the latents.
        tokens: How many there are.
        width: Of its layers.
        depth: Blocks.
    """

    frozen, base = False, ""

    def __init__(self, grid: Grid, tokens: int, width: int = 512, depth: int = 4):
        super().__init__()
        self.context = grid.width
        self.enter, self.leave = nn.Linear(grid.numbers, width), nn.Linear(width, grid.numbers)
        self.time = nn.Sequential(nn.Linear(TIMES, width), nn.SiLU(), nn.Linear(width, width))
        self.told = nn.Linear(tokens * self.context, width)
        self.scales = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(depth))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(depth)
        )
        for layer in (*self.scales, self.leave):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def levels(self) -> tuple[list[Level], list[Level]]:
        """No maps."""
        return [], []

    def forward(
        self, latents: Tensor, times: Tensor, context: Tensor, down: list[Tensor], up: list[Tensor]
    ) -> Tensor:
        """As `UNet.forward`."""
        state = self.enter(latents.flatten(1))
        told = self.time(_waves(times).to(state.dtype)) + self.told(context.flatten(1))
        told = nn.functional.silu(told)
        for scales, norm, layer in zip(self.scales, self.norms, self.layers, strict=True):
            scale, shift, gate = scales(told).chunk(3, 1)
            state = state + gate * layer(norm(state) * (1 + scale) + shift)
        return self.leave(state).view_as(latents)


TIMES = 128  # waves that tell the time


def _waves(times: Tensor) -> Tensor:
    """Sines and cosines of a time.  int64 [B] -> float32 [B, TIMES]"""
    half = TIMES // 2
    rates = torch.exp(-torch.arange(half, device=times.device) * (9.21 / half))  # 1 to 1e-4
    angles = times[:, None].float() * rates
    return torch.cat([angles.sin(), angles.cos()], 1)


def build(name: str, grid: Grid, tokens: int) -> nn.Module:
    """A denoiser by name.

    Args:
        name: "small": a UNet from scratch; "mlp"; or a folder or hub id with the UNet of Stable
            Diffusion 1.5 in unet/.
        grid: Of the latents.
        tokens: Of the condition.
    Raises: FileNotFoundError, ValueError: as `hub.component`, and if it denoises something else.
    """
    if name == MLP:
        return Perceptron(grid, tokens)
    from diffusers import UNet2DConditionModel

    if name == SMALL:
        return UNet(UNet2DConditionModel(**SMALL_CONFIG, cross_attention_dim=grid.width), False)
    folder = hub.folder_of(name, FILES)
    unet = hub.component(UNet2DConditionModel, folder, "unet")
    if (unet.config.in_channels, unet.config.out_channels) != (CHANNELS, CHANNELS):
        raise ValueError(
            f"denoiser: the UNet of {name} takes {unet.config.in_channels} channels and gives "
            f"{unet.config.out_channels}; expected {CHANNELS} and {CHANNELS}, as Stable Diffusion "
            "1.5 has. One that was adapted for views of people cannot denoise features"
        )
    made = UNet(unet, True)
    made.base = hash_of(folder)
    return made


def hash_of(folder: Path) -> str:
    """SHA-256 of the weights of a UNet, those of all its files in their order."""
    digests = [sha256(path) for path in sorted((folder / "unet").glob("*.safetensors"))]
    return hashlib.sha256("".join(digests).encode()).hexdigest()
