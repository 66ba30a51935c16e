"""A small model with a weight, and how anyone else reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = 64


def add_model(scale: float = 1.0, size: int = SIZE, ir_version: int = 8) -> onnx.ModelProto:
    """Y = X + w, with w of size × size floats, and a Constant node of the same size."""
    weight = numpy_helper.from_array(np.full((size, size), scale, np.float32), "w")
    other = numpy_helper.from_array(np.full((size, size), 2 * scale, np.float32), "c")
    shape = [size, size]
    inputs = [helper.make_tensor_value_info("X", TensorProto.FLOAT, shape)]
    if ir_version < 4:
        inputs.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, shape))
    nodes = [
        helper.make_node("Constant", [], ["k"], value=other),
        helper.make_node("Add", ["X", "w"], ["s"]),
        helper.make_node("Add", ["s", "k"], ["Y"]),
    ]
    outputs = [helper.make_tensor_value_info("Y", TensorProto.FLOAT, shape)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [weight])
    return helper.make_model(graph, ir_version=ir_version, opset_imports=[helper.make_opsetid("", 13)])


def weight_of(path: Path) -> np.ndarray:
    """What anyone else reads: onnx itself, with its own external data."""
    return numpy_helper.to_array(onnx.load(path).graph.initializer[0])
