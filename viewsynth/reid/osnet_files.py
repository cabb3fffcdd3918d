# SPDX-License-Identifier: Apache-2.0
"""Weights of OSNets that other programs trained, for `osnet.OSNetModel`.

commands.convert -> `from_torchreid` or `from_openvino` -> conversion.save. Every weight and every
shape is checked. An OpenVINO network is compared with ours operation by operation, from its output
to its input, so a network that computes something else is not taken for an OSNet.
"""

from __future__ import annotations

import operator
import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, fx, nn

from viewsynth.reid import openvino_ir
from viewsynth.reid.openvino_ir import Node
from viewsynth.reid.osnet import OSNetConfig, OSNetModel
from viewsynth.runtime.messages import first_names

MARK = "conv1.conv.weight"  # in torchreid's names of every OSNet, and of no ViT
LEFT_OUT = "classifier."
# torchreid's names -> ours, applied in this order. The names of osnet.py differ from those of
# osnet_ain.py in the streams (conv2a, conv2b.0) and in what follows a stage (conv2.2.0).
NAMES = (
    (r"^conv1\.", "trunk.stem."),
    (r"^conv5\.", "trunk.mix2."),
    (r"^conv([23])\.2\.0\.", lambda m: f"trunk.mix{int(m[1]) - 2}."),
    (r"^pool([23])\.0\.", lambda m: f"trunk.mix{int(m[1]) - 2}."),
    (r"^conv([234])\.([01])\.", lambda m: f"trunk.stage{int(m[1]) - 2}.{m[2]}."),
    (r"\.conv2a\.", ".streams.0.0."),
    (r"\.conv2([bcd])\.", lambda m: f".streams.{'abcd'.index(m[1])}."),
    (r"\.conv2\.(\d)\.layers\.", r".streams.\1."),
    (r"(\.streams\.\d\.\d)\.conv1\.", r"\1.over."),
    (r"(\.streams\.\d\.\d)\.conv2\.", r"\1.each.conv."),
    (r"(\.streams\.\d\.\d)\.bn\.", r"\1.each.norm."),
    (r"(\d)\.conv1\.", r"\1.reduce."),
    (r"(\d)\.conv3\.", r"\1.expand."),
    (r"\.downsample\.", ".shortcut."),
    (r"\.bn\.", ".norm."),
    (r"^fc\.0\.", "embedding.linear."),
    (r"^fc\.1\.", "embedding.norm."),
)


def from_torchreid(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict, list[str]]:
    """Weights and configuration from a checkpoint of torchreid.

    Args:
        weights: Weights by torchreid's names.

    Returns:
        The weights by our names; the configuration; the names of the weights that were left out
        because a backbone does not have them (the classifier).

    Raises:
        ValueError: If weights are unknown, missing or of another shape.
    """
    kept = {name: value for name, value in weights.items() if not name.startswith(LEFT_OUT)}
    sources = (MARK, *(f"conv{n}.0.conv3.conv.weight" for n in (2, 3, 4)), "fc.0.weight")
    if missing := [name for name in sources if name not in kept]:
        raise ValueError(f"these are not the weights of an OSNet: they lack {first_names(missing)}")
    variant = "plain" if "conv1.bn.running_mean" in kept else "ibn"
    if variant == "ibn" and "conv2.0.conv3.bn.weight" not in kept:
        variant = "ain"
    *channels, feature = (len(kept[name]) for name in sources)
    out = {}
    for name, value in kept.items():
        new = name
        for pattern, ours in NAMES:
            new = re.sub(pattern, ours, new)
        if re.search(r"\.IN\.", new):
            new = new.replace(".IN.", ".expand.norm." if variant == "ain" else ".norm.")
        out[new] = value.float() if value.is_floating_point() else value
    config = _config(variant, channels, feature)
    expected = _model(config).state_dict()
    # Old releases of torch do not save these counts, which nothing here depends on.
    counts = {name for name in expected if name.endswith("num_batches_tracked")}
    out |= {name: torch.tensor(0) for name in counts - out.keys()}
    what = f"an OSNet ({variant}) with {channels} channels"
    if missing := sorted(expected.keys() - out.keys()):
        raise ValueError(f"the file lacks the weights for {first_names(missing)} of {what}")
    if unknown := sorted(out.keys() - expected.keys()):
        raise ValueError(f"{what} has no weights named {first_names(unknown)}")
    for name, value in out.items():
        if value.shape != expected[name].shape:
            raise ValueError(
                f"{name} of {what} has shape {list(expected[name].shape)}; got {list(value.shape)}"
            )
    return out, config, sorted(weights.keys() - kept.keys())


def from_openvino(path: Path) -> tuple[dict[str, Tensor], dict, tuple, tuple]:
    """Weights and configuration from person-reidentification-retail-0277 or -0286.

    Args:
        path: The .xml file, with its .bin file beside it.

    Returns:
        The weights by our names; the configuration; mean and standard deviation of each channel
        that pixels in [0, 1] are normalised by.

    Raises:
        FileNotFoundError: as `openvino_ir.read`.
        ValueError: as `openvino_ir.read`, and if the network is not such an OSNet.
    """
    end = openvino_ir.read(path)
    try:
        config = _config_of(end)
        found = _Comparison(_model(config))
        found.run(end)
    except _DifferentError as error:
        what = f"{path} is not an OSNet as the retail ReID networks are"
        raise ValueError(f"{what}: {error}") from error
    return found.weights, config, found.mean, found.std


def _config(variant: str, channels: list[int], feature: int, **more) -> dict:
    settings = {"variant": variant, "channels": channels, "feature": feature, **more}
    return {"model_type": "osnet", "architectures": ["OSNetModel"], **settings}


def _model(config: dict) -> OSNetModel:
    settings = {k: v for k, v in config.items() if k not in ("model_type", "architectures")}
    with torch.device("meta"):  # shapes only
        return OSNetModel(OSNetConfig(**settings))


# ---- OpenVINO ------------------------------------------------------------------------------------


class _DifferentError(Exception):
    """The network is not the one that was expected."""


def _require(condition: bool, expected: str, node: Node) -> None:
    if not condition:
        raise _DifferentError(f"expected {expected}, got {node}")


def _step(node: Node, kind: str) -> tuple[Node, np.ndarray]:
    """What an operation of a given kind with a constant is applied to, and the constant."""
    _require(node.kind == kind and len(node.inputs) > 1, kind, node)
    value = node.inputs[1].value
    _require(value is not None, f"{kind} with a constant", node)
    return node.inputs[0], value


def _skip_reshapes(node: Node) -> Node:
    while node.kind == "Reshape":
        node = node.inputs[0]
    return node


def _config_of(end: Node) -> dict:
    """The configuration that follows from the shapes of the last layers."""
    node = _skip_reshapes(end)
    while node.kind not in ("MatMul", "Convolution") and node.inputs:
        node = node.inputs[0]
    node, weight = _step(node, "MatMul")
    while node.kind != "GroupConvolution" and node.inputs:
        node = node.inputs[0]
    _, pool = _step(node, "GroupConvolution")
    _require(pool.ndim == 5 and len(pool) % 8 == 0, "pooling by a GroupConvolution", node)
    # All widths of OSNet have these proportions; `_Comparison` checks every layer.
    channels = [len(pool) * part // 8 for part in (1, 4, 6, 8)]
    return _config("lct", channels, len(weight), pool=list(pool.shape[3:]))


class _Comparison:
    """Operation by operation, from the output to the input, the same as one of our models.

    Attributes:
        weights: The weights of our model that were found, by name.
        mean: Mean of each channel that pixels in [0, 1] are normalised by.
        std: Standard deviation of each channel.
    """

    def __init__(self, model: OSNetModel):
        parts = OrderedDict(trunk=model.trunk, embedding=model.embedding)
        self.graph = fx.symbolic_trace(nn.Sequential(parts))
        self.expected = model.state_dict()
        self.weights: dict[str, Tensor] = {}
        self.mean = self.std = ()

    def run(self, end: Node) -> None:
        """Compare; `end` is the output of the network."""
        ours = next(node for node in self.graph.graph.nodes if node.op == "output").args[0]
        pairs, seen = [(ours, _skip_reshapes(end))], {}
        while pairs:
            ours, node = pairs.pop()
            if ours in seen:
                _require(seen[ours] is node, f"the same as {seen[ours]}", node)
                continue
            seen[ours] = node
            if ours.op == "placeholder":
                self._input(node)
            elif ours.op == "call_function":
                kind = {operator.add: "Add", operator.mul: "Multiply"}[ours.target]
                _require(node.kind == kind and len(node.inputs) == 2, kind, node)
                pairs += zip(ours.args, node.inputs, strict=True)
            else:
                part = self.graph.get_submodule(ours.target)
                pairs.append((ours.args[0], self._part(ours.target, part, node)))

    def _part(self, name: str, part: nn.Module, node: Node) -> Node:
        """What the network applies a layer to; its weights are kept."""
        if isinstance(part, nn.Identity):
            return node
        if isinstance(part, nn.Conv2d):
            return self._convolution(name, part, node)
        if isinstance(part, nn.InstanceNorm2d | nn.GroupNorm):
            return self._norm(name, part, node)
        if isinstance(part, nn.Linear):
            return self._linear(name, node)
        if isinstance(part, nn.PReLU):
            node, slope = _step(node, "PReLU")
            self._keep(name, "weight", slope.reshape(-1))
            return _skip_reshapes(node)
        if isinstance(part, nn.Flatten):
            _require(node.kind == "Reshape", "Reshape", node)
            return node.inputs[0]
        if isinstance(part, nn.AdaptiveAvgPool2d):
            inner, axes = _step(node, "ReduceMean")
            _require(sorted(axes.reshape(-1) % 4) == [2, 3], "a mean over positions", node)
            return inner
        if isinstance(part, nn.MaxPool2d | nn.AvgPool2d):
            return self._pool(part, node)
        kind = type(part).__name__  # ReLU, Sigmoid
        _require(node.kind == kind, kind, node)
        return node.inputs[0]

    def _convolution(self, name: str, part: nn.Conv2d, node: Node) -> Node:
        if part.bias is not None:
            node, bias = _step(node, "Add")
            self._keep(name, "bias", bias.reshape(-1))
        kind = "GroupConvolution" if part.groups > 1 else "Convolution"
        inner, weight = _step(node, kind)
        pads = (node.numbers("pads_begin"), node.numbers("pads_end"))
        _require(
            node.numbers("strides") == list(part.stride)
            and pads == (list(part.padding),) * 2
            and set(node.numbers("dilations")) == {1},
            f"a convolution of stride {part.stride} and padding {part.padding}",
            node,
        )
        if part.groups > 1:
            weight = weight.reshape(-1, *weight.shape[2:])
        self._keep(name, "weight", weight)
        return inner

    def _norm(self, name: str, part: nn.InstanceNorm2d | nn.GroupNorm, node: Node) -> Node:
        node, shift = _step(node, "Add")
        node, scale = _step(node, "Multiply")
        self._keep(name, "bias", shift.reshape(-1))
        self._keep(name, "weight", scale.reshape(-1))
        grouped = isinstance(part, nn.GroupNorm)
        node = node.inputs[0] if grouped and node.kind == "Reshape" else node
        inner, axes = _step(node, "MVN")
        right = (
            sorted(axes.tolist()) == ([2] if grouped else [2, 3])
            and abs(float(node.options["eps"]) / part.eps - 1) < 1e-3
            and node.options.get("eps_mode", "").lower() == "inside_sqrt"
            and node.options.get("normalize_variance") in ("true", "1")
        )
        _require(right, f"MVN over positions with an epsilon of {part.eps:g} inside", node)
        if grouped:
            node, shape = _step(inner, "Reshape")
            _require(list(shape) == [0, part.num_groups, -1], f"{part.num_groups} groups", inner)
            return node
        return inner

    def _linear(self, name: str, node: Node) -> Node:
        """A linear layer and the batch norm after it, in one."""
        node, shift = _step(node, "Add")
        node, scale = _step(node, "Multiply")
        node, bias = _step(_skip_reshapes(node), "Add")
        inner, weight = _step(node, "MatMul")
        _require(
            node.options.get("transpose_b") in ("true", "1")
            and node.options.get("transpose_a", "false") in ("false", "0"),
            "MatMul with transposed weights",
            node,
        )
        shift, scale, bias = (each.reshape(-1) for each in (shift, scale, bias))
        self._keep(name, "weight", weight * scale[:, None])
        self._keep(name, "bias", bias * scale + shift)
        return inner

    def _pool(self, part: nn.MaxPool2d | nn.AvgPool2d, node: Node) -> Node:
        kind = "MaxPool" if isinstance(part, nn.MaxPool2d) else "AvgPool"
        sides = [part.kernel_size, part.stride, part.padding]
        found = [node.numbers(key) for key in ("kernel", "strides", "pads_begin")]
        right = node.kind == kind and found == [[side, side] for side in sides]
        right = right and node.options.get("rounding_type", "floor") == "floor"
        _require(right, f"{kind} of {sides[0]} x {sides[0]} with stride {sides[1]}", node)
        return node.inputs[0]

    def _input(self, node: Node) -> None:
        """Normalisation of the input, which is BGR in 0..255 and turned into RGB first."""
        node, scale = _step(node, "Multiply")
        node, mean = _step(node, "Subtract")
        inner, order = _step(node, "Gather")
        _require(order.tolist() == [2, 1, 0], "the input turned from BGR to RGB", node)
        _require(inner.kind == "Parameter", "the input", inner)
        self.mean = tuple((mean.reshape(-1).astype(float) / 255).tolist())
        self.std = tuple((1 / (255 * scale.reshape(-1).astype(float))).tolist())

    def _keep(self, name: str, part: str, value: np.ndarray) -> None:
        key, shape = f"{name}.{part}", list(value.shape)
        if shape != list(self.expected[key].shape):
            wanted = list(self.expected[key].shape)
            raise _DifferentError(f"{key} must have shape {wanted}, got {shape}")
        tensor = torch.from_numpy(np.array(value, np.float32))
        if key in self.weights and not torch.equal(self.weights[key], tensor):
            raise _DifferentError(f"{key} is used several times, with different values")
        self.weights[key] = tensor
