# SPDX-License-Identifier: Apache-2.0
"""Generator: the second stage of SD-ReID, a denoiser of features with its condition learner.

Training calls `forward` (features -> `latent` -> noise to predict); `sampling.sample` turns noise
into features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from viewsynth.reid.sd_reid import denoisers, latents, sampling
from viewsynth.reid.sd_reid.conditions import Align, Fusion, Pyramid
from viewsynth.reid.sd_reid.mode import MODES
from viewsynth.reid.sd_reid.options import GeneratorShape


class Standardization(nn.Module):
    """Standardisation by the mean and standard deviation over the training images.

    Args:
        shape: Shape of the values of one image.

    Attributes:
        mean: Mean; 0 until it is set, and in the mode `raw`.  float32 [*shape]
        scale: Standard deviation; 1 until it is set, and in the mode `raw`.  float32 [*shape]
    """

    def __init__(self, *shape: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))

    def forward(self, values: Tensor) -> Tensor:
        """Standardised values.  [B, *shape] -> [B, *shape]."""
        return (values - self.mean) / self.scale

    def inverse(self, values: Tensor) -> Tensor:
        """Values before the standardisation.  [B, *shape] -> [B, *shape]."""
        return values * self.scale + self.mean


class Generator(nn.Module):
    """The second stage: denoiser, condition learner and view-refined decoder.

    Args:
        width: Length of a feature, D.
        tokens: Number of tokens of the condition, T: the number of blocks of the encoder.
        views: Number of views, V.
        shape: Configuration.

    Attributes:
        adapter_names: Names of the weights and buffers that the second stage trains or sets, i.e.
            of all but the frozen weights of a pretrained UNet.
        features: Standardisation of identity features.  of [D]
        conditions: Standardisation of identity conditions.  of [T - 1, D]
        view_features: Standardisation of view features.  of [D]
        prototypes: Prototypes of the views, not standardised.  float32 [V, D]
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
            self.pyramid.up.requires_grad_(False)  # unused, so without a gradient in the release
        self.align = Align(width) if shape.decoder == "align" else None
        self.features, self.view_features = Standardization(width), Standardization(width)
        self.conditions = Standardization(tokens - 1, width)
        self.register_buffer("prototypes", torch.zeros(views, width))
        frozen = self.denoiser.frozen and {
            name for name, p in self.named_parameters() if not p.requires_grad
        }
        self.adapter_names = frozenset(self.state_dict()) - (frozen or set())
        alphas = sampling.schedule(shape.times).alphas_cumprod
        self.register_buffer("alphas", alphas.clone(), persistent=False)

    @property
    def views(self) -> int:
        """Number of views that features are sampled for."""
        return min(2, len(self.prototypes)) if self.mode.two_views else len(self.prototypes)

    def latent(self, features: Tensor) -> Tensor:
        """Standardised latents of features.  [B, D] -> [B, 4, h, w]."""
        return self.grid.to_latent(self.features(features))

    def feature(self, latent: Tensor, prototype: Tensor) -> Tensor:
        """Standardised features of latents, refined if the decoder is `align`.

        Args:
            latent: Standardised latents.  [B, 4, h, w]
            prototype: Prototype of the view of each, not standardised.  [B, D]

        Returns:
            [B, D]
        """
        feature = self.grid.to_feature(latent)
        if self.align is None:
            return feature
        return self.align(feature, self.view_features(prototype))

    def tokens(self, condition: Tensor, prototype: Tensor, dropped: Tensor | None = None) -> Tensor:
        """`Fusion.forward` on values that are not standardised."""
        return self.fusion(self.conditions(condition), self.view_features(prototype), dropped)

    def maps(self, view: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """`Pyramid.forward` on view features that are not standardised."""
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
        """Predicted noise and refined feature, for the losses.

        Args:
            clean: Latents without noise.  [B, 4, h, w]
            noise: Noise to add.  [B, 4, h, w]
            times: Timesteps.  int64 [B]
            condition: Identity conditions.  [B, T - 1, D]
            prototype: Prototype of the view of each.  [B, D]
            view: View features for the feature maps.  [B, D]
            dropped: Rows without a condition.  bool [B]

        Returns:
            Predicted noise [B, 4, h, w]; with the decoder `align`, standardised features [B, D],
            else None.
        """
        alpha = self.alphas[times][:, None, None, None]
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        down, up = self.maps(view)
        tokens = self.tokens(condition, prototype, dropped)
        up = [] if self.mode.lost_residuals else up
        predicted = self.denoiser(noisy, times, tokens, down, up)
        if self.align is None:
            return predicted, None
        denoised = (noisy - (1 - alpha).sqrt() * predicted.detach()) / alpha.sqrt()
        return predicted, self.feature(denoised, prototype)

    def adapter(self) -> dict[str, Tensor]:
        """State dictionary without the frozen weights of a pretrained UNet."""
        return {k: v for k, v in self.state_dict().items() if k in self.adapter_names}
