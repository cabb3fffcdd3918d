# SPDX-License-Identifier: Apache-2.0
"""Methods: the losses that a ReID model is trained with, and the features that it retrieves with.

A method is one file of this folder, found by its module name. Its function
`build(backbone, classes, smoothing, views)` returns a module with the interface `Method`, and its
`NEEDS` names what its batches must have ("views": images of several views; "": nothing). The losses
are a dict, so a method may have any number of them; a batch is an object, so a method that uses
tracklets or captions finds them as further fields. Settings that vary during training are kept in
the method.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # torch takes a second to import, which `names` and `needs` do not need
    from torch import Tensor, nn

    from viewsynth.reid.backbones import Backbone
    from viewsynth.reid.batches import Batch

# Endings of the names of position embeddings and of tokens that stand for no input.
FREE = ("first", "places", "registers", "token", "tokens", "position_embeddings", "table")


class Method(Protocol):
    """Interface of all methods.

    Attributes:
        backbone: The backbone that the method was built on.
        settings: All other arguments of `build`, by name, as JSON types.
    """

    backbone: Backbone
    settings: dict

    def losses(self, batch: Batch, mine_synthetic: bool = True) -> dict[str, Tensor]:
        """Losses by name, with their weights applied; their sum is minimised.

        `forward` is the same function: call the module itself where it is wrapped (accelerate,
        torch.compile).

        Args:
            batch: A training batch.
            mine_synthetic: Whether synthetic images may be the hardest negatives.

        Returns:
            Scalars.
        """
        ...

    def features(self, images: Tensor) -> Tensor:
        """Features for retrieval, in evaluation mode.

        Args:
            images: RGB in [0, 1].  float32 [B, 3, H, W]

        Returns:
            float32 [B, D].
        """
        ...


def names() -> list[str]:
    """The available methods."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def needs(name: str) -> str:
    """`NEEDS` of a method.

    Args:
        name: One of `names()`.

    Returns:
        "views" or "".

    Raises:
        ValueError: if there is no such method.
    """
    return _module(name).NEEDS


def build(
    name: str, backbone: Backbone, classes: int, smoothing: float = 0, seed: int = 0, views: int = 2
):
    """Build a method on a backbone.

    Args:
        name: One of `names()`.
        backbone: The backbone, which becomes part of the method.
        classes: Number of training identities, at least 2.
        smoothing: Label smoothing of the identity loss, [0, 1).
        seed: Seed of the weights of the heads.
        views: Number of views, for methods that distinguish them.

    Returns:
        A `Method`, which is an `nn.Module`.

    Raises:
        ValueError: if there is no such method, or the backbone does not fit it.
    """
    from viewsynth.reid.backbones import drawn

    module = _module(name)
    if classes < 2:
        raise ValueError(f"a method needs two identities or more to learn; got {classes}")
    with drawn(seed, "method", name):
        return module.build(backbone, classes, smoothing, views)


def name_of(method: nn.Module) -> str:
    """The name by which `build` finds a method."""
    return type(method).__module__.rpartition(".")[2]


def groups(model: nn.Module, decay: float) -> list[dict]:
    """Parameter groups for an optimizer: those with weight decay, and those without.

    Parameters of one dimension (biases, normalisations, scales), position embeddings and tokens
    that stand for no input have no weight decay: zero has no meaning for them.

    Args:
        model: The module to train; frozen parameters are left out.
        decay: Weight decay of all other parameters.

    Returns:
        One or two groups.
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
