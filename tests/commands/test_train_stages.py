# SPDX-License-Identifier: Apache-2.0
"""`train` of methods with several stages and memory banks."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny_people
import torch
from safetensors.torch import load_file

from viewsynth import config
from viewsynth.commands import train
from viewsynth.reid import banks, encoders
from viewsynth.training import checkpoints

OPTIONS = {
    "data": {"name": "cargo", "validation": 0},
    "model": {"method": "pdpa", "backbone": "small_clip", "size": (32, 16)},
    "optim": {"optimizer": "adamw", "rate": 1e-3, "warmup": 2, "prompt_steps": 5},
    "steps": 6,
    "people": 4,
    "pictures": 2,
    "every": 2,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def cargo(tmp_path_factory):
    return tiny_people.cargo(tmp_path_factory.mktemp("data") / "CARGO", 8)


def argv(root, output, *options) -> list[str]:
    words = ["--data.root", root, "--output", output, "--cache", Path(output).parent / "cache"]
    for key, value in OPTIONS.items():
        for name, one in (value if isinstance(value, dict) else {"": value}).items():
            values = one if isinstance(one, tuple) else (one,)
            words += [f"--{key}.{name}".rstrip(".").replace("_", "-"), *values]
    return [str(word) for word in (*words, *options)]


def run(root, output, *options) -> int:
    return train.run(config.parse(train.Config, argv(root, output, *options), "train"))


def weights(output) -> dict[str, torch.Tensor]:
    return load_file(output / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def undisturbed(cargo, tmp_path_factory):
    output = tmp_path_factory.mktemp("train") / "run"
    assert run(cargo, output) == 0
    return output


def test_both_stages_learn_what_they_should(undisturbed):
    prompts = [json.loads(x) for x in (undisturbed / "prompts/log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in prompts] == [2, 4, 5]
    assert prompts[-1]["identity"] < prompts[0]["identity"]
    rows = [json.loads(x) for x in (undisturbed / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert {"identity", "triplet", "text", "prototype"} <= rows[0].keys()
    tensors = checkpoints.read_checkpoint(undisturbed / "prompts/checkpoint-5")[0]["model"]
    assert not any(name.startswith("backbone.places") for name in tensors)  # it is frozen
    final = weights(undisturbed)
    assert torch.equal(tensors["words"], final["words"])  # and here the words are
    assert final["prototypes"].norm(dim=-1).min() > 0.99
    encoder = encoders.load(str(undisturbed / "model"))  # needs no tokenizer
    assert encoder.encode(torch.zeros(1, 32, 16, 3, dtype=torch.uint8)).shape == (1, 192 + 128)


@pytest.mark.parametrize("processes", [2, 3, 5])
def test_bank_of_any_number_of_processes(monkeypatch, processes):
    monkeypatch.setattr(banks, "CHUNK", 4)
    images = torch.randint(0, 256, (14, 6, 4, 3), dtype=torch.uint8)
    pixels = SimpleNamespace(samples=range(14), get=lambda rows: images[list(rows)])
    model = torch.nn.BatchNorm2d(3)
    expected = model.eval()(images.permute(0, 3, 1, 2) / 255).mean((2, 3))
    sent: dict[int, list] = {}

    def gathered(rank, turn, value):
        """What `accelerator.gather` returns, from what all processes send in that turn."""
        sent.setdefault(turn, [None] * processes)[rank] = value
        whole = all(one is not None for one in sent[turn])
        return torch.cat(sent[turn]) if whole else None

    def accelerator(rank):
        turns = iter(range(9))
        return SimpleNamespace(
            num_processes=processes,
            process_index=rank,
            device="cpu",
            gather=lambda value: gathered(rank, next(turns), value),
        )

    model.train()
    # The width is asked for first; every process is run twice, so that all have sent.
    monkeypatch.setattr(banks, "_width", lambda found, _: 3)
    for _ in range(2):
        for rank in range(processes):
            try:
                found = banks.features(
                    model, lambda x: model(x).mean((2, 3)), pixels, accelerator(rank)
                )
            except AttributeError:  # not all have sent yet
                continue
            torch.testing.assert_close(found, expected)
    assert model.training and len(found) == 14


def test_a_backbone_without_text_is_refused(cargo, tmp_path):
    with pytest.raises(ValueError, match="needs a CLIP with its text side; got vit"):
        run(cargo, tmp_path / "run", "--model.backbone", "small_vit")
