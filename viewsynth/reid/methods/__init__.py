# SPDX-License-Identifier: Apache-2.0
"""Methods: how a ReID model learns from a batch, and what it retrieves with.

A method is one file of this folder, found by its name: `build(backbone, classes, smoothing, views)`
makes a module as `Method` describes it, and `NEEDS` names what its batches must have ("views":
pictures of several views; "": nothing). Its losses are a dict, so that it may have any number of
them, and a batch is an object, so that a method that learns from tracklets or texts finds them
there under new names. What a method wants to vary from stage to stage it keeps in itself.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # torch takes a second to import, which checking a method's name saves
    from torch import Tensor, nn

    from viewsynth.reid.backbones import Backbone
    from viewsynth.reid.batches import Batch

# How the names of positions, and of tokens that stand for no input, end.
FREE = ("first", "places", "registers", "token", "tokens", "position_embeddings", "table")


class Method(Protocol):
    """What every method offers.

    Attributes:
        backbone: The backbone that it was built on.
        settings: All other arguments of `build`, by name, as JSON types.
    """

    backbone: Backbone
    settings: dict

    def losses(self, batch: Batch, mine_synthetic: bool = True) -> dict[str, Tensor]:
        """Losses by name, each as it enters the total, which is their sum.

        `forward` is the same function: call the module itself where it is wrapped (accelerate,
        torch.compile).

        Args:
            batch: What is learnt from, in training mode.
            mine_synthetic: Whether synthetic pictures may be the hardest negatives.
        """
        ...

    def features(self, images: Tensor) -> Tensor:
        """What retrieval compares, in evaluation mode.  RGB in [0, 1] [B, 3, H, W] -> [B, D]"""
        ...


def names() -> list[str]:
    """The methods that there are."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def needs(name: str) -> str:
    """`NEEDS` of a method. Raises: ValueError: if there is no such method."""
    return _module(name).NEEDS


def build(
    name: str, backbone: Backbone, classes: int, smoothing: float = 0, seed: int = 0, views: int = 2
):
    """A method on a backbone.

    Args:
        name: One of `names()`.
        classes: How many identities there are to learn.
        smoothing: Label smoothing of the identity loss, [0, 1).
        seed: Of the weights of the heads.
        views: How many views there are to tell apart, for methods that do.
    Returns: a `Method`, which is an `nn.Module`.
    Raises: ValueError: if there is no such method, or the backbone is none for it.
    """
    from viewsynth.reid.backbones import drawn

    module = _module(name)
    if classes < 2:
        raise ValueError(f"a method needs two identities or more to learn; got {classes}")
    with drawn(seed, "method", name):
        return module.build(backbone, classes, smoothing, views)


def name_of(method: nn.Module) -> str:
    """The name under which a method is found."""
    return type(method).__module__.rpartition(".")[2]


def groups(model: nn.Module, decay: float) -> list[dict]:
    """What an optimiser takes: parameters with weight decay, and those without.

    Without are all of one dimension (biases, normalisations, scales), positions, and tokens that
    stand for no input: to pull those to zero means nothing.

    Args:
        decay: Weight decay of the others.
    """
    parts: tuple[list, list] = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            free = parameter.ndim < 2 or name.endswith((*FREE, "position_embedding.weight"))
            parts[free].append(parameter)
    return [
        {"params": part, "weight_decay": weight}
        for part, weight in zip(parts, (decay, 0.0), strict=True)
        if part
    ]


def _module(name: str):
    if name not in names():
        raise ValueError(f"method must be one of {', '.join(names())}; got {name!r}")
    return importlib.import_module(f"viewsynth.reid.methods.{name}")
