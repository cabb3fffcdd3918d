# SPDX-License-Identifier: Apache-2.0
"""Networks in OpenVINO's intermediate representation (IR), read without openvino.

`read` -> reid.osnet_files. An IR is a graph of operations in an .xml file, and the values of its
constants in a .bin file of the same name.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

TYPES = {
    "f32": np.float32,
    "f16": np.float16,
    "i64": np.int64,
    "i32": np.int32,
    "FP32": np.float32,
    "FP16": np.float16,
}


@dataclass(eq=False)
class Node:
    """An operation of a network.

    Args:
        number: Its number in the file.
        kind: Name of the operation, e.g. "Convolution".
        options: Its attributes, as in the file.
        inputs: What it is applied to.
        value: The value of a constant.
    """

    number: str
    kind: str
    options: dict[str, str]
    inputs: list[Node] = field(default_factory=list)
    value: np.ndarray | None = None

    def __str__(self) -> str:
        shape = "" if self.value is None else f" of shape {list(self.value.shape)}"
        return f"{self.kind}{shape} (layer {self.number})"

    def numbers(self, name: str) -> list[int]:
        """An attribute that is a list of integers, such as "strides"; [] without it."""
        return [int(text) for text in self.options.get(name, "").split(",") if text.strip()]


def read(path: Path) -> Node:
    """The output of a network; other nodes are its inputs, their inputs, and so on.

    Conversions of the data type are left out: everything is computed in float32.

    Args:
        path: The .xml file.

    Raises:
        FileNotFoundError: if one of the two files is missing.
        ValueError: if they are not those of a network with one output.
    """
    data = path.with_suffix(".bin")
    for file in (path, data):
        if not file.is_file():
            raise FileNotFoundError(
                f"there is no file {file}; an OpenVINO network is an .xml and a .bin file of one "
                "name, in one folder"
            )
    try:
        root = ET.fromstring(path.read_bytes())
        nodes = _nodes(root, data.read_bytes())
        ends = [node for node in nodes.values() if node.kind == "Result"]
    except (ET.ParseError, KeyError, ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} and {data.name} cannot be read as OpenVINO's: {error}") from error
    if len(ends) != 1:
        raise ValueError(f"{path}: expected a network with one output, got {len(ends)}")
    return ends[0].inputs[0]


def _nodes(root: ET.Element, data: bytes) -> dict[str, Node]:
    """All nodes by number, connected."""
    nodes = {}
    for layer in root.iterfind("layers/layer"):
        found = layer.find("data")
        options = {} if found is None else dict(found.attrib)
        node = Node(layer.attrib["id"], layer.attrib["type"], options)
        if node.kind == "Const":
            node.value = _constant(node, data)
        nodes[node.number] = node
    sources = {
        (edge.attrib["to-layer"], edge.attrib["to-port"]): nodes[edge.attrib["from-layer"]]
        for edge in root.iterfind("edges/edge")
    }
    for layer in root.iterfind("layers/layer"):
        number = layer.attrib["id"]
        for port in layer.iterfind("input/port"):
            nodes[number].inputs.append(sources[number, port.attrib["id"]])
    for node in nodes.values():
        node.inputs = [_converted(source) for source in node.inputs]
    return nodes


def _converted(node: Node) -> Node:
    """What a conversion of the data type is applied to; any other node unchanged."""
    while node.kind == "Convert":
        node = node.inputs[0]
    return node


def _constant(node: Node, data: bytes) -> np.ndarray:
    """Value of a constant; floats in float32."""
    kind = node.options["element_type"]
    if kind not in TYPES:
        raise ValueError(f"layer {node.number} has numbers of type {kind}, not {', '.join(TYPES)}")
    first, count = int(node.options["offset"]), int(node.options["size"])
    if first < 0 or first + count > len(data):
        raise ValueError(
            f"layer {node.number} needs bytes {first} to {first + count}, and there are {len(data)}"
        )
    values = np.frombuffer(data[first : first + count], TYPES[kind])
    values = values.reshape(node.numbers("shape"))
    return values.astype(np.float32) if values.dtype.kind == "f" else values
