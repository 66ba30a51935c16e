"""A Pad with zeros goes into the padding of the Conv that alone reads it.

`Conv(pads = q)` of `Pad(x, p)` with zeros is `Conv(pads = p + q)` of `x`: implicit zeros are zeros like any
others. Exporters write such a Pad where a framework pads on one side only, as TensorFlow's "same" does with a
stride of two. Pools are left alone: the border of a MaxPool is −∞, and an AveragePool counts its own.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from bnfold.folding.neighbours.base import Joined, before
from bnfold.graph.editor import Editor
from bnfold.graph.facts import Facts
from bnfold.graph.nodes import caller_problem, integers, real, text


def join(node: ir.Node, facts: Facts, editor: Editor, whole: Collection[ir.Node]) -> Joined | None:
    """Let a Conv pad by itself; see [`Joining`][bnfold.folding.neighbours.base.Joining]."""
    pad = before(node, ("Pad",), whole)
    source = pad.inputs[0] if pad is not None else None
    if pad is None or source is None or caller_problem(node) is not None:
        return None
    own = _own_pads(node, facts)
    more = None if own is None else _amounts(pad, len(own) // 2 + 2, facts)
    if own is None or more is None or not _pads_with_zeros(pad, facts):
        return None
    node.attributes.pop("auto_pad", None)
    total = [one + other for one, other in zip(own, more, strict=True)]
    node.attributes["pads"] = ir.AttrInt64s("pads", total)
    node.replace_input_with(0, source)
    editor.release(pad)
    return Joined(node, (pad,))


def _own_pads(node: ir.Node, facts: Facts) -> tuple[int, ...] | None:
    """The `pads` of a Conv; None where they follow from sizes, or the number of axes is not known."""
    rank = facts.rank(node.inputs[1]) if len(node.inputs) > 1 else None
    mode = text(node, "auto_pad", "NOTSET")
    if rank is None or rank < 3 or mode not in ("NOTSET", "VALID"):
        return None
    none = (0,) * (2 * (rank - 2))
    pads = none if mode == "VALID" else integers(node, "pads") or none
    return pads if len(pads) == len(none) and min(pads) >= 0 else None


def _amounts(pad: ir.Node, rank: int, facts: Facts) -> list[int] | None:
    """What a Pad adds to the spatial axes, as a Conv writes it; None where it does more, or is not known."""
    if text(pad, "mode", "constant") != "constant":
        return None
    pads, axes = facts.integers(pad, 1, "pads"), facts.integers(pad, 3, "axes")
    if pads is None or (axes is None and len(pad.inputs) > 3 and pad.inputs[3] is not None):
        return None
    where = list(range(rank)) if axes is None else [axis + rank if axis < 0 else axis for axis in axes]
    if len(pads) != 2 * len(where) or any(one < 0 for one in pads):
        return None
    if len(set(where)) < len(where) or not set(where) <= set(range(rank)):
        return None
    begins, ends = [0] * rank, [0] * rank
    for axis, begin, end in zip(where, pads[: len(where)], pads[len(where) :], strict=True):
        begins[axis], ends[axis] = begin, end
    return None if any((*begins[:2], *ends[:2])) else [*begins[2:], *ends[2:]]


def _pads_with_zeros(pad: ir.Node, facts: Facts) -> bool:
    if len(pad.inputs) > 2 and pad.inputs[2] is not None:
        value = facts.operand(pad, 2)
        return value is not None and value.size == 1 and not np.any(value)
    return real(pad, "value", 0.0) == 0.0
