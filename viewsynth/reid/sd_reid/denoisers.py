# SPDX-License-Identifier: Apache-2.0
"""Denoisers of SD-ReID: the UNet of Stable Diffusion, a small UNet from scratch, or an MLP.

All predict the noise in latents as `denoiser(latents, times, context, down, up)`, with the tokens
of `conditions.Fusion` and the feature maps of `conditions.Pyramid`.
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
# Trained weights in the decoder of a pretrained UNet: keys and values of the cross-attention.
TRAINED = (".attn2.to_k.", ".attn2.to_v.")
EMBEDDING = 128  # length of a timestep embedding
FILES = ["unet/config.json"] + [
    f"unet/diffusion_pytorch_model{end}.safetensors" for end in ("", "-0*")
]
# Feature maps for the decoder in the current call. Not in the module, which threads may share.
UP: ContextVar[tuple[Tensor, ...]] = ContextVar("up", default=())


class UNet(nn.Module):
    """A UNet of diffusers with feature maps of the view added to its cross-attention blocks.

    Source: the release of SD-ReID: maps are added at the end of each block of the encoder, before
    downsampling (as in T2I-Adapter), and after the last attention of each block of the decoder. Of
    pretrained weights, only keys and values of the decoder's cross-attention are trained.

    Args:
        unet: A `UNet2DConditionModel`.
        frozen: Whether its weights are pretrained, so that most of them are frozen.
    """

    base = ""  # SHA-256 of the pretrained weights, if any

    def __init__(self, unet: nn.Module, frozen: bool):
        super().__init__()
        self.unet, self.frozen = unet, frozen
        if frozen:
            for name, parameter in unet.named_parameters():
                trained = name.startswith("up_blocks.") and any(part in name for part in TRAINED)
                parameter.requires_grad_(trained)
            unet.enable_gradient_checkpointing()
        for number, block in enumerate(filter(_has_attention, unet.up_blocks)):
            block.attentions[-1].register_forward_hook(partial(_add_map, number))

    @property
    def context(self) -> int:
        """Width of the tokens for cross-attention."""
        return self.unet.config.cross_attention_dim

    def levels(self) -> tuple[list[Level], list[Level]]:
        """Levels of the encoder and of the decoder that take a feature map."""
        config = self.unet.config
        widths, count = config.block_out_channels, len(config.block_out_channels)
        down = [
            Level(widths[n], 2**n)
            for n, block in enumerate(self.unet.down_blocks)
            if _has_attention(block)
        ]
        up = [
            Level(widths[::-1][n], 2 ** (count - 1 - n))
            for n, block in enumerate(self.unet.up_blocks)
            if _has_attention(block)
        ]
        return down, up

    def forward(
        self, latents: Tensor, times: Tensor, context: Tensor, down: list[Tensor], up: list[Tensor]
    ) -> Tensor:
        """Predicted noise.

        Args:
            latents: Noisy latents.  [B, 4, h, w]
            times: Timesteps.  int64 [B]
            context: Tokens for cross-attention.  [B, T, C]
            down: Feature maps for the encoder, or an empty list.  [B, C, h, w] each
            up: Feature maps for the decoder, or an empty list.  [B, C, h, w] each

        Returns:
            [B, 4, h, w]
        """
        token = UP.set(tuple(up))
        try:
            return self.unet(
                latents,
                times,
                context,
                return_dict=False,
                down_intrablock_additional_residuals=list(down) or None,
            )[0]
        finally:
            UP.reset(token)


def _add_map(number: int, module: nn.Module, given: tuple, out: tuple) -> tuple:
    """Forward hook: add a feature map to the last attention of a decoder block."""
    maps = UP.get()
    return (out[0] + maps[number], *out[1:]) if maps else out


def _has_attention(block: nn.Module) -> bool:
    return getattr(block, "has_cross_attention", False)


class MLPDenoiser(nn.Module):
    """An MLP on the latent, the timestep and all tokens; it takes no feature maps.

    Source: DiffReID, which reports that an MLP denoises features at a fraction of the cost; blocks
    with adaptive layer normalisation as in Li et al., MAR, NeurIPS 2024 (arXiv 2406.11838).

    Args:
        grid: Shape of the latents.
        tokens: Number of tokens.
        width: Width of the layers.
        depth: Number of blocks.
    """

    frozen, base = False, ""

    def __init__(self, grid: Grid, tokens: int, width: int = 512, depth: int = 4):
        super().__init__()
        self.context = grid.width
        self.enter, self.leave = nn.Linear(grid.numbers, width), nn.Linear(width, grid.numbers)
        self.time = nn.Sequential(nn.Linear(EMBEDDING, width), nn.SiLU(), nn.Linear(width, width))
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
        """No level takes a feature map."""
        return [], []

    def forward(
        self, latents: Tensor, times: Tensor, context: Tensor, down: list[Tensor], up: list[Tensor]
    ) -> Tensor:
        """See `UNet.forward`."""
        state = self.enter(latents.flatten(1))
        embedding = self.time(_time_embedding(times).to(state.dtype))
        condition = nn.functional.silu(embedding + self.told(context.flatten(1)))
        for scales, norm, layer in zip(self.scales, self.norms, self.layers, strict=True):
            scale, shift, gate = scales(condition).chunk(3, 1)
            state = state + gate * layer(norm(state) * (1 + scale) + shift)
        return self.leave(state).view_as(latents)


def _time_embedding(times: Tensor) -> Tensor:
    """Sinusoidal timestep embedding.  int64 [B] -> float32 [B, EMBEDDING]."""
    half = EMBEDDING // 2
    rates = torch.exp(-torch.arange(half, device=times.device) * (9.21 / half))  # 1 to 1e-4
    angles = times[:, None].float() * rates
    return torch.cat([angles.sin(), angles.cos()], 1)


def build(name: str, grid: Grid, tokens: int) -> nn.Module:
    """A denoiser by name.

    Args:
        name: "small": a UNet from scratch; "mlp"; or a folder or hub id with the UNet of Stable
            Diffusion 1.5 in unet/.
        grid: Shape of the latents.
        tokens: Number of tokens of the condition.

    Raises:
        FileNotFoundError: as `hub.component`.
        ValueError: as `hub.component`, and if the UNet has other input or output channels.
    """
    if name == MLP:
        return MLPDenoiser(grid, tokens)
    from diffusers import UNet2DConditionModel

    if name == SMALL:
        return UNet(UNet2DConditionModel(**SMALL_CONFIG, cross_attention_dim=grid.width), False)
    folder = hub.local_folder(name, FILES)
    unet = hub.component(UNet2DConditionModel, folder, "unet")
    if (unet.config.in_channels, unet.config.out_channels) != (CHANNELS, CHANNELS):
        raise ValueError(
            f"denoiser: the UNet of {name} has {unet.config.in_channels} input and "
            f"{unet.config.out_channels} output channels; expected {CHANNELS} and {CHANNELS}, as "
            "in Stable Diffusion 1.5. A UNet of viewsynth train-diffusion cannot denoise features"
        )
    denoiser = UNet(unet, True)
    denoiser.base = _weights_hash(folder)
    return denoiser


def _weights_hash(folder: Path) -> str:
    """SHA-256 of the SHA-256 sums of all weight files of a UNet, sorted by file name."""
    digests = [sha256(path) for path in sorted((folder / "unet").glob("*.safetensors"))]
    return hashlib.sha256("".join(digests).encode()).hexdigest()
