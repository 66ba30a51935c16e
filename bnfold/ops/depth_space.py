"""DepthToSpace and SpaceToDepth: blocks of pixels that become channels, or channels that become pixels."""

from __future__ import annotations

import onnx_ir as ir

from bnfold import reasons
from bnfold.algebra.affine import Affine
from bnfold.graph.facts import Facts
from bnfold.graph.nodes import integer, label, text
from bnfold.graph.reshape import reshaped
from bnfold.graph.shape_inference import Dims
from bnfold.ops.base import unknown_shape, wrong_axis
from bnfold.ops.layout import Layout
from bnfold.reasons import Reason

# How ONNX states DepthToSpace: split the channels, permute, and merge the blocks with the rows and columns.
# Which channels stand next to each other is the mode: those of one block (CRD) or those of one offset (DCR).
_TO_SPACE = {"DCR": (0, 3, 4, 1, 5, 2), "CRD": (0, 1, 4, 2, 5, 3)}


class DepthSpace(Layout):
    """`DepthToSpace`, `[N, C·b², H, W]` → `[N, C, H·b, W·b]`, and its inverse `SpaceToDepth`.

    An affine of the small image with many channels passes to the large one where it is the same for the b²
    channels that become one; an affine of the large image always passes, and is then the same for these.
    """

    def forward(self, node: ir.Node, affine: Affine, facts: Facts) -> Affine | Reason:
        """From the input's channels to the output's."""
        return _moved(node, affine, facts, to_space=node.op_type == "DepthToSpace")

    def backward(self, node: ir.Node, affine: Affine, facts: Facts) -> Affine | Reason:
        """From the output's channels to the input's."""
        return _moved(node, affine, facts, to_space=node.op_type != "DepthToSpace")


def _moved(node: ir.Node, affine: Affine, facts: Facts, *, to_space: bool) -> Affine | Reason:
    if not affine.axes <= {0, 1}:
        return wrong_axis(node, affine, "0 or 1")
    block, order = integer(node, "blocksize", 0), _TO_SPACE.get(text(node, "mode", "DCR"))
    value = node.inputs[0] if node.op_type == "DepthToSpace" else node.outputs[0]
    channels = facts.size(value, 1)
    if order is None or block < 1 or channels is None or channels % block**2:
        return unknown_shape(node, value)
    few = channels // block**2
    # rows and columns stay symbols: a coefficient that would vary along them is refused, not laid out
    split: Dims = ("N", few, block, block, "H", "W")
    if order == _TO_SPACE["DCR"]:
        split = ("N", block, block, few, "H", "W")
    apart, back = tuple(split[axis] for axis in order), tuple(order.index(axis) for axis in range(6))
    many: Dims = ("N", channels, "H", "W")
    large: Dims = ("N", few, None, None)
    start, first, perm, second, end = (
        (many, split, order, apart, large) if to_space else (large, apart, back, split, many)
    )
    laid_out = reshaped(affine, start, first)
    moved = None if laid_out is None else reshaped(laid_out.transposed(perm), second, end)
    if moved is None:
        setting = "channels with different scales or shifts that become one"
        return reasons.SETTING(node=label(node), operator=node.op_type, setting=setting)
    return moved


OPERATORS = {"DepthToSpace": DepthSpace(), "SpaceToDepth": DepthSpace()}
