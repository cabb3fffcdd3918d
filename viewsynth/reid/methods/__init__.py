# SPDX-License-Identifier: Apache-2.0
"""ReID methods: one file for each, found by its module name.

`--model.method NAME` uses `viewsynth/reid/methods/NAME.py`; there is no registry. A file defines

    NEEDS = ()    # any of "views" (training images of several views), "attributes" (of people),
                  # which `build` then takes the names of, and "text" (a backbone with a text side)
    TOLD = ""     # what `features` must be told of each image: "view", "" (nothing)
    KNOWN = ""    # how much of the published method is known: one of `KNOWN` below
    USES = ()     # likewise, what it uses if it is there, e.g. "attributes"; may be left out
    STAGES = ()   # only of a method that trains in several, see `Stage`
    IDENTITIES = True  # False: it learns without them, and every image is a class of its own
    PUBLISHED = {}  # data set -> protocol -> Rank-1 and mAP, per cent, as published
    def build(backbone, classes, smoothing, views) -> Method

where the result is an `nn.Module` with the attributes and functions of `Method` below: `losses` of
a batch and `features` for retrieval. `baseline.py` is the shortest example. Everything else works
for any method: reid.training minimises the sum of the losses, reid.saved saves and rebuilds the
module, evaluate compares its features, and tests/reid/test_methods.py tests every file here.

Rules for a method:
- Initialise weights from torch's global random state, which `methods.build` seeds.
- Use every parameter that requires a gradient in every step; distributed training waits for it.
- Apply `batch.weights` in every loss, see reid.losses; an image of weight 0 must have no influence.
- Keep state that changes in training (memory banks) in buffers, which checkpoints include. A method
  with functions `bank_features(images)` and `rebuild(features, labels, views, weights)` is given
  the features of all training images at the start of every epoch, see reid.banks.
- Add fields to `Batch` for data that it lacks, e.g. tracklets or the geometry of the camera.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from viewsynth import records

if TYPE_CHECKING:  # torch takes a second to import, which `names` and `needs` do not need
    from torch import Tensor, nn

    from viewsynth.records import Sample
    from viewsynth.reid.backbone_modules import Backbone
    from viewsynth.reid.batches import Batch

# What an implementation follows, from the most to the least. Of an abstract or a title, it is our
# reading, and the figures of the paper say nothing about it.
KNOWN = ("released code", "description", "paper", "abstract", "title")
VIEWS = records.VIEWS[::-1]  # ground = 0, aerial = 1
# Endings of the names of position embeddings and of learned tokens, which get no weight decay.
NO_DECAY = ("first", "places", "registers", "token", "tokens", "position_embeddings", "table")


@dataclass(frozen=True)
class Stage:
    """A part of a training run, with an optimizer of its own.

    All stages but the last see images without augmentation, for `--optim.prompt-steps` steps at
    `--optim.prompt-rate`. A method with stages has a function `begin(name)`, called before each.

    Args:
        name: Its name.
        learns: What the names of the weights that learn start with; all others are frozen.
    """

    name: str
    learns: tuple[str, ...] = ("",)


class Method(Protocol):
    """The module that `build` of a method file returns.

    Attributes:
        backbone: The backbone that it was built on.
        settings: The arguments of `methods.build` to rebuild it with, besides name and backbone:
            argument name -> value, as JSON types.
    """

    backbone: Backbone
    settings: dict

    def losses(self, batch: Batch, mine_synthetic: bool = True) -> dict[str, Tensor]:
        """Losses by name, scaled as they enter the total loss, which is their sum.

        `identity` is among them; `--optim.identity` scales it once more.

        `forward` must be the same function (`forward = losses`): accelerate and torch.compile wrap
        the call of the module.

        Args:
            batch: Images and labels.
            mine_synthetic: Whether synthetic images may be mined as hardest negatives.
        """
        ...

    def features(self, images: Tensor, views: Tensor | None = None) -> Tensor:
        """Features that retrieval compares, in evaluation mode, not normalised.

        Args:
            images: RGB in [0, 1].  float [B, 3, H, W]
            views: View of each image, only for a method that is `TOLD` it, which must then be
                given; other methods lack the argument.  int64 [B]

        Returns:
            float [B, D]
        """
        ...


def names() -> list[str]:
    """Names of all methods."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def needs(name: str) -> tuple[str, ...]:
    """`NEEDS` of a method.

    Args:
        name: One of `names()`.

    Raises:
        ValueError: If there is no such method.
    """
    return _module(name).NEEDS


def wants(name: str, what: str) -> bool:
    """Whether a method needs something of its training data, or uses it if it is there.

    Args:
        name: One of `names()`.
        what: e.g. "attributes".
    """
    return what in needs(name) or what in getattr(_module(name), "USES", ())


def identities(name: str) -> bool:
    """`IDENTITIES` of a method.

    Args:
        name: One of `names()`.
    """
    return getattr(_module(name), "IDENTITIES", True)


def told(name: str) -> str:
    """`TOLD` of a method.

    Args:
        name: One of `names()`.
    """
    return _module(name).TOLD


def known(name: str) -> str:
    """`KNOWN` of a method.

    Args:
        name: One of `names()`.
    """
    return _module(name).KNOWN


def stages(name: str) -> tuple[Stage, ...]:
    """`STAGES` of a method; a single one, in which all weights learn, if it has none.

    Args:
        name: One of `names()`.
    """
    return getattr(_module(name), "STAGES", (Stage("train"),))


def start(method: nn.Module, stage: Stage) -> None:
    """Start a stage: freeze the weights that do not learn in it, and call the method's `begin`.

    Args:
        method: From `build`.
        stage: One of `stages` of the method.
    """
    for name, parameter in method.named_parameters():
        learns = name in method.learnable and name.startswith(stage.learns)
        parameter.requires_grad_(learns)
    if hasattr(method, "begin"):
        method.begin(stage.name)


def published(name: str) -> dict[str, dict[str, tuple[float, float]]]:
    """`PUBLISHED` of a method.

    Args:
        name: One of `names()`.
    """
    return _module(name).PUBLISHED


def build(
    name: str,
    backbone: Backbone,
    classes: int,
    smoothing: float = 0,
    seed: int = 0,
    views: Sequence[str] = VIEWS,
    **more,
):
    """A method on a backbone.

    Args:
        name: One of `names()`.
        backbone: The backbone, which becomes part of the method.
        classes: Number of training identities.
        smoothing: Label smoothing of the identity loss, [0, 1).
        seed: Seed of the weights of the heads.
        views: Names of the views, for methods that distinguish them.
        more: Further `settings` of a saved method.

    Returns:
        A `Method`, which is an `nn.Module`.

    Raises:
        ValueError: If there is no such method, or it does not support the backbone.
    """
    from viewsynth.reid.backbones import seeded

    module = _module(name)
    if classes < 2:
        raise ValueError(f"a method needs two or more training identities; got {classes}")
    with seeded(seed, "method", name):
        method = module.build(backbone, classes, smoothing, views, **more)
    method.learnable = {name for name, p in method.named_parameters() if p.requires_grad}
    start(method, stages(name)[-1])
    return method


def name_of(method: nn.Module) -> str:
    """Name of the method that a module belongs to.

    Args:
        method: From `build`.
    """
    return type(method).__module__.rpartition(".")[2]


def told_views(method: Method) -> tuple[str, ...]:
    """Names of the views, one of which `features` must be told of every image; () = it is not told.

    Args:
        method: From `build`.
    """
    return tuple(method.settings["views"]) if told(name_of(method)) else ()


def view_numbers(names: Sequence[str], samples: Sequence[Sample]) -> Tensor:
    """The view of each sample, as an index into some names.

    Args:
        names: Views of `records.VIEWS`, or platforms.
        samples: The samples.

    Returns:
        int64 [N]

    Raises:
        ValueError: If a sample is of none of them.
    """
    import torch

    field = "view" if set(names) <= set(VIEWS) else "platform"
    found = [getattr(sample, field) for sample in samples]
    for sample, value in zip(samples, found, strict=True):
        if value not in names:
            raise ValueError(
                f"this model must be told the {field} of every image, one of {', '.join(names)}; "
                f"{sample.name} has {value!r}; use another model, or images of these {field}s"
            )
    return torch.tensor([names.index(value) for value in found])


def groups(
    model: nn.Module, decay: float, head_rate: float | None = None, decay_tokens: bool = False
) -> list[dict]:
    """Parameter groups for an optimizer: with and without weight decay.

    One-dimensional parameters (biases, normalisations, scales), position embeddings and learned
    tokens get no weight decay.

    Args:
        model: The module.
        decay: Weight decay of the other parameters.
        head_rate: Learning rate of all parameters outside `model.backbone`, which then are groups
            of their own, after the others, with it as "rate"; None = no such groups.
        decay_tokens: Whether position embeddings and learned tokens get weight decay.
    """
    parts: tuple[list, ...] = [], [], [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            token = name.endswith((*NO_DECAY, "position_embedding.weight"))
            free = parameter.ndim < 2 or (token and not decay_tokens)
            head = head_rate is not None and not name.startswith("backbone.")
            parts[2 * head + free].append(parameter)
    own = {"rate": head_rate}
    return [
        {"params": part, "weight_decay": weight, **rate}
        for part, weight, rate in zip(parts, (decay, 0.0) * 2, ({}, {}, own, own), strict=True)
        if part
    ]


def _module(name: str):
    if name not in names():
        raise ValueError(f"method must be one of {', '.join(names())}; got {name!r}")
    return importlib.import_module(f"viewsynth.reid.methods.{name}")
