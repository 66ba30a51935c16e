"""What a random graph may grow that has its own numbers: affines and linear operators."""

from __future__ import annotations

import math

from tests.random_values import LARGEST, Grower, Typed


def batchnorm(g: Grower) -> None:
    v = g.value(lambda v: v.rank >= 2)
    if v is not None:
        c = v.shape[1]
        gamma, var = g.numbers(c, low=0.5, high=1.6), g.numbers(c, low=0.7, high=1.4)
        parameters = [v, gamma, g.numbers(c), g.numbers(c), var]
        g.node("BatchNormalization", parameters, v.shape, epsilon=g.pick((1e-5, 1e-3)))


def arithmetic(g: Grower) -> None:
    v = g.value(lambda v: v.rank > 0)
    if v is None:
        return
    axis = g.choose(v.rank + 1)
    shape = (
        [1] * axis + [v.shape[axis]] + [1] * (v.rank - axis - 1) if axis < v.rank else [[], [1]][g.choose(2)]
    )
    while shape and shape[0] == 1 and g.choose(2):
        shape = shape[1:]
    op = g.pick(("Mul", "Add", "Sub", "Div"))
    low, high = (0.5, 1.6) if op in ("Mul", "Div") else (-1.0, 1.0)
    pair: list[Typed | str] = [v, g.numbers(*shape, low=low, high=high, zeros=op != "Div")]
    g.node(op, pair[::-1] if op != "Div" and g.chance(3) else pair, v.shape)


def convolution(g: Grower) -> None:
    v = g.value(lambda v: v.rank in (3, 4))
    if v is None:
        return
    n, c, *spatial = v.shape
    groups = g.pick([k for k in (1, 2, c) if c % k == 0])
    cout = g.pick([k for k in (4, 2, c) if k % groups == 0] or [c])
    k = g.pick([k for k in (1, 3, 2) if k <= min(spatial)])
    pad, stride = g.pick((0, 0, k // 2)), g.pick((1, 1, 2))
    out = [(size + 2 * pad - k) // stride + 1 for size in spatial]
    weight = g.numbers(cout, c // groups, *[k] * len(spatial))
    bias = [g.numbers(cout)] if g.choose(2) else []
    g.node(
        "Conv", [v, weight, *bias], (n, cout, *out),
        group=groups, pads=[pad] * (2 * len(spatial)), strides=[stride] * len(spatial),
    )  # fmt: skip


def transposed_convolution(g: Grower) -> None:
    v = g.value(lambda v: v.rank in (3, 4))
    if v is None:
        return
    n, c, *spatial = v.shape
    groups = g.pick([k for k in (1, 2) if c % k == 0])
    k, stride = g.pick((1, 2, 3)), g.pick((1, 1, 2))
    crop = g.pick((0, (k - 1) // 2, k - 1))
    out = [(size - 1) * stride - 2 * crop + k for size in spatial]
    if min(out) < 1 or n * 4 * math.prod(out) > LARGEST:
        return
    weight = g.numbers(c, 4 // groups, *[k] * len(spatial))
    bias = [g.numbers(4)] if g.choose(2) else []
    g.node(
        "ConvTranspose", [v, weight, *bias], (n, 4, *out),
        group=groups, pads=[crop] * (2 * len(spatial)), strides=[stride] * len(spatial),
    )  # fmt: skip


def gemm(g: Grower) -> None:
    v = g.value(lambda v: v.rank == 2)
    if v is None:
        return
    ta, tb, left = g.choose(2), g.choose(2), g.chance(4)
    rows, k = v.shape[::-1] if ta else v.shape
    weight = g.numbers(*((4, k) if tb else (k, 4)))
    shape, inputs = (rows, 4), [v, weight]
    if left:
        k, columns = v.shape[::-1] if tb else v.shape
        shape, inputs = (4, columns), [g.numbers(*((k, 4) if ta else (4, k))), v]
    addend = g.pick((None, shape[1:], (1, shape[1]), (shape[0], 1), ()))
    inputs += [] if addend is None else [g.numbers(*addend)]
    g.node("Gemm", inputs, shape, transA=ta, transB=tb, alpha=g.pick((1.0, 0.5)), beta=g.pick((1.0, -0.5)))


def matmul(g: Grower) -> None:
    v = g.value(lambda v: v.rank >= 2)
    if v is None:
        return
    *batch, rows, k = v.shape
    leading = [1] if g.chance(6) and batch else []
    if g.chance(3):
        out = g.node("MatMul", [g.numbers(*leading, 4, rows), v], (*batch, 4, k))
    else:
        out = g.node("MatMul", [v, g.numbers(*leading, k, 4)], (*batch, rows, 4))
    if g.choose(2):
        bias = g.numbers(out.shape[-1])
        g.node("Add", [out, bias] if g.choose(2) else [bias, out], out.shape)


def attention(g: Grower) -> None:
    v = g.value(lambda v: v.rank >= 2)
    w = None if v is None else g.value(
        lambda w: w != v and w.rank == v.rank and w.shape[:-2] == v.shape[:-2] and w.shape[-1] == v.shape[-2]
    )  # fmt: skip
    if v is None or w is None:
        return
    if g.choose(3):
        axis = -1 if g.choose(3) else g.choose(w.rank)
        w = g.node("Softmax", [w], w.shape, axis=axis)
    g.node("MatMul", [w, v], (*w.shape[:-1], v.shape[-1]))


def same_convolution(g: Grower) -> None:
    v = g.value(lambda v: v.rank in (3, 4))
    if v is not None:
        c = v.shape[1]
        g.node("Conv", [v, g.numbers(c, c, *[1] * (v.rank - 2))], v.shape)
