# SPDX-License-Identifier: Apache-2.0
"""Loading and saving of `ViewDiffusionPipeline`, with strict weights and our model card."""

from __future__ import annotations

import tempfile
from pathlib import Path

from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel

from viewsynth.diffusion import card, loading
from viewsynth.diffusion.networks import IdentityEncoder, ViewConditioner
from viewsynth.runtime import hub

KINDS = {
    "vae": (AutoencoderKL, AutoencoderTiny),
    "unet": UNet2DConditionModel,
    "conditioner": ViewConditioner,
    "identity_encoder": IdentityEncoder,
}


class PretrainedMixin:
    """`from_pretrained`, `save_pretrained` and `push_to_hub`; comes before `DiffusionPipeline`."""

    @classmethod
    def from_pretrained(cls, path: str | Path, **options):
        """Load a pipeline; weights that do not match their model are an error.

        Args:
            path: Folder written by `save_pretrained`, or the id of a model on the hub.
            options: See `DiffusionPipeline.from_pretrained`: torch_dtype, variant, components ...

        Raises:
            FileNotFoundError: If there is no such folder and the hub has no such model.
            ValueError: If it is another pipeline, or has weights of another architecture.
        """
        folder = hub.folder_of(path, **loading.hub_options(options))
        parts = loading.components(cls.__name__, folder, KINDS, options)
        return super().from_pretrained(str(folder), **{**options, **parts})

    def save_pretrained(self, save_directory: str | Path, **options) -> None:
        """Write all components and the model card, README.md, and optionally push them to the hub.

        Args:
            save_directory: Folder, created if needed.
            options: See `DiffusionPipeline.save_pretrained`: variant, push_to_hub, repo_id ...
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
        """Save to a temporary folder with our model card, and upload it.

        Args:
            repo_id: Id of the model on the hub.
            options: See `save_pretrained`.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, push_to_hub=True, repo_id=repo_id, **options)

    @classmethod
    def load_lora_into_text_encoder(cls, *given, **named) -> None:
        """Do nothing: the pipeline has no text encoder."""
