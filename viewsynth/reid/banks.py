# SPDX-License-Identifier: Apache-2.0
"""Memory banks: features of all training images, computed anew at the start of every epoch.

reid.training -> `features` -> a method's `rebuild`. The images are not augmented and the model is
in evaluation mode. A chunk of `CHUNK` images is computed by one process, whichever, so that a bank
does not depend on the number of processes (but for the running statistics of batch norms in the
backbone). A method keeps what it needs in buffers, which a checkpoint includes, so that a run that
is resumed within an epoch goes on with the same bank.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from viewsynth.reid.pixels import Pixels

CHUNK = 128  # images in a forward pass


@torch.no_grad()
def features(
    model: nn.Module, of: Callable[[Tensor], Tensor], pixels: Pixels, accelerator
) -> Tensor:
    """Features of all images.

    Args:
        model: The method, not wrapped; its mode is kept.
        of: Images, RGB in [0, 1], float [B, 3, H, W] -> features, float [B, D].
        pixels: The images.
        accelerator: Of accelerate.

    Returns:
        float32 [N, D], on the accelerator's device, equal in every process.
    """
    training, count, device = model.training, len(pixels.samples), accelerator.device
    model.eval()
    starts = range(0, count, CHUNK)
    ranks, found = accelerator.num_processes, []
    for start in starts[accelerator.process_index :: ranks]:
        images = pixels.get(range(start, min(start + CHUNK, count)))
        images = images.to(device).permute(0, 3, 1, 2).contiguous().float() / 255
        rows = of(images).float()
        found.append(functional.pad(rows, (0, 0, 0, CHUNK - len(rows))))
    model.train(training)
    most = -(-len(starts) // ranks)
    width = _width(found, accelerator)
    found += [torch.zeros(CHUNK, width, device=device)] * (most - len(found))
    every = accelerator.gather(torch.stack(found)[None])  # [ranks, most, CHUNK, D]
    return every.transpose(0, 1).reshape(-1, width)[:count].contiguous()


def _width(found: list[Tensor], accelerator) -> int:
    """Length of a feature, also in a process that computed none."""
    own = torch.tensor([found[0].shape[1] if found else 0], device=accelerator.device)
    return int(accelerator.gather(own).max())
