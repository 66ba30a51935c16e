"""What a random graph may grow: every operator of the table, and some that let nothing pass."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from onnx import helper

from tests.random_layers import (
    arithmetic,
    attention,
    batchnorm,
    convolution,
    gemm,
    matmul,
    same_convolution,
    transposed_convolution,
)  # fmt: skip
from tests.random_more import MORE
from tests.random_values import HIGHEST_RANK, LARGEST, Grower, Typed


def transpose(g: Grower) -> None:
    v = g.value(lambda v: v.rank >= 2)
    if v is not None:
        left, perm = list(range(v.rank)), []
        while left:
            perm.append(left.pop(-1 - g.choose(len(left))))
        g.node("Transpose", [v], [v.shape[axis] for axis in perm], perm=perm)


def reshape(g: Grower) -> None:
    v = g.value(lambda v: v.rank >= 2)
    if v is None:
        return
    axis, shape = g.choose(v.rank), list(v.shape)
    if g.choose(2) and axis + 1 < v.rank:
        shape[axis : axis + 2] = [shape[axis] * shape[axis + 1]]
    elif shape[axis] % 2 == 0 and v.rank < HIGHEST_RANK:
        shape[axis : axis + 1] = [2, shape[axis] // 2][:: 1 - 2 * g.choose(2)]
    else:
        shape = [shape[0], math.prod(shape[1:])]
    target = list(shape)
    if g.choose(2):
        target[g.choose(len(target))] = -1
    if g.choose(2) and shape[0] == v.shape[0] and target[0] != -1:
        target[0] = 0
    g.node("Reshape", [v, g.constant(np.asarray(target, np.int64))], shape)


def shuffle(g: Grower) -> None:
    v = g.value(lambda v: v.rank == 4 and v.shape[1] % 2 == 0)
    if v is not None:
        n, c, h, w = v.shape
        split = np.asarray([0, 2, c // 2, h, w], np.int64)
        v = g.node("Reshape", [v, g.constant(split)], (n, 2, c // 2, h, w))
        v = g.node("Transpose", [v], (n, c // 2, 2, h, w), perm=[0, 2, 1, 3, 4])
        g.node("Reshape", [v, g.constant(np.asarray([0, -1, h, w], np.int64))], (n, c, h, w))


def flatten(g: Grower) -> None:
    v = g.value(lambda v: v.rank >= 2)
    if v is not None:
        axis = g.pick((1, g.choose(v.rank + 1)))
        g.node("Flatten", [v], (math.prod(v.shape[:axis]), math.prod(v.shape[axis:])), axis=axis)


def squeeze(g: Grower) -> None:
    v = g.value(lambda v: 1 in v.shape and v.rank > 2)
    if v is not None:
        axis = v.shape.index(1)
        axes = g.constant(np.asarray([axis - g.choose(2) * v.rank], np.int64))
        g.node("Squeeze", [v, axes], v.shape[:axis] + v.shape[axis + 1 :])


def unsqueeze(g: Grower) -> None:
    v = g.value(lambda v: v.rank < HIGHEST_RANK)
    if v is not None:
        axis = g.choose(v.rank + 1)
        axes = g.constant(np.asarray([axis - g.choose(2) * (v.rank + 1)], np.int64))
        g.node("Unsqueeze", [v, axes], (*v.shape[:axis], 1, *v.shape[axis:]))


def concat(g: Grower) -> None:
    v = g.value(lambda v: v.rank > 0)
    if v is None:
        return
    axis = g.choose(v.rank)
    w = g.value(lambda w: w.rank == v.rank and all(
        a == b for i, (a, b) in enumerate(zip(v.shape, w.shape, strict=True)) if i != axis
    ))  # fmt: skip
    w = w or v
    shape = [*v.shape]
    shape[axis] += w.shape[axis]
    if math.prod(shape) <= LARGEST:
        other = g.numbers(*w.shape) if g.chance(6) else w
        g.node("Concat", [v, other], shape, axis=axis - g.choose(2) * v.rank)


def split(g: Grower) -> None:
    v = g.value(lambda v: v.rank > 0 and max(v.shape) > 1)
    if v is None:
        return
    axis = g.pick([axis for axis, size in enumerate(v.shape) if size > 1])
    first = g.pick((v.shape[axis] // 2, 1))
    sizes = [first, v.shape[axis] - first]
    shapes = [(*v.shape[:axis], size, *v.shape[axis + 1 :]) for size in sizes]
    one = g.node("Split", [v, g.constant(np.asarray(sizes, np.int64))], *shapes, axis=axis)
    if g.choose(2):
        two = g.values[-1]
        if g.choose(2):
            one = g.node(g.pick(("Relu", "Identity")), [one], one.shape)
        g.node("Concat", [one, two] if g.choose(2) else [two, one], v.shape, axis=axis)


def slicing(g: Grower) -> None:
    v = g.value(lambda v: v.rank > 0 and max(v.shape) > 1)
    if v is None:
        return
    axis = g.pick([axis for axis, size in enumerate(v.shape) if size > 1])
    start, end, step = g.pick(((1, 99, 1), (0, -1, 1), (-1, -99, -1), (0, 99, 2)))
    size = len(range(v.shape[axis])[start:end:step])
    bounds = [g.constant(np.asarray([number], np.int64)) for number in (start, end, axis, step)]
    g.node("Slice", [v, *bounds], (*v.shape[:axis], size, *v.shape[axis + 1 :]))


def gather(g: Grower) -> None:
    v = g.value(lambda v: v.rank > 0)
    if v is None:
        return
    axis = g.choose(v.rank)
    size = v.shape[axis]
    rng = np.random.default_rng(g.choose(50))
    indices = rng.permutation(size) if g.choose(3) else rng.integers(-size, size, 3)
    shape = (*v.shape[:axis], len(indices), *v.shape[axis + 1 :])
    g.node("Gather", [v, g.constant(indices.astype(np.int64))], shape, axis=axis)


def _partner(g: Grower, v: Typed) -> Typed | None:
    if g.chance(8):
        return v
    same = g.value(lambda w: w != v and w.shape == v.shape)
    if same is not None and g.choose(4):
        return same
    return g.value(
        lambda w: w != v and w.rank <= v.rank and all(
            a in (1, b) for a, b in zip(w.shape[::-1], v.shape[::-1], strict=False)
        )
    ) or same  # fmt: skip


def addition(g: Grower) -> None:
    v = g.value(lambda v: v.rank > 0)
    w = None if v is None else _partner(g, v)
    if v is None or w is None:
        return
    op = g.pick(("Add", "Add", "Sub", "Sum"))
    pair: list[Typed | str] = [v, w][:: 1 - 2 * g.choose(2)]
    if op == "Sum" and g.choose(2):
        pair.append(g.numbers(v.shape[-1]))
    g.node(op, pair, v.shape)


def product(g: Grower) -> None:
    v = g.value(lambda v: v.rank > 0)
    w = None if v is None else _partner(g, v)
    if v is None or w is None:
        return
    if w != v and g.choose(2):
        w = g.node("Sigmoid", [w], w.shape)
        if g.chance(3):
            g.node("Div", [v, w], v.shape)
            return
    g.node("Mul", [v, w][:: 1 - 2 * g.choose(2)], v.shape)


def gate(g: Grower) -> None:
    v = g.value(lambda v: v.rank == 4)
    if v is not None:
        n, c, *_ = v.shape
        w = g.node("GlobalAveragePool", [v], (n, c, 1, 1))
        w = g.node("Conv", [w, g.numbers(c, c, 1, 1)], w.shape)
        w = g.node("Sigmoid", [w], w.shape)
        g.node("Mul", [v, w], v.shape)


def residual(g: Grower) -> None:
    v = g.value(lambda v: v.rank == 4)
    if v is not None:
        n, c, *spatial = v.shape
        arms = []
        for _ in range(2):
            arm = g.node("Conv", [v, g.numbers(4, c, 1, 1)], (n, 4, *spatial))
            if g.choose(2):
                parameters = [g.numbers(4, low=0.5, high=1.6), g.numbers(4), g.numbers(4)]
                arm = g.node(
                    "BatchNormalization", [arm, *parameters, g.numbers(4, low=0.7, high=1.4)], arm.shape
                )
            arms.append(arm)
        g.node(g.pick(("Add", "Sub", "Sum")), arms, (n, 4, *spatial))


def pool(g: Grower) -> None:
    v = g.value(lambda v: v.rank in (3, 4) and min(v.shape[2:]) >= 2)
    if v is None:
        return
    spatial = v.shape[2:]
    k, stride, pad, ceil = 2, g.pick((1, 2, 3)), g.pick((0, 0, 1)), g.choose(2)
    rounded = math.ceil if ceil else math.floor
    out = [rounded((size + 2 * pad - k) / stride) + 1 for size in spatial]
    if any((o - 1) * stride >= size + pad for o, size in zip(out, spatial, strict=True)):
        return  # a window that holds no element: implementations disagree on whether it is there
    settings: dict[str, Any] = {
        "kernel_shape": [k] * len(spatial), "strides": [stride] * len(spatial),
        "pads": [pad] * (2 * len(spatial)), "ceil_mode": ceil,
    }  # fmt: skip
    op = g.pick(("AveragePool", "MaxPool"))
    if op == "AveragePool":
        settings["count_include_pad"] = g.choose(2)
    g.node(op, [v], (*v.shape[:2], *out), **settings)


def reduction(g: Grower) -> None:
    v = g.value(lambda v: v.rank >= 3)
    if v is None:
        return
    if g.choose(2):
        op = g.pick(("GlobalAveragePool", "GlobalMaxPool"))
        g.node(op, [v], (*v.shape[:2], *[1] * (v.rank - 2)))
        return
    axes = g.pick(([-1], [-2, -1], [1]))
    keep = g.choose(2)
    gone = [axis % v.rank for axis in axes]
    shape = [1 if i in gone else size for i, size in enumerate(v.shape) if keep or i not in gone]
    op = g.pick(("ReduceMean", "ReduceMax", "ReduceMin"))
    if g.opset < 18:
        g.node(op, [v], shape, axes=axes, keepdims=keep)
    else:
        g.node(op, [v, g.constant(np.asarray(axes, np.int64))], shape, keepdims=keep)


def activation(g: Grower) -> None:
    v = g.value(lambda v: v.rank >= 2)
    if v is not None:
        op = g.pick(("Relu", "LeakyRelu", "PRelu"))
        slope = [g.numbers(*g.pick(((1,), (v.shape[1], *[1] * (v.rank - 2)))))] if op == "PRelu" else []
        g.node(op, [v, *slope], v.shape)


def barrier(g: Grower) -> None:
    v = g.value()
    if v is not None:
        g.node(g.pick(("Sigmoid", "Tanh")), [v], v.shape)


def padding(g: Grower) -> None:
    v = g.value(lambda v: v.rank >= 2 and min(v.shape[-2:]) >= 2)
    if v is None:
        return
    mode = g.pick(("constant", "reflect", "edge", *(["wrap"] if g.opset >= 19 else [])))
    axis = v.rank - 1 - (g.choose(v.rank) if g.chance(4) else g.choose(2))
    pads = [0] * (2 * v.rank)
    if v.shape[axis] > 1:
        pads[axis] = 1
    pads[axis + v.rank] = 1 if v.shape[axis] > 1 else 0
    shape = [size + pads[i] + pads[i + v.rank] for i, size in enumerate(v.shape)]
    inputs = [v, g.constant(np.asarray(pads, np.int64))]
    if mode == "constant" and g.choose(2):
        inputs.append(g.constant(np.asarray(g.pick((0.0, 0.5)), g.dtype)))
    if math.prod(shape) <= LARGEST:
        g.node("Pad", inputs, shape, mode=mode)


def resize(g: Grower) -> None:
    v = g.value(lambda v: v.rank == 4 and min(v.shape) > 1)
    if v is None:
        return
    mode = g.pick(("nearest", "linear", "cubic"))
    axes = (2, 3) if mode != "nearest" or g.choose(3) else (g.choose(4),)
    shape = [size * (2 if i in axes else 1) for i, size in enumerate(v.shape)]
    if math.prod(shape) > LARGEST:
        return
    if g.choose(2):
        extra = ["", g.constant(np.asarray([2.0 if i in axes else 1.0 for i in range(4)], np.float32))]
    else:
        extra = ["", "", g.constant(np.asarray(shape, np.int64))]
    transform = g.pick(("half_pixel", "asymmetric", "align_corners"))
    g.node("Resize", [v, *extra], shape, mode=mode, coordinate_transformation_mode=transform)


def passthrough(g: Grower) -> None:
    v = g.value()
    if v is not None:
        op = g.pick(("Identity", "Dropout", "Cast"))
        to = {"to": helper.np_dtype_to_tensor_dtype(np.dtype(g.dtype))} if op == "Cast" else {}
        g.node(op, [v], v.shape, **to)


def branch(g: Grower) -> None:
    """An If whose branches capture a value, and now and then put a BatchNorm before or after it."""
    v = g.value(lambda v: v.rank >= 2)
    if v is None or g.parent is not None:
        return
    bodies = []
    for which in ("then", "else"):
        body = Grower(g.choose, g.dtype, g.opset, parent=g)
        body.values = [v]
        for _ in range(1 + g.choose(3)):
            body.pick((batchnorm, same_convolution, activation, arithmetic, addition, barrier))(body)
        last = next(w for w in reversed(body.values) if w.shape == v.shape)
        if last == v:
            last = body.node("Identity", [v], v.shape)
        bodies.append(body.graph(which, [], [last.name]))
    condition = f"x_condition_{len(g.conditions)}"
    g.conditions.append(condition)
    g.read[v.name] += 1
    g.node("If", [condition], v.shape, then_branch=bodies[0], else_branch=bodies[1])


LIKELY = (convolution, matmul, barrier, residual)
STEPS = (
    convolution, transposed_convolution, gemm, matmul, attention, transpose, reshape, shuffle, flatten,
    squeeze, unsqueeze, concat, split, slicing, gather, addition, product, gate, residual,
    pool, reduction, activation, barrier, padding, resize, passthrough, branch, *MORE,
)  # fmt: skip
