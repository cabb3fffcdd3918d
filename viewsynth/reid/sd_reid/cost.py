# SPDX-License-Identifier: Apache-2.0
"""Cost: what a descriptor costs with the second stage, beside the encoder alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from viewsynth.reid.sd_reid.fused import Fused

ROUNDS = 3  # of which the fastest counts


@torch.inference_mode()
def report(model: Fused, batch: int = 16) -> dict:
    """Parameters, operations and time.

    Args:
        model: In evaluation mode, on its device.
        batch: Pictures at once.
    Returns: `parameters` (of the encoder, learnt by the second stage, of the second stage in all),
        and of `encoder` and `fused` each `gflops` (two a multiply-add) and `milliseconds` a
        picture.
    """
    device = next(model.parameters()).device
    images = torch.rand(batch, 3, *model.backbone.size, generator=torch.Generator().manual_seed(0))
    images = images.to(device)
    count = sum(p.numel() for p in model.generator.parameters())
    own = model.generator.own
    trained = sum(p.numel() for name, p in model.generator.named_parameters() if name in own)
    told = {
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
        told[name] = {
            "gflops": counter.get_total_flops() / batch / 1e9,
            "milliseconds": 1000 * seconds / batch,
        }
    return told


@contextmanager
def _countable() -> Iterator[None]:
    """Attention as plain products: the counter knows no fused kernels of a CPU."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _timed(run, images, device) -> float:
    began = time.perf_counter()
    run(images)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began
