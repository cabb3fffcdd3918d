# SPDX-License-Identifier: Apache-2.0
"""Progress of a training run."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from viewsynth.training import progress


@pytest.mark.parametrize(
    ("precision", "supported", "warned"), [("bf16", False, 1), ("bf16", True, 0), ("no", False, 0)]
)
def test_a_cpu_without_bfloat16_instructions_is_named(
    tmp_path, monkeypatch, capsys, precision, supported, warned
):
    monkeypatch.setattr(progress, "_has_bf16", lambda: supported)
    accelerator = SimpleNamespace(
        is_main_process=True, mixed_precision=precision, device=torch.device("cpu")
    )
    with progress.progress(progress.open_log(tmp_path, 1, 1), accelerator):
        pass
    assert capsys.readouterr().err.count("ACCELERATE_MIXED_PRECISION=no") == warned


def test_the_check_of_this_cpu_gives_an_answer():
    assert progress._has_bf16() in (True, False)
