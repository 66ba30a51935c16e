"""A change of the order of channels goes into the weight of the layer before or after it.

`W·(P·x) = (W·P)·x` and `P·(W·x + b) = (P·W)·x + P·b`: the elements of a weight change their places and
nothing is computed, so any float type will do. Images whose channels are turned from RGB to BGR are the usual
case, by a Gather, or by a Slice with a step of −1.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bnfold.folding.neighbours.base import MOST_ELEMENTS, Joined, before, is_own
from bnfold.graph.editor import Editor
from bnfold.graph.facts import Facts, Folds
from bnfold.graph.naming import can_stand_for, rename, replace
from bnfold.graph.nodes import caller_problem, integer
from bnfold.ops import quantized
from bnfold.ops.conv import Conv
from bnfold.ops.linear import bias_problem, constant_problem, weight_shape
from bnfold.ops.matmul import bias_add

ORDERS = ("Gather", "Slice")
LAYERS = ("Conv", "Gemm", "MatMul")

Order = npt.NDArray[np.int64]


def join_before(node: ir.Node, facts: Facts, editor: Editor, whole: Collection[ir.Node]) -> Joined | None:
    """Let a layer take the order of its input; see [`Joining`][bnfold.folding.neighbours.base.Joining]."""
    maker = before(node, ORDERS, whole)
    axes = None if maker is None else _axes(node, facts)
    if maker is None or axes is None:
        return None
    source, order = maker.inputs[0], _order(maker, axes.data, axes.taken, facts)
    if source is None or order is None:
        return None
    back = np.argsort(order)
    _reorder(node, 1, axes.contracted, back, facts, editor)
    folds = facts.folds.get(node)
    if folds is not None:
        facts.folds[node] = Folds(folds.inward.taken(axes.data, back, axes.rank), folds.outward)
    node.replace_input_with(0, source)
    editor.release(maker)
    return Joined(node, (maker,))


def join_after(node: ir.Node, facts: Facts, editor: Editor, whole: Collection[ir.Node]) -> Joined | None:
    """Let a layer give its output in the order that a node brings it into."""
    maker = before(node, (*LAYERS, "Add", "Sub"), whole)
    layer = None if maker is None else _layer(maker, facts)
    axes = None if layer is None or layer in whole else _axes(layer, facts)
    if maker is None or layer is None or axes is None:
        return None
    order, value, result = _order(node, axes.data, axes.given, facts), maker.outputs[0], node.outputs[0]
    bias = (layer, 2) if maker is layer else bias_add(layer, facts)
    if order is None or bias is None or not can_stand_for(value, result):
        return None
    if not _can_be_reordered(*bias, axes, facts):
        return None
    _reorder(layer, 1, axes.free, order, facts, editor)
    _reorder(*bias, -1, order, facts, editor)
    folds = facts.folds.get(layer)
    if folds is not None:
        facts.folds[layer] = Folds(folds.inward, folds.outward.taken(axes.data, order, axes.rank))
    if maker is not layer:
        editor.rename_changed(layer.outputs[0])
    rename(value, like=result)
    replace(result, value)
    editor.release(node)
    return Joined(layer, (node,))


@dataclass(frozen=True)
class _Axes:
    """Where a layer has its channels.

    Attributes:
        data: The axis of its input and of its output.
        rank: Of both.
        contracted: The axis of the weight that belongs to the input.
        free: The one that belongs to the output.
        taken: The size of the former.
        given: The size of the latter.
    """

    data: int
    rank: int
    contracted: int
    free: int
    taken: int
    given: int


def _layer(maker: ir.Node, facts: Facts) -> ir.Node | None:
    """A layer, or the MatMul before the Add of its bias."""
    if maker.op_type in LAYERS:
        return maker
    value = next((value for value in maker.inputs if not facts.constants.has(value)), None)
    layer = value.producer() if value is not None else None
    if layer is None or layer.op_type != "MatMul":
        return None
    found = bias_add(layer, facts)
    return layer if found is not None and found[0] is maker else None


def _axes(node: ir.Node, facts: Facts) -> _Axes | None:
    """Where the channels are; None where the weight cannot be rearranged."""
    if caller_problem(node) is not None or constant_problem(node, 1, facts) is not None:
        return None
    if facts.has_constant(node, 0) or not is_own(node, 1, facts) or quantized.source(node, 1) is not None:
        return None
    shape = weight_shape(node, 1, facts)
    if np.prod(shape, dtype=np.int64) > MOST_ELEMENTS:
        return None
    if node.op_type == "Conv":
        if integer(node, "group", 1) != 1 or Conv().problem(node, facts) is not None:
            return None
        return _Axes(1, len(shape), 1, 0, shape[1], shape[0])
    rank = facts.rank(node.inputs[0])
    if rank is None or rank < 2 or facts.rank(node.outputs[0]) != rank or len(shape) != 2:
        return None
    if integer(node, "transA", 0) or (node.op_type == "Gemm" and bias_problem(node, 2, facts) is not None):
        return None
    contracted, free = (1, 0) if integer(node, "transB", 0) else (0, 1)
    return _Axes(rank - 1, rank, contracted, free, shape[contracted], shape[free])


def _order(node: ir.Node, axis: int, size: int, facts: Facts) -> Order | None:
    """Which channel each place gets; None unless every one of `size` channels gets one place."""
    rank = facts.rank(node.inputs[0])
    if rank is None or caller_problem(node) is not None or facts.constants.has(node.inputs[0]):
        return None
    if facts.size(node.inputs[0], axis) != size:
        return None
    found = (_gathered if node.op_type == "Gather" else _sliced)(node, axis, rank, size, facts)
    if found is None or not np.array_equal(np.sort(found), np.arange(size)):
        return None
    return found


def _gathered(node: ir.Node, axis: int, rank: int, size: int, facts: Facts) -> Order | None:
    own = integer(node, "axis", 0)
    indices = facts.constants.array(node.inputs[1]) if facts.has_constant(node, 1) else None
    if indices is None or indices.ndim != 1 or own + (rank if own < 0 else 0) != axis:
        return None
    places = np.asarray(indices, np.int64)
    return np.where(places < 0, places + size, places)


def _sliced(node: ir.Node, axis: int, rank: int, size: int, facts: Facts) -> Order | None:
    """The order that a Slice along one axis gives, since version 10, which has steps."""
    starts, ends, axes, steps = (facts.integers(node, index, "") for index in range(1, 5))
    if starts is None or ends is None or axes is None or steps is None:
        return None
    if not len(starts) == len(ends) == len(axes) == len(steps) == 1:
        return None
    if axes[0] + (rank if axes[0] < 0 else 0) != axis or steps[0] != -1:
        return None
    # down to, and with, the first element: an end that is still before it once the size is added
    reverses = starts[0] in (-1, size - 1) or starts[0] >= size
    return np.arange(size)[::-1] if reverses and ends[0] < -size else None


def _can_be_reordered(node: ir.Node, index: int, axes: _Axes, facts: Facts) -> bool:
    """Whether a bias that is there is the same for all channels, or has them on its last axis."""
    if not facts.has_constant(node, index):
        return True
    shape = _shape(node, index, facts)
    return len(shape) <= max(axes.rank, 1) and shape[-1:] in ((), (1,), (axes.given,))


def _shape(node: ir.Node, index: int, facts: Facts) -> tuple[int, ...]:
    """The shape of a constant, which folds that are not written yet may have made larger."""
    edited = facts.edited.get((node, index))
    return weight_shape(node, index, facts) if edited is None else edited.shape


def _reorder(node: ir.Node, index: int, axis: int, order: Order, facts: Facts, editor: Editor) -> None:
    """Rearrange a constant along an axis, unless it is the same all along it or left out."""
    if not facts.has_constant(node, index):
        return
    shape = _shape(node, index, facts)
    if not shape or shape[axis] == 1:
        return
    if (node, index) in facts.edited:
        facts.edited[node, index] = np.take(facts.edited[node, index], order, axis)
    else:
        editor.set_tensor(node, index, np.take(facts.stored(node, index).numpy(), order, axis))
