# SPDX-License-Identifier: Apache-2.0
"""OSNet, a small network for ReID, as a model of `transformers`.

reid.osnet_files (weights of other programs) -> a model folder -> `register` -> reid.pretrained and
reid.backbones, which treat it as any other vision model. Four variants, each in any width:

- "plain": OSNet (Zhou et al., ICCV 2019, arXiv 1905.00953).
- "ibn": with instance normalisation in the stem and after the blocks of the first stage.
- "ain": OSNet-AIN (Zhou et al., TPAMI 2021, arXiv 1910.06827): instance normalisation inside the
  residual branch of the blocks that the paper's search found.
- "lct": the ReID networks of Intel's Open Model Zoo (person-reidentification-retail-0277, -0286):
  instance normalisation of the input and in the stem, a linear context transform as the gate of
  every second block, pooling by learned weights. Batch norms are folded into the convolutions.
"""

from __future__ import annotations

import functools
import math
import operator

from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndNoAttention

VARIANTS = ("plain", "ibn", "ain", "lct")
STREAMS = 4  # of a block; stream n has n + 1 layers, and so a receptive field of 2n + 3
BOTTLENECK, SQUEEZE = 4, 16  # reductions of channels: in a block, in a gate
GROUPS = 16  # of a linear context transform; less where it does not divide the channels
INSIDE = {"ain": (0, 1, 3, 4)}  # blocks with an instance normalisation in the residual branch
AFTER = {"ibn": (0, 1)}  # blocks with one after the sum
CONTEXT = {"lct": (1, 3, 5)}  # blocks whose gate is a linear context transform
STRIDE = 16  # of the last feature map


class OSNetConfig(PreTrainedConfig):
    """Configuration of an `OSNetModel`.

    Args:
        variant: One of `VARIANTS`.
        channels: Channels of the stem and of the three stages.
        feature: Length of a feature.
        pool: Height and width of the last feature map, for "lct", which has one weight for each
            position; its images have `STRIDE` times this size.
    """

    model_type = "osnet"

    def __init__(
        self, variant="plain", channels=(64, 256, 384, 512), feature=512, pool=(16, 8), **kwargs
    ):
        if variant not in VARIANTS:
            raise ValueError(f"variant must be one of {', '.join(VARIANTS)}; got {variant!r}")
        if len(channels) != 4:
            raise ValueError(f"channels must be 4 numbers: stem, three stages; got {channels}")
        self.variant, self.channels, self.feature = variant, list(channels), feature
        self.pool = list(pool)
        super().__init__(**kwargs)


class OSNetModel(PreTrainedModel):
    """OSNet; see the module docstring.

    Args:
        config: Its configuration.
    """

    config_class = OSNetConfig
    main_input_name = "pixel_values"

    def __init__(self, config: OSNetConfig):
        super().__init__(config)
        self.trunk, self.embedding = _trunk(config), _embedding(config)
        self.post_init()

    def forward(self, pixel_values: Tensor) -> BaseModelOutputWithPoolingAndNoAttention:
        """The last feature map, and the feature as the pooled output.

        Args:
            pixel_values: Normalised RGB.  float [B, 3, H, W]

        Raises:
            ValueError: If the variant is "lct" and the images do not have its size.
        """
        if self.config.variant == "lct":
            size = tuple(STRIDE * side for side in self.config.pool)
            if tuple(pixel_values.shape[2:]) != size:
                raise ValueError(f"this one takes images of {size[0]} x {size[1]} pixels only")
        maps = self.trunk(pixel_values)
        return BaseModelOutputWithPoolingAndNoAttention(
            last_hidden_state=maps, pooler_output=self.embedding(maps)
        )

    def _init_weights(self, module: nn.Module) -> None:
        """Keep the initial values of torch."""


class Block(nn.Module):
    """An omni-scale block: streams of one to four layers, summed by a gate that they share.

    Args:
        before: Channels of the input.
        after: Channels of the output.
        variant: One of `VARIANTS`.
        number: Number of the block in the network, from 0.
    """

    def __init__(self, before: int, after: int, variant: str, number: int):
        super().__init__()
        norm, width = _norm_of(variant), after // BOTTLENECK
        inside = number in INSIDE.get(variant, ())
        self.reduce = _conv(before, width, norm=norm)
        self.streams = nn.ModuleList(
            nn.Sequential(*(_layer(width, norm) for _ in range(depth + 1)))
            for depth in range(STREAMS)
        )
        self.gate = _gate(width, number in CONTEXT.get(variant, ()))
        self.expand = _conv(width, after, norm="instance" if inside else norm, relu=False)
        same = before == after
        self.shortcut = nn.Identity() if same else _conv(before, after, norm=norm, relu=False)
        last = number in AFTER.get(variant, ())
        self.norm = nn.InstanceNorm2d(after, affine=True) if last else nn.Identity()
        self.relu = nn.ReLU()

    def forward(self, maps: Tensor) -> Tensor:
        """[B, before, H, W] -> [B, after, H, W]."""
        reduced = self.reduce(maps)
        streams = [stream(reduced) for stream in self.streams]
        mixed = functools.reduce(operator.add, [each * self.gate(each) for each in streams])
        return self.relu(self.norm(self.expand(mixed) + self.shortcut(maps)))


def register() -> None:
    """Make `AutoConfig` and `AutoModel` of transformers know the model type "osnet"."""
    AutoConfig.register(OSNetConfig.model_type, OSNetConfig, exist_ok=True)
    AutoModel.register(OSNetConfig, OSNetModel, exist_ok=True)


def _norm_of(variant: str) -> str:
    return "folded" if variant == "lct" else "batch"


def _trunk(config: OSNetConfig) -> nn.Sequential:
    """From pixels to the last feature map."""
    variant, norm = config.variant, _norm_of(config.variant)
    stem, *stages = config.channels
    first = "batch" if variant == "plain" else "instance"
    parts = {"norm": nn.InstanceNorm2d(3, affine=True)} if variant == "lct" else {}
    parts["stem"] = _conv(3, stem, 7, stride=2, norm=first)
    parts["pool"] = nn.MaxPool2d(3, stride=2, padding=1)
    for n, (before, after) in enumerate(zip(config.channels, stages, strict=False)):
        parts[f"stage{n}"] = nn.Sequential(
            Block(before, after, variant, 2 * n), Block(after, after, variant, 2 * n + 1)
        )
        parts[f"mix{n}"] = _conv(after, after, norm=norm)
        if n < 2:
            parts[f"halve{n}"] = nn.AvgPool2d(2)
    return _named(parts)


def _embedding(config: OSNetConfig) -> nn.Sequential:
    """From the last feature map to the feature."""
    width, lct = config.channels[-1], config.variant == "lct"
    pool = nn.Conv2d(width, width, tuple(config.pool), groups=width)
    parts = {"pool": pool if lct else nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    parts["linear"] = nn.Linear(width, config.feature)
    if not lct:
        parts["norm"] = nn.BatchNorm1d(config.feature)
    return _named(parts | {"activation": nn.PReLU() if lct else nn.ReLU()})


def _conv(
    before: int,
    after: int,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    *,
    norm: str,
    relu: bool = True,
) -> nn.Sequential:
    """A convolution, its normalisation ("batch", "instance", or "folded" into it), and ReLU."""
    bias = norm == "folded"
    parts = {"conv": nn.Conv2d(before, after, kernel, stride, kernel // 2, 1, groups, bias)}
    if not bias:
        kind = nn.BatchNorm2d if norm == "batch" else nn.InstanceNorm2d
        parts["norm"] = kind(after, affine=True)
    return _named(parts | ({"relu": nn.ReLU()} if relu else {}))


def _layer(width: int, norm: str) -> nn.Sequential:
    """A light 3 x 3 convolution: one over channels, then one over each channel."""
    over = nn.Conv2d(width, width, 1, bias=False)
    return _named({"over": over, "each": _conv(width, width, 3, groups=width, norm=norm)})


def _gate(width: int, context: bool) -> nn.Sequential:
    """From a feature map to a factor in (0, 1) for each channel.  [B, C, H, W] -> [B, C, 1, 1].

    Source: squeeze and excitation (Hu et al., CVPR 2018, arXiv 1709.01507), or a linear context
    transform (Ruan et al., AAAI 2020, arXiv 1909.03834): normalise groups of channels, then scale
    and shift each one.
    """
    parts = {"pool": nn.AdaptiveAvgPool2d(1)}
    if context:
        parts["norm"] = nn.GroupNorm(math.gcd(GROUPS, width), width)
    else:
        parts["fc1"] = nn.Conv2d(width, width // SQUEEZE, 1)
        parts["relu"] = nn.ReLU()
        parts["fc2"] = nn.Conv2d(width // SQUEEZE, width, 1)
    return _named(parts | {"sigmoid": nn.Sigmoid()})


def _named(parts: dict[str, nn.Module]) -> nn.Sequential:
    sequence = nn.Sequential()
    for name, part in parts.items():
        sequence.add_module(name, part)
    return sequence
