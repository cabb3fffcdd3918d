# SPDX-License-Identifier: Apache-2.0
"""Training stages of a view diffusion model, one after the other, in one output folder.

autoencoder (of a small model) -> diffusion, whole or as a LoRA -> few-step distillation. A stage
that is finished is its last checkpoint, so a stopped run continues where it was.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from viewsynth.diffusion import autoencoder, card, distillation, training
from viewsynth.diffusion.latents import Latents, held_out
from viewsynth.diffusion.pairs.stored import Pairs
from viewsynth.diffusion.pipeline import ViewDiffusionPipeline
from viewsynth.runtime.files import LEFTOVER
from viewsynth.training.loop import Run
from viewsynth.training.progress import open_log, progress

Preview = Callable[[str, int, ViewDiffusionPipeline, list[int], int], None]

STEPS, FEW_STEPS = 20, 4  # sampling steps of the preview, trained and distilled model
CHECKED = 256  # pairs that the autoencoder is validated on


@dataclass(frozen=True)
class Context:
    """What every stage of a run needs.

    Args:
        config: Configuration of `train-diffusion`.
        pairs: Training and validation pairs.
        trained: Rows of `pairs` that are trained on.
        shown: Rows of `pairs` that validation shows: held-out ones, else training rows.
        accelerator: The launcher's Accelerator.
        preview: `preview(stage, step, pipeline, rows, sampling_steps)`, called in the main process
            at every validation of a diffusion stage; `rows` are those of `shown`.
    """

    config: Any
    pairs: Pairs
    trained: list[int]
    shown: list[int]
    accelerator: Any
    preview: Preview


def train(
    config: Any,
    pipeline: ViewDiffusionPipeline,
    pairs: Pairs,
    licences: dict[str, str],
    accelerator,
    preview: Preview,
) -> None:
    """Train all stages and save the pipeline to `pipeline/` of the output folder.

    Args:
        config: Configuration of `train-diffusion`.
        pipeline: The pipeline to train; its weights are changed.
        pairs: Training and validation pairs.
        licences: Part -> licence, for the model card.
        accelerator: The launcher's Accelerator.
        preview: See `Context`.
    """
    folder = config.output
    trained, held = held_out(pairs, config.data.validation, config.seed)
    context = Context(config, pairs, trained, held or trained, accelerator, preview)
    pipeline.to(accelerator.device)
    _log(accelerator, f"{len(trained)} training pairs, {len(held)} validation pairs")
    offset = 0
    if config.model.base == "small":
        pipeline.vae = _train_autoencoder(context, pipeline)
        offset += config.autoencoder.steps
    training.prepare(pipeline, config.model.rank, config.model.checkpointing, config.seed)
    _log(accelerator, "encoding the pairs")
    with accelerator.autocast():
        latents = Latents(pipeline, pairs, trained, config.data.mirror)
        checked = Latents(pipeline, pairs, held, mirror=False) if held else None
    pipeline = _train_diffusion(context, pipeline, latents, checked, offset)
    steps = f"{config.optim.steps} steps of {config.optim.batch} pairs"
    about = {"base": Path(config.model.base).name, "licences": licences}
    card.describe_training(pipeline, pairs, trained, steps, **about)
    if config.distil.steps:
        save_folder(pipeline.save_pretrained, folder / "teacher", accelerator)
        pipeline = _distil(context, pipeline, latents, offset + config.optim.steps)
        steps += f", then {config.distil.steps} steps of distillation"
        card.describe_training(pipeline, pairs, trained, steps, **about)
    save_folder(pipeline.save_pretrained, folder / "pipeline", accelerator)
    _log(accelerator, f"look at {folder / 'grids'}; the model is {folder / 'pipeline'}")


def _train_autoencoder(context: Context, pipeline: ViewDiffusionPipeline):
    """Train the autoencoder of a small model; returns it."""
    config, pairs, accelerator = context.config, context.pairs, context.accelerator
    settings = config.autoencoder

    def validate(step: int, coder) -> dict:
        with accelerator.autocast():
            psnr, colour = autoencoder.quality(coder.vae, pairs, context.shown[:CHECKED])
            return {"val_psnr": psnr, "val_colour": colour}

    with _run(context, "autoencoder", settings.steps, 0, validate) as run:
        return autoencoder.train(pipeline.vae, pairs, context.trained, settings, config.seed, run)


def _train_diffusion(
    context: Context, pipeline: ViewDiffusionPipeline, latents, checked, offset: int
) -> ViewDiffusionPipeline:
    """Train the diffusion model, or a LoRA that is saved and merged; returns the pipeline."""
    config, accelerator = context.config, context.accelerator
    validate = _validator(context, "training", checked)
    with _run(context, "training", config.optim.steps, offset, validate) as run:
        pipeline = training.train(pipeline, latents, config.optim, config.seed, run)
    if config.model.rank:
        lora = pipeline
        save_folder(
            lambda place: training.save_lora(lora, place), config.output / "lora", accelerator
        )
        training.merge_lora(pipeline)
    return pipeline


def _distil(
    context: Context, pipeline: ViewDiffusionPipeline, latents, offset: int
) -> ViewDiffusionPipeline:
    """Distil the trained pipeline to a few sampling steps; returns the student."""
    config, model = context.config, context.config.model
    validate = _validator(context, "distillation", None)
    with _run(context, "distillation", config.distil.steps, offset, validate) as run:
        return distillation.train(
            pipeline,
            latents,
            config.distil,
            config.seed,
            run,
            rank=model.rank,
            checkpointing=model.checkpointing,
        )


@contextlib.contextmanager
def _run(
    context: Context, stage: str, steps: int, offset: int, validate: Callable
) -> Iterator[Run]:
    """The run of a stage, with its bar, log and trackers."""
    config, accelerator = context.config, context.accelerator
    folder = config.output / stage
    log = open_log(folder, config.every, steps)
    with progress(log, accelerator, stage, offset) as report:
        yield Run(folder, accelerator, config.every, report, validate)


def _validator(context: Context, stage: str, checked) -> Callable:
    """Validation of a diffusion stage: a preview, and the loss at fixed noise.

    Args:
        context: See there.
        stage: Name of the stage.
        checked: Latents of held-out pairs; None = no loss.
    """
    config, accelerator = context.config, context.accelerator
    steps = STEPS if stage == "training" else FEW_STEPS

    def validate(step: int, pipeline: ViewDiffusionPipeline) -> dict:
        with accelerator.autocast():
            if accelerator.is_main_process:
                context.preview(stage, step, pipeline, context.shown, steps)
            if checked is None:
                return {}
            return {"val_loss": training.check(pipeline, checked, config.optim, config.seed)}

    return validate


def save_folder(save: Callable[[Path], None], folder: Path, accelerator) -> None:
    """Replace a folder by a new one that is written to a temporary place first.

    Args:
        save: `save(place)` writes the folder; called in the main process.
        folder: Final place; its name is that of the temporary one, which a model card repeats.
        accelerator: The launcher's Accelerator.
    """
    if accelerator.is_main_process:
        staged = folder.with_name(f"{LEFTOVER}{uuid.uuid4().hex}")
        save(staged / folder.name)
        if folder.exists():
            shutil.rmtree(folder)
        (staged / folder.name).rename(folder)
        staged.rmdir()
    accelerator.wait_for_everyone()


def _log(accelerator, text: str) -> None:
    if accelerator.is_main_process:
        sys.stderr.write(text + "\n")
