# SPDX-License-Identifier: Apache-2.0
"""Small networks that are trained from scratch, for images of 128 x 64 on a CPU: configurations."""

from __future__ import annotations

from collections.abc import Sequence

from viewsynth.reid.text_tower import LONGEST, UNKNOWN, WORDS

# The default network trained from scratch: a ResNet-10 of half the width, 1.2 M parameters. In
# equal time on a CPU it reached better results than two layers a stage or a halved last stage.
SMALL = "small"
SMALL_CONFIG = {
    "model_type": "resnet",
    "layer_type": "basic",
    "embedding_size": 32,
    "hidden_sizes": [32, 64, 128, 256],
    "depths": [1, 1, 1, 1],
}
# Its counterpart for methods that need tokens: a ViT of 2.9 M parameters with 8 x 4 patches at
# 128 x 64 and a convolutional stem. With patches of 8 x 8 pixels a step takes three times as long.
SMALL_VIT = "small_vit"
SMALL_VIT_CONFIG = {
    "model_type": "vit",
    "hidden_size": 192,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "intermediate_size": 768,
    "image_size": 64,
    "patch_size": 16,
    "layer_norm_eps": 1e-6,
    "stem": "convolutions",
}
# The same with a text side, for methods with prompts. It never saw pairs of images and texts.
SMALL_CLIP = "small_clip"
SCRATCH = (SMALL, SMALL_VIT, SMALL_CLIP)


def config_of(name: str, words: Sequence[str] = WORDS) -> dict:
    """The configuration of a network, for `backbones.rebuild`.

    Args:
        name: One of `SCRATCH`.
        words: Words of the tokenizer of `SMALL_CLIP`, of `text_tower.words_of`.
    """
    if name != SMALL_CLIP:
        return {SMALL: SMALL_CONFIG, SMALL_VIT: SMALL_VIT_CONFIG}[name]
    vision = {key: value for key, value in SMALL_VIT_CONFIG.items() if key != "model_type"}
    return {
        "model_type": "clip",
        "projection_dim": 128,
        "words": list(words),
        "vision_config": {**vision, "projection_dim": 128},
        "text_config": {
            "vocab_size": UNKNOWN + 1 + len(words),
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": LONGEST,
            "projection_dim": 128,
        },
    }
