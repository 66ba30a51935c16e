"""Pooling and reductions: means let an affine pass, maxima one that keeps order."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from bnfold import reasons
from bnfold.algebra.affine import Affine
from bnfold.algebra.kernel import Kernel
from bnfold.graph.facts import Facts
from bnfold.graph.nodes import integer, integers, label, text
from bnfold.ops.base import (
    Answer,
    Operator,
    ToInput,
    ToOutput,
    negative_scale,
    no_rule,
    unknown_shape,
    wrong_axis,
)
from bnfold.reasons import Reason


class Window(Operator):
    """An operator that sums up windows of the axes from 2 on, channel by channel."""

    def problem(self, node: ir.Node, affine: Affine) -> Reason | None:
        """Why this affine does not commute with the window; None where it does."""
        raise NotImplementedError

    def at_output(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """Windows stay within a channel, so the affine passes as it is."""
        del facts
        return self._checked(node, index, affine) or [(ToInput(0, affine),)]

    def at_input(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """Windows stay within a channel, so the affine passes as it is."""
        del facts
        return self._checked(node, index, affine) or [(ToOutput(0, affine),)]

    def _checked(self, node: ir.Node, index: int, affine: Affine) -> Reason | None:
        if index != 0 or any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
            return reasons.SETTING(
                node=label(node), operator=node.op_type, setting="a second output that is read"
            )
        if any(axis > 1 for axis in affine.axes):
            return wrong_axis(node, affine, "0 or 1")
        return self.problem(node, affine)


class Mean(Window):
    """AveragePool and GlobalAveragePool: a scale always passes, a shift where the weights sum to one."""

    def problem(self, node: ir.Node, affine: Affine) -> Reason | None:
        """Zeros that padding adds and that are counted take part in the mean."""
        if affine.has_shift and not _sums_to_one(node):
            return reasons.PADDING(node=label(node))
        return None


class Maximum(Window):
    """MaxPool and GlobalMaxPool: `max(s·x + t) = s·max(x) + t` for s ≥ 0; padding is −∞ on both sides."""

    def problem(self, node: ir.Node, affine: Affine) -> Reason | None:
        """A negative scale makes the maximum a minimum."""
        if _may_be_empty(node):
            setting = "dilated windows that may see nothing but padding"
            return reasons.SETTING(node=label(node), operator=node.op_type, setting=setting)
        return negative_scale(node, affine)


class Reduction(Operator):
    """ReduceMean, ReduceMax and ReduceMin over axes along which the affine does not vary."""

    def at_output(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """Give the affine the axes that were reduced."""
        del index
        problem = _reduction_problem(node, affine)
        if problem is not None or not affine.axes:
            return problem or [(ToInput(0, affine),)]
        plan = _reduced(node, facts)
        if isinstance(plan, Reason):
            return plan
        rank, axes = plan
        if integer(node, "keepdims", 1):
            if affine.axes & axes:
                return wrong_axis(node, affine, "that it does not reduce")
            return [(ToInput(0, affine),)]
        stays = [axis for axis in range(rank) if axis not in axes]
        moved = affine.mapped(
            len(stays),
            lambda c: c.reshape([c.shape[stays.index(a)] if a in stays else 1 for a in range(rank)]),
        )
        return [(ToInput(0, moved),)]

    def at_input(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """Take away from the affine the axes that are reduced."""
        if index != 0:
            return no_rule(node, f"input {index} of {node.op_type}")
        problem = _reduction_problem(node, affine)
        if problem is not None or not affine.axes:
            return problem or [(ToOutput(0, affine),)]
        plan = _reduced(node, facts)
        if isinstance(plan, Reason):
            return plan
        rank, axes = plan
        if affine.axes & axes:
            return wrong_axis(node, affine, "that it does not reduce")
        if integer(node, "keepdims", 1):
            return [(ToOutput(0, affine),)]
        return [(ToOutput(0, affine.mapped(rank, lambda c: c.squeeze(tuple(axes)))),)]


class Sum(Reduction):
    """ReduceSum over axes whose sizes are known: `s·Σx + t = Σ(s·x + t/n)` for n elements."""

    def at_output(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """Every element takes its share of the shift."""
        count = _count(node, facts) if affine.has_shift else 1
        if isinstance(count, Reason):
            return count
        return super().at_output(node, index, Affine(affine.scale, affine.shift / count), facts)

    def at_input(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """The shifts of all elements add up."""
        count = _count(node, facts) if affine.has_shift else 1
        if isinstance(count, Reason):
            return count
        return super().at_input(node, index, Affine(affine.scale, affine.shift * count), facts)


def _may_be_empty(node: ir.Node) -> bool:
    """Whether a window may meet nothing but padding: its taps stand apart and reach over the border."""
    return _padded(node) and any(dilation != 1 for dilation in integers(node, "dilations"))


def _padded(node: ir.Node) -> bool:
    return text(node, "auto_pad", "NOTSET").startswith("SAME") or any(integers(node, "pads"))


def _sums_to_one(node: ir.Node) -> bool:
    """Whether every window of an AveragePool weighs its elements by numbers that sum to one."""
    if node.op_type == "GlobalAveragePool":
        return True
    kernel = integers(node, "kernel_shape")
    strides = integers(node, "strides") or (1,) * len(kernel)
    padded = _padded(node)
    counts_zeros = integer(node, "count_include_pad", 0) == 1
    if _may_be_empty(node):
        return False  # the mean of nothing takes no shift
    if integer(node, "ceil_mode", 0):
        # the last window may hang over: it must hold an element, and must not count what is not there
        return not padded and not counts_zeros and all(s <= k for s, k in zip(strides, kernel, strict=True))
    return not padded or not counts_zeros


def mean_kernel(node: ir.Node, facts: Facts) -> Kernel | None:
    """An AveragePool as a depthwise kernel; None where its windows do not all weigh their elements alike."""
    size, channels = integers(node, "kernel_shape"), facts.size(node.inputs[0], 1)
    spatial, ones = len(size), (1,) * len(size)
    pads = integers(node, "pads") or (0,) * (2 * spatial)
    plain = text(node, "auto_pad", "NOTSET") == "NOTSET" and not integer(node, "ceil_mode", 0)
    if channels is None or not plain or (any(pads) and not integer(node, "count_include_pad", 0)):
        return None
    dilation = integers(node, "dilations") or ones
    reach = [step * (count - 1) for step, count in zip(dilation, size, strict=True)]
    return Kernel(
        weight=np.full((channels, 1, *size), 1 / np.prod(size)),
        bias=np.zeros(channels),
        groups=channels,
        stride=integers(node, "strides") or ones,
        dilation=dilation,
        offset=tuple(-pad for pad in pads[:spatial]),
        margin=tuple(pads[axis] + pads[axis + spatial] - reach[axis] for axis in range(spatial)),
    )


def _reduction_problem(node: ir.Node, affine: Affine) -> Reason | None:
    return None if node.op_type in ("ReduceMean", "ReduceSum") else negative_scale(node, affine)


def _reduced(node: ir.Node, facts: Facts) -> tuple[int, frozenset[int]] | Reason:
    """The input's rank and the axes that are reduced."""
    rank = facts.rank(node.inputs[0])
    axes = facts.integers(node, 1, "axes")
    given = len(node.inputs) > 1 and node.inputs[1] is not None
    if rank is None or (axes is None and given):
        return unknown_shape(node)
    if not axes:
        nothing = integer(node, "noop_with_empty_axes", 0)
        return rank, frozenset() if nothing else frozenset(range(rank))
    return rank, frozenset(axis % rank for axis in axes)


def _count(node: ir.Node, facts: Facts) -> int | Reason:
    """How many elements one element of the output is the sum of, at least one."""
    plan = _reduced(node, facts)
    if isinstance(plan, Reason):
        return plan
    _, axes = plan
    sizes = [facts.size(node.inputs[0], axis) for axis in axes]
    return math.prod(size for size in sizes if size is not None) if all(sizes) else unknown_shape(node)


OPERATORS = {
    "AveragePool": Mean(),
    "GlobalAveragePool": Mean(),
    "MaxPool": Maximum(),
    "GlobalMaxPool": Maximum(),
    "ReduceMean": Reduction(),
    "ReduceMax": Reduction(),
    "ReduceMin": Reduction(),
    "ReduceSum": Sum(),
}
