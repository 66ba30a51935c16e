"""Random chains of layers and what may stand between them: Pads, orders of channels, affines, activations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper

from tests.random_values import Grower, Typed

_MOST_CHANNELS = 8
_SPATIAL = 14  # the largest size of a spatial axis


def neighbour_model(choose: Callable[[int], int], dtype: type = np.float32) -> onnx.ModelProto:
    """Convolutions over one or two axes, then linear layers over vectors; now and then a second reader."""
    g = Grower(choose, dtype, opset=18)
    shape = g.pick(((2, 3, 6, 7), (1, 4, 9), (2, 6, 5, 5)))
    v, outputs = Typed("x0", shape), []
    for _ in range(2 + choose(5)):
        v = g.pick((_conv, _pointwise, _conv, _pad, _order, _norm, _pointwise, _relu))(g, v)
        if g.chance(8):
            outputs.append(v.name)
    if choose(3):
        v = g.node("GlobalAveragePool", [v], (*v.shape[:2], *[1] * (v.rank - 2)))
        v = g.node("Flatten", [v], v.shape[:2])
    else:
        v = g.node("Transpose", [v], (v.shape[0], *v.shape[2:], v.shape[1]), perm=[0, *range(2, v.rank), 1])
    for _ in range(1 + choose(5)):
        v = g.pick((_matmul, _gemm, _matmul, _last_order, _bias, _scale, _relu))(g, v)
        if g.chance(8):
            outputs.append(v.name)
    outputs.append(g.node("Identity", [v], v.shape).name if g.chance(4) else v.name)
    given = helper.make_tensor_value_info("x0", helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)
    given.doc_string = ",".join(map(str, shape))
    graph = g.graph("neighbours", [given], sorted(set(outputs) - {"x0"}))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _conv(g: Grower, v: Typed) -> Typed:
    return _layer(g, v, g.pick((3, 2, 1)))


def _pointwise(g: Grower, v: Typed) -> Typed:
    return _layer(g, v, 1)


def _layer(g: Grower, v: Typed, size: int) -> Typed:
    n, cin, *spatial = v.shape
    if min(spatial) < size:
        return v
    groups = g.pick([one for one in (1, 1, 2, 3, cin) if cin % one == 0])
    cout = groups * g.pick([one for one in (1, 2, 3, 4, 8) if groups * one <= _MOST_CHANNELS] or [1])
    step = 2 if g.chance(4) else 1
    pads = [g.choose(2) for _ in range(2 * len(spatial))] if g.choose(2) else [0] * (2 * len(spatial))
    attributes = {"pads": pads}
    if g.chance(6):
        mode = g.pick(("VALID", "SAME_UPPER", "SAME_LOWER"))
        attributes = {"auto_pad": mode}
        total = [0 if mode == "VALID" else _same(extent, size, step) for extent in spatial]
    else:
        total = [pads[axis] + pads[axis + len(spatial)] for axis in range(len(spatial))]
    out = [(extent + more - size) // step + 1 for extent, more in zip(spatial, total, strict=True)]
    bias = [g.numbers(cout)] if g.choose(2) else []
    return g.node(
        "Conv", [v, g.numbers(cout, cin // groups, *[size] * len(spatial)), *bias], (n, cout, *out),
        group=groups, strides=[step] * len(spatial), **attributes,
    )  # fmt: skip


def _same(extent: int, size: int, step: int) -> int:
    return max((-(-extent // step) - 1) * step + size - extent, 0)


def _pad(g: Grower, v: Typed) -> Typed:
    if max(v.shape[2:]) > _SPATIAL:
        return v
    pads = np.zeros((2, v.rank), np.int64)
    pads[:, 2:] = [[g.choose(3) for _ in v.shape[2:]] for _ in range(2)]
    if g.chance(6):
        pads[0, 1] = 1  # a channel more
    number = [g.constant(np.asarray(0.5 if g.chance(4) else 0.0, g.dtype))] if g.choose(2) else []
    shape = tuple(int(size + more) for size, more in zip(v.shape, pads.sum(0), strict=True))
    if g.chance(8):
        return g.node("Pad", [v, g.constant(pads.reshape(-1))], shape, mode="edge")
    return g.node("Pad", [v, g.constant(pads.reshape(-1)), *number], shape)


def _order(g: Grower, v: Typed) -> Typed:
    return _turned(g, v, 1)


def _last_order(g: Grower, v: Typed) -> Typed:
    return _turned(g, v, v.rank - 1)


def _turned(g: Grower, v: Typed, axis: int) -> Typed:
    size = v.shape[axis]
    if g.chance(4):
        numbers = (g.constant(np.asarray([one], np.int64)) for one in (-1, -(2**62), axis, -1))
        return g.node("Slice", [v, *numbers], v.shape)
    order = np.random.default_rng([g._root._count, size]).permutation(size)
    if g.chance(6):
        order = np.zeros(size, np.int64)  # not a permutation
    own = axis - v.rank if g.choose(2) else axis
    return g.node("Gather", [v, g.constant(order)], v.shape, axis=own)


def _norm(g: Grower, v: Typed) -> Typed:
    rng, size = np.random.default_rng([g._root._count, 3]), v.shape[1]
    arrays = (rng.uniform(0.5, 1.6, size) * rng.choice((1, -1), size), *rng.normal(0, 1, (2, size)),
              rng.uniform(0.5, 2, size))  # fmt: skip
    return g.node("BatchNormalization", [v, *(g.constant(one.astype(g.dtype)) for one in arrays)], v.shape)


def _relu(g: Grower, v: Typed) -> Typed:
    return g.node("Relu", [v], v.shape)


def _matmul(g: Grower, v: Typed) -> Typed:
    width = g.pick((4, 8, 2, 6))
    made = g.node("MatMul", [v, g.numbers(v.shape[-1], width)], (*v.shape[:-1], width))
    return _bias(g, made) if g.choose(2) else made


def _gemm(g: Grower, v: Typed) -> Typed:
    if v.rank != 2:
        return _matmul(g, v)
    width, turned = g.pick((4, 8, 2, 6)), g.choose(2)
    weight = g.numbers(width, v.shape[1]) if turned else g.numbers(v.shape[1], width)
    shapes = ((width,), (1, width), (1,), (v.shape[0], width))
    bias = [g.numbers(*g.pick(shapes))] if g.choose(2) else []
    factors = {"alpha": 0.5, "beta": 2.0} if g.chance(4) else {}
    return g.node("Gemm", [v, weight, *bias], (v.shape[0], width), transB=turned, **factors)


def _bias(g: Grower, v: Typed) -> Typed:
    constant = g.numbers(*g.pick(((v.shape[-1],), (1, v.shape[-1]), (1,), v.shape)))
    pair = [v, constant][:: 1 - 2 * g.choose(2)]
    return g.node(g.pick(("Add", "Sub")), pair, v.shape)


def _scale(g: Grower, v: Typed) -> Typed:
    return g.node("Mul", [v, g.numbers(v.shape[-1], low=0.5, high=1.5)], v.shape)
