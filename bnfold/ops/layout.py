"""Operators that only rearrange elements: Transpose, Reshape, Flatten, Squeeze, Unsqueeze."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnfold import reasons
from bnfold.algebra.affine import Affine
from bnfold.graph.facts import Facts
from bnfold.graph.nodes import integer, integers, label
from bnfold.graph.shape_inference import Dims
from bnfold.ops.base import Answer, Operator, ToInput, ToOutput, no_rule, unknown_shape
from bnfold.ops.sizes import passed, products
from bnfold.reasons import Reason


class Layout(Operator):
    """`y = rearranged(x)`: an affine is rearranged along, in either direction."""

    def forward(self, node: ir.Node, affine: Affine, facts: Facts) -> Affine | Reason:
        """An affine of the input, in the axes of the output."""
        raise NotImplementedError

    def backward(self, node: ir.Node, affine: Affine, facts: Facts) -> Affine | Reason:
        """An affine of the output, in the axes of the input."""
        raise NotImplementedError

    def at_output(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """Pass on to the producer; one affine for all elements needs no axes."""
        del index
        moved = self.backward(node, affine, facts) if affine.axes else affine
        return moved if isinstance(moved, Reason) else [(ToInput(0, moved),)]

    def at_input(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """Pass on to the readers; one affine for all elements needs no axes."""
        if index != 0:
            return no_rule(node, f"input {index} of {node.op_type}")
        moved = self.forward(node, affine, facts) if affine.axes else affine
        return moved if isinstance(moved, Reason) else [(ToOutput(0, moved),)]


class Transpose(Layout):
    """Axis k of the output is axis perm[k] of the input."""

    def forward(self, node: ir.Node, affine: Affine, facts: Facts) -> Affine | Reason:
        """Permute the coefficients' axes."""
        perm = _perm(node, facts)
        return affine.transposed(perm) if perm is not None else unknown_shape(node)

    def backward(self, node: ir.Node, affine: Affine, facts: Facts) -> Affine | Reason:
        """Permute them back."""
        perm = _perm(node, facts)
        if perm is None:
            return unknown_shape(node)
        return affine.transposed([int(axis) for axis in np.argsort(perm)])


class Reshape(Layout):
    """Reshape, Flatten, Squeeze, Unsqueeze: the order of the elements stays, the axes change."""

    def forward(self, node: ir.Node, affine: Affine, facts: Facts) -> Affine | Reason:
        """From the input's axes to the output's."""
        before, after = _shapes(node, facts)
        if before is None or after is None:
            return unknown_shape(node)
        moved = passed(affine, before, after, products(node, facts))
        return moved if moved is not None else _mixed(node, before, after)

    def backward(self, node: ir.Node, affine: Affine, facts: Facts) -> Affine | Reason:
        """From the output's axes to the input's."""
        before, after = _shapes(node, facts)
        if before is None or after is None:
            return unknown_shape(node)
        moved = passed(affine, after, before, products(node, facts))
        return moved if moved is not None else _mixed(node, before, after)


def _perm(node: ir.Node, facts: Facts) -> list[int] | None:
    perm = integers(node, "perm")
    rank = facts.rank(node.outputs[0])
    if perm or rank is None:
        return list(perm) or None
    return list(range(rank))[::-1]


def _shapes(node: ir.Node, facts: Facts) -> tuple[Dims | None, Dims | None]:
    """Both shapes, where an unknown size that provably stays the same has the same symbol in both."""
    shape = facts.shape(node.inputs[0])
    after = facts.shape(node.outputs[0])
    if shape is None:
        return None, None
    before = tuple(f"?{axis}" if dim is None else dim for axis, dim in enumerate(shape))
    known = _described(node, before, facts)
    if after is None:
        return before, known
    if known is None or len(known) != len(after):
        return before, after
    # a size that inference proved is worth more than a symbol, a symbol more than nothing
    return before, tuple(
        a if isinstance(a, int) else k if k is not None else a for a, k in zip(after, known, strict=True)
    )


def _described(node: ir.Node, before: Dims, facts: Facts) -> Dims | None:
    """The output's shape as the node itself states it in terms of the input's."""
    rank = len(before)
    if node.op_type == "Flatten":
        return (before[0], None) if integer(node, "axis", 1) == 1 and rank > 0 else None
    if node.op_type == "Reshape":
        target = facts.integers(node, 1, "shape")
        if target is None:
            return None
        copies = integer(node, "allowzero", 0) == 0
        return tuple(
            (before[axis] if copies and axis < rank else None) if size == 0 else (None if size < 0 else size)
            for axis, size in enumerate(target)
        )
    axes = facts.integers(node, 1, "axes")
    if node.op_type == "Unsqueeze" and axes is not None:
        dims = list(before)
        for axis in sorted(axis % (rank + len(axes)) for axis in axes):
            dims.insert(axis, 1)
        return tuple(dims)
    if node.op_type == "Squeeze" and axes is not None:
        gone = {axis % rank for axis in axes}
        return tuple(dim for axis, dim in enumerate(before) if axis not in gone)
    return None


def _mixed(node: ir.Node, before: Dims, after: Dims) -> Reason:
    """The reason for a shape in which an axis is lost: for want of a size, or since axes are mixed."""
    if any(dim is None or (isinstance(dim, str) and dim not in before) for dim in after):
        return unknown_shape(node, node.outputs[0])
    if any(isinstance(dim, str) and dim not in after for dim in before):
        return unknown_shape(node)
    text = ["[" + ", ".join(map(str, dims)) + "]" for dims in (before, after)]
    return reasons.MIXED_AXES(node=label(node), before=text[0], after=text[1])


OPERATORS = {
    "Transpose": Transpose(),
    "Reshape": Reshape(),
    "Flatten": Reshape(),
    "Squeeze": Reshape(),
    "Unsqueeze": Reshape(),
}
