"""Weights that a DequantizeLinear gives: the integers stay, the fold goes into their scale."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bnfold import reasons
from bnfold.algebra.affine import Affine, Array
from bnfold.graph.editor import Editor
from bnfold.graph.facts import Facts
from bnfold.graph.nodes import integer, label, name_of
from bnfold.graph.scopes import ONNX_DOMAINS
from bnfold.reasons import Reason, Situation
from bnfold.tensors.parts import parts


def source(node: ir.Node, index: int) -> ir.Node | None:
    """The DequantizeLinear that gives an input of a node; None where another node does."""
    value = node.inputs[index] if index < len(node.inputs) else None
    maker = value.producer() if value is not None else None
    is_one = maker is not None and maker.op_type == "DequantizeLinear" and maker.domain in ONNX_DOMAINS
    return maker if is_one else None


def problem(node: ir.Node, index: int, factor: Array, facts: Facts) -> Reason | None:
    """Why a quantised weight cannot be multiplied by `factor`; None where it can.

    `(q − z)·(s·f)` keeps q where f varies along one axis at most, which then is the axis of the scales; of
    scales in blocks, along any axes but the one that is cut into blocks. Where f < 0, `(q − z)·(−s) =
    ((2z − q) − z)·s` needs every `2z − q` to be one of the type's integers.
    """
    maker = source(node, index)
    assert maker is not None, "asked about a quantised weight"
    value = maker.outputs[0]
    if len(facts.readers(value)) > 1 or value.is_graph_output():
        shared = reasons.OTHER_READERS(value=name_of(value), others="another node", node=label(node))
        return shared.within(Situation.QUANTISED)
    axes = sorted(Affine(factor).axes)
    scale = facts.operand(maker, 1)
    if scale is None:
        return _setting(maker, "scales that are not constant")
    own = _axis(maker, facts) if scale.size > 1 else None
    blocked = integer(maker, "block_size", 0) > 0
    if blocked and (own in axes or any(scale.shape[axis] == 1 for axis in axes)):
        return _setting(maker, "scales in blocks of channels")
    if not blocked and (len(axes) > 1 or (axes and own is not None and axes != [own])):
        return _setting(maker, "scales along another axis than the channels")
    if axes and facts.version(maker) < 13:
        return _setting(maker, "one scale for all channels, as before version 13")
    if np.any(factor < 0) and _flipped(maker, factor, facts) is None:
        return _setting(maker, "integers that a negative scale would take out of their range")
    return None


def write(node: ir.Node, index: int, factor: Array, facts: Facts, editor: Editor) -> None:
    """Multiply the scales, one a channel where the factor varies, and flip integers where it is negative."""
    maker = source(node, index)
    assert maker is not None, "planned on a quantised weight"
    scale = facts.operand(maker, 1)
    assert scale is not None, "planned on a constant scale"
    integers: npt.NDArray[np.generic] | None = None
    if np.any(factor < 0):
        integers = _flipped(maker, factor, facts)
        assert integers is not None, "planned on integers that can be flipped"
    elif facts.constants.stored(_integers(maker)) is None:  # they are no longer what they were computed from
        integers = facts.constants.array(_integers(maker))
    if integers is not None:
        editor.set_tensor(maker, 0, integers)
    dtype = facts.constant_dtype(maker, 1)
    along = Affine(factor)  # in its smallest form, one axis at most where there are no blocks
    if along.axes and integer(maker, "block_size", 0):
        scale = scale * np.abs(along.padded(scale.ndim)[0])
    elif along.axes:
        [axis] = along.axes
        size = facts.stored(maker, 0).shape.numpy()[axis]
        scale = np.broadcast_to(scale.reshape(-1), (size,)) * np.abs(along.scale.reshape(-1))
        maker.attributes["axis"] = ir.AttrInt64("axis", axis)
        zero = facts.constants.array(maker.inputs[2]) if len(maker.inputs) > 2 else None
        if zero is not None and zero.size != size:
            editor.set_tensor(maker, 2, np.broadcast_to(zero.reshape(-1), (size,)).copy())
    else:
        scale = scale * np.abs(along.scale)
    editor.set_input(maker, 1, scale, dtype, f"{label(maker)}.scale")
    editor.rename_changed(maker.outputs[0])


def _integers(maker: ir.Node) -> ir.Value:
    value = maker.inputs[0]
    assert value is not None, "planned on a quantised weight"
    return value


def _flipped(maker: ir.Node, factor: Array, facts: Facts) -> npt.NDArray[np.generic] | None:
    """The integers with `2z − q` wherever the factor is negative, or None where one would leave its type."""
    integers = facts.stored(maker, 0)
    kind, shape = integers.dtype.numpy(), integers.shape.numpy()
    if kind.kind not in "iu":
        return None  # elements of less than a byte, and floats
    center = np.broadcast_to(_zero_points(maker, len(shape), facts), shape)
    negative = np.broadcast_to(factor < 0, shape)
    flipped = np.empty(shape, kind)
    for where, part in parts(integers):
        wide = np.asarray(part, np.int64)
        mirrored = np.where(negative[where], 2 * center[where] - wide, wide)
        flipped[where] = mirrored
        if not np.array_equal(flipped[where], mirrored):
            return None
    return flipped


def _zero_points(maker: ir.Node, rank: int, facts: Facts) -> npt.NDArray[np.int64]:
    """The zero points, of a shape that broadcasts against the integers."""
    zero = facts.constants.array(maker.inputs[2]) if len(maker.inputs) > 2 else None
    if zero is None:
        return np.zeros((), np.int64)
    block = integer(maker, "block_size", 0)
    if block:
        repeated = np.repeat(np.asarray(zero, np.int64), block, _axis(maker, facts))
        return repeated[tuple(slice(size) for size in facts.stored(maker, 0).shape.numpy())]
    shape = [1] * rank
    if zero.size > 1:
        shape[_axis(maker, facts)] = zero.size
    return np.asarray(zero, np.int64).reshape(shape)


def _axis(maker: ir.Node, facts: Facts) -> int:
    rank = facts.rank(maker.inputs[0])
    assert rank is not None, "the rank of a constant is known"
    return integer(maker, "axis", 1) % max(rank, 1)


def _setting(maker: ir.Node, setting: str) -> Reason:
    reason = reasons.SETTING(node=label(maker), operator="DequantizeLinear", setting=setting)
    return reason.within(Situation.QUANTISED)
