"""Which operators let a scale of a channel through, and which take it into a weight.

A rule gives the channels of a node's outputs, or None where the operator lets no scale through.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from bnfold.edge.classes import Labels
from bnfold.graph.nodes import integer, integers, real, text
from bnfold.ops.resize import kept_axes

if TYPE_CHECKING:
    from bnfold.edge.channels import Channels

Rule = Callable[["Channels", ir.Node], "Sequence[Labels | None] | None"]


def _conv(channels: Channels, node: ir.Node) -> list[Labels | None] | None:
    if not channels.has_weight(node, 3, 5):
        return None
    shape = channels.weight_shape(node)
    groups = integer(node, "group", 1)
    transposed = node.op_type == "ConvTranspose"
    sizes = (shape[1] * groups, shape[0]) if transposed else (shape[0], shape[1] * groups)
    made = channels.layer(node, 1, sizes, out_axis=1 if transposed else 0, groups=groups)
    return [_with_bias(channels, node, 2, made)]


def _with_bias(channels: Channels, node: ir.Node, index: int, made: Labels) -> Labels:
    """Let a bias take the scale of the output; hold the output where it cannot."""
    if index >= len(node.inputs) or node.inputs[index] is None:
        return made
    if channels.is_vector(node, index, -1, len(made.ids)):
        channels.layers[-1].biases.append((node, index))
        return made
    channels.classes.fix(made.ids, f"the bias of {node.op_type} is not a vector of constants")
    return made


def _gemm(channels: Channels, node: ir.Node) -> list[Labels | None] | None:
    if integer(node, "transA", 0) or not channels.has_weight(node, 2, 2):
        return None
    shape = channels.weight_shape(node)
    out_axis = 0 if integer(node, "transB", 0) else 1
    made = channels.layer(node, 1, (shape[out_axis], shape[1 - out_axis]), out_axis=out_axis)
    return [_with_bias(channels, node, 2, made)]


def _matmul(channels: Channels, node: ir.Node) -> list[Labels | None] | None:
    rank = channels.facts.rank(node.inputs[0])
    if not rank or rank < 2 or not channels.facts.has_constant(node, 1):  # attention has no weight
        return None
    if not channels.has_weight(node, 2, 2):
        return None
    shape = channels.weight_shape(node)
    return [channels.layer(node, rank - 1, (shape[1], shape[0]), out_axis=1)]


def _same(channels: Channels, node: ir.Node) -> list[Labels | None] | None:
    return [channels.of(node.inputs[0])]


def _clip(channels: Channels, node: ir.Node) -> list[Labels | None] | None:
    """A Clip that is a Relu."""
    low, high = real(node, "min", -math.inf), real(node, "max", math.inf)
    if channels.facts.version(node) >= 11:
        bounds = [channels.facts.operand(node, index) if _given(node, index) else None for index in (1, 2)]
        if any(_given(node, at + 1) and bound is None for at, bound in enumerate(bounds)):
            return None
        low = -math.inf if bounds[0] is None else float(bounds[0].reshape(-1)[0])
        high = math.inf if bounds[1] is None else float(bounds[1].reshape(-1)[0])
    return [channels.of(node.inputs[0])] if low in (0.0, -math.inf) and high == math.inf else None


def _prelu(channels: Channels, node: ir.Node) -> list[Labels | None] | None:
    return [channels.of(node.inputs[0])] if channels.facts.has_constant(node, 1) else None


def _pool(channels: Channels, node: ir.Node) -> list[Labels | None] | None:
    labels = channels.of(node.inputs[0])
    return [labels] if labels and labels.axis == 1 and len(node.outputs) == 1 else None


def _times(channels: Channels, node: ir.Node) -> list[Labels | None] | None:
    """A product with a constant, or with what is held at the scale 1."""
    values = [channels.of(value) for value in node.inputs]
    if node.op_type == "Div" and values[1] is not None:
        return None
    known = [labels for labels in values if labels is not None]
    if len(known) != 1:
        return None if known else [None]
    one, value = known[0], node.inputs[values.index(known[0])]
    is_whole = channels.facts.rank(value) == channels.facts.rank(node.outputs[0])
    return [one] if is_whole and channels.facts.size(node.outputs[0], one.axis) == len(one.ids) else None


def _sum(channels: Channels, node: ir.Node) -> list[Labels | None] | None:
    """Terms that are scaled alike; a constant term takes the scale."""
    values = list(node.inputs)
    constants = [index for index, value in enumerate(values) if channels.facts.has_constant(node, index)]
    labels = [channels.of(value) for index, value in enumerate(values) if index not in constants]
    if not labels or any(one is None for one in labels):
        return None
    known = [one for one in labels if one is not None]
    first, rank = known[0], channels.facts.rank(node.outputs[0])
    ranks = {channels.facts.rank(values[index]) for index in range(len(values)) if index not in constants}
    if rank is None or ranks != {rank}:
        return None
    if any(one.axis != first.axis or len(one.ids) != len(first.ids) for one in known):
        return None
    if not all(channels.is_vector(node, index, first.axis - rank, len(first.ids)) for index in constants):
        return None
    for one in known[1:]:
        channels.classes.join(first.ids, one.ids)
    channels.added += [(node, index, first) for index in constants]
    return [first]


def _concat(channels: Channels, node: ir.Node) -> list[Labels | None] | None:
    labels = [channels.of(value) for value in node.inputs]
    rank = channels.facts.rank(node.inputs[0])
    known = [one for one in labels if one is not None]
    if rank is None or not known or len({one.axis for one in known}) > 1:
        return None
    axis = integer(node, "axis", 1) % rank
    if axis != known[0].axis:
        if len(known) < len(labels) or len({len(one.ids) for one in known}) > 1:
            return None
        for one in known[1:]:
            channels.classes.join(known[0].ids, one.ids)
        return [known[0]]
    parts = []
    for value, given in zip(node.inputs, labels, strict=True):
        size = channels.facts.size(value, axis)
        if given is None and size is None:
            return None
        parts.append(given.ids if given is not None else channels.classes.new(size or 0))
        if given is None:
            channels.classes.fix(parts[-1], "stands next to channels that are scaled")
    return [Labels(axis, np.concatenate(parts))]


def _split(channels: Channels, node: ir.Node) -> list[Labels | None] | None:
    labels, rank = channels.of(node.inputs[0]), channels.facts.rank(node.inputs[0])
    if labels is None or rank is None:
        return None
    axis = integer(node, "axis", 0) % rank
    if axis != labels.axis:
        return [labels] * len(node.outputs)
    known = [channels.facts.size(value, axis) for value in node.outputs]
    sizes = [size for size in known if size is not None]
    if len(sizes) < len(known) or sum(sizes) != len(labels.ids):
        return None
    return [Labels(axis, part) for part in np.split(labels.ids, np.cumsum(sizes)[:-1])]


def _transpose(channels: Channels, node: ir.Node) -> list[Labels | None] | None:
    labels, rank = channels.of(node.inputs[0]), channels.facts.rank(node.inputs[0])
    if labels is None or rank is None:
        return None
    order = list(integers(node, "perm")) or list(reversed(range(rank)))
    return [Labels(order.index(labels.axis), labels.ids)]


def _reshape(channels: Channels, node: ir.Node) -> list[Labels | None] | None:
    """A channel axis that stays, or takes in the axes after it, whose elements then repeat its channels."""
    labels = channels.of(node.inputs[0])
    before, after = (channels.facts.shape(value) for value in (node.inputs[0], node.outputs[0]))
    if labels is None or before is None or after is None or not len(labels.ids):
        return None
    inner = _elements(before[labels.axis + 1 :])
    for axis, size in enumerate(after):
        rest = _elements(after[axis + 1 :])
        if inner is None or rest is None:
            continue
        if size == len(labels.ids) and rest == inner:  # whatever became of the axes before it
            return [Labels(axis, labels.ids)]
        if size == len(labels.ids) * inner and rest == 1:
            return [Labels(axis, np.repeat(labels.ids, inner))]
    return None


def _elements(sizes: Sequence[object]) -> int | None:
    """The product of sizes; None where one is not known."""
    known = [size for size in sizes if isinstance(size, int)]
    return math.prod(known) if len(known) == len(sizes) else None


def _reduce(channels: Channels, node: ir.Node) -> list[Labels | None] | None:
    labels, rank = channels.of(node.inputs[0]), channels.facts.rank(node.inputs[0])
    axes = channels.facts.integers(node, 1, "axes")
    if labels is None or rank is None or not axes:
        return None
    gone = {axis % rank for axis in axes}
    if labels.axis in gone:
        return None
    kept = integer(node, "keepdims", 1)
    return [Labels(labels.axis - (0 if kept else sum(axis < labels.axis for axis in gone)), labels.ids)]


def _pad(channels: Channels, node: ir.Node) -> list[Labels | None] | None:
    labels, rank = channels.of(node.inputs[0]), channels.facts.rank(node.inputs[0])
    pads = channels.facts.integers(node, 1, "pads")
    if labels is None or rank is None or pads is None or len(pads) != 2 * rank or _given(node, 3):
        return None  # input 3 gives an order of axes
    if pads[labels.axis] or pads[rank + labels.axis]:
        return None
    if text(node, "mode", "constant") != "constant":
        return [labels]
    filled = channels.facts.operand(node, 2) if _given(node, 2) else None
    if _given(node, 2) and filled is None:
        return None
    value = real(node, "value", 0.0) if filled is None else float(filled.reshape(-1)[0])
    return [labels] if value == 0 else None


def _given(node: ir.Node, index: int) -> bool:
    return index < len(node.inputs) and node.inputs[index] is not None


def _resize(channels: Channels, node: ir.Node) -> list[Labels | None] | None:
    """A Resize that leaves the channel axis alone, and writes no fixed number beyond the border."""
    labels = channels.of(node.inputs[0])
    if labels is None or text(node, "coordinate_transformation_mode", "") == "tf_crop_and_resize":
        return None
    return [labels] if labels.axis in kept_axes(node, channels.facts) else None


LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})

RULES: Mapping[str, Rule] = {
    **dict.fromkeys(("Conv", "ConvTranspose"), _conv),
    "Gemm": _gemm,
    "MatMul": _matmul,
    **dict.fromkeys(("Relu", "LeakyRelu", "Identity", "Dropout", "Neg", "Abs"), _same),
    "Clip": _clip,
    "PRelu": _prelu,
    **dict.fromkeys(("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"), _pool),
    **dict.fromkeys(("Mul", "Div"), _times),
    **dict.fromkeys(("Add", "Sum", "Sub", "Max", "Min"), _sum),
    "Concat": _concat,
    "Split": _split,
    "Transpose": _transpose,
    **dict.fromkeys(("Flatten", "Reshape", "Squeeze", "Unsqueeze"), _reshape),
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"), _reduce),
    "Pad": _pad,
    **dict.fromkeys(("Resize", "Upsample"), _resize),
}
