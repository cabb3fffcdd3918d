# SPDX-License-Identifier: Apache-2.0
"""The forward process of diffusion: noisy latents, prediction targets, loss weights."""

from __future__ import annotations

import torch
from torch import Tensor

# Least weight of v prediction. At zero terminal SNR the paper's weight is zero, and the first of a
# few sampling steps would never be trained.
LEAST = 0.25


class Noise:
    """Forward process of a diffusers scheduler.

    Args:
        scheduler: With `alphas_cumprod` and a `prediction_type`.
        device: Where the tensors are.
    """

    def __init__(self, scheduler, device: torch.device | str = "cpu"):
        self.alpha = scheduler.alphas_cumprod.to(device, torch.float32)  # alpha_bar of the papers
        self.kind = scheduler.config.prediction_type
        self.steps = len(self.alpha)
        if self.kind not in ("epsilon", "v_prediction"):
            raise ValueError(
                f"the scheduler's prediction_type must be epsilon or v_prediction; got {self.kind}"
            )
        if self.kind == "epsilon" and float(self.alpha[-1]) < 1e-6:
            raise ValueError(
                "epsilon cannot be predicted from pure noise: with rescale_betas_zero_snr the "
                "scheduler's prediction_type must be v_prediction"
            )

    def scales(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """Factors of signal and noise.  long [B] -> [B, 1, 1, 1] each."""
        alpha = self.alpha[time][:, None, None, None]
        return alpha.sqrt(), (1 - alpha).sqrt()

    def share(self, time: Tensor) -> Tensor:
        """Variance of the noise in [0, 1].  [B]."""
        return 1 - self.alpha[time]

    def add(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Noisy latents."""
        signal, sigma = self.scales(time)
        return signal * clean + sigma * noise

    def wanted(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """The target of the prediction.

        Source: v: Salimans and Ho, ICLR 2022 (arXiv 2202.00512), app. D.
        """
        if self.kind == "epsilon":
            return noise
        signal, sigma = self.scales(time)
        return signal * noise - sigma * clean

    def split(self, noisy: Tensor, output: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """Clean latent and noise from a prediction."""
        signal, sigma = self.scales(time)
        if self.kind == "epsilon":
            return (noisy - sigma * output) / signal, output
        return signal * noisy - sigma * output, signal * output + sigma * noisy

    def weight(self, time: Tensor, gamma: float) -> Tensor:
        """Min-SNR weights of the squared error.  [B].

        Source: Hang et al., ICCV 2023 (arXiv 2303.09556), eq. 8 and section 3.4: min(SNR, gamma),
        over SNR for epsilon and over SNR + 1 for v. Ours: for v at least `LEAST` where the SNR is
        below 1.
        """
        alpha = self.alpha[time]
        ratio = alpha / (1 - alpha)
        if self.kind == "epsilon":
            return ratio.clamp(max=gamma) / ratio
        weight = ratio.clamp(max=gamma) / (ratio + 1)
        return torch.where(ratio < 1, weight.clamp(min=LEAST), weight)
