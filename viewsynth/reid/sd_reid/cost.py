# SPDX-License-Identifier: Apache-2.0
"""Cost of a descriptor with the second stage, compared with the first stage alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from viewsynth.reid.sd_reid.fused import Fused

ROUNDS = 3  # number of timed runs, of which the fastest counts


@torch.inference_mode()
def report(model: Fused, batch: int = 16) -> dict:
    """Number of parameters, floating-point operations and time.

    Args:
        model: The model, in evaluation mode, on its device.
        batch: Number of images in a batch.

    Returns:
        `parameters`: of the first stage (`encoder`), trained by the second stage (`learnt`), of the
        whole second stage (`generator`); and for `encoder` and `fused` the `gflops` (a multiply-add
        counts as two) and `milliseconds` for each image.
    """
    device = next(model.parameters()).device
    images = torch.rand(batch, 3, *model.backbone.size, generator=torch.Generator().manual_seed(0))
    images = images.to(device)
    count = sum(p.numel() for p in model.generator.parameters())
    names = model.generator.adapter_names
    trained = sum(p.numel() for name, p in model.generator.named_parameters() if name in names)
    costs = {
        "parameters": {
            "encoder": sum(p.numel() for p in model.person.parameters()),
            "learnt": trained,
            "generator": count,
        }
    }
    for name, run in (("encoder", model.person.features), ("fused", model.features)):
        with FlopCounterMode(display=False) as counter, _countable():
            run(images)
        seconds = min(_timed(run, images, device) for _ in range(ROUNDS))
        costs[name] = {
            "gflops": counter.get_total_flops() / batch / 1e9,
            "milliseconds": 1000 * seconds / batch,
        }
    return costs


@contextmanager
def _countable() -> Iterator[None]:
    """Compute attention by matrix products: FlopCounterMode ignores the fused kernels of a CPU."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _timed(run, images, device) -> float:
    """Seconds of one run."""
    began = time.perf_counter()
    run(images)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began
