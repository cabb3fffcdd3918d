# SPDX-License-Identifier: Apache-2.0
"""Time of SD-ReID's second stage: training steps from cached features or images, and descriptors.

python benchmarks/sd_reid.py [--encoder vit_b16] [--batch 16] [--rounds 3] [--bf16]

Weights are random, which does not affect the time. The variants are timed in turns; the median over
all rounds is printed. "From images" encodes the batch in every step, like the released code. The
cost of a fused descriptor is compared with that of the encoder alone.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from diffusers import UNet2DConditionModel
from torch import nn
from transformers import ViTConfig, ViTModel

from viewsynth.reid import backbones, methods, scratch
from viewsynth.reid.sd_reid import cost, denoisers, fused, sampling, training
from viewsynth.reid.sd_reid.cache import Cached
from viewsynth.reid.sd_reid.conditions import Fusion, Pyramid
from viewsynth.reid.sd_reid.model import Generator
from viewsynth.reid.sd_reid.options import GeneratorOptimization, GeneratorShape
from viewsynth.training.rows import Draws

SD15 = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [320, 640, 1280, 1280],
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}
VIEWS = 2


def encoder(name: str, device) -> nn.Module:
    """First stage with random weights: a ViT-B/16 at 256 x 128, or the small ViT at 128 x 64."""
    torch.manual_seed(0)
    if name == "vit_b16":
        half = (0.5, 0.5, 0.5)
        body = backbones.TokenBackbone(
            ViTModel(ViTConfig(layer_norm_eps=1e-6)), (256, 128), half, half
        )
    else:
        body = backbones.load(scratch.SMALL_VIT, (128, 64))
    return (
        methods.build("sd_reid", body, 100, views=[f"view{n}" for n in range(VIEWS)])
        .to(device)
        .eval()
    )


def generator(person: nn.Module, denoiser: str, device) -> Generator:
    """Second stage; "sd15" = a frozen UNet of the size of Stable Diffusion 1.5."""
    width, tokens = person.backbone.width, len(person.backbone.blocks)
    wanted = "mlp" if denoiser == "sd15" else denoiser
    made = Generator(width, tokens, VIEWS, GeneratorShape(denoiser=wanted))
    if denoiser == "sd15":
        made.denoiser = denoisers.UNet(UNet2DConditionModel(**SD15), frozen=True)
        made.fusion = Fusion(width, made.denoiser.context, tokens, 1, False)
        size = (made.grid.height, made.grid.across)
        made.pyramid = Pyramid(size, *made.denoiser.levels())
    return made.to(device)


def step(person, made: Generator, optimiser, images, cached: Cached | None, settings, bf16: bool):
    """One training step, from cached features or, if `cached` is None, from images."""
    device = images.device
    count = len(images)
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        if cached is None:
            with torch.no_grad():
                found = person.encode(images)
            cached = cache_of(found, count)
        losses = training.Denoising(made, cached, settings, device)
        draws = Draws(count, slice(None), 0, "step")
        loss = sum(losses(made, made, torch.arange(count).numpy(), draws).values())
    loss.backward()
    optimiser.step()
    optimiser.zero_grad()
    if device.type == "cuda":
        torch.cuda.synchronize()


def cache_of(found, count: int) -> Cached:
    """Output of the encoder as a cache."""
    twice = [
        torch.stack([t.float().cpu()] * 2) for t in (found.identity, found.condition, found.view)
    ]
    each = torch.arange(count)
    return Cached(*twice, each % VIEWS, each // 4, torch.ones(count))


def timed(function, *given) -> float:
    """Call a function; returns the seconds."""
    began = time.perf_counter()
    function(*given)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", choices=("vit_b16", "small_vit"), default="vit_b16")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--denoisers", nargs="+", default=["mlp", "small", "sd15"])
    asked = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    person = encoder(asked.encoder, device)
    images = torch.rand(asked.batch, 3, *person.backbone.size, device=device)
    with torch.no_grad():
        cached = cache_of(person.encode(images), asked.batch)
    settings = GeneratorOptimization()
    print(f"{asked.encoder}, batch {asked.batch}, {device}, {'bf16' if asked.bf16 else 'float32'}")
    print(
        "| denoiser | step from images, s | from the cache, s | ratio | encoder, GFLOPs and ms "
        "per image | with 5 guided steps, 2 views | one call per view and branch, ms |"
    )
    print("|---|---|---|---|---|---|---|")
    for name in [n for n in asked.denoisers if n != "sd15" or asked.encoder == "vit_b16"]:
        made = generator(person, name, device)
        trained = [p for p in made.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(trained, lr=1e-5)
        times: dict[str, list[float]] = {"images": [], "cache": [], "separate": []}
        model = fused.Fused(person, made.eval(), 5, 2.0).eval()
        for round_ in range(asked.rounds + 1):
            made.train()
            for way, source in (("images", None), ("cache", cached)):
                seconds = timed(step, person, made, optimiser, images, source, settings, asked.bf16)
                times[way] += [seconds] if round_ else []
            made.eval()
            seconds = timed(separate, model, images)
            times["separate"] += [seconds] if round_ else []
        costs = cost.report(model, asked.batch)
        slow, fast, split = (statistics.median(times[k]) for k in ("images", "cache", "separate"))
        one, both = costs["encoder"], costs["fused"]
        print(
            f"| {name} | {slow:.3f} | {fast:.3f} | {slow / fast:.1f} | {one['gflops']:.2f}, "
            f"{one['milliseconds']:.1f} | {both['gflops']:.1f}, {both['milliseconds']:.1f} | "
            f"{1000 * split / asked.batch:.1f} |",
            flush=True,
        )


@torch.no_grad()
def separate(model: fused.Fused, images: torch.Tensor) -> None:
    """Sample with separate calls of the denoiser for each view and branch of the guidance."""
    condition, own = model.person.encode(images).condition, model.generator
    noise = sampling.initial_noise(own.views, len(images), own.grid.shape).to(images.device)
    inner = own.denoiser.forward

    def one_by_one(latents, times, tokens, down, up):
        parts = [slice(k, k + len(images)) for k in range(0, len(latents), len(images))]
        return torch.cat(
            [
                inner(latents[p], times[p], tokens[p], [m[p] for m in down], [m[p] for m in up])
                for p in parts
            ]
        )

    own.denoiser.forward = one_by_one
    try:
        sampling.sample(own, condition, noise, model.steps, model.guidance)
    finally:
        own.denoiser.forward = inner


if __name__ == "__main__":
    main()
