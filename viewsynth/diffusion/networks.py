# SPDX-License-Identifier: Apache-2.0
"""Networks: how conditions enter a UNet of Stable Diffusion's class, and what tells identity.

`pipeline` runs them; `adapt` builds them. The UNet and the autoencoder are diffusers' own classes;
ours are the conditioner and the identity encoder, which save and load as any model of diffusers.
"""

from __future__ import annotations

import math

import torch
from diffusers import ConfigMixin, ModelMixin, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional

from viewsynth.diffusion.conditions import CAMERA, KEPT

SOURCE, GEOMETRY, CAMERA_KEPT = (KEPT.index(name) for name in ("source", "geometry", "camera"))
EXTRA = 4  # channels of seen and normals
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OCTAVES = (1, 2, 4, 8)  # whole turns: the features of an azimuth meet at 360 degrees


def widen(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Let a UNet take the conditions beside its noisy latent; its weights go on as they were.

    Source: Brooks et al., InstructPix2Pix, CVPR 2023 (arXiv 2211.09800), section 3.2: new input
    channels with zero weights.

    Args:
        unet: Takes C channels; changed in place. One that takes 3 C + 4 already stays as it is.
    Returns: the same UNet; `conv_in` takes noise (C), source latent (C), render latent (C), seen
        (1) and normals (3).
    Raises: ValueError: if the number of its input channels is neither.
    """
    latent, got = unet.config.out_channels, unet.config.in_channels
    wide = 3 * latent + EXTRA
    if got == wide:
        return unet
    if got != latent:
        raise ValueError(
            f"a UNet of {latent} latent channels must take {latent} or, widened, {wide} input "
            f"channels; this one takes {got} (an inpainting or editing model?): give the plain one"
        )
    old = unet.conv_in
    new = nn.Conv2d(
        wide,
        old.out_channels,
        old.kernel_size,
        old.stride,
        old.padding,
        device=old.weight.device,
        dtype=old.weight.dtype,
    )
    with torch.no_grad():
        new.weight.zero_()
        new.weight[:, :latent] = old.weight
        new.bias.copy_(old.bias)
    unet.conv_in = new
    unet.register_to_config(in_channels=wide)
    return unet


class ViewConditioner(ModelMixin, ConfigMixin):
    """Turns what is known of a view into channels and cross-attention tokens of the UNet.

    Source: Fourier features: Tancik et al., NeurIPS 2020 (arXiv 2006.10739); a condition dropped by
    zeros or learnt null tokens: Ho and Salimans, 2022 (arXiv 2207.12598). We drop three conditions
    each on its own.

    Args:
        latent_channels: C of the autoencoder.
        cross_attention_dim: Width of the UNet's context.
        identity_dim: Length of the identity encoder's feature; 0 = there is none.
        identity_tokens, camera_tokens: How many tokens each becomes.
        size: Height and width of the model's pictures, pixels.
        width: Hidden units of the camera's network.
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 4,
        cross_attention_dim: int = 768,
        identity_dim: int = 256,
        identity_tokens: int = 4,
        camera_tokens: int = 4,
        size: tuple[int, int] = (256, 128),
        width: int = 256,
    ):
        super().__init__()
        context = cross_attention_dim
        self.camera = nn.Sequential(
            nn.Linear(2 * len(OCTAVES) * len(CAMERA), width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, camera_tokens * context),
        )
        self.identity = nn.Linear(identity_dim, identity_tokens * context) if identity_dim else None
        self.no_camera = nn.Parameter(torch.randn(camera_tokens, context))
        self.no_identity = nn.Parameter(torch.randn(identity_tokens, context))
        self.norm = nn.LayerNorm(context)  # the scale that a text encoder's last norm gives

    def forward(
        self,
        camera: Tensor,
        identity: Tensor,
        source: Tensor,
        render: Tensor,
        seen: Tensor,
        normals: Tensor,
        kept: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """`channels` and `tokens` in one call, so that hooks (offload, DDP) see it."""
        return (
            self.channels(source, render, seen, normals, kept),
            self.tokens(camera, identity, kept),
        )

    def tokens(self, camera: Tensor, identity: Tensor, kept: Tensor) -> Tensor:
        """The context of the UNet's cross-attention: camera tokens, then identity tokens.

        Args:
            camera: See `conditions.CAMERA`.  float32 [B, 5]
            identity: Features; their length does not matter.  float [B, identity_dim]
            kept: Which conditions count, see `conditions.KEPT`.  bool [B, 3]
        Returns: [B, camera_tokens + identity_tokens, cross_attention_dim].
        """
        like = self.no_camera
        shape = (len(camera), -1, like.shape[1])
        seen_from = self.camera(fourier(camera).to(like.dtype)).view(shape)
        seen_from = torch.where(kept[:, CAMERA_KEPT, None, None], seen_from, self.no_camera)
        who = self.no_identity.expand(len(camera), -1, -1)
        if self.identity is not None and identity.shape[1]:  # else nobody looked at the photo
            unit = functional.normalize(identity.float(), dim=1) * math.sqrt(identity.shape[1])
            found = self.identity(unit.to(like.dtype)).view(shape)
            who = torch.where(kept[:, SOURCE, None, None], found, self.no_identity)
        return self.norm(torch.cat([seen_from, who], 1))

    def channels(
        self, source: Tensor, render: Tensor, seen: Tensor, normals: Tensor, kept: Tensor
    ) -> Tensor:
        """What the UNet sees beside the noisy latent.

        Args:
            source, render: Latents.  float [B, C, h, w]
            seen, normals: Of any size, averaged to that of the latents.  float [B, 1 or 3, H, W]
            kept: bool [B, 3].
        Returns: [B, 2 C + 4, h, w].
        """
        grid = tuple(render.shape[-2:])
        drawn = [render, *(to_grid(plane.to(render.dtype), grid) for plane in (seen, normals))]
        photo = source * kept[:, SOURCE, None, None, None]
        return torch.cat([photo, torch.cat(drawn, 1) * kept[:, GEOMETRY, None, None, None]], 1)


def to_grid(planes: Tensor, grid: tuple[int, int]) -> Tensor:
    """Area average.  [B, K, H, W] -> [B, K, h, w]"""
    if tuple(planes.shape[-2:]) == grid:
        return planes
    return functional.interpolate(planes, grid, mode="area")


def fourier(camera: Tensor) -> Tensor:
    """Sines and cosines of the camera's numbers.

    Angles count as they are; distance and aspect by their logarithm, scaled so that 1 to 256 m and
    1:16 to 16:1 are half a turn.

    Args:
        camera: float [B, 5].
    Returns: float32 [B, 40].
    """
    camera = camera.float()
    angles_rad = torch.deg2rad(camera[:, :3])
    distance = camera[:, 3].clamp(1e-3, 1e6).log2() * (math.pi / 8)
    aspect = camera[:, 4].clamp(1e-3, 1e3).log2() * (math.pi / 8)
    turns = torch.cat([angles_rad, torch.stack([distance, aspect], 1)], 1)
    waves = turns[:, :, None] * turns.new_tensor(OCTAVES)
    return torch.cat([waves.sin(), waves.cos()], 2).flatten(1)


class IdentityEncoder(ModelMixin, ConfigMixin):
    """What tells one person from another in a photo: a vision model of `transformers`.

    By default that of the ReID trainer; its features are frozen here.
    Source: for a ResNet, the last stage may keep its resolution (Luo et al., Bag of Tricks, CVPRW
    2019, arXiv 1903.07071), as the trainer has it.

    Args:
        architecture: Configuration of the model, with "model_type".
        size: Height and width of its pictures, pixels.
        mean, std: By which pixels in [0, 1] are normalised, one a channel.
        keep_resolution: Whether the last stage of a ResNet has no stride.
        pooled: Whether the model's own pooled output is the feature; else its first token.
    """

    _supports_gradient_checkpointing = False

    @register_to_config
    def __init__(
        self,
        architecture: dict,
        size: tuple[int, int] = (128, 64),
        mean: tuple[float, float, float] = IMAGENET[0],
        std: tuple[float, float, float] = IMAGENET[1],
        keep_resolution: bool = True,
        pooled: bool = True,
    ):
        super().__init__()
        from transformers import AutoConfig, AutoModel

        self.model = AutoModel.from_config(
            AutoConfig.for_model(**architecture), dtype=torch.float32
        )
        if keep_resolution and architecture["model_type"] == "resnet":
            for part in self.model.encoder.stages[-1].modules():
                if isinstance(part, nn.Conv2d):
                    part.stride = (1, 1)

    @property
    def dim(self) -> int:
        """Length of a feature."""
        config = self.model.config
        return config.hidden_sizes[-1] if hasattr(config, "hidden_sizes") else config.hidden_size

    def forward(self, photos: Tensor) -> Tensor:
        """Features.  RGB in [0, 1], float [P, 3, H, W] of any size -> [P, dim]"""
        if tuple(photos.shape[-2:]) != tuple(self.config.size):
            photos = functional.interpolate(
                photos, tuple(self.config.size), mode="bicubic", antialias=True
            ).clamp(0, 1)
        mean, std = (
            photos.new_tensor(v)[:, None, None] for v in (self.config.mean, self.config.std)
        )
        found = self.model(pixel_values=(photos - mean) / std)
        feature = found.pooler_output if self.config.pooled else found.last_hidden_state[:, 0]
        return feature.flatten(1)


def check_parts(vae, unet, conditioner, identity) -> None:
    """Whether the parts of a pipeline fit each other.

    Raises: ValueError: it names the two that do not, with their numbers.
    """
    latent = vae.config.latent_channels
    if unet.config.in_channels != 3 * latent + EXTRA or unet.config.out_channels != latent:
        raise ValueError(
            f"the UNet takes {unet.config.in_channels} channels and gives "
            f"{unet.config.out_channels}; with {latent} latent channels it must take "
            f"{3 * latent + EXTRA} and give {latent}: widen it with `networks.widen`"
        )
    told = conditioner.config
    dim = identity.dim if isinstance(identity, IdentityEncoder) else 0
    for name, got, other, expected in (
        ("latent_channels", told.latent_channels, "autoencoder", latent),
        ("cross_attention_dim", told.cross_attention_dim, "UNet", unet.config.cross_attention_dim),
        (
            "identity_dim",
            told.identity_dim,
            "identity encoder",
            dim if identity is not None else told.identity_dim,
        ),
    ):
        if got != expected:
            raise ValueError(
                f"conditioner.{name} is {got}, but the {other} has {expected}; they must be of "
                "one model"
            )
