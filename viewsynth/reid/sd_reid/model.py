# SPDX-License-Identifier: Apache-2.0
"""Generator: all that the second stage learns, around one denoiser.

features -> `latent` -> noise -> `forward` (the noise in it) in training; `sampling.sample` from
noise to features afterwards.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from viewsynth.reid.sd_reid import denoisers, latents, sampling
from viewsynth.reid.sd_reid.conditions import Align, Fusion, Pyramid
from viewsynth.reid.sd_reid.mode import MODES
from viewsynth.reid.sd_reid.options import GeneratorShape


class Standard(nn.Module):
    """Numbers less their mean over the training pictures, in units of their spread.

    Attributes:
        mean, scale: 0 and 1 until they are known, or where numbers stay raw.  float32 [*shape]
    """

    def __init__(self, *shape: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))

    def forward(self, numbers: Tensor) -> Tensor:
        """[B, *shape] -> [B, *shape]"""
        return (numbers - self.mean) / self.scale

    def back(self, numbers: Tensor) -> Tensor:
        """The other way round."""
        return numbers * self.scale + self.mean


class Generator(nn.Module):
    """See the head of this file.

    Args:
        width: Of a feature, D.
        tokens: Of the condition, T: one a block of the encoder.
        views: How many there are, V.
        shape: What it is made of.

    Attributes:
        own: Names of its weights and buffers, less those that others trained.
        features, conditions, view_features: Standards of identity features, identity conditions
            and view features.  of [D], [T - 1, D] and [D]
        prototypes: Of the views, as the encoder says them.  float32 [V, D]
    """

    def __init__(self, width: int, tokens: int, views: int, shape: GeneratorShape):
        super().__init__()
        self.shape, self.mode, self.times = shape, MODES[shape.mode], shape.times
        self.grid = latents.grid(width)
        self.denoiser = denoisers.build(shape.denoiser, self.grid, tokens)
        context = self.denoiser.context
        self.fusion = Fusion(width, context, tokens, shape.depth, self.mode.across_batch)
        down, up = self.denoiser.levels() if shape.decoder == "pyramid" else ([], [])
        self.pyramid = Pyramid((self.grid.height, self.grid.across), down, up)
        if self.mode.lost_residuals:
            self.pyramid.up.requires_grad_(False)  # the release's get no gradient either
        self.align = Align(width) if shape.decoder == "align" else None
        self.features, self.view_features = Standard(width), Standard(width)
        self.conditions = Standard(tokens - 1, width)
        self.register_buffer("prototypes", torch.zeros(views, width))
        others = self.denoiser.frozen and {
            name for name, p in self.named_parameters() if not p.requires_grad
        }
        self.own = frozenset(self.state_dict()) - (others or set())
        alphas = sampling.schedule(shape.times).alphas_cumprod
        self.register_buffer("alphas", alphas.clone(), persistent=False)

    @property
    def views(self) -> int:
        """How many features are sampled of a picture."""
        return min(2, len(self.prototypes)) if self.mode.two_views else len(self.prototypes)

    def latent(self, features: Tensor) -> Tensor:
        """[B, D] -> [B, 4, h, w]"""
        return self.grid.to_latent(self.features(features))

    def feature(self, latent: Tensor, prototype: Tensor) -> Tensor:
        """A feature of a latent, refined if the decoder is `align`, standardised as a latent is.

        Args:
            latent: [B, 4, h, w]
            prototype: Of the view of each.  [B, D]
        Returns: [B, D]
        """
        found = self.grid.to_feature(latent)
        return found if self.align is None else self.align(found, self.view_features(prototype))

    def tokens(self, condition: Tensor, prototype: Tensor, dropped: Tensor | None = None) -> Tensor:
        """As `Fusion.forward`, of what the encoder says."""
        return self.fusion(self.conditions(condition), self.view_features(prototype), dropped)

    def maps(self, view: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """As `Pyramid.forward`, of what the encoder says."""
        return self.pyramid(self.view_features(view))

    def forward(
        self,
        clean: Tensor,
        noise: Tensor,
        times: Tensor,
        condition: Tensor,
        prototype: Tensor,
        view: Tensor,
        dropped: Tensor,
    ) -> tuple[Tensor, Tensor | None]:
        """What training compares: the noise that is told, and the refined feature.

        Args:
            clean: Latents.  [B, 4, h, w]
            noise: What is added to them.  [B, 4, h, w]
            times: int64 [B]
            condition: Identity conditions.  [B, T - 1, D]
            prototype: Of the view of each.  [B, D]
            view: What the maps are made of.  [B, D]
            dropped: Rows without a condition.  bool [B]
        Returns: noise [B, 4, h, w]; with the decoder `align`, features, standardised, [B, D], else
            None.
        """
        alpha = self.alphas[times][:, None, None, None]
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        down, up = self.maps(view)
        tokens = self.tokens(condition, prototype, dropped)
        up = [] if self.mode.lost_residuals else up
        told = self.denoiser(noisy, times, tokens, down, up)
        if self.align is None:
            return told, None
        found = (noisy - (1 - alpha).sqrt() * told.detach()) / alpha.sqrt()
        return told, self.feature(found, prototype)

    def trained(self) -> dict[str, Tensor]:
        """Weights and buffers that are its own, by name: all but what others trained."""
        return {k: v for k, v in self.state_dict().items() if k in self.own}
