"""BatchNorms that stay, written in other operators, for targets that do not have this one.

Not by default: a runtime that knows BatchNormalization runs it in one pass over the data, and what stands for
it here is one pass at the least.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from bnfold import reasons
from bnfold.algebra.affine import Affine, Array
from bnfold.algebra.kernel import Kernel
from bnfold.folding.recognise import Chain, carried, link_of, stream_obstacle
from bnfold.folding.search import Plan, Start
from bnfold.graph.facts import Facts
from bnfold.graph.nodes import label
from bnfold.ops import operator
from bnfold.ops.base import ToOutput, unknown_shape
from bnfold.ops.conv import Conv
from bnfold.reasons import Reason
from bnfold.tensors.precision import OutOfRangeError, rounded

_BROADCASTING_MAX = 8  # the version of ONNX's operator set from which Max broadcasts
_BROADCASTING = 7  # and from which Add and Mul do
_LARGEST_MAP = 2**22  # elements of a border map


@dataclass(frozen=True)
class Decomposition:
    """What stands for a BatchNorm.

    Attributes:
        norm: The BatchNorm as a chain of one.
        gone: The nodes that go: the BatchNorm, and possibly the Relu after it.
        operators: What comes in their place, each with its constant in float64, which broadcasts against the
            data.
        plan: What the nodes that follow take; None where they stay as they are.
        border: A Conv after which its share of the shift is added, and that shift, shape `(C,)`; or None.
    """

    norm: Chain
    gone: tuple[ir.Node, ...]
    operators: tuple[tuple[str, Array], ...]
    plan: Plan | None = None
    border: tuple[ir.Node, Array] | None = None


Find = Callable[[Chain, Start, Sequence[ir.Node]], Plan | Reason]
"""Searches a way for what leaves a node, given the BatchNorm and the nodes that go."""


def decomposition(node: ir.Node, facts: Facts, find: Find, *, alone: bool) -> Decomposition | Reason | None:
    """Find the fewest operators that stand for a BatchNorm.

    With `y = s·x + t`: `Relu(y) = s·Max(x, −t/s) + t` where s > 0 and the readers of the Relu take `s` and
    `t`; `y = s·(x + t/s)` where its readers take `s`, the Add being made after a padded Conv where that is
    less data; otherwise a Mul and an Add.

    Args:
        node: Any node.
        facts: What is known of the model.
        find: Searches for ways.
        alone: Whether the nodes around it must stay as they are.

    Returns:
        None for another node; a reason for a BatchNorm that has to stay, which is one whose parameters or
        rank are not known, or whose numbers do not fit their type.
    """
    link = link_of(node, facts) if node.op_type == "BatchNormalization" else None
    if link is None or isinstance(link, Reason):
        return link
    norm = Chain((link,), facts.composed(node, link.affine))
    rank = facts.rank(norm.source)
    if rank is None:
        return unknown_shape(node, norm.source)
    if facts.version(node) < _BROADCASTING:
        setting = f"operator set {facts.version(node)}, whose Mul and Add do not broadcast"
        return reasons.SETTING(node=label(node), operator=node.op_type, setting=setting)
    ways = (_as_max, _as_shift, _as_arithmetic)
    for way in ways[-1:] if alone else ways:
        found = way(norm, rank, facts, find)
        if found is not None and all(_fits(node, array, facts) for _, array in found.operators):
            return found
    return reasons.OVERFLOW(node=label(node), dtype=facts.dtype(norm.source))


def _as_max(norm: Chain, rank: int, facts: Facts, find: Find) -> Decomposition | None:
    node, [*uses] = norm.nodes[0], facts.readers(norm.result)
    if len(uses) != 1 or uses[0][0].op_type != "Relu" or facts.version(node) < _BROADCASTING_MAX:
        return None
    relu, split = uses[0][0], carried(norm, facts)
    if split is None or stream_obstacle(norm, facts) is not None or relu.graph is not node.graph:
        return None
    if norm.result.is_graph_output():
        return None
    plan = find(norm, (relu, ToOutput(0, norm.affine)), (node, relu))
    if isinstance(plan, Reason):
        return None
    _, least = split.back.padded(rank)
    return Decomposition(norm, (node, relu), (("Max", -least),), plan)


def _as_shift(norm: Chain, rank: int, facts: Facts, find: Find) -> Decomposition | None:
    node, affine = norm.nodes[0], norm.affine
    if not np.all(affine.scale) or affine.has_unit_scale:
        return None
    plan = find(norm, (node, ToOutput(0, affine.only_scale)), (node,))
    if isinstance(plan, Reason):
        return None
    before = affine.then(Affine(1.0 / affine.scale))
    _, shift = before.padded(rank)
    conv = _cheaper_after(norm, facts)
    if conv is not None and before.axes <= {1}:
        channels = facts.size(norm.source, 1)
        if channels is not None:
            return Decomposition(norm, (node,), (), plan, (conv, before.vectors(1, channels)[1]))
    return Decomposition(norm, (node,), (("Add", shift),), plan)


def _as_arithmetic(norm: Chain, rank: int, facts: Facts, find: Find) -> Decomposition:
    """A Mul and an Add; in float16 in an order in which nothing on the way is larger than what it ends in."""
    del find
    scale, shift = norm.affine.padded(rank)
    steps = [("Mul", scale), ("Add", shift)]
    if facts.dtype(norm.source) == ir.DataType.FLOAT16:
        steep = np.abs(scale) >= 1.0
        first = np.where(steep, shift / np.where(steep, scale, 1.0), 0.0)
        steps = [("Add", first), ("Mul", scale), ("Add", np.where(steep, 0.0, shift))]
    neutral = {"Mul": 1.0, "Add": 0.0}
    kept = tuple((kind, array) for kind, array in steps if np.any(array != neutral[kind]))
    return Decomposition(norm, norm.nodes, kept or (("Add", shift),))


def _cheaper_after(norm: Chain, facts: Facts) -> ir.Node | None:
    """The padded Conv, the only reader, whose output is smaller than its input."""
    uses = facts.readers(norm.result)
    if len(uses) != 1 or uses[0][1] != 0 or norm.result.is_graph_output():
        return None
    conv = uses[0][0]
    family, wide = operator(conv), (ir.DataType.FLOAT, ir.DataType.DOUBLE)
    if not isinstance(family, Conv) or conv.graph is not norm.nodes[0].graph:
        return None
    if facts.dtype(norm.source) not in wide or family.kernel(conv, facts) is None:
        return None
    read, written = (_elements(value, facts) for value in (norm.source, conv.outputs[0]))
    return conv if read is not None and written is not None and written < min(read, _LARGEST_MAP) else None


def _elements(value: ir.Value, facts: Facts) -> int | None:
    """The number of elements of one sample; None where it is open."""
    sizes = [facts.size(value, axis) for axis in range(1, facts.rank(value) or 0)]
    known = [size for size in sizes if size is not None]
    return int(np.prod(known)) if len(known) == len(sizes) > 0 else None


def border_map(conv: ir.Node, shift: Array, facts: Facts) -> Array:
    """What a Conv makes of a source that is one number throughout each channel, shape `(Cout, …)`.

    Args:
        conv: A Conv of which all sizes are known.
        shift: The numbers, shape `(Cin,)`.
        facts: What is known of the model, with what the Conv has absorbed.
    """
    family = operator(conv)
    assert isinstance(family, Conv), "planned on a Conv"
    kernel = family.kernel(conv, facts)
    assert isinstance(kernel, Kernel), "planned on known numbers"
    value = conv.inputs[0]
    sizes = [facts.size(value, axis) for axis in range(2, facts.rank(value) or 0)]
    return kernel.over_level(shift, [size for size in sizes if size is not None])


def _fits(node: ir.Node, array: Array, facts: Facts) -> bool:
    dtype = facts.dtype(node.inputs[0])
    try:
        rounded(node, array, dtype or ir.DataType.FLOAT)
    except OutOfRangeError:
        return False
    return True
