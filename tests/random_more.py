"""What else a random graph may grow: elements repeated, rearranged or summed up, norms, recurrent layers."""

from __future__ import annotations

import math

import numpy as np

from tests.random_values import HIGHEST_RANK, LARGEST, Grower


def negation(g: Grower) -> None:
    v = g.value()
    if v is not None:
        g.node("Neg", [v], v.shape)


def summation(g: Grower) -> None:
    v = g.value(lambda v: v.rank >= 3)
    if v is None:
        return
    axes, keep = g.pick(([-1], [-2, -1], [0])), g.choose(2)
    gone = [axis % v.rank for axis in axes]
    shape = [1 if i in gone else size for i, size in enumerate(v.shape) if keep or i not in gone]
    g.node("ReduceSum", [v, g.constant(np.asarray(axes, np.int64))], shape, keepdims=keep)


def tiling(g: Grower) -> None:
    v = g.value(lambda v: v.rank >= 2 and 2 * math.prod(v.shape) <= LARGEST)
    if v is not None:
        times = [1] * v.rank
        times[g.choose(v.rank)] = 2
        shape = [size * count for size, count in zip(v.shape, times, strict=True)]
        g.node("Tile", [v, g.constant(np.asarray(times, np.int64))], shape)


def expansion(g: Grower) -> None:
    v = g.value(lambda v: v.rank >= 2 and 2 * math.prod(v.shape) <= LARGEST)
    if v is None:
        return
    target = [g.pick((size, 1)) for size in v.shape]
    shape = list(v.shape)
    if 1 in v.shape and g.choose(2):
        target[shape.index(1)] = shape[shape.index(1)] = 2
    elif v.rank < HIGHEST_RANK and g.choose(2):
        target, shape = [2, *target], [2, *shape]
    g.node("Expand", [v, g.constant(np.asarray(target, np.int64))], shape)


def blocks(g: Grower) -> None:
    v = g.value(lambda v: v.rank == 4 and (v.shape[1] % 4 == 0 or not any(size % 2 for size in v.shape[2:])))
    if v is None:
        return
    n, c, h, w = v.shape
    if c % 4 == 0 and (g.choose(2) or h % 2 or w % 2):
        g.node("DepthToSpace", [v], (n, c // 4, 2 * h, 2 * w), blocksize=2, mode=g.pick(("DCR", "CRD")))
    elif not (h % 2 or w % 2):
        g.node("SpaceToDepth", [v], (n, 4 * c, h // 2, w // 2), blocksize=2)


def norm(g: Grower) -> None:
    """Not in float16, of which ONNX Runtime has no InstanceNormalization."""
    v = g.value(lambda v: v.rank >= 3 and min(v.shape[-2:]) > 1)
    if v is None or g.dtype == np.float16:
        return
    if g.opset < 17 or g.choose(2):
        c = v.shape[1]
        g.node("InstanceNormalization", [v, g.numbers(c, low=0.5, high=1.6), g.numbers(c)], v.shape)
        return
    axis = g.pick((v.rank - 1, 1))
    own = v.shape[axis:]
    bias = [g.numbers(*own)] if g.choose(2) else []
    scale = g.numbers(*own, low=0.5, high=1.6)
    g.node("LayerNormalization", [v, scale, *bias], v.shape, axis=axis - g.choose(2) * v.rank)


def recurrent(g: Grower) -> None:
    """Not in float16, of which ONNX Runtime has no recurrent layers."""
    v = g.value(lambda v: v.rank == 3)
    if v is None or g.dtype == np.float16:
        return
    if g.choose(3):  # as exporters do, since a BatchNorm's channels do not stand last
        perm = g.pick(([2, 0, 1], [0, 2, 1]))
        v = g.node("Transpose", [v], [v.shape[axis] for axis in perm], perm=perm)
    op, both = g.pick(("LSTM", "GRU", "RNN")), g.choose(2)
    rows = {"LSTM": 4, "GRU": 3, "RNN": 1}[op] * 2
    steps, batch, size = v.shape
    weights = [g.numbers(1 + both, rows, size), g.numbers(1 + both, rows, 2)]
    bias = [g.numbers(1 + both, 2 * rows)] if g.choose(2) else []
    direction = "bidirectional" if both else g.pick(("forward", "reverse"))
    g.node(op, [v, *weights, *bias], (steps, 1 + both, batch, 2), hidden_size=2, direction=direction)


def einsum(g: Grower) -> None:
    v = g.value(lambda v: v.rank >= 2)
    if v is None:
        return
    letters = "abcde"[: v.rank]
    kept = "a" if v.rank > 2 and g.chance(4) else ""
    contracted = letters[-1 - g.choose(v.rank - 1)] if not kept else letters[-1]
    constant, output = f"{kept}{contracted}z", letters.replace(contracted, "z")
    sizes = dict(zip(letters, v.shape, strict=True)) | {"z": 4}
    weight = g.numbers(*(sizes[letter] for letter in constant))
    pair, terms = [v, weight], [letters, constant]
    if g.choose(2):
        pair, terms = pair[::-1], terms[::-1]
    g.node("Einsum", pair, [sizes[letter] for letter in output], equation=f"{','.join(terms)}->{output}")


def position(g: Grower) -> None:
    v = g.value(lambda v: v.rank > 2)
    if v is not None:
        axis = g.choose(v.rank)
        index = g.constant(np.asarray(g.choose(v.shape[axis]), np.int64))
        g.node("Gather", [v, index], v.shape[:axis] + v.shape[axis + 1 :], axis=axis)


def slices(g: Grower) -> None:
    v = g.value(lambda v: v.rank > 1 and min(v.shape) > 1)
    if v is None:
        return
    first = g.choose(v.rank)
    axes = [first, (first + 1 + g.choose(v.rank - 1)) % v.rank]
    starts, ends = [1, 0], [99, -1]
    shape = [size - (axis in axes) for axis, size in enumerate(v.shape)]
    bounds = [g.constant(np.asarray(numbers, np.int64)) for numbers in (starts, ends, axes)]
    g.node("Slice", [v, *bounds], shape)


MORE = (negation, summation, tiling, expansion, blocks, norm, recurrent, einsum, position, slices)
