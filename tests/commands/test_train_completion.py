# SPDX-License-Identifier: Apache-2.0
"""The command train-completion, on small drawn examples in place of rendered people."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_examples
import torch

from viewsynth.commands import train_completion as command
from viewsynth.completion import making
from viewsynth.completion.options import CompletionOptimization
from viewsynth.config import parse
from viewsynth.reconstruct import complete
from viewsynth.runtime import weights

ROOT = Path(__file__).parents[2]


@pytest.fixture
def asked(monkeypatch):
    """Arguments of every call that makes examples, which are drawn here."""
    calls = []

    def make(folder, *arguments):
        calls.append(arguments)
        if not folder.exists():
            folder.mkdir()
            tiny_examples.folder(folder)

    monkeypatch.setattr(making, "make", make)
    return calls


def config(output, steps=2, **options):
    optim = CompletionOptimization(steps=steps, batch=2, warmup=1)
    return command.Config(
        people=6, output=output, optim=optim, every=1, validation=0.34, device="cpu", **options
    )


def test_a_run_is_complete_and_can_be_repeated(asked, tmp_path):
    output = tmp_path / "run"
    assert command.run(config(output, workers=3)) == 0
    assert asked == [(6, 230_000, 4, 3)]
    file = output / "completion.safetensors"
    first = file.read_bytes()
    model = complete.load(file)
    assert isinstance(model, complete.Completer) and len(first) < 10_000_000
    assert {path.name for path in (output / "grids").iterdir()} == {"000001.png", "000002.png"}
    record = json.loads((output / "run.json").read_text())
    assert record["settings"]["optim"]["steps"] == 2 and "torch" in str(record["facts"])
    assert command.run(config(output)) == 0
    assert file.read_bytes() == first, "a finished run gives the same file again"


def test_the_preset_of_the_bundled_network_has_the_defaults():
    preset = ROOT / "configs" / "completion" / "bundled.yaml"
    assert parse(command.Config, [str(preset)], "train-completion") == command.Config()


def test_the_bundled_network_says_what_made_it():
    from safetensors import safe_open

    assert weights.completion() == weights.COMPLETION
    assert weights.COMPLETION.stat().st_size < 10_000_000
    with safe_open(weights.COMPLETION, "pt") as file:
        about = json.loads(file.metadata()[complete.KEY])
    preset = command.Config()
    assert about["examples"].endswith(f"of the world of seed {preset.world_seed}")
    assert about["steps"] == f"{preset.optim.steps} steps of {preset.optim.batch} examples"
    assert weights.passport(weights.COMPLETION).licence == "Apache-2.0"


def test_settings_of_a_begun_run_stay(asked, tmp_path):
    output = tmp_path / "run"
    command.run(config(output))
    with pytest.raises(ValueError, match=r"optim|steps"):
        command.run(config(output, steps=3))
    with pytest.raises(ValueError, match="resume is no"):
        command.run(config(output, resume="no"))
    with pytest.raises(ValueError, match="images"):
        command.Config(images=9)


def test_the_file_says_what_it_learned_from(asked, tmp_path):
    from safetensors import safe_open

    command.run(config(tmp_path / "run", steps=1))
    with safe_open(tmp_path / "run" / "completion.safetensors", "pt") as file:
        about = json.loads(file.metadata()[complete.KEY])
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118
    assert "world of seed 230000" in about["examples"] and about["steps"].startswith("1 steps")
