# SPDX-License-Identifier: Apache-2.0
"""A data set and a backbone for training runs of a few seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import ViTConfig, ViTModel

from viewsynth.reid.osnet import OSNetConfig, OSNetModel


def cargo(root: Path, people: int) -> Path:
    """Write images of people of one colour each, by a drone and two ground cameras, as in CARGO.

    There are `people` training identities, and as many others in query and gallery.
    """
    rng = np.random.default_rng(0)
    for pid in range(2 * people):
        colour = rng.uniform(40, 215, 3)
        for camera in (1, 7, 9):
            for number in range(2):
                split = "train" if pid < people else "gallery" if number else "query"
                path = root / split / f"Cam{camera}" / f"Cam{camera}_day_{pid}_{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                noise = rng.normal(0, 25, (48, 24, 3))
                Image.fromarray((colour + noise).clip(0, 255).astype(np.uint8)).save(path)
    return root


def vit(folder: Path, layers: int = 1, width: int = 16) -> Path:
    """Save a ViT: without batch statistics, so the parts of a batch are independent."""
    torch.manual_seed(0)
    small = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 2}
    ViTModel(
        ViTConfig(**small, intermediate_size=32, image_size=32, patch_size=8),
        add_pooling_layer=False,
    ).save_pretrained(folder)
    return folder


def osnet(folder: Path) -> Path:
    """Save an OSNet, a backbone with batch norms, for images of a multiple of 16 pixels."""
    torch.manual_seed(0)
    model = OSNetModel(OSNetConfig(channels=(16, 64, 64, 64), feature=16)).train()
    with torch.no_grad():
        for _ in range(20):  # statistics of its own
            model(torch.randn(8, 3, 1, 1) + torch.randn(8, 3, 32, 16))
    model.save_pretrained(folder)
    return folder


def clip(folder: Path) -> Path:
    """A folder with a CLIP of random weights and its tokenizer, of whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

    words = ["<s>", "</s>", "a", "photo", "of", "person", "."]
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    small |= {"num_attention_heads": 4, "projection_dim": 24}
    config = CLIPConfig(
        projection_dim=24,
        vision_config={**small, "image_size": 32, "patch_size": 16},
        text_config={**small, "vocab_size": len(words), "eos_token_id": 1, "bos_token_id": 0},
    )
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    inner = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, "."))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("<s>", 0), ("</s>", 1)]
    inner.post_processor = processors.TemplateProcessing("<s> $A </s>", None, ends)
    PreTrainedTokenizerFast(tokenizer_object=inner).save_pretrained(folder)
    return folder
