# SPDX-License-Identifier: Apache-2.0
"""Fused: identity feature and one sampled feature a view as one descriptor; saved and loaded.

A folder of it is complete but for the weights of Stable Diffusion, if those were the start:
`config.json`, `adapter.safetensors` (what the second stage learnt, and nothing else) and `person/`,
the model of the first stage. `encoders` finds it like any model that we trained.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from torch import Tensor, nn
from torch.nn import functional

from viewsynth import __version__
from viewsynth.reid import pretrained, saved
from viewsynth.reid.backbones import drawn
from viewsynth.reid.methods.sd_reid import SDReID
from viewsynth.reid.sd_reid.model import Generator
from viewsynth.reid.sd_reid.options import GeneratorShape
from viewsynth.reid.sd_reid.sampling import SEED, sample, starts
from viewsynth.runtime.files import write

ADAPTER, PERSON = "adapter.safetensors", "person"


class Fused(nn.Module):
    """What retrieval compares: [identity, sampled view 1, sampled view 2, ...].

    Args:
        person: The first stage.
        generator: The second.
        steps: Of the sampler.
        guidance: See `sampling.sample`.

    Attributes:
        backbone: Of the first stage: what says the size of the pictures.
        running: The generator of random numbers of the mode `faithful`, which runs on from call to
            call; None in the mode `fixed`.
    """

    def __init__(self, person: SDReID, generator: Generator, steps: int, guidance: float):
        super().__init__()
        self.person, self.generator = person, generator
        self.steps, self.guidance = steps, guidance
        mode = generator.mode
        self.running = torch.Generator().manual_seed(SEED) if mode.running_noise else None

    @property
    def backbone(self) -> nn.Module:
        """Of the first stage."""
        return self.person.backbone

    @property
    def ordered(self) -> bool:
        """Whether features hang on the order in which pictures come."""
        return self.running is not None

    @property
    def parts(self) -> dict[str, tuple[int, int]]:
        """Where in a descriptor the first stage's feature and the sampled ones stand."""
        width = self.backbone.width
        return {"identity": (0, width), "generated": (width, (1 + self.generator.views) * width)}

    def features(self, images: Tensor) -> Tensor:
        """Descriptors.  RGB in [0, 1] [B, 3, H, W] -> [B, (1 + V) D]"""
        found = self.person.encode(images)
        return self.join(found.identity, self.generate(found.condition))

    def generate(self, condition: Tensor) -> Tensor:
        """Sampled features of all views, before the neck.  [B, T - 1, D] -> [V, B, D]"""
        own, count = self.generator, len(condition)
        if self.running is None:
            noise = starts(own.views, count, own.grid.shape)
        else:
            size = (own.views, count, *own.grid.shape)
            noise = torch.randn(size, generator=self.running)
        noise = noise.to(condition.device)
        return sample(own, condition, noise, self.steps, self.guidance, self.running)

    def join(self, identity: Tensor, sampled: Tensor) -> Tensor:
        """The descriptor of features before the neck.  [B, D], [V, B, D] -> [B, (1 + V) D]"""
        neck = self.person.neck.norm
        if self.generator.mode.one_norm:
            return functional.normalize(torch.cat([neck(identity), *sampled], 1))
        parts = [functional.normalize(neck(part)) for part in (identity, *sampled)]
        return torch.cat(parts, 1) / len(parts) ** 0.5


def save(model: Fused, folder: Path, about: dict) -> None:
    """Write a fused model; config.json last.

    Args:
        about: What else the file should tell, as JSON types.
    Raises: files.WriteError: if the disk is full or read-only.
    """
    saved.save(model.person, folder / PERSON, about)
    weights = {k: v.detach().cpu().contiguous() for k, v in model.generator.trained().items()}
    write(folder / ADAPTER, to_bytes(weights, {"format": "pt"}))
    said = {saved.MARK: __version__, **describe(model), "about": about}
    write(folder / saved.CONFIG, (json.dumps(said, indent=1) + "\n").encode())


def describe(model: Fused) -> dict:
    """All but the weights, as JSON types."""
    own = model.generator
    settings = {
        "shape": asdict(own.shape),
        "views": len(own.prototypes),
        "steps": model.steps,
        "guidance": model.guidance,
        "base_sha256": own.denoiser.base,
    }
    return {saved.GENERATION: settings, "person": saved.describe(model.person)}


def load(path: str | Path) -> tuple[Fused, dict]:
    """A saved fused model, in evaluation mode, on the CPU, and what was said about it.

    Raises:
        FileNotFoundError: if a file is missing, or the UNet that it began with.
        ValueError: if weights and configuration do not belong together.
    """
    folder = Path(path).expanduser()
    if not (folder / ADAPTER).is_file():
        raise FileNotFoundError(f"there is no {ADAPTER} in {folder}; copy the folder whole")
    person, _ = saved.load(folder / PERSON)
    said = saved.read(folder)
    try:
        told = said[saved.GENERATION]
        with drawn(0, "rebuild"):  # to be replaced
            generator = Generator(
                person.backbone.width,
                len(person.backbone.blocks),
                told["views"],
                GeneratorShape(**told["shape"]),
            )
        if (base := generator.denoiser.base) != told["base_sha256"]:
            raise ValueError(
                f"the UNet of {told['shape']['denoiser']} is not the one that it learnt on "
                f"(SHA-256 {base[:12]}, expected {told['base_sha256'][:12]})"
            )
        weights = from_bytes((folder / ADAPTER).read_bytes())
        if wrong := weights.keys() ^ generator.trained().keys():
            raise ValueError(f"{len(wrong)} weights are not in both, e.g. {min(wrong)}")
        generator.load_state_dict(weights, strict=False)
        model = Fused(person, generator, told["steps"], told["guidance"])
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(
            f"{folder} cannot be loaded: its {saved.CONFIG} and {ADAPTER} must be of one model, "
            f"whole (saved by viewsynth {said[saved.MARK]}, this is {__version__}): "
            f"{pretrained.first_line(error)}"
        ) from error
    return model.eval(), said.get("about", {})
