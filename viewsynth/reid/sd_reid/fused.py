# SPDX-License-Identifier: Apache-2.0
"""Complete SD-ReID model: descriptors of the identity feature and a sampled feature for each view.

`save` writes `config.json`, `adapter.safetensors` (the weights that the second stage trained) and
`person/` (the model of the first stage); only a pretrained UNet is not included. reid.encoders
loads the folder like any trained method.
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
from viewsynth.reid.backbones import seeded
from viewsynth.reid.methods.sd_reid import SDReID
from viewsynth.reid.sd_reid.model import Generator
from viewsynth.reid.sd_reid.options import GeneratorShape
from viewsynth.reid.sd_reid.sampling import SEED, initial_noise, sample
from viewsynth.runtime.files import write

ADAPTER, PERSON = "adapter.safetensors", "person"


class Fused(nn.Module):
    """Both stages; a descriptor is [identity feature, sampled feature of view 1, of view 2, ...].

    Args:
        person: The first stage.
        generator: The second stage.
        steps: Number of sampling steps.
        guidance: See `sampling.sample`.

    Attributes:
        running: Random generator that all calls share in the mode `faithful`; None in the mode
            `fixed`.
    """

    def __init__(self, person: SDReID, generator: Generator, steps: int, guidance: float):
        super().__init__()
        self.person, self.generator = person, generator
        self.steps, self.guidance = steps, guidance
        mode = generator.mode
        self.running = torch.Generator().manual_seed(SEED) if mode.running_noise else None

    @property
    def backbone(self) -> nn.Module:
        """Backbone of the first stage, which defines the size of the images."""
        return self.person.backbone

    @property
    def ordered(self) -> bool:
        """Whether features depend on the order of the images."""
        return self.running is not None

    @property
    def parts(self) -> dict[str, tuple[int, int]]:
        """Range of the first stage's feature, and of the sampled ones, in a descriptor."""
        width = self.backbone.width
        return {"identity": (0, width), "generated": (width, (1 + self.generator.views) * width)}

    def features(self, images: Tensor) -> Tensor:
        """Descriptors.

        Args:
            images: RGB in [0, 1].  float [B, 3, H, W]

        Returns:
            [B, (1 + V) D]
        """
        encoded = self.person.encode(images)
        return self.join(encoded.identity, self.generate(encoded.condition))

    def generate(self, condition: Tensor) -> Tensor:
        """Sampled features of all views, before the neck.

        Args:
            condition: Identity conditions.  [B, T - 1, D]

        Returns:
            [V, B, D]
        """
        model, count = self.generator, len(condition)
        if self.running is None:
            noise = initial_noise(model.views, count, model.grid.shape)
        else:
            size = (model.views, count, *model.grid.shape)
            noise = torch.randn(size, generator=self.running)
        noise = noise.to(condition.device)
        return sample(model, condition, noise, self.steps, self.guidance, self.running)

    def join(self, identity: Tensor, sampled: Tensor) -> Tensor:
        """Descriptors of features before the neck.

        Args:
            identity: Identity features.  [B, D]
            sampled: Sampled features.  [V, B, D]

        Returns:
            [B, (1 + V) D]
        """
        neck = self.person.neck.norm
        if self.generator.mode.one_norm:
            return functional.normalize(torch.cat([neck(identity), *sampled], 1))
        parts = [functional.normalize(neck(part)) for part in (identity, *sampled)]
        return torch.cat(parts, 1) / len(parts) ** 0.5


def save(model: Fused, folder: Path, about: dict) -> None:
    """Write a complete model, config.json last.

    Args:
        model: The model.
        folder: Folder to write.
        about: Further entries for config.json, as JSON types.

    Raises:
        files.WriteError: If the disk is full or read-only.
    """
    saved.save(model.person, folder / PERSON, about)
    weights = {k: v.detach().cpu().contiguous() for k, v in model.generator.adapter().items()}
    write(folder / ADAPTER, to_bytes(weights, {"format": "pt"}))
    config = {saved.MARK: __version__, **describe(model), "about": about}
    write(folder / saved.CONFIG, (json.dumps(config, indent=1) + "\n").encode())


def describe(model: Fused) -> dict:
    """Configuration that `load` rebuilds a model from, as JSON types."""
    generator = model.generator
    settings = {
        "shape": asdict(generator.shape),
        "views": len(generator.prototypes),
        "steps": model.steps,
        "guidance": model.guidance,
        "base_sha256": generator.denoiser.base,
    }
    return {saved.SECOND_STAGE: settings, "person": saved.describe(model.person)}


def load(path: str | Path) -> tuple[Fused, dict]:
    """A saved model, in evaluation mode, on the CPU, and the `about` that `save` was given.

    Args:
        path: Folder of the model.

    Raises:
        FileNotFoundError: if a file or the pretrained UNet is missing.
        ValueError: if weights and configuration do not match, or the pretrained UNet is another.
    """
    folder = Path(path).expanduser()
    if not (folder / ADAPTER).is_file():
        raise FileNotFoundError(
            f"there is no {ADAPTER} in {folder}; copy the whole folder that was saved"
        )
    person, _ = saved.load(folder / PERSON)
    config = saved.read(folder)
    try:
        settings = config[saved.SECOND_STAGE]
        with seeded(0, "rebuild"):  # leave the global random state unchanged
            generator = Generator(
                person.backbone.width,
                len(person.backbone.blocks),
                settings["views"],
                GeneratorShape(**settings["shape"]),
            )
        if (base := generator.denoiser.base) != settings["base_sha256"]:
            raise ValueError(
                f"the UNet of {settings['shape']['denoiser']} is not the one that it was trained "
                f"with (SHA-256 {base[:12]}, expected {settings['base_sha256'][:12]})"
            )
        weights = from_bytes((folder / ADAPTER).read_bytes())
        if wrong := weights.keys() ^ generator.adapter().keys():
            raise ValueError(f"{len(wrong)} weights are not in both, e.g. {min(wrong)}")
        generator.load_state_dict(weights, strict=False)
        model = Fused(person, generator, settings["steps"], settings["guidance"])
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(
            f"{folder} cannot be loaded: its {saved.CONFIG} and {ADAPTER} must be of one model, "
            f"whole (saved by viewsynth {config[saved.MARK]}, this is {__version__}): "
            f"{pretrained.first_line(error)}"
        ) from error
    return model.eval(), config.get("about", {})
