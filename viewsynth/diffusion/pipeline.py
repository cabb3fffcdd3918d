# SPDX-License-Identifier: Apache-2.0
"""The pipeline: conditions in, pictures of the wished-for views out, as a pipeline of diffusers.

conditions -> encode -> predict, step by step -> decode -> seen pixels set back -> pictures.
`encode` and `predict` are also what `training` runs: there is one code path. `sampling` holds the
parts that know no network, `card` what `save_pretrained` tells of a model.
"""

from __future__ import annotations

import importlib.util
import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DiffusionPipeline, UNet2DConditionModel
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.models.attention_processor import AttnProcessor2_0
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor

from viewsynth.diffusion import card, loading, photo, sampling
from viewsynth.diffusion.conditions import KEPT, Conditions, Encoded
from viewsynth.diffusion.networks import IdentityEncoder, ViewConditioner, check_parts, to_grid
from viewsynth.runtime import hub

OUTPUTS = ("pil", "pt", "np", "latent")
# Photos at once where shapes are fixed: there are fewer of them than views, and what fills up their
# batch is computed in vain.
PHOTOS = {"cpu": 1, "cuda": 8}
KEEP_SEEN = 0.5  # how much of a seen pixel is the rendering's, see `sampling.reimpose`

logger = logging.getLogger(__name__)


@dataclass
class ViewDiffusionOutput(BaseOutput):
    """What a call returns.

    Args:
        images: PIL pictures in the crop's own proportions; or, at the model's size, float
            [B, 3, H, W] ("pt"), [B, H, W, 3] ("np") in [0, 1]; or latents ("latent").
        conditions: What they were made from.
    """

    images: list[Image.Image] | np.ndarray | Tensor
    conditions: Conditions


class ViewDiffusionPipeline(DiffusionPipeline, StableDiffusionLoraLoaderMixin):
    """Stable Diffusion that knows the camera, the person and what of the person was seen.

    Source: latent diffusion (Rombach et al., CVPR 2022, arXiv 2112.10752), with conditions as input
    channels (InstructPix2Pix, arXiv 2211.09800) and as cross-attention tokens instead of text.

    Args:
        vae: Autoencoder; `AutoencoderTiny` of the same latents may take its place at any time.
        unet: Widened, see `networks.widen`.
        conditioner: Makes its channels and its context.
        scheduler: Any of diffusers that steps one model output a time.
        identity_encoder: Features of a photo; None = the learnt null tokens stand for them.
        training: What it was trained on, one paragraph for the model card.
        licence: SPDX identifier of the weights, or "unknown".
    """

    model_cpu_offload_seq = "identity_encoder->conditioner->unet->vae"
    _optional_components = ["identity_encoder"]
    _lora_loadable_modules = ["unet"]
    text_encoder = None  # the LoRA mixin looks for one

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
        """Height and width of its pictures, pixels."""
        return tuple(self.conditioner.config.size)

    # ---- what training and sampling share --------------------------------------------------------

    @torch.no_grad()
    def to_latents(self, pictures: Tensor) -> Tensor:
        """Scaled latents of pictures; of a distribution, its mode.

        Args:
            pictures: float [N, 3, H, W] in [0, 1].
        Returns: [N, C, h, w], in the autoencoder's dtype.
        """
        device = self._execution_device
        found = self.vae.encode(pictures.to(device, self.vae.dtype) * 2 - 1)
        latents = found.latents if hasattr(found, "latents") else found.latent_dist.mode()
        shift = getattr(self.vae.config, "shift_factor", None) or 0.0
        return (latents - shift) * self.vae.config.scaling_factor

    @torch.no_grad()
    def to_pictures(self, latents: Tensor) -> Tensor:
        """The inverse: float32 [N, 3, H, W] in [0, 1]."""
        shift = getattr(self.vae.config, "shift_factor", None) or 0.0
        latents = latents.to(self.vae.dtype) / self.vae.config.scaling_factor + shift
        return (self.vae.decode(latents).sample.float() / 2 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def identify(self, photos: Tensor) -> Tensor:
        """Identity features.  float [P, 3, H, W] in [0, 1] -> [P, D]"""
        if self.identity_encoder is None:
            return photos.new_zeros(len(photos), 0).to(self._execution_device)
        return self.identity_encoder(photos.to(self._execution_device, self.identity_encoder.dtype))

    @torch.no_grad()
    def encode(self, conditions: Conditions) -> Encoded:
        """Run the frozen encoders; each photo once, however many views share it.

        Args:
            conditions: At the model's size, on any device.
        """
        source, identity = self.to_latents(conditions.source), self.identify(conditions.source)
        return self._drawn(conditions, source, identity)

    def _drawn(self, conditions: Conditions, source: Tensor, identity: Tensor) -> Encoded:
        """`encode`, the photos being done already."""
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
        """The UNet's output for noisy latents: what `scheduler.config.prediction_type` says.

        Gradients reach the UNet and the conditioner.

        Args:
            noisy: As the scheduler scales them.  [B, C, h, w]
            timestep: long [B] or [].
            encoded: Of B views, see `encode`; `Encoded.take` repeats rows.
            kept: Which conditions count, see `conditions.KEPT`.  bool [B, 3]
        Returns: [B, C, h, w], in the dtype of the UNet.
        """
        return self._denoise(noisy, timestep, *self._condition(encoded, kept))

    def _condition(self, encoded: Encoded, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Channels and tokens; the same in every step."""
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

    @torch.no_grad()
    def sample(
        self,
        conditions: Conditions,
        steps: int = 4,
        guidance: float = 1.0,
        generators: Sequence[torch.Generator] | torch.Generator | None = None,
        keep_seen: float = KEEP_SEEN,
        batch: int = 0,
        latents: Tensor | None = None,
        callback: Callable | None = None,
        decode: bool = True,
        kept: Sequence[str] = KEPT,
        strength: float = 1.0,
        start: Tensor | None = None,
    ) -> Tensor:
        """Pictures of views. No row depends on what else is in the batch, but for rounding.

        Source: classifier-free guidance (Ho and Salimans, 2022, arXiv 2207.12598), away from the
        prediction without the photo; the geometry stays in both.

        Args:
            steps: Of the scheduler.
            guidance: 1 = none; more costs twice the time.
            generators: One a row, left as they were; see `sampling.generators`.
            keep_seen: How much of a seen pixel is the rendering's, [0, 1]; see `sampling.reimpose`.
            batch: Views at once, 0 = all. Given, every call of a network has that shape (for
                photos that of `PHOTOS`), which `torch.compile` wants, and on a CPU the batch leaves
                no trace in the last digit.
            latents: Standard normal noise to start from, instead of the generators'.
                float [B, C, h, w]
            callback: As `callback_on_step_end` of diffusers' pipelines.
            decode: False = latents come back.
            kept: Which conditions count; without "geometry" the photo and the camera are all that
                the model knows.
            strength: How far into the noise the sampler begins, (0, 1], rounded so that the steps
                are the last ones of an even schedule; 1 = with noise alone.
            start: Pictures to begin with under that noise; None = the renderings.
                float [B, 3, H, W] in [0, 1]
        Returns: float32 [B, 3, H, W] in [0, 1].

        Raises:
            ValueError: before anything is computed, if something given cannot be used.
            torch.OutOfMemoryError: if one view alone does not fit.
        """
        conditions.check(self.size)
        sampling.check(steps, guidance, keep_seen, batch, strength)
        if unknown := set(kept) - set(KEPT):
            raise ValueError(f"kept must be some of {', '.join(KEPT)}; got {sorted(unknown)}")
        rows = sampling.generators(generators, len(conditions))
        shape = self.latent_shape
        for name, given, wanted in (("latents", latents, shape), ("start", start, (3, *self.size))):
            wanted = [len(conditions), *wanted]
            if given is not None and list(given.shape) != wanted:
                raise ValueError(f"{name} must be {wanted}, got {list(given.shape)}")
        # A batch that failed is made again: each row starts from where its generator is now.
        starts = [one.get_state() for one in rows]
        photos, static = conditions.source, bool(batch)
        few = min(batch, PHOTOS.get(self._execution_device.type, batch))
        source, identity = (
            sampling.by_halves(lambda some, of=of: of(photos[some]), len(photos), few, static)
            for of in (self.to_latents, self.identify)
        )

        def make(some: list[int]) -> Tensor:
            index = torch.tensor(some)
            mine = [torch.Generator(rows[k].device) for k in some]
            for one, k in zip(mine, some, strict=True):
                one.set_state(starts[k])
            part = conditions.take(index.to(conditions.person.device))
            part = replace(part, source=photos[:0])  # done: they need not be moved again
            encoded = self._drawn(part, source, identity)
            first = encoded.render
            if start is not None and strength < 1:
                first = self.to_latents(start[index])
            begun = (
                sampling.noise(shape, mine, source.device)
                if latents is None
                else (latents[index.to(latents.device)].to(source.device, torch.float32))
            )
            told = torch.tensor([name in kept for name in KEPT], device=source.device)
            told = told.repeat(len(some), 1)
            if guidance != 1:
                encoded = encoded.take(torch.arange(len(some), device=source.device).repeat(2))
                told = torch.cat([told, told.clone()])
                told[len(some) :, KEPT.index("source")] = False
            channels, tokens = self._condition(encoded, told)
            ended = sampling.run(
                self.scheduler,
                partial(self._denoise, channels=channels, tokens=tokens),
                begun,
                mine,
                steps,
                guidance,
                callback and (lambda *state: callback(self, *state)),
                first,
                strength,
            )
            if not decode:
                return ended
            pictures = self.to_pictures(ended)
            moved = part.to(pictures.device)
            return sampling.reimpose(pictures, moved.render, moved.seen, keep_seen)

        made = sampling.by_halves(make, len(conditions), batch, static)
        self.maybe_free_model_hooks()
        return made

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """C, h, w."""
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        return self.vae.config.latent_channels, self.size[0] // factor, self.size[1] // factor

    def __call__(
        self,
        image: Image.Image | Tensor | Sequence[Image.Image],
        elevation: float | Sequence[float],
        azimuth: float | Sequence[float],
        *,
        distance: float | None = None,
        render: Image.Image | Tensor | Sequence[Image.Image] | None = None,
        seen: Tensor | None = None,
        normals: Tensor | None = None,
        num_inference_steps: int = 4,
        guidance_scale: float = 1.0,
        keep_seen: float = KEEP_SEEN,
        strength: float = 1.0,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        latents: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable | None = None,
    ) -> ViewDiffusionOutput | tuple:
        """Pictures of the people in photos from wished-for cameras.

        A photo alone is enough: it is reconstructed and rendered inside. Who has conditions gives
        `render`, `seen` and `normals`; the photo is then taken for one from the front at a height
        of 10 degrees; `sample` takes what is known better.

        Args:
            image: Photo(s) of one standing person each; tensors are float [P, 3, H, W] in [0, 1].
            elevation: Degrees above the horizon, [0, 90]; one, or one a view.
            azimuth: Degrees from the person's front towards the person's left.
            distance: Metres; None = that at which the person is 128 pixels high.
            render: The person at that camera, see `conditions.Conditions`; in the crop's own
                proportions, which are one of the model's inputs.
            seen: float [B, 1, H, W] in [0, 1], as high and wide as `render` or as the model.
            normals: float [B, 3, H, W] in [-1, 1].
            num_inference_steps, guidance_scale, keep_seen, strength, latents: See `sample`.
            generator: One for all views, or one a view; None = always the same noise.
            output_type: "pil", "pt", "np" or "latent".
            callback_on_step_end: Called with (pipeline, step, timestep, {"latents": ...}).
        Raises: ValueError: before anything is computed, if something given cannot be used.
        """
        if output_type not in OUTPUTS:
            raise ValueError(f"output_type must be one of {', '.join(OUTPUTS)}; got {output_type}")
        sampling.check(num_inference_steps, guidance_scale, keep_seen, strength=strength)
        conditions = photo.conditions_of(
            self.size, image, elevation, azimuth, distance, render, seen, normals
        )
        made = self.sample(
            conditions,
            num_inference_steps,
            guidance_scale,
            generator,
            keep_seen,
            0,
            latents,
            callback_on_step_end,
            output_type != "latent",
            strength=strength,
        )
        if output_type == "pil":
            made = sampling.shown(made, conditions.camera[:, -1].tolist())
        elif output_type == "np":
            made = made.permute(0, 2, 3, 1).cpu().numpy()
        return ViewDiffusionOutput(made, conditions) if return_dict else (made, conditions)

    # ---- files and switches ----------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, path: str | Path, **options) -> ViewDiffusionPipeline:
        """Load a pipeline; weights that do not fit their model are refused, with their keys.

        Args:
            path: Folder that `save_pretrained` wrote, or the id of a model on the hub.
            options: As diffusers': torch_dtype, variant, a component by its name ...

        Raises:
            FileNotFoundError: if there is none here and it cannot be had; the message says how to.
            ValueError: if it is another pipeline, or holds weights of another architecture.
        """
        folder = hub.folder_of(path, **loading.hub_options(options))
        kinds = {
            "vae": (AutoencoderKL, AutoencoderTiny),
            "unet": UNet2DConditionModel,
            "conditioner": ViewConditioner,
            "identity_encoder": IdentityEncoder,
        }
        parts = loading.components(cls.__name__, folder, kinds, options)
        return super().from_pretrained(str(folder), **{**options, **parts})

    def save_pretrained(self, save_directory: str | Path, **options) -> None:
        """Write all components and the model card, README.md; push it to the hub if asked to.

        Args:
            save_directory: Folder; made if need be.
            options: As diffusers': variant, max_shard_size, push_to_hub, repo_id, private ...
        """
        folder = Path(save_directory)
        push = options.pop("push_to_hub", False)
        repo = options.pop("repo_id", folder.name)
        online = loading.hub_options(options)
        super().save_pretrained(folder, **options)
        where = repo if push else folder.name
        (folder / "README.md").write_text(card.text(self, where), encoding="utf-8")
        if push:
            loading.upload(folder, repo, **online)

    def push_to_hub(self, repo_id: str, **options) -> None:
        """Save to a temporary folder and upload that, with our model card."""
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, push_to_hub=True, repo_id=repo_id, **options)

    @classmethod
    def load_lora_into_text_encoder(cls, *given, **named) -> None:
        """Nothing: a view needs no text."""

    def use_attention(self, name: str = "sdpa") -> str:
        """Switch the attention of the UNet.

        Args:
            name: "sdpa" (torch's own, as fast or faster on current GPUs) or "xformers", which
                needs CUDA; without it "sdpa" is set and said so.
        Returns: what was set.
        Raises: ValueError: if there is no such attention.
        """
        if name not in ("sdpa", "xformers"):
            raise ValueError(f"attention must be sdpa or xformers, got {name!r}")
        if name == "xformers":
            if torch.cuda.is_available() and importlib.util.find_spec("xformers"):
                self.enable_xformers_memory_efficient_attention()
                return name
            logger.warning("xformers needs CUDA and `pip install xformers`; torch's SDPA is used")
        self.unet.set_attn_processor(AttnProcessor2_0())
        return "sdpa"
