# SPDX-License-Identifier: Apache-2.0
"""A small random ReID network as the Open Model Zoo's, in OpenVINO's files, and its features.

Each operation is written and computed at once, step by step, without viewsynth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

WIDTHS, FEATURE, SIZE = (32, 128, 192, 256), 24, (64, 32)
GROUPS = 16


@dataclass
class Value:
    """The output of a layer: its number in the file, and what it is for the given images."""

    number: int
    value: Tensor


class Writer:
    """Layers, edges and constants of a network."""

    def __init__(self, seed: int = 0):
        self.layers, self.edges, self.data = [], [], bytearray()
        self.random = torch.Generator().manual_seed(seed)

    def op(self, kind: str, inputs: list[Value], value: Tensor, **options) -> Value:
        """Add a layer."""
        number, texts = len(self.layers), []
        for name, given in options.items():
            text = ", ".join(map(str, given)) if isinstance(given, tuple | list) else str(given)
            texts.append(f"{name}={quoteattr(text)}")
        ports = "".join(f'<port id="{port}"/>' for port in range(len(inputs)))
        self.layers.append(
            f'<layer id="{number}" type="{kind}"><data {" ".join(texts)}/>'
            f"<input>{ports}</input></layer>"
        )
        for port, source in enumerate(inputs):
            self.edges.append(
                f'<edge from-layer="{source.number}" from-port="0" to-layer="{number}" '
                f'to-port="{port}"/>'
            )
        return Value(number, value)

    def constant(self, values) -> Value:
        """Add a constant: integers as int64, other numbers as float16 with a conversion."""
        array = np.asarray(values)
        whole = array.dtype.kind == "i"
        array = array.astype(np.int64 if whole else np.float16)
        place = {"offset": len(self.data), "size": array.nbytes, "shape": array.shape}
        self.data += array.tobytes()
        found = self.op(
            "Const", [], torch.tensor(array), element_type="i64" if whole else "f16", **place
        )
        return found if whole else self.op("Convert", [found], found.value.float())

    def weights(self, *shape: int, mean: float = 0) -> Value:
        """Add random weights that keep the scale of what they are applied to."""
        inner = np.prod(shape[-3:]) if len(shape) > 3 and shape[0] > 1 else 25
        values = mean + torch.randn(shape, generator=self.random) / np.sqrt(inner)
        return self.constant(values.numpy())

    def write(self, end: Value, path: Path) -> None:
        """Write the .xml and the .bin file."""
        self.op("Result", [end], end.value)
        path.with_suffix(".bin").write_bytes(self.data)
        layers, edges = "".join(self.layers), "".join(self.edges)
        path.write_text(
            f'<net name="tiny" version="11"><layers>{layers}</layers><edges>{edges}</edges></net>'
        )

    # ---- layers ----------------------------------------------------------------------------------

    def add(self, a: Value, b: Value) -> Value:
        return self.op("Add", [a, b], a.value + b.value)

    def times(self, a: Value, b: Value) -> Value:
        return self.op("Multiply", [a, b], a.value * b.value)

    def relu(self, x: Value) -> Value:
        return self.op("ReLU", [x], x.value.relu())

    def conv(self, x: Value, weight: Value, stride: int = 1, bias: Value | None = None) -> Value:
        """A convolution; one over each channel if its weight has five dimensions."""
        w = weight.value
        groups, pad = (len(w) if w.ndim == 5 else 1), w.shape[-1] // 2 if w.shape[-1] % 2 else 0
        value = functional.conv2d(x.value, w.flatten(0, w.ndim - 4), None, stride, pad, 1, groups)
        kind = "GroupConvolution" if groups > 1 else "Convolution"
        sides = {"strides": (stride,) * 2, "dilations": (1, 1)}
        pads = {"pads_begin": (pad,) * 2, "pads_end": (pad,) * 2}
        found = self.op(kind, [x, weight], value, **sides, **pads)
        return found if bias is None else self.add(found, bias)

    def point(self, x: Value, out: int, bias: bool = True) -> Value:
        """A convolution of 1 x 1."""
        weight = self.weights(out, x.value.shape[1], 1, 1)
        return self.conv(x, weight, bias=self.weights(1, out, 1, 1) if bias else None)

    def normal(self, x: Value, axes: list[int]) -> Value:
        """Normalisation over some axes."""
        mean = x.value.mean(axes, keepdim=True)
        std = (x.value.var(axes, keepdim=True, correction=0) + 1e-5).sqrt()
        options = {"eps": 1e-5, "normalize_variance": "true", "eps_mode": "INSIDE_SQRT"}
        return self.op("MVN", [x, self.constant(axes)], (x.value - mean) / std, **options)

    def affine(self, x: Value) -> Value:
        """Random scales and shifts of the channels."""
        shape = [1, x.value.shape[1], 1, 1][: x.value.ndim]
        return self.add(self.times(x, self.weights(*shape, mean=1)), self.weights(*shape))

    def reshape(self, x: Value, shape: list[int], value: Tensor) -> Value:
        return self.op("Reshape", [x, self.constant(shape)], value, special_zero="true")


def write(path: Path, images: Tensor, order: tuple[int, int, int] = (2, 1, 0)) -> Tensor:
    """Write a random network of images of `SIZE`.

    Args:
        path: The .xml file.
        images: RGB in [0, 1].  float [B, 3, H, W]
        order: Order of channels that the network turns its input into.

    Returns:
        Features of the images.  float [B, FEATURE]
    """
    net = Writer()
    x = net.op("Parameter", [], 255 * images.flip(1))
    turned = x.value[:, list(order)]
    x = net.op("Gather", [x, net.constant(list(order)), net.constant(1)], turned)
    mean = net.constant(np.array([120.0, 110, 100]).reshape(1, 3, 1, 1))
    x = net.op("Subtract", [x, mean], x.value - mean.value)
    x = net.times(x, net.constant(np.array([0.017, 0.018, 0.019]).reshape(1, 3, 1, 1)))
    x = net.affine(net.normal(x, [2, 3]))
    x = net.conv(x, net.weights(WIDTHS[0], 3, 7, 7), stride=2)
    x = net.relu(net.affine(net.normal(x, [2, 3])))
    value = functional.max_pool2d(x.value, 3, 2, 1)
    pads = {"pads_begin": (1, 1), "pads_end": (1, 1)}
    x = net.op("MaxPool", [x], value, kernel=(3, 3), strides=(2, 2), rounding_type="floor", **pads)
    for stage, width in enumerate(WIDTHS[1:]):
        for context in (False, True):
            x = _block(net, x, width, context)
        x = net.relu(net.point(x, width))
        if stage < 2:
            value = functional.avg_pool2d(x.value, 2)
            sides = {"kernel": (2, 2), "strides": (2, 2), "pads_begin": (0, 0)}
            x = net.op("AvgPool", [x], value, rounding_type="floor", **sides)
    net.write(end := _head(net, x), path)
    return end.value


def _block(net: Writer, x: Value, width: int, context: bool) -> Value:
    middle, total = width // 4, None
    first = net.relu(net.point(x, middle))
    gate = _gate(net, middle, context)
    for depth in range(1, 5):
        y = first
        for _ in range(depth):
            y = net.point(y, middle, bias=False)
            each, bias = net.weights(middle, 1, 1, 3, 3), net.weights(1, middle, 1, 1)
            y = net.relu(net.conv(y, each, bias=bias))
        y = net.times(y, gate(y))
        total = y if total is None else net.add(total, y)
    short = x if x.value.shape[1] == width else None
    out = net.point(total, width)
    return net.relu(net.add(out, short or net.point(x, width)))


def _gate(net: Writer, width: int, context: bool) -> Callable[[Value], Value]:
    """A gate; its weights are written once and its shifts once for each use, as in the zoo."""
    less = width // 16
    if context:
        scale, shift = net.weights(1, width, 1, 1, mean=1), net.weights(1, width, 1, 1)
    else:
        first, second = net.weights(less, width, 1, 1), net.weights(width, less, 1, 1)
        shifts = [net.weights(1, less, 1, 1).value, net.weights(1, width, 1, 1).value]

    def gate(y: Value) -> Value:
        value = y.value.mean((2, 3), keepdim=True)
        z = net.op("ReduceMean", [y, net.constant([2, 3])], value, keep_dims="true")
        if context:
            groups = [0, GROUPS, -1]
            apart = net.reshape(z, groups, z.value.reshape(len(value), GROUPS, -1))
            apart = net.normal(apart, [2])
            back = net.op("ShapeOf", [z], torch.tensor(value.shape))
            z = net.op("Reshape", [apart, back], apart.value.reshape(value.shape))
            z = net.add(net.times(z, scale), shift)
        else:
            z = net.relu(net.conv(z, first, bias=net.constant(shifts[0].numpy())))
            z = net.conv(z, second, bias=net.constant(shifts[1].numpy()))
        return net.op("Sigmoid", [z], z.value.sigmoid())

    return gate


def _head(net: Writer, x: Value) -> Value:
    """From the last feature map to the feature."""
    width, count = WIDTHS[-1], len(x.value)
    whole = net.weights(width, 1, 1, *x.value.shape[2:])
    x = net.conv(x, whole, bias=net.weights(1, width, 1, 1))
    x = net.reshape(x, [-1, width], x.value.flatten(1))
    weight = net.weights(FEATURE, width)
    value = x.value @ weight.value.T
    x = net.op("MatMul", [x, weight], value, transpose_a="false", transpose_b="true")
    x = net.add(x, net.weights(1, FEATURE))
    x = net.affine(net.reshape(x, [count, -1, 1], x.value[..., None]))
    slope = net.constant(np.array([[0.3]]))
    x = net.op("PReLU", [x, slope], functional.prelu(x.value, slope.value.reshape(1)))
    return net.reshape(x, [0, -1], x.value.flatten(1))
