# SPDX-License-Identifier: Apache-2.0
"""Saving and loading of pipelines: round trip, model card, hub, schedulers, LoRA."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import tiny_views as tiny
import torch
from diffusers import LCMScheduler
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from tiny_views import views

from viewsynth.diffusion.pipeline import ViewDiffusionPipeline


@pytest.mark.parametrize("identity", [True, False])
def test_a_saved_pipeline_is_loaded_unchanged(tmp_path, identity):
    mine, given = tiny.pipeline(identity), views(2)
    mine.register_to_config(training="Two random images.", licence="Apache-2.0")
    mine.save_pretrained(tmp_path)
    again = ViewDiffusionPipeline.from_pretrained(tmp_path)
    assert torch.equal(mine.sample(given, 2), again.sample(given, 2))
    assert (again.identity_encoder is None) == (not identity)
    assert again.config.training == "Two random images." and again.config.licence == "Apache-2.0"
    assert not list(tmp_path.rglob("*.bin"))
    card = (tmp_path / "README.md").read_text("utf-8")
    for said in ("license: apache-2.0", "Two random images.", "## Misuse", "64 x 32", "pipe("):
        assert said in card
    assert "{" not in card.replace("{}", "")
    half = ViewDiffusionPipeline.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    assert half.unet.dtype == half.conditioner.dtype == torch.bfloat16
    made = half.sample(given, 2)
    assert made.dtype == torch.float32 and (made - mine.sample(given, 2)).abs().mean() < 0.1


def test_the_hub_receives_our_card(monkeypatch):
    sent = {}

    def upload(repo_id, folder_path, **named):
        sent.update(named, repo=repo_id, card=(folder_path / "README.md").read_text("utf-8"))
        sent["files"] = {path.name for path in folder_path.iterdir()}

    monkeypatch.setattr(
        "huggingface_hub.create_repo", lambda repo, **named: SimpleNamespace(repo_id=f"me/{repo}")
    )
    monkeypatch.setattr("huggingface_hub.upload_folder", upload)
    tiny.pipeline().push_to_hub("views", token="t", commit_message="first")
    assert sent["repo"] == "me/views" and sent["token"] == "t"
    assert sent["commit_message"] == "first" and "## Misuse" in sent["card"]
    assert 'from_pretrained("views")' in sent["card"]
    assert {"model_index.json", "unet", "vae", "conditioner", "identity_encoder"} <= sent["files"]


def test_another_scheduler_is_saved(tmp_path):
    mine = tiny.replace_scheduler(tiny.pipeline(), LCMScheduler)
    mine.save_pretrained(tmp_path)
    assert isinstance(ViewDiffusionPipeline.from_pretrained(tmp_path).scheduler, LCMScheduler)


def test_lora_is_added_saved_and_loaded(tmp_path):
    mine, given = tiny.pipeline(), views(2)
    plain = mine.sample(given, 2)
    torch.manual_seed(5)
    mine.unet.add_adapter(
        LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "conv_in"], init_lora_weights=False)
    )
    adapted = mine.sample(given, 2)
    layers = get_peft_model_state_dict(mine.unet)
    mine.save_lora_weights(tmp_path, unet_lora_layers=layers)
    other = tiny.pipeline()
    other.load_lora_weights(tmp_path)
    assert torch.allclose(other.sample(given, 2), adapted, atol=1e-5)
    assert not torch.allclose(plain, adapted, atol=1e-3)
    other.unload_lora_weights()
    assert torch.allclose(other.sample(given, 2), plain, atol=1e-5)
