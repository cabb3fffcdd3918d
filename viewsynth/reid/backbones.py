# SPDX-License-Identifier: Apache-2.0
"""Backbones: vision models of `transformers` as modules that a ReID method is built on.

`pretrained` loads the weights, `methods` put heads on a backbone, `saved` rebuilds one from its
configuration. Two kinds: a `Tokens` (ViT, CLIP, DINOv2) also shows its tokens, for methods that add
their own; any other one (ResNet, ConvNeXt, Swin) is a plain `Backbone`. Pictures come in as RGB in
[0, 1]: a backbone normalises them itself.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from viewsynth.records import seed_of
from viewsynth.reid import pretrained

# The network that is trained from scratch: a ResNet-10 of half the width, 1.2 M parameters. In the
# same time on a CPU it learnt more than with two layers a stage, or with a halved last stage.
SMALL = "small"
SMALL_CONFIG = {
    "model_type": "resnet",
    "layer_type": "basic",
    "embedding_size": 32,
    "hidden_sizes": [32, 64, 128, 256],
    "depths": [1, 1, 1, 1],
}
# The same for methods that need tokens: a ViT of 2.9 M parameters, 8 x 4 places at 128 x 64, which
# are made by convolutions, see `_Stem`. With places of 8 x 8 pixels a step takes three times as
# long.
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
SCRATCH = {SMALL: SMALL_CONFIG, SMALL_VIT: SMALL_VIT_CONFIG}
# Built of a class token, a table of positions and blocks, and of nothing else.
TOKENS = ("vit", "clip_vision_model", "dinov2", "dinov2_with_registers")
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Backbone(nn.Module):
    """A vision model of which only the pooled output is used.

    Source: for a ResNet, the last stage keeps its resolution (Luo et al., Bag of Tricks, CVPRW
    2019, arXiv 1903.07071); average pooling is the model's own.

    Args:
        model: A model of `transformers` that takes `pixel_values`.
        size: Height and width of its pictures, pixels.
        mean, std: By which pixels in [0, 1] are normalised, one a channel.

    Attributes:
        kind: The architecture, e.g. "resnet".
        config: The model's configuration, from which `rebuild` makes it again.
        width: Length of a feature.
        loaded: What `pretrained.check_loads` said of its weights; "" if drawn at random.
    Raises: ValueError: if the model makes no pooled output from such pictures.
    """

    loaded = ""

    def __init__(self, model: nn.Module, size: tuple[int, int], mean: tuple, std: tuple):
        super().__init__()
        self.kind = model.config.model_type
        # Where it came from is nobody's business who gets the model.
        self.config = {k: v for k, v in model.config.to_dict().items() if k != "_name_or_path"}
        self.size, self.mean, self.std = tuple(size), tuple(mean), tuple(std)
        for name, values in (("_mean", mean), ("_std", std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)
        self._take(model)

    def _take(self, model: nn.Module) -> None:
        if self.kind == "resnet":
            _keep_resolution(model.encoder.stages[-1])
        # A tenth faster on a CPU, and what half precision on a GPU wants.
        self.model = model.to(memory_format=torch.channels_last)
        known = inspect.signature(model.forward).parameters
        name = "interpolate_pos_encoding"
        self._grid = {name: True} if name in known else {}
        self.width = self._try()

    def _try(self) -> int:
        """Length of a feature; what no feature depends on is no longer trained."""
        training = self.training
        self.eval()
        try:
            feature = self(torch.rand(1, 3, *self.size, generator=torch.Generator().manual_seed(0)))
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise ValueError(
                f"the {self.kind} model cannot take pictures of {self.size[0]} x {self.size[1]} "
                f"pixels (height x width): {pretrained.first_line(error)}"
            ) from error
        finally:
            self.train(training)
        parameters = [p for p in self.parameters() if p.requires_grad]
        slopes = torch.autograd.grad(feature.sum(), parameters, allow_unused=True)
        for parameter, slope in zip(parameters, slopes, strict=True):
            # Several processes wait for the gradient of whatever asks for one.
            parameter.requires_grad_(slope is not None)
        return feature.shape[1]

    def normalise(self, images: Tensor) -> Tensor:
        """RGB in [0, 1] as the model wants it.  float [B, 3, H, W]"""
        pixels = (images - self._mean) / self._std
        return pixels.contiguous(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Features, not normalised.  RGB in [0, 1], float [B, 3, H, W] -> float [B, width]"""
        pooled = self.model(pixel_values=self.normalise(images), **self._grid).pooler_output
        if pooled is None:
            raise ValueError("it makes no pooled output")
        return pooled.flatten(1)


class Tokens(Backbone):
    """A transformer of tokens: first the class token, then registers if it has them, then places.

    Source: Dosovitskiy et al., ICLR 2021 (arXiv 2010.11929), and what came of it. The table of
    positions is brought to the grid of `size` once, bicubic, as `transformers` does it in every
    step (the field: bilinear), and learnt at that grid.

    Attributes:
        blocks: Modules called x -> x.  [B, T, D]. The last one, called with (x, n), gives the first
            n tokens alone, for much less.  [B, n, D]
        norm: The last normalisation of tokens.
        places: Positions of the class token and of the places.  float [1, 1 + N, D]
    """

    def _take(self, model: nn.Module) -> None:
        inner = model.embeddings
        if getattr(model.config, "stem", None):
            inner.patch_embeddings.projection = _Stem(inner.patch_embeddings.projection)
        if self.kind == "clip_vision_model":
            self.patches, first = inner.patch_embedding, inner.class_embedding
            table, registers = inner.position_embedding.weight, None
            self.before, self.norm = model.pre_layrnorm, model.post_layernorm
        else:
            self.patches, first = inner.patch_embeddings.projection, inner.cls_token
            table, registers = inner.position_embeddings, getattr(inner, "register_tokens", None)
            self.before, self.norm = nn.Identity(), model.layernorm
        step = self.patches.kernel_size
        grid = tuple(side // by for side, by in zip(self.size, step, strict=True))
        if not all(grid):
            raise ValueError(
                f"the {self.kind} model cannot take pictures of {self.size[0]} x {self.size[1]} "
                f"pixels (height x width): a place has {step[0]} x {step[1]}"
            )
        self.width = first.shape[-1]
        self.first = nn.Parameter(first.detach().reshape(1, 1, -1).clone())
        smooth = registers is not None  # each family's own way, for which it was trained
        self.places = nn.Parameter(_to_grid(table.detach(), grid, smooth))
        self.registers = None if registers is None else nn.Parameter(registers.detach().clone())
        *others, last = _blocks(model)
        self.blocks = nn.ModuleList([*map(_Block, others), _Last(last)])

    def embed(self, images: Tensor, extra: Tensor | None = None) -> Tensor:
        """Tokens before the first block.

        Args:
            images: RGB in [0, 1].  float [B, 3, H, W]
            extra: Tokens of a method's own with their positions, put after the class token.
                float [1, E, D]
        Returns: float [B, 1 + E + R + N, D].
        """
        count = len(images)
        places = self.patches(self.normalise(images)).flatten(2).transpose(1, 2)
        parts = [(self.first + self.places[:, :1]).expand(count, -1, -1)]
        parts += [] if extra is None else [extra.expand(count, -1, -1)]
        parts += [] if self.registers is None else [self.registers.expand(count, -1, -1)]
        return self.before(torch.cat([*parts, places + self.places[:, 1:]], 1))

    def forward(self, images: Tensor) -> Tensor:
        """The class token after the last block, normalised by `norm`.  [B, 3, H, W] -> [B, D]"""
        tokens = self.embed(images)
        for block in self.blocks[:-1]:
            tokens = block(tokens)
        return self.norm(self.blocks[-1](tokens, 1)[:, 0])


class _Stem(nn.Module):
    """What makes places of pixels in a ViT from scratch: convolutions that halve, instead of one.

    Source: Xiao et al., Early convolutions help transformers see better, NeurIPS 2021 (arXiv
    2106.14881): 3 x 3 with strides of 2, normalisation and ReLU, and one of 1 x 1 at the end.

    Args:
        projection: The convolution in whose place it stands; its kernel is a power of 2.
    """

    def __init__(self, projection: nn.Conv2d):
        super().__init__()
        self.kernel_size, width = projection.kernel_size, projection.out_channels
        halvings = self.kernel_size[0].bit_length() - 1
        widths = [3, *(width >> n for n in reversed(range(halvings)))]
        layers = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after)]
            layers += [nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, width, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised pixels [B, 3, H, W] -> [B, D, H / kernel, W / kernel]"""
        return self.layers(pixels)


class _Block(nn.Module):
    """A block of any release of `transformers` as x -> x."""

    def __init__(self, block: nn.Module):
        super().__init__()
        self.block = block
        masked = "attention_mask" in inspect.signature(block.forward).parameters
        self.mask = {"attention_mask": None} if masked else {}

    def forward(self, tokens: Tensor) -> Tensor:
        out = self.block(tokens, **self.mask)
        return out[0] if isinstance(out, tuple) else out


class _Last(_Block):
    """The last block, which can be asked for its first tokens alone.

    The others then need no query and no MLP, and no key or value either: a query q asks a token x
    for q'(W x + b) = (W'q)'x + q'b, and what it gets is W times a mean of tokens. The same numbers
    but for rounding. A block with other parts than these, or that drops at random, stays whole.
    """

    PARTS = {  # what it is: its names in the releases and families of `transformers`
        "norm": ("layernorm_before", "layer_norm1", "norm1"),
        "attention": ("attention", "self_attn"),
        "after": ("layernorm_after", "layer_norm2", "norm2"),
        "mlp": ("mlp",),
    }

    def __init__(self, block: nn.Module):
        super().__init__(block)
        named = dict(block.named_children())
        found = {key: named[n] for key, names in self.PARTS.items() for n in names if n in named}
        linear = {
            name[0]: part
            for name, part in found.get("attention", nn.Module()).named_children()
            if isinstance(part, nn.Linear)
        }
        # Not as attributes: a module would save them twice.
        self.parts = found | {key: linear.get(key) for key in "qkvo"}
        self.parts |= {f"scale{n}": named.get(f"layer_scale{n}", nn.Identity()) for n in (1, 2)}
        self.short = None not in self.parts.values() and len(found) == len(self.PARTS)
        self.short = self.short and self._agrees()

    @torch.no_grad()
    def _agrees(self) -> bool:
        """Whether the short way gives what the block gives, in training mode."""
        config = self.parts["attention"].config
        self.heads = config.num_attention_heads
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randn(2, 9, config.hidden_size, generator=generator)
        with torch.random.fork_rng(devices=[]):
            return torch.allclose(self(tokens)[:, :2], self._first(tokens, 2), rtol=1e-3, atol=1e-4)

    def forward(self, tokens: Tensor, count: int | None = None) -> Tensor:
        if count is None or not self.short:
            return super().forward(tokens)[:, :count]
        return self._first(tokens, count)

    def _first(self, tokens: Tensor, count: int) -> Tensor:
        parts = self.parts
        normed, first = parts["norm"](tokens), tokens[:, :count]
        first = first + parts["scale1"](self._attended(normed, count))
        return first + parts["scale2"](parts["mlp"](parts["after"](first)))

    def _attended(self, tokens: Tensor, count: int) -> Tensor:
        """What the attention gives the first tokens.  [B, T, D] -> [B, count, D]"""
        query, key, value, out = (self.parts[name] for name in "qkvo")
        asks = query(tokens[:, :count]).unflatten(-1, (self.heads, -1))
        split = (self.heads, asks.shape[-1])
        asked = torch.einsum("bnhd,hdc->bnhc", asks, key.weight.unflatten(0, split))
        scores = (asked.flatten(1, 2) @ tokens.transpose(1, 2)).unflatten(1, asks.shape[1:3])
        if key.bias is not None:  # the same for every token: it only keeps the bias in use
            scores = scores + (asks * key.bias.view(split)).sum(-1, keepdim=True)
        shares = (scores.float() * split[1] ** -0.5).softmax(-1).to(tokens.dtype)
        mixed = (shares.flatten(1, 2) @ tokens).unflatten(1, asks.shape[1:3])
        got = torch.einsum("bnhc,hdc->bnhd", mixed, value.weight.unflatten(0, split)).flatten(2)
        return out(got if value.bias is None else got + value.bias)


def load(name: str, size: tuple[int, int], seed: int = 0) -> Backbone:
    """A backbone with its weights.

    Args:
        name: A folder with config.json and model.safetensors, or the id of a model on the hub; or
            one of `SCRATCH` from scratch, meant for 128 x 64 on a CPU.
        size: Height and width of the pictures, pixels.
        seed: Of the weights of one from scratch.
    Raises: FileNotFoundError, ValueError: as `pretrained.load`, and if it cannot be used.
    """
    if name in SCRATCH:
        with drawn(seed, name):
            return rebuild(SCRATCH[name], size, *IMAGENET)
    loaded = pretrained.load(name, "model.backbone")
    if loaded.missing and _tower(loaded.model).config.model_type not in TOKENS:
        raise ValueError(
            f"model.backbone: the checkpoint {name} lacks the weights of the pooled output "
            f"({pretrained.few(loaded.missing)}); save the whole model with save_pretrained"
        )
    try:
        backbone = _wrap(loaded.model, size, loaded.mean, loaded.std)
    except ValueError as error:
        raise ValueError(f"model.backbone: {name} cannot be used: {error}") from error
    backbone.loaded = pretrained.check_loads(loaded)
    return backbone


def rebuild(config: dict, size: tuple[int, int], mean: tuple, std: tuple) -> Backbone:
    """A backbone as its configuration says, with random weights; nothing is fetched.

    Args:
        config: `Backbone.config`, or any with "model_type".
    """
    from transformers import AutoConfig, AutoModel

    with pretrained.quiet():
        model = AutoModel.from_config(AutoConfig.for_model(**config), dtype=torch.float32)
    return _wrap(model, size, mean, std)


@contextlib.contextmanager
def drawn(seed: int, *names: str) -> Iterator[None]:
    """Within, torch's global draws on the CPU come from the seed of `names`; then as before."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed_of(seed, *names))
        yield


def _wrap(model: nn.Module, size: tuple[int, int], mean: tuple, std: tuple) -> Backbone:
    tower = _tower(model)
    kind = Tokens if tower.config.model_type in TOKENS else Backbone
    return kind(tower.train(), size, mean, std)


def _tower(model: nn.Module) -> nn.Module:
    """The part that takes pictures, of a model of pictures and text."""
    return getattr(model, "vision_model", model)


def _blocks(tower: nn.Module) -> list[nn.Module]:
    """Its blocks, wherever this release of `transformers` keeps them."""
    for owner in (tower, getattr(tower, "encoder", None)):
        for name in ("layers", "layer"):
            if isinstance(found := getattr(owner, name, None), nn.ModuleList):
                return list(found)
    raise ValueError(f"no blocks were found in {type(tower).__name__} of this transformers release")


def _to_grid(table: Tensor, grid: tuple[int, int], smooth: bool) -> Tensor:
    """Positions of a class token and a square of places, at another grid.  -> [1, 1 + N, D]"""
    table = table.reshape(-1, table.shape[-1])
    side = round((len(table) - 1) ** 0.5)
    if side * side != len(table) - 1:
        raise ValueError(f"its {len(table)} positions are not a class token and a square of places")
    square = table[1:].T.reshape(1, -1, side, side)
    if grid != (side, side):
        square = nn.functional.interpolate(
            square, grid, mode="bicubic", align_corners=False, antialias=smooth
        )
    return torch.cat([table[:1], square.flatten(2)[0].T])[None].clone()


def _keep_resolution(stage: nn.Module) -> None:
    for module in stage.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
