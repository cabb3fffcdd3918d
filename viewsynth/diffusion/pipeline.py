# SPDX-License-Identifier: Apache-2.0
"""The view-aware diffusion pipeline: conditions in, images of the target views out.

conditions -> encode -> denoising loop -> decode -> restore seen pixels -> images. `encode` and
`predict` are also called by `training`, so that training and sampling share one code path.
`sampling` and `image_processing` hold the parts without a network, `pretrained` loads and saves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DiffusionPipeline, UNet2DConditionModel
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor

from viewsynth.diffusion import image_processing, photo, sampling
from viewsynth.diffusion.conditions import CONDITION_GROUPS, Conditions, Encoded
from viewsynth.diffusion.networks import IdentityEncoder, ViewConditioner, check_parts, to_grid
from viewsynth.diffusion.pretrained import PretrainedMixin
from viewsynth.diffusion.sampling import Settings
from viewsynth.render.foreground import Foreground

# Source images per batch where shapes are fixed: there are fewer of them than views, and padding
# them to the batch of the views would be wasted computation.
SOURCES = {"cpu": 1, "cuda": 8}


@dataclass
class ViewDiffusionOutput(BaseOutput):
    """Output of `ViewDiffusionPipeline.__call__`.

    Args:
        images: PIL images in the crops' own aspect; or, at the model's size, float [B, 3, H, W]
            ("pt") or [B, H, W, 3] ("np") in [0, 1]; or latents ("latent").
        conditions: Conditions that the images were generated from.
    """

    images: list[Image.Image] | np.ndarray | Tensor
    conditions: Conditions


class ViewDiffusionPipeline(PretrainedMixin, DiffusionPipeline, StableDiffusionLoraLoaderMixin):
    """Stable Diffusion conditioned on camera, person and what was seen of the person.

    Source: latent diffusion (Rombach et al., CVPR 2022, arXiv 2112.10752), with conditions as input
    channels (InstructPix2Pix, arXiv 2211.09800) and as cross-attention tokens instead of text.

    Args:
        vae: Autoencoder; an `AutoencoderTiny` of the same latents may replace it at any time.
        unet: UNet with the input channels of `networks.widen`.
        conditioner: Computes these channels and the cross-attention tokens.
        scheduler: Any scheduler of diffusers with one model output per step.
        identity_encoder: Computes features of a source image; None = trained null tokens are used.
        training: Description of the training data for the model card, one paragraph.
        licence: SPDX identifier of the weights, or "unknown".
    """

    model_cpu_offload_seq = "identity_encoder->conditioner->unet->vae"
    _optional_components = ["identity_encoder"]
    _lora_loadable_modules = ["unet"]
    text_encoder = None  # the LoRA mixin reads this attribute

    def __init__(
        self,
        vae: AutoencoderKL | AutoencoderTiny,
        unet: UNet2DConditionModel,
        conditioner: ViewConditioner,
        scheduler,
        identity_encoder: IdentityEncoder | None = None,
        training: str = "",
        licence: str = "unknown",
    ):
        super().__init__()
        check_parts(vae, unet, conditioner, identity_encoder)
        self.register_modules(
            vae=vae,
            unet=unet,
            conditioner=conditioner,
            scheduler=scheduler,
            identity_encoder=identity_encoder,
        )
        self.register_to_config(training=training, licence=licence)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the model's images, pixels."""
        return tuple(self.conditioner.config.size)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a latent."""
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        return self.vae.config.latent_channels, self.size[0] // factor, self.size[1] // factor

    # ---- shared by training and sampling ---------------------------------------------------------

    @torch.no_grad()
    def to_latents(self, images: Tensor) -> Tensor:
        """Encode images to scaled latents; of a distribution, its mode.

        Args:
            images: float [N, 3, H, W] in [0, 1].

        Returns:
            [N, C, h, w], in the autoencoder's dtype.
        """
        device = self._execution_device
        found = self.vae.encode(images.to(device, self.vae.dtype) * 2 - 1)
        latents = found.latents if hasattr(found, "latents") else found.latent_dist.mode()
        shift = getattr(self.vae.config, "shift_factor", None) or 0.0
        return (latents - shift) * self.vae.config.scaling_factor

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Decode scaled latents [N, C, h, w] to images, float32 [N, 3, H, W] in [0, 1]."""
        shift = getattr(self.vae.config, "shift_factor", None) or 0.0
        latents = latents.to(self.vae.dtype) / self.vae.config.scaling_factor + shift
        return (self.vae.decode(latents).sample.float() / 2 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def encode_identity(self, source: Tensor) -> Tensor:
        """Identity features [P, D] of source images, float [P, 3, H, W] in [0, 1]."""
        if self.identity_encoder is None:
            return source.new_zeros(len(source), 0).to(self._execution_device)
        return self.identity_encoder(source.to(self._execution_device, self.identity_encoder.dtype))

    @torch.no_grad()
    def encode(self, conditions: Conditions) -> Encoded:
        """Run the frozen encoders, once for each source image.

        Args:
            conditions: Conditions at the model's size, on any device.
        """
        source = conditions.source
        return self._encode_views(conditions, self.to_latents(source), self.encode_identity(source))

    def _encode_views(self, conditions: Conditions, source: Tensor, identity: Tensor) -> Encoded:
        """`encode` with the source images already encoded."""
        moved = conditions.to(source.device, source.dtype)
        grid = tuple(source.shape[-2:])
        return Encoded(
            source=source,
            identity=identity,
            person=moved.person,
            render=self.to_latents(moved.render),
            seen=to_grid(moved.seen, grid),
            normals=to_grid(moved.normals, grid),
            camera=moved.camera,
        )

    def predict(self, noisy: Tensor, timestep: Tensor, encoded: Encoded, kept: Tensor) -> Tensor:
        """Output of the UNet, of the scheduler's `prediction_type`, with gradients.

        Args:
            noisy: Noisy latents, scaled by the scheduler.  [B, C, h, w]
            timestep: long [B] or [].
            encoded: Encoded conditions of the B views.
            kept: Which of `conditions.CONDITION_GROUPS` each view keeps.  bool [B, 3]

        Returns:
            [B, C, h, w], in the dtype of the UNet.
        """
        return self._denoise(noisy, timestep, *self._condition(encoded, kept))

    def _condition(self, encoded: Encoded, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Input channels and cross-attention tokens, the same for all steps."""
        person = encoded.person
        return self.conditioner(
            encoded.camera,
            encoded.identity[person],
            encoded.source[person],
            encoded.render,
            encoded.seen,
            encoded.normals,
            kept,
        )

    def _denoise(self, noisy: Tensor, timestep, channels: Tensor, tokens: Tensor) -> Tensor:
        dtype = next(self.unet.parameters()).dtype
        inputs = torch.cat([noisy.to(dtype), channels.to(dtype)], 1)
        return self.unet(inputs, timestep, tokens.to(dtype), return_dict=False)[0]

    # ---- sampling --------------------------------------------------------------------------------

    def __call__(
        self,
        image: Image.Image | Tensor | Sequence[Image.Image],
        elevation: float | Sequence[float],
        azimuth: float | Sequence[float],
        *,
        distance: float | None = None,
        rendering: Foreground | None = None,
        num_inference_steps: int = 4,
        guidance_scale: float = 1.0,
        strength: float = 1.0,
        keep_seen: float = 0.5,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        output_type: str = "pil",
        callback_on_step_end: Callable | None = None,
    ) -> ViewDiffusionOutput:
        """Generate images of the people in photos from target cameras.

        Args:
            image: Photo(s) of one standing person each; a tensor is float [P, 3, H, W] in [0, 1].
            elevation: Degrees above the horizon, [0, 90]; one value, or one per view.
            azimuth: Degrees from the person's front towards the left; one value, or one per view.
            distance: Metres; None = the distance at which the person is 128 pixels high.
            rendering: Renderings of the views at any size in the crop's aspect; the photo is then
                assumed to show the front, from an elevation of 10 degrees. None = the person is
                reconstructed and rendered.
            num_inference_steps: Number of denoising steps.
            guidance_scale: See `sample`, `guidance`.
            strength: See `sample`.
            keep_seen: See `sample`.
            generator: One for all views, or one per view; None = fixed seeds.
            output_type: "pil", "pt", "np" or "latent".
            callback_on_step_end: Called with (pipeline, step, timestep, {"latents": latents}).

        Raises:
            ValueError: If an argument cannot be used, before any network runs.
        """
        if output_type not in image_processing.OUTPUT_TYPES:
            known = ", ".join(image_processing.OUTPUT_TYPES)
            raise ValueError(f"output_type must be one of {known}; got {output_type}")
        settings = Settings(num_inference_steps, guidance_scale, strength, keep_seen)
        conditions = photo.conditions_of(image, elevation, azimuth, distance, self.size, rendering)
        decode = output_type != "latent"
        images = self._sample(
            conditions, settings, generator, callback=callback_on_step_end, decode=decode
        )
        aspects = conditions.camera[:, -1].tolist()
        return ViewDiffusionOutput(
            image_processing.postprocess(images, output_type, aspects), conditions
        )

    def sample(
        self,
        conditions: Conditions,
        steps: int = 4,
        guidance: float = 1.0,
        generators: Sequence[torch.Generator] | torch.Generator | None = None,
        keep_seen: float = 0.5,
        batch: int = 0,
        strength: float = 1.0,
        start: Tensor | None = None,
        kept: Sequence[str] = CONDITION_GROUPS,
    ) -> Tensor:
        """Generate images from conditions; a row is independent of the other rows, up to rounding.

        Args:
            conditions: Conditions at the model's size.
            steps: Number of denoising steps.
            guidance: Scale of the classifier-free guidance, away from the prediction without the
                source image; 1 = none, any other value doubles the time.
            generators: One per row, left unchanged; or see `sampling.generators`.
            keep_seen: Weight of the rendering at seen pixels, [0, 1], see
                `image_processing.restore_seen`.
            batch: Views per batch; 0 = all. If given, every network call has this batch size, as
                `torch.compile` prefers, and on a CPU a row has the same bits in any batch.
            strength: Share of the noise schedule that is run, (0, 1]; 1 = start from noise alone.
            start: Images to start from, if the strength is below 1; None = the renderings.
                float [B, 3, H, W] in [0, 1]
            kept: Groups of conditions that the model gets.

        Returns:
            float32 [B, 3, H, W] in [0, 1].

        Raises:
            ValueError: If an argument cannot be used, before any network runs.
            torch.OutOfMemoryError: If a single view does not fit into memory.
        """
        settings = Settings(steps, guidance, strength, keep_seen, kept)
        return self._sample(conditions, settings, generators, batch, start)

    @torch.no_grad()
    def _sample(
        self,
        conditions: Conditions,
        settings: Settings,
        generators: Sequence[torch.Generator] | torch.Generator | None,
        batch: int = 0,
        start: Tensor | None = None,
        callback: Callable | None = None,
        decode: bool = True,
    ) -> Tensor:
        """Sample the views batch by batch; returns images, or latents if not `decode`."""
        self.check_inputs(conditions, batch, start)
        rows = sampling.generators(generators, len(conditions))
        # A batch that ran out of memory is repeated, so its rows always start from these states.
        states = [row.get_state() for row in rows]
        source, identity = self.encode_sources(conditions.source, batch)
        on_step_end = callback and partial(callback, self)

        def generate(indices: list[int]) -> Tensor:
            index, own = torch.tensor(indices), sampling.copies(rows, states, indices)
            views = conditions.take(index.to(conditions.person.device))
            views = replace(views, source=views.source[:0])  # encoded already, need not be moved
            encoded = self._encode_views(views, source, identity)
            first = None if start is None else start[index]
            latents, timesteps = self.prepare_latents(encoded, first, settings, own)
            predict = self._predictor(encoded, settings)
            latents = sampling.denoise(
                self.scheduler, predict, latents, timesteps, own, settings.guidance, on_step_end
            )
            return self._finish(latents, views, settings.keep_seen) if decode else latents

        images = sampling.in_batches(generate, len(conditions), batch, static=bool(batch))
        self.maybe_free_model_hooks()
        return images

    def check_inputs(self, conditions: Conditions, batch: int, start: Tensor | None) -> None:
        """Check the arguments of `sample` that `Settings` does not check."""
        conditions.check(self.size)
        if not 0 <= batch <= 10**6:
            raise ValueError(f"batch must be in [0, 1000000], got {batch}")
        shape = [len(conditions), 3, *self.size]
        if start is not None and list(start.shape) != shape:
            raise ValueError(f"start must be {shape}, got {list(start.shape)}")

    def encode_sources(self, source: Tensor, batch: int = 0) -> tuple[Tensor, Tensor]:
        """Latents and identity features of source images, float [P, 3, H, W] in [0, 1]."""
        few = min(batch, SOURCES.get(self._execution_device.type, batch))
        latents, identity = (
            sampling.in_batches(lambda k, f=f: f(source[k]), len(source), few, static=bool(batch))
            for f in (self.to_latents, self.encode_identity)
        )
        return latents, identity

    def prepare_latents(
        self,
        encoded: Encoded,
        start: Tensor | None,
        settings: Settings,
        generators: Sequence[torch.Generator],
    ) -> tuple[Tensor, Tensor]:
        """Set the scheduler's timesteps, and build the latents of the first one.

        Args:
            encoded: Encoded conditions of the views.
            start: Images to start from; None = the renderings.  float [B, 3, H, W] in [0, 1]
            settings: Settings of the sampler.
            generators: Generator of each row.

        Returns:
            Latents, float32 [B, C, h, w], and timesteps.
        """
        device, strength = encoded.render.device, settings.strength
        first = None
        if strength < 1:
            first = encoded.render if start is None else self.to_latents(start)
        noise = sampling.noise(self.latent_shape, generators, device)
        timesteps = sampling.set_timesteps(self.scheduler, settings.steps, strength, device)
        return sampling.initial_latents(self.scheduler, timesteps, noise, first), timesteps

    def _predictor(
        self, encoded: Encoded, settings: Settings
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """`predict` of `sampling.denoise`, with the conditions prepared for all steps."""
        count, device = len(encoded.person), encoded.render.device
        kept = torch.tensor([name in settings.kept for name in CONDITION_GROUPS], device=device)
        kept = kept.repeat(count, 1)
        if settings.guidance != 1:
            encoded = encoded.take(torch.arange(count, device=device).repeat(2))
            kept = torch.cat([kept, kept.clone()])
            kept[count:, CONDITION_GROUPS.index("source")] = False
        channels, tokens = self._condition(encoded, kept)
        return partial(self._denoise, channels=channels, tokens=tokens)

    def _finish(self, latents: Tensor, views: Conditions, keep_seen: float) -> Tensor:
        images = self.decode_latents(latents)
        views = views.to(images.device)
        return image_processing.restore_seen(images, views.render, views.seen, keep_seen)
