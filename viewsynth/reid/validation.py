# SPDX-License-Identifier: Apache-2.0
"""Validation of a ReID training run, and the choice of the model to keep.

A part of the training identities is held out; the model that retrieves them best is saved as
`model/` of the run. Every held-out image is a query and a gallery image at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from viewsynth import metrics
from viewsynth.records import Protocol
from viewsynth.reid import methods, saved
from viewsynth.reid.pixels import Pixels
from viewsynth.training import checkpoints
from viewsynth.training.loop import DivergedError, load_trained

CHUNK = 256  # images in a forward pass


def validator(
    pixels: Pixels | None, best: float, rate: float, save: Callable[[nn.Module, int], None]
) -> Callable[[int, nn.Module], dict] | None:
    """The function that validates a model and saves it if it is the best so far.

    Args:
        pixels: Images of the held-out identities; None = there are none.
        best: mAP of the best model that is saved already.
        rate: Learning rate of the run, for the error message.
        save: `save(model, step)`, called in every process.

    Returns:
        `validate(step, model) -> {"val_mAP", "val_rank1"}`, which raises `DivergedError` where a
        feature is not finite; None if no query has a match. Matches are across views where there
        are two views, else across cameras.
    """
    samples = pixels.samples if pixels else []
    camera = "view" if len({sample.view for sample in samples}) > 1 else "camid"
    if not Protocol(name="", query=samples, gallery=samples, camera=camera).valid_queries:
        return None
    pids = [sample.pid for sample in samples]
    cameras = [getattr(sample, camera) for sample in samples]

    def validate(step: int, model: nn.Module) -> dict:
        nonlocal best
        rows = features(model, pixels)
        if not np.isfinite(rows).all():
            raise DivergedError(
                f"after step {step} the features of the validation images are not finite; lower "
                f"--optim.rate ({rate:g}) in a new --output"
            )
        distances = metrics.cosine_distances(rows, rows)
        found = metrics.rank_metrics(distances, pids, pids, cameras, cameras)
        if found.mAP > best:
            best = found.mAP
            save(model, step)
        return {"val_mAP": found.mAP, "val_rank1": float(found.cmc[0])}

    return validate


def features(model: nn.Module, pixels: Pixels) -> np.ndarray:
    """Features of all images, in evaluation mode and not normalised.  float32 [N, D]."""
    device, found = next(model.parameters()).device, []
    names = methods.told_views(model)
    views = methods.view_numbers(names, pixels.samples) if names else None
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(pixels.samples), CHUNK):
            images = pixels.get(range(start, min(start + CHUNK, len(pixels.samples))))
            images = images.to(device).permute(0, 3, 1, 2).contiguous().float() / 255
            told = () if views is None else (views[start : start + CHUNK].to(device),)
            found.append(model.features(images, *told).float().cpu())
    return torch.cat(found).numpy()


def best_so_far(
    run: Path,
    rows: Sequence[dict],
    method: nn.Module,
    save: Callable[[nn.Module, int], None],
    accelerator,
) -> float:
    """Best mAP so far of a resumed run; a missing `model/` is restored from a checkpoint.

    Args:
        run: Folder of the run.
        rows: Rows of the log, up to the newest checkpoint.
        method: A model to load a checkpoint into; its weights may be changed, so call this before
            the newest checkpoint is read.
        save: `save(model, step)`, called in the main process.
        accelerator: The launcher's Accelerator.

    Returns:
        The mAP, -1 if no model was validated yet.
    """
    rows = [row for row in rows if "val_mAP" in row]
    none, folder = {"step": 0, "val_mAP": -1.0}, run / "model"
    best = max(rows, key=lambda row: row["val_mAP"], default=none)
    present = saved.is_ours(folder)
    stored = json.loads((folder / saved.CONFIG).read_text(encoding="utf-8")) if present else {}
    accelerator.wait_for_everyone()  # all processes have looked before one writes
    if present or not rows:  # a model of a step after the newest checkpoint will be made again
        step = stored.get("about", {}).get("step")
        return next((row["val_mAP"] for row in rows if row["step"] == step), best["val_mAP"])
    folders = {row["step"]: run / f"{checkpoints.NAME}{row['step']}" for row in rows}
    left = [row for row in rows if folders[row["step"]].is_dir()]
    found = max(left, key=lambda row: row["val_mAP"], default=none)
    if found is none:
        return none["val_mAP"]  # the best one from here on is kept
    if found is not best and accelerator.is_main_process:
        sys.stderr.write(
            f"model/ is missing, and so is the checkpoint of step {best['step']}, which was the "
            f"best; that of step {found['step']} takes its place\n"
        )
    if accelerator.is_main_process:
        tensors, _ = checkpoints.read_checkpoint(folders[found["step"]])
        load_trained(method, tensors.get("average", tensors["model"]))
        save(method, found["step"])
    return found["val_mAP"]
