# SPDX-License-Identifier: Apache-2.0
"""Networks: conditioning of a Stable Diffusion UNet, and the identity encoder.

`adapt` builds them, `pipeline` runs them. UNet and autoencoder are classes of diffusers; the
conditioner and the identity encoder defined here are saved and loaded like models of diffusers.
"""

from __future__ import annotations

import math

import torch
from diffusers import ConfigMixin, ModelMixin, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional

from viewsynth.diffusion.conditions import CAMERA, CONDITION_GROUPS

SOURCE, GEOMETRY, CAMERA_KEPT = (
    CONDITION_GROUPS.index(name) for name in ("source", "geometry", "camera")
)
EXTRA = 4  # channels of seen map and normals
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OCTAVES = (1, 2, 4, 8)  # integers, so that azimuth features are periodic in 360 degrees


def widen(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Add the input channels of the conditions to a UNet; existing weights are unchanged.

    Source: Brooks et al., InstructPix2Pix, CVPR 2023 (arXiv 2211.09800), section 3.2: new input
    channels with zero weights.

    Args:
        unet: UNet with C input channels, changed in place; one with 3 C + 4 is left unchanged.

    Returns:
        The same UNet; `conv_in` takes noisy latent (C), source latent (C), render latent (C), seen
        map (1) and normals (3).

    Raises:
        ValueError: If the number of its input channels is neither.
    """
    latent, got = unet.config.out_channels, unet.config.in_channels
    wide = 3 * latent + EXTRA
    if got == wide:
        return unet
    if got != latent:
        raise ValueError(
            f"a UNet of {latent} latent channels must take {latent} or, widened, {wide} input "
            f"channels; this one takes {got} (an inpainting or editing model?): give the base model"
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
    """Computes input channels and cross-attention tokens of the UNet from the conditions.

    Source: Fourier features: Tancik et al., NeurIPS 2020 (arXiv 2006.10739); dropping a condition
    by zeros or trained null tokens: Ho and Salimans, 2022 (arXiv 2207.12598). Ours: three groups
    of conditions are dropped independently.

    Args:
        latent_channels: Channels C of the autoencoder's latents.
        cross_attention_dim: Width of the UNet's cross-attention.
        identity_dim: Length of an identity feature; 0 = no identity encoder.
        identity_tokens: Number of identity tokens.
        camera_tokens: Number of camera tokens.
        size: Height and width of the model's images, pixels.
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
        self.norm = nn.LayerNorm(context)  # scale of the output of a text encoder's last norm

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
        """Input channels and tokens in one call, so that hooks (offloading, DDP) run.

        Args:
            camera: See `tokens`.
            identity: See `tokens`.
            source: See `channels`.
            render: See `channels`.
            seen: See `channels`.
            normals: See `channels`.
            kept: Which of `conditions.CONDITION_GROUPS` are kept.  bool [B, 3]

        Returns:
            See `channels` and `tokens`.
        """
        return (
            self.channels(source, render, seen, normals, kept),
            self.tokens(camera, identity, kept),
        )

    def tokens(self, camera: Tensor, identity: Tensor, kept: Tensor) -> Tensor:
        """Cross-attention tokens: camera tokens, then identity tokens.

        Args:
            camera: Camera parameters, see `conditions.CAMERA`.  float32 [B, 5]
            identity: Identity features, normalised here.  float [B, identity_dim]
            kept: Which of `conditions.CONDITION_GROUPS` are kept.  bool [B, 3]

        Returns:
            [B, camera_tokens + identity_tokens, cross_attention_dim].
        """
        like = self.no_camera
        shape = (len(camera), -1, like.shape[1])
        seen_from = self.camera(fourier(camera).to(like.dtype)).view(shape)
        seen_from = torch.where(kept[:, CAMERA_KEPT, None, None], seen_from, self.no_camera)
        person = self.no_identity.expand(len(camera), -1, -1)
        if self.identity is not None and identity.shape[1]:  # else there is no identity encoder
            unit = functional.normalize(identity.float(), dim=1) * math.sqrt(identity.shape[1])
            found = self.identity(unit.to(like.dtype)).view(shape)
            person = torch.where(kept[:, SOURCE, None, None], found, self.no_identity)
        return self.norm(torch.cat([seen_from, person], 1))

    def channels(
        self, source: Tensor, render: Tensor, seen: Tensor, normals: Tensor, kept: Tensor
    ) -> Tensor:
        """Input channels of the UNet in addition to the noisy latent.

        Args:
            source: Latents of the source images.  float [B, C, h, w]
            render: Latents of the renderings.  float [B, C, h, w]
            seen: Seen map of any size, averaged to that of the latents.  float [B, 1, H, W]
            normals: Normals of any size, averaged to that of the latents.  float [B, 3, H, W]
            kept: Which of `conditions.CONDITION_GROUPS` are kept.  bool [B, 3]

        Returns:
            [B, 2 C + 4, h, w].
        """
        grid = tuple(render.shape[-2:])
        geometry = [render, *(to_grid(plane.to(render.dtype), grid) for plane in (seen, normals))]
        source = source * kept[:, SOURCE, None, None, None]
        return torch.cat([source, torch.cat(geometry, 1) * kept[:, GEOMETRY, None, None, None]], 1)


def to_grid(planes: Tensor, grid: tuple[int, int]) -> Tensor:
    """Average planes [B, K, H, W] over areas to a grid [B, K, h, w]."""
    if tuple(planes.shape[-2:]) == grid:
        return planes
    return functional.interpolate(planes, grid, mode="area")


def fourier(camera: Tensor) -> Tensor:
    """Fourier features of the camera parameters.

    Distance and aspect enter by their logarithm, scaled so that 256 : 1 corresponds to 180 degrees.

    Args:
        camera: See `conditions.CAMERA`.  float [B, 5]

    Returns:
        float32 [B, 40].
    """
    camera = camera.float()
    angles_rad = torch.deg2rad(camera[:, :3])
    distance = camera[:, 3].clamp(1e-3, 1e6).log2() * (math.pi / 8)
    aspect = camera[:, 4].clamp(1e-3, 1e3).log2() * (math.pi / 8)
    turns = torch.cat([angles_rad, torch.stack([distance, aspect], 1)], 1)
    waves = turns[:, :, None] * turns.new_tensor(OCTAVES)
    return torch.cat([waves.sin(), waves.cos()], 2).flatten(1)


class IdentityEncoder(ModelMixin, ConfigMixin):
    """Computes identity features of a source image with a frozen vision model of `transformers`.

    Source: a ResNet whose last stage keeps its resolution (Luo et al., Bag of Tricks, CVPRW 2019,
    arXiv 1903.07071), as in the ReID trainer.

    Args:
        architecture: Configuration of the model, with "model_type".
        size: Height and width of its input, pixels.
        mean: Mean of the normalisation of pixels in [0, 1], one value per channel.
        std: Standard deviation of that normalisation.
        keep_resolution: Whether the last stage of a ResNet has no stride.
        pooled: Whether the feature is the model's pooled output; else it is the first token.
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
        """Features [P, dim] of RGB images in [0, 1], float [P, 3, H, W] of any size."""
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
    """Check that the components of a pipeline match each other.

    Args:
        vae: Autoencoder.
        unet: UNet.
        conditioner: Conditioner.
        identity: Identity encoder, or None.

    Raises:
        ValueError: If two do not match; the message names them and their sizes.
    """
    latent = vae.config.latent_channels
    if unet.config.in_channels != 3 * latent + EXTRA or unet.config.out_channels != latent:
        raise ValueError(
            f"the UNet takes {unet.config.in_channels} channels and gives "
            f"{unet.config.out_channels}; with {latent} latent channels it must take "
            f"{3 * latent + EXTRA} and give {latent}: widen it with `networks.widen`"
        )
    config = conditioner.config
    expected = {
        "latent_channels": ("autoencoder", latent),
        "cross_attention_dim": ("UNet", unet.config.cross_attention_dim),
    }
    if identity is not None:
        dim = identity.dim if isinstance(identity, IdentityEncoder) else 0
        expected["identity_dim"] = ("identity encoder", dim)
    for name, (other, value) in expected.items():
        if (got := getattr(config, name)) != value:
            raise ValueError(
                f"conditioner.{name} is {got}, but the {other} has {value}; use components of one "
                "model"
            )
