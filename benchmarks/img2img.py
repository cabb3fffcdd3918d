# SPDX-License-Identifier: Apache-2.0
"""Networks with random weights, pipeline variants and memory measurement for `diffusion.py`.

All variants of a model share the storage of their weights, except for weights that need another
memory format or number of input channels.
"""

from __future__ import annotations

import copy
import ctypes
import threading
from dataclasses import dataclass, replace
from functools import cached_property

import psutil
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    StableDiffusionImg2ImgPipeline,
    UNet2DConditionModel,
)
from torch import Tensor, nn

from viewsynth.diffusion import adapt
from viewsynth.diffusion.conditions import Conditions
from viewsynth.diffusion.networks import IdentityEncoder, ViewConditioner, widen
from viewsynth.diffusion.pipeline import ViewDiffusionPipeline

WORDS = 77  # tokens of a prompt


@dataclass(frozen=True)
class Way:
    """A variant of our pipeline.

    Args:
        name: Name of its row.
        shared: Whether a photo is encoded once instead of once per view.
        one: Whether guidance takes one call of the UNet instead of two.
        static: Whether all calls have the same shape.
        last: Whether images and weights are in the channels-last format.
        tiny: Whether the tiny autoencoder is used.
        distilled: Whether guidance is distilled into the weights, without a second prediction.
        compiled: Whether the networks are compiled.
    """

    name: str = "ours, nothing shared"
    shared: bool = False
    one: bool = False
    static: bool = False
    last: bool = False
    tiny: bool = False
    distilled: bool = False
    compiled: bool = False


class TwoCalls(ViewDiffusionPipeline):
    """Calls the UNet twice per guided step."""

    def _denoise(self, noisy: Tensor, timestep, channels: Tensor, tokens: Tensor) -> Tensor:
        halves = zip(noisy.chunk(2), channels.chunk(2), tokens.chunk(2), strict=True)
        parts = [super(TwoCalls, self)._denoise(n, timestep, c, t) for n, c, t in halves]
        return torch.cat(parts)


# ---- networks ------------------------------------------------------------------------------------


def networks(small: bool, quick: bool) -> dict:
    """Components of our pipeline with random weights, and "full", the large autoencoder or None.

    Args:
        small: Whether to use the architecture of the bundled model, else Stable Diffusion 1.5.
        quick: Whether to use few channels.
    """
    if small:
        parts = adapt.small()
        first = parts["unet"].conv_in.weight.data
        first[:, parts["unet"].config.out_channels :] = 0  # so that plain predicts the same
        return parts | {"full": None}
    torch.manual_seed(0)
    size, widths = (256, 128), (32, 64, 64, 64) if quick else (320, 640, 1280, 1280)
    unet = UNet2DConditionModel(  # other defaults are those of SD-1.5
        sample_size=(32, 16),
        block_out_channels=widths,
        cross_attention_dim=768,
        layers_per_block=1 if quick else 2,
    )
    full = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 32, 64, 64) if quick else (128, 256, 512, 512),
        layers_per_block=1 if quick else 2,
        latent_channels=4,
    )
    identity = IdentityEncoder(adapt.RESNET, size)
    return {
        "vae": AutoencoderTiny(),
        "full": full,
        "unet": widen(unet),
        "identity_encoder": identity,
        "conditioner": ViewConditioner(4, 768, identity.dim, size=size),
        "scheduler": DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            clip_sample=False,
            set_alpha_to_one=False,
        ),
    }


def narrow(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """UNet without the additional input channels, with the same weights."""
    count = unet.config.out_channels
    config = {**unet.config, "in_channels": count, "sample_size": 64}  # plain needs a single number
    with torch.device("meta"):
        plain = UNet2DConditionModel.from_config(config)
    state = unet.state_dict()
    state["conv_in.weight"] = state["conv_in.weight"][:, :count].clone()
    plain.load_state_dict(state, assign=True)
    return plain.eval()


def share(module: nn.Module) -> nn.Module:
    """Copy of a module that shares its storage and can have another memory format."""
    own = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in module.parameters()}
    return copy.deepcopy(module, own)


# ---- variants ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Scene:
    """Settings of a table, shared by its rows.

    Args:
        parts: See `networks`, with their final device and dtype.
        batch: Number of views.
        photos: Number of photos that the views show.
        steps: Sampling steps.
        guidance: Guidance scale; 1 = none.
    """

    parts: dict
    batch: int
    photos: int
    steps: int
    guidance: float

    @cached_property
    def views(self) -> Conditions:
        """Random conditions: the content does not affect the time."""
        draw = torch.Generator().manual_seed(0)
        size, unet = self.parts["conditioner"].config.size, self.parts["unet"]

        def plane(number: int, channels: int) -> Tensor:
            return torch.rand(number, channels, *size, generator=draw)

        camera = torch.tensor([[60.0, 10, 0, 20, 0.5]]).repeat(self.batch, 1)
        person = torch.arange(self.batch) * self.photos // self.batch
        return Conditions(
            source=plane(self.photos, 3),
            person=person,
            render=plane(self.batch, 3),
            seen=plane(self.batch, 1),
            normals=plane(self.batch, 3) * 2 - 1,
            camera=camera,
        ).to(unet.device)

    def draws(self) -> list[torch.Generator]:
        """Generators with the same noise for all rows."""
        return [torch.Generator().manual_seed(seed) for seed in range(self.batch)]

    def vae(self, tiny: bool) -> nn.Module:
        full = self.parts["full"]
        return self.parts["vae"] if tiny or full is None else full

    def ours(self, way: Way):
        """Function of a variant of our pipeline: steps -> images."""
        names = ("conditioner", "identity_encoder", "scheduler")
        parts = {name: copy.copy(self.parts[name]) for name in names}
        parts |= {"unet": share(self.parts["unet"]), "vae": share(self.vae(way.tiny))}
        if way.last:
            for name in ("unet", "vae"):
                parts[name].to(memory_format=torch.channels_last)
        if way.compiled:
            for module in (parts["unet"], parts["vae"].encoder, parts["vae"].decoder):
                module.compile(dynamic=False)
        pipe = (ViewDiffusionPipeline if way.one else TwoCalls)(**parts)
        given = self.views
        if not way.shared:
            own = torch.arange(self.batch, device=given.person.device)
            given = replace(given, source=given.source[given.person], person=own)
        batch, guidance = self.batch if way.static else 0, 1.0 if way.distilled else self.guidance
        return lambda steps: pipe.sample(given, steps, guidance, self.draws(), batch=batch)

    def theirs(self, tiny: bool):
        """Function of the plain pipeline with an encoded prompt: steps -> images."""
        unet = narrow(self.parts["unet"])
        # The plain pipeline requires an offset of 1, which costs no time.
        scheduler = DDIMScheduler.from_config(self.parts["scheduler"].config, steps_offset=1)
        pipe = StableDiffusionImg2ImgPipeline(
            self.vae(tiny), None, None, unet, scheduler, None, None, requires_safety_checker=False
        )
        pipe.set_progress_bar_config(disable=True)
        words = torch.randn(
            self.batch,
            WORDS,
            unet.config.cross_attention_dim,
            generator=torch.Generator().manual_seed(0),
        ).to(unet.device, unet.dtype)
        image = self.views.render.to(unet.dtype)
        return lambda steps: (
            pipe(
                image=image,
                prompt_embeds=words,
                negative_prompt_embeds=words,
                strength=1.0,
                num_inference_steps=steps,
                guidance_scale=self.guidance,
                generator=self.draws(),
                output_type="pt",
            ).images
        )

    @torch.no_grad()
    def agree(self) -> None:
        """Check that plain and ours predict the same, and that our variants agree."""
        wide = self.parts["unet"]
        draw, config = torch.Generator().manual_seed(0), wide.config
        shape = self.batch, config.in_channels, *config.sample_size
        noisy = torch.randn(shape, generator=draw).to(wide.device, wide.dtype)
        words = torch.randn(self.batch, 8, config.cross_attention_dim, generator=draw).to(noisy)
        plain = narrow(wide)(noisy[:, : config.out_channels], 500, words).sample
        close = {"rtol": 0, "atol": 1e-3 if wide.dtype == torch.float32 else 0.1}
        torch.testing.assert_close(wide(noisy, 500, words).sample, plain, **close)
        best = Way(shared=True, one=True, static=True, last=True)
        made = [self.ours(way)(1) for way in (Way(), best)]
        torch.testing.assert_close(*made, **close)


# ---- memory --------------------------------------------------------------------------------------


class Peak:
    """Increase of memory inside a `with`, bytes: allocated on a GPU, resident on a CPU."""

    def __init__(self, device: str, every: float = 0.01):
        self.device, self.every, self.rise = device, every, 0

    def __enter__(self) -> Peak:
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
            return self
        if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
            trim(0)  # release memory that other rows have freed
        self.process, self.over = psutil.Process(), threading.Event()
        self.before = self.most = self.process.memory_info().rss
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while not self.over.wait(self.every):
            self.most = max(self.most, self.process.memory_info().rss)

    def __exit__(self, *_) -> None:
        if self.device == "cuda":
            self.rise = torch.cuda.max_memory_allocated() - self.before
            return
        self.over.set()
        self.thread.join()
        self.rise = self.most - self.before
