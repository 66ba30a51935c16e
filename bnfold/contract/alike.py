"""Operators that are the same in two versions of ONNX, so that onnx's converter need not know them."""

from __future__ import annotations

import onnx_ir as ir

from bnfold.contract.last_axis import ALONG_ONE_AXIS_SINCE, OPERATORS
from bnfold.contract.opsets import crosses, differs
from bnfold.graph.nodes import integer
from bnfold.graph.scopes import ONNX_DOMAINS, subgraphs

# Operators for which onnx's converter has no adapter between versions that differ only in the types they take
# or in optional inputs and attributes, and the opset from which this holds. The checker, at the end, checks
# the types, the inputs and the attributes.
_ALIKE = {
    **dict.fromkeys(("BatchNormalization", "Relu", "Add", "Sub", "Mul", "Div"), 7),
    **dict.fromkeys(("GlobalMaxPool", "Identity", "Shape"), 1),
    "Reshape": 5,
    "ConstantOfShape": 9,
    **dict.fromkeys(("CumSum", "Pad"), 11),
    "Pow": 12,
    **dict.fromkeys(("If", "Loop"), 13),
}
# The same between opsets 11 and 13, which added bfloat16 to most operators: their inputs, outputs, attributes
# and what they compute are alike.
_MIDDLE = (11, 13)
_NAMES = """
    Abs Cast Ceil Clip Concat DepthToSpace Equal Erf Exp Expand Flatten Floor Gather GatherElements Gemm
    Greater Identity IsNaN LRN Less Log MatMul Max MaxPool Mean Min Mod Neg NonZero Pow Reciprocal
    ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
    ReduceSumSquare ScatterElements ScatterND Shape Sigmoid Sign Size Slice SpaceToDepth Sqrt Sum Tanh
    Tile Transpose
    """
_ALIKE_IN_THE_MIDDLE = frozenset(_NAMES.split())


def stages(now: int, opset: int) -> list[int]:
    """The versions to go through: those between which operators are known to be alike."""
    between = [middle for middle in _MIDDLE if min(now, opset) < middle < max(now, opset)]
    return [*(between if opset > now else reversed(between)), opset]


def is_alike(node: ir.Node, now: int, opset: int) -> bool:
    """Whether an operator means the same in both versions, and with it all nodes of the graphs within it."""
    graphs = [graph for attribute in node.attributes.values() for graph in subgraphs(attribute)]
    for inner in (one for graph in graphs for one in graph):
        if inner.domain in ONNX_DOMAINS and differs(inner, now, opset) and not is_alike(inner, now, opset):
            return False  # the converter does not look into what is hidden from it
    if node.op_type == "Split":  # from opset 18 on one without sizes says into how many parts
        return min(now, opset) >= 13 and (max(now, opset) < 18 or len(node.inputs) > 1)
    if node.op_type in OPERATORS:
        return crosses(ALONG_ONE_AXIS_SINCE, now, opset) or integer(node, "axis", 1) >= 0
    if node.op_type == "Constant":
        return set(node.attributes) == {"value"}  # a tensor; the attribute has always been there
    oldest, newest = sorted((now, opset))
    in_the_middle = _MIDDLE[0] <= oldest and newest <= _MIDDLE[1]
    if in_the_middle and node.op_type in _ALIKE_IN_THE_MIDDLE:
        return True
    return node.op_type in _ALIKE and _ALIKE[node.op_type] <= oldest
