"""Random pre-activation networks: a stream that residual branches read through BatchNorms and add to."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper

from tests.random_values import Grower, Typed

CHANNELS = 4


def stream_model(choose: Callable[[int], int], dtype: type = np.float32) -> onnx.ModelProto:
    """A network with one stream or, where a shortcut changes its size, several one after the other."""
    g = Grower(choose, dtype, opset=18)
    shape = g.pick(((2, CHANNELS, 8, 8), (2, CHANNELS, 7)))
    v = _convolution(g, Typed("x0", shape), g.pick((1, 3)))
    outputs = []
    for _ in range(2 + choose(4)):
        v = _block(g, v)
        if g.chance(4):  # another reader
            outputs.append(g.pick((_relu, _pointwise, _padded, _plain))(g, v).name)
    v = _normalised(g, v) if choose(4) else v
    outputs.append(g.node("GlobalAveragePool", [v], (*v.shape[:2], *[1] * (v.rank - 2))).name)
    given = helper.make_tensor_value_info("x0", helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)
    given.doc_string = ",".join(map(str, shape))
    graph = g.graph("streams", [given], sorted(set(outputs)))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _block(g: Grower, v: Typed) -> Typed:
    """One residual block, with a shortcut that is the stream itself, a pool of it or a convolution."""
    active = _normalised(g, v)
    step = 2 if g.chance(3) and min(v.shape[2:]) > 2 else 1
    branch = _convolution(g, active, g.pick((1, 3)), step)
    if g.choose(2):
        branch = _convolution(g, _normalised(g, branch), 3)
    if step == 1 and g.choose(4):
        shortcut = g.node("Identity", [v], v.shape) if g.chance(4) else v
    elif step == 2 and g.choose(2):
        rank = v.rank - 2
        op = g.pick(("MaxPool", "AveragePool"))
        shortcut = g.node(op, [v], branch.shape, kernel_shape=[1] * rank, strides=[2] * rank)
    else:
        shortcut = _convolution(g, g.pick((v, active)), 1, step)
    terms = [branch, shortcut][:: 1 - 2 * g.choose(2)]
    if g.chance(5):
        return g.node("Sub", terms, v.shape if step == 1 else branch.shape)
    return g.node(g.pick(("Add", "Sum")), terms, branch.shape)


def _normalised(g: Grower, v: Typed) -> Typed:
    """BatchNorm, mostly with positive scales, and mostly an activation."""
    rng = np.random.default_rng([g._root._count, 7])
    signs = np.sign(rng.uniform(-0.3, 1, CHANNELS)) if g.chance(3) else 1.0
    small = np.where(rng.random(CHANNELS) < 0.3, 1e-3, 1.0) if g.chance(6) else 1.0  # γ of a dying channel
    arrays = (
        rng.uniform(0.5, 1.6, CHANNELS) * signs * small,
        *(rng.normal(0, 1, CHANNELS) for _ in range(2)),
        rng.uniform(0.7, 1.4, CHANNELS),
    )
    parameters = [g.constant(array.astype(g.dtype)) for array in arrays]
    made = g.node("BatchNormalization", [v, *parameters], v.shape)
    return g.node(g.pick(("Relu", "LeakyRelu")), [made], v.shape) if g.choose(6) else made


def _convolution(g: Grower, v: Typed, size: int, step: int = 1) -> Typed:
    n, _, *spatial = v.shape
    out = [(extent - 1) // step + 1 for extent in spatial]
    weight = g.numbers(CHANNELS, v.shape[1], *[size] * len(spatial))
    bias = [g.numbers(CHANNELS)] if g.choose(2) else []
    return g.node(
        "Conv", [v, weight, *bias], (n, CHANNELS, *out),
        pads=[size // 2] * (2 * len(spatial)), strides=[step] * len(spatial),
    )  # fmt: skip


def _relu(g: Grower, v: Typed) -> Typed:
    return g.node("Relu", [v], v.shape)


def _pointwise(g: Grower, v: Typed) -> Typed:
    return _convolution(g, v, 1)


def _padded(g: Grower, v: Typed) -> Typed:
    return _convolution(g, v, 3)


def _plain(_: Grower, v: Typed) -> Typed:
    return v
