# SPDX-License-Identifier: Apache-2.0
"""Vision models of `transformers` as modules that ReID methods are built on.

reid.backbones loads and rebuilds them. A `TokenBackbone` (ViT, CLIP, DINOv2) also gives access to
its tokens, for methods that add their own; all others (ResNet, ConvNeXt, Swin, our OSNet) are plain
`Backbone`s. Input is RGB in [0, 1], which a backbone normalises itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from viewsynth.reid import pretrained
from viewsynth.reid.text_tower import TextTower
from viewsynth.reid.vit_blocks import Block, LastBlock, Stem, blocks_of, resize_positions

# Model types that consist of a class token, a table of positions and blocks, and nothing else.
VIT_TYPES = ("vit", "clip_vision_model", "dinov2", "dinov2_with_registers")
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)


class UnfitError(ValueError):
    """A backbone lacks what a method needs."""


class Backbone(nn.Module):
    """A vision model of which only the pooled output is used.

    Source: for a ResNet, the last stage keeps its resolution (Luo et al., Bag of Tricks, CVPRW
    2019, arXiv 1903.07071); average pooling is the model's own.

    Args:
        model: A model of `transformers` that takes `pixel_values`.
        size: Height and width of the images, pixels.
        mean: Mean of each channel that pixels in [0, 1] are normalised by.
        std: Standard deviation of each channel.

    Attributes:
        kind: Architecture, e.g. "resnet".
        config: Configuration of the model, for `rebuild`.
        width: Length of a feature.
        loaded: Report of `pretrained.loading_report` on the weights; "" if they are random.
        norms_frozen: Whether `freeze_norms` was called.

    Raises:
        ValueError: If the model has no pooled output for such images.
    """

    loaded = ""
    norms_frozen = False

    def __init__(self, model: nn.Module, size: tuple[int, int], mean: tuple, std: tuple):
        super().__init__()
        self.kind = model.config.model_type
        # Without the local path of the pretrained model, which would be published with ours.
        self.config = {k: v for k, v in model.config.to_dict().items() if k != "_name_or_path"}
        self.size, self.mean, self.std = tuple(size), tuple(mean), tuple(std)
        for name, values in (("_mean", mean), ("_std", std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)
        self._set_up(model)

    def _set_up(self, model: nn.Module) -> None:
        """Take over the layers of a model, and set `width`."""
        if self.kind == "resnet":
            _keep_resolution(model.encoder.stages[-1])
        # channels_last is a tenth faster on a CPU, and needed for fast half precision on a GPU.
        self.model = model.to(memory_format=torch.channels_last)
        known = inspect.signature(model.forward).parameters
        name = "interpolate_pos_encoding"
        self._options = {name: True} if name in known else {}
        self.width = self._feature_width()

    def _feature_width(self) -> int:
        """Length of a feature, by a trial; freezes parameters that no feature depends on."""
        training = self.training
        self.eval()
        try:
            feature = self(torch.rand(1, 3, *self.size, generator=torch.Generator().manual_seed(0)))
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise ValueError(
                f"the {self.kind} model cannot take images of {self.size[0]} x {self.size[1]} "
                f"pixels (height x width): {pretrained.first_line(error)}"
            ) from error
        finally:
            self.train(training)
        parameters = [p for p in self.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(feature.sum(), parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            # Distributed training waits for the gradient of every parameter that requires one.
            parameter.requires_grad_(gradient is not None)
        return feature.shape[1]

    def freeze_norms(self) -> None:
        """Keep all batch norms as they are: in evaluation mode, without gradients.

        Has no effect on a backbone without batch norms, e.g. a ViT, or an OSNet whose batch norms
        are folded into its convolutions.
        """
        self.norms_frozen = True
        for norm in self._batch_norms():
            norm.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> Backbone:
        """Set training or evaluation mode; frozen batch norms stay in evaluation mode."""
        super().train(mode)
        if self.norms_frozen:
            for norm in self._batch_norms():
                norm.eval()
        return self

    def _batch_norms(self) -> Iterator[nn.Module]:
        return (module for module in self.modules() if isinstance(module, BATCH_NORMS))

    def normalise(self, images: Tensor) -> Tensor:
        """Images normalised for the model.

        Args:
            images: RGB in [0, 1].  float [B, 3, H, W]

        Returns:
            float [B, 3, H, W]
        """
        pixels = (images - self._mean) / self._std
        return pixels.contiguous(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Features, not normalised.

        Args:
            images: RGB in [0, 1].  float [B, 3, H, W]

        Returns:
            float [B, width]
        """
        return self._run(images)[0]

    def with_map(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features as of `forward`, and the last feature map.

        Args:
            images: RGB in [0, 1].  float [B, 3, H, W]

        Returns:
            float [B, width] and [B, C, h, w]
        """
        feature, last = self._run(images)
        if last.ndim == 3:  # rows of places, e.g. of a Swin transformer
            rows = round((last.shape[1] * self.size[0] / self.size[1]) ** 0.5)
            last = last.transpose(1, 2).unflatten(2, (rows, -1))
        return feature, last

    @torch.no_grad()
    def map_width(self) -> int:
        """Channels of the map of `with_map`."""
        training = self.training
        self.eval()
        channels = self.with_map(torch.zeros(1, 3, *self.size))[1].shape[1]
        self.train(training)
        return channels

    def _run(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled and last output of the model."""
        out = self.model(pixel_values=self.normalise(images), **self._options)
        if out.pooler_output is None:
            raise ValueError("it has no pooled output")
        return out.pooler_output.flatten(1), out.last_hidden_state


class TokenBackbone(Backbone):
    """A vision transformer with access to its tokens: class token, registers if any, patches.

    Source: Dosovitskiy et al., ICLR 2021 (arXiv 2010.11929), and its successors. The position
    embeddings are resized to the patch grid of `size` once, by the bicubic interpolation that
    `transformers` applies in every step (common in ReID: bilinear), and trained at that grid.

    Attributes:
        blocks: Modules called as tokens -> tokens.  [B, T, D]. The last one, called as (tokens, n),
            computes its first n tokens only, at a fraction of the cost.  [B, n, D]
        norm: The final normalisation of tokens.
        first: The class token.  float [1, 1, D]
        places: Position embeddings of the class token and of the patches.  float [1, 1 + N, D]
        grid: Height and width of the patch grid.
        heads: Attention heads of a block.
        text: The text side of a CLIP, if `load` was asked for it.
        tokenize: Text -> numbers of its words, with `text`; None for a model that was rebuilt and
            has the tokenizer of a pretrained one.
    """

    def _set_up(self, model: nn.Module) -> None:
        self.text: TextTower | None = None
        self.tokenize: Callable[[str], list[int]] | None = None
        inner = model.embeddings
        if getattr(model.config, "stem", None):
            if self.kind == "clip_vision_model":
                inner.patch_embedding = Stem(inner.patch_embedding)
            else:
                inner.patch_embeddings.projection = Stem(inner.patch_embeddings.projection)
        if self.kind == "clip_vision_model":
            self.patches, first = inner.patch_embedding, inner.class_embedding
            table, registers = inner.position_embedding.weight, None
            self.before, self.norm = model.pre_layrnorm, model.post_layernorm
        else:
            self.patches, first = inner.patch_embeddings.projection, inner.cls_token
            table, registers = inner.position_embeddings, getattr(inner, "register_tokens", None)
            self.before, self.norm = nn.Identity(), model.layernorm
        step = self.patches.kernel_size
        if stride := getattr(model.config, "patch_stride", None):
            self.patches.stride = (stride, stride)
        by = (stride, stride) if stride else step
        grid = tuple((s - k) // b + 1 for s, k, b in zip(self.size, step, by, strict=True))
        if not all(grid):
            raise ValueError(
                f"the {self.kind} model cannot take images of {self.size[0]} x {self.size[1]} "
                f"pixels (height x width): a patch has {step[0]} x {step[1]}"
            )
        self.width, self.grid = first.shape[-1], grid
        self.heads = model.config.num_attention_heads
        self.first = nn.Parameter(first.detach().reshape(1, 1, -1).clone())
        antialias = registers is not None  # as each family was pretrained
        self.places = nn.Parameter(resize_positions(table.detach(), grid, antialias))
        self.registers = None if registers is None else nn.Parameter(registers.detach().clone())
        *others, last = blocks_of(model)
        self.blocks = nn.ModuleList([*map(Block, others), LastBlock(last)])

    def embed(self, images: Tensor, extra: Tensor | None = None) -> Tensor:
        """Tokens before the first block.

        Args:
            images: RGB in [0, 1].  float [B, 3, H, W]
            extra: Tokens of the method, including their positions, inserted after the class token.
                float [1, E, D]

        Returns:
            float [B, 1 + E + R + N, D], with R registers and N patches.
        """
        count = len(images)
        patches = self.patches(self.normalise(images)).flatten(2).transpose(1, 2)
        parts = [(self.first + self.places[:, :1]).expand(count, -1, -1)]
        parts += [] if extra is None else [extra.expand(count, -1, -1)]
        parts += [] if self.registers is None else [self.registers.expand(count, -1, -1)]
        return self.before(torch.cat([*parts, patches + self.places[:, 1:]], 1))

    def with_map(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The class token and the map of patches after the last block, normalised by `norm`.

        Args:
            images: RGB in [0, 1].  float [B, 3, H, W]

        Returns:
            float [B, D] and [B, D, h, w]
        """
        tokens = self.embed(images)
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        patches = tokens[:, 1 - self.places.shape[1] :]
        return tokens[:, 0], patches.transpose(1, 2).unflatten(2, self.grid)

    def forward(self, images: Tensor) -> Tensor:
        """The class token after the last block, normalised by `norm`.

        Args:
            images: RGB in [0, 1].  float [B, 3, H, W]

        Returns:
            float [B, D]
        """
        tokens = self.embed(images)
        for block in self.blocks[:-1]:
            tokens = block(tokens)
        return self.norm(self.blocks[-1](tokens, 1)[:, 0])


def require_tokens(backbone: Backbone, method: str) -> TokenBackbone:
    """The backbone, for a method that needs tokens.

    Args:
        backbone: The backbone.
        method: Name of the method, for the message.

    Raises:
        UnfitError: If the backbone has no tokens.
    """
    if not isinstance(backbone, TokenBackbone):
        raise UnfitError(
            f"method {method} needs a backbone with tokens ({', '.join(VIT_TYPES)}, small_vit); "
            f"got {backbone.kind}; use another --model.backbone, or --model.method baseline"
        )
    return backbone


def _keep_resolution(stage: nn.Module) -> None:
    for module in stage.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
