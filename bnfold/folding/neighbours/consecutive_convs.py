"""Two Convs in a row, one of them pointwise, become one, where that needs no more of anything.

`W₂·(W₁·x + b₁) + b₂ = (W₂·W₁)·x + (W₂·b₁ + b₂)` is a Conv with the window of the one that is not pointwise.
If the first one is pointwise and the second one pads, b₁ has to be zero: what the second pads with are zeros
after b₁ was added (Ding et al., "Diverse Branch Block", 2021, transform III). A bottleneck stays: its product
has more elements than its factors.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import onnx_ir as ir

from bnfold.algebra.kernel import Kernel
from bnfold.folding.neighbours.base import (
    MOST_ELEMENTS,
    MOST_WORK,
    Joined,
    before,
    can_be_multiplied,
    fit,
)
from bnfold.graph.editor import Editor
from bnfold.graph.facts import NO_FOLDS, Facts
from bnfold.graph.nodes import caller_problem, integer, integers, label, text
from bnfold.ops.conv import Conv
from bnfold.ops.linear import weight_shape


def join(node: ir.Node, facts: Facts, editor: Editor, whole: Collection[ir.Node]) -> Joined | None:
    """Let a Conv take the Conv before it; see [`Joining`][bnfold.folding.neighbours.base.Joining]."""
    first = before(node, ("Conv",), whole)
    if first is None or not all(_may_change(one, facts) for one in (first, node)):
        return None
    dtype = facts.constant_dtype(node, 1)
    if facts.constant_dtype(first, 1) != dtype or not _pays(first, node, facts):
        return None
    kernel = _together(first, node, facts)
    source = first.inputs[0]
    if kernel is None or source is None or not fit(node, (kernel.weight, kernel.bias), dtype):
        return None
    _write(node, kernel, dtype, facts, editor)
    node.replace_input_with(0, source)
    editor.release(first)
    return Joined(node, (first,))


def _may_change(node: ir.Node, facts: Facts) -> bool:
    is_known = caller_problem(node) is None and can_be_multiplied(node, facts)
    return is_known and Conv().problem(node, facts) is None


def _pays(first: ir.Node, second: ir.Node, facts: Facts) -> bool:
    """Whether one Conv has no more weights, biases included, and no more multiply-adds than both.

    Both compute as many positions if the second is pointwise. If the first is, it computes those of the
    source, which are at least as many as the second's if that pads by no more than its window takes away.
    """
    (middle, taken, *window), (out, _, *last) = (weight_shape(node, 1, facts) for node in (first, second))
    taps = [math.prod(window), math.prod(last)]
    sizes = [math.prod(weight_shape(node, 1, facts)) for node in (first, second)]
    groups = math.gcd(integer(first, "group", 1), integer(second, "group", 1))
    size = out * (taken * integer(first, "group", 1) // groups) * math.prod(taps)
    too_large = max(*sizes, size) > MOST_ELEMENTS or size * (middle // groups) > MOST_WORK
    if 1 not in taps or too_large:
        return False
    if _enlarges(second, last):
        return size <= sizes[1]
    biases = [_bias_size(node, facts) for node in (first, second)]
    return size + (out if any(biases) else 0) <= sum(sizes) + sum(biases)


def _bias_size(node: ir.Node, facts: Facts) -> int:
    """The number of elements of a bias, there already or to be written; 0 without any."""
    folds = facts.folds.get(node, NO_FOLDS)
    shifts = facts.has_constant(node, 2) or folds.inward.has_shift or folds.outward.has_shift
    return weight_shape(node, 1, facts)[0] if shifts else 0


def _enlarges(node: ir.Node, window: list[int]) -> bool:
    """Whether a Conv may have more positions than it reads."""
    if text(node, "auto_pad", "NOTSET") != "NOTSET":
        return False  # VALID pads nothing, SAME gives as many as it reads, or fewer
    spatial = len(window)
    pads, dilations = integers(node, "pads") or (0,) * (2 * spatial), integers(node, "dilations")
    reach = [step * (size - 1) for step, size in zip(dilations or (1,) * spatial, window, strict=True)]
    return any(pads[axis] + pads[axis + spatial] > far for axis, far in enumerate(reach))


def _together(first: ir.Node, second: ir.Node, facts: Facts) -> Kernel | None:
    """The kernel of both, with all that they have absorbed; None where it is none, or not known."""
    one, other = Conv().kernel(first, facts), Conv().kernel(second, facts)
    if one is None or other is None or not one.is_finite or not other.is_finite:
        return None
    return one.then(other) or other.after(one)


def _write(node: ir.Node, kernel: Kernel, dtype: ir.DataType, facts: Facts, editor: Editor) -> None:
    facts.folds.pop(node, None)  # the kernel has them
    node.attributes.pop("auto_pad", None)
    for name, value in (
        ("kernel_shape", kernel.size),
        ("strides", kernel.stride),
        ("dilations", kernel.dilation),
        ("pads", kernel.pads),
    ):
        node.attributes[name] = ir.AttrInt64s(name, value)
    node.attributes["group"] = ir.AttrInt64("group", kernel.groups)
    stem = label(node)
    for index, array, name in ((1, kernel.weight, f"{stem}.weight"), (2, kernel.bias, f"{stem}.bias")):
        # zeros in disguise would go on reading the old weight for its shape
        if array.any() or (index < len(node.inputs) and node.inputs[index] is not None):
            editor.set_input(node, index, array, dtype, name)
            facts.edited[node, index] = array  # unrounded, for the folds to come
