"""A fleet of small convolutional networks of many sizes, some of them broken, slow or deadly."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SMALLEST, LARGEST = 10_000, 50_000_000  # bytes
BROKEN, SLOW, KILLING = 50, 100, 100  # one in so many


def fleet(folder: Path, count: int, seed: int = 0) -> None:
    """Write models of 10 kB to 50 MB, the small ones more often than the large ones.

    Args:
        folder: Where they go, 100 to a folder.
        count: How many.
        seed: Of sizes, weights and statistics.
    """
    draw = np.random.default_rng(seed)
    for at in range(count):
        kind = "slow" if at % SLOW == 7 else "killing" if at % KILLING == 11 else "model"
        kind = "broken" if at % BROKEN == 3 else kind
        path = folder / f"{at // 100:03}" / f"{kind}{at:05}.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        size = int(SMALLEST * (LARGEST / SMALLEST) ** (draw.random() ** 4))
        size = LARGEST if at == 0 else size
        content = network(size, draw, stays=at % 10 == 5).SerializeToString()
        path.write_bytes(content[: len(content) // 2] if kind == "broken" else content)


def trivial(folder: Path, count: int) -> None:
    """Write models of under 1 kB, all different."""
    draw = np.random.default_rng(1)
    for at in range(count):
        path = folder / f"{at // 1000:03}" / f"model{at:05}.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(network(0, draw).SerializeToString())


def network(size: int, draw: np.random.Generator, *, stays: bool = False) -> onnx.ModelProto:
    """A network of about `size` bytes: convolutions with a BatchNorm each, the last perhaps after a Tanh."""
    channels = max(4, round((size / 4 / 9 / 2) ** 0.5))
    sizes = [3, channels, channels, channels] if size else [3, 4]
    nodes, constants, value = [], {}, "x"
    for at, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        constants[f"w{at}"] = draw.normal(size=(fan_out, fan_in, 3, 3)) / (9 * fan_in) ** 0.5
        nodes.append(helper.make_node("Conv", [value, f"w{at}"], [f"c{at}"], name=f"conv{at}"))
        value = f"c{at}"
        if stays and at == len(sizes) - 2:
            nodes.append(helper.make_node("Tanh", [value], [f"t{at}"], name=f"tanh{at}"))
            value = f"t{at}"
        constants |= {
            f"scale{at}": draw.uniform(0.5, 1.8, fan_out) * draw.choice([-1, 1], fan_out),
            f"bias{at}": draw.normal(0, 0.7, fan_out),
            f"mean{at}": draw.normal(0, 0.8, fan_out),
            f"var{at}": draw.uniform(0.2, 2.5, fan_out),
        }
        given = [value, *(f"{name}{at}" for name in ("scale", "bias", "mean", "var"))]
        nodes.append(helper.make_node("BatchNormalization", given, [f"b{at}"], name=f"bn{at}"))
        value = f"b{at}"
    held = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in constants.items()]
    entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16])
    result = helper.make_tensor_value_info(value, TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "network", [entry], [result], held)
    opset = helper.make_opsetid("", 18)
    return helper.make_model(graph, ir_version=9, opset_imports=[opset])
