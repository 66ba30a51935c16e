"""Which operators onnx's converter need not know: they are the same in two versions of ONNX.

onnx's converter lacks adapters to older versions for many steps that change nothing for a model which does
not use what is new. The tables below list those steps. Types, inputs and attributes are checked at the end.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

from bnfold.contract.adapters import ADAPTED
from bnfold.contract.last_axis import ALONG_ONE_AXIS_SINCE, OPERATORS
from bnfold.contract.opsets import crosses, opset_of, own_nodes
from bnfold.graph.nodes import integer
from bnfold.graph.scopes import subgraphs

# By operator: all its versions from this one on differ only in types or in optional inputs and attributes.
_SINCE = {
    **dict.fromkeys(("GlobalMaxPool", "Identity", "If", "Loop", "Shape"), 1),
    "Reshape": 5,
    **dict.fromkeys(("BatchNormalization", "Relu", "Add", "Sub", "Mul", "Div"), 7),
    **dict.fromkeys(("ConstantOfShape", "Scan"), 9),
    **dict.fromkeys(("CumSum", "Pad"), 11),
    "Pow": 12,
}
# By version: operators that differ from their version before only in that way.
_OLD_AND_NEW = {
    9: "Cast Flatten Gemm MatMul",
    10: "AveragePool MaxPool",
    11: """
        ArgMax ArgMin AveragePool Compress Concat Conv ConvTranspose DepthToSpace Equal Flatten Gather Gemm
        LpPool MaxPool MaxUnpool NonMaxSuppression OneHot ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp
        ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Slice Split Squeeze TopK
        Unsqueeze
        """,
    12: "ArgMax ArgMin Clip GatherND Max MaxPool Min Pow ReduceMax ReduceMin",
    13: """
        Abs ArgMax ArgMin Cast Ceil Clip Concat DepthToSpace Dropout Equal Erf Exp Expand Flatten Floor
        Gather GatherElements GatherND Gemm Greater IsNaN LRN Less Log MatMul Max Mean
        MeanVarianceNormalization Min Mod Neg NegativeLogLikelihoodLoss NonZero Pow Reciprocal ReduceL1
        ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSumSquare
        ScatterElements ScatterND Sigmoid Sign Size Slice SoftmaxCrossEntropyLoss SpaceToDepth Sqrt Sum Tanh
        Tile Transpose
        """,
    18: "LpPool",
}
_ALIKE = {version: frozenset(names.split()) for version, names in _OLD_AND_NEW.items()}
_FARTHEST = 1 << 10


def next_stage(model: ir.Model, opset: int) -> int:
    """The farthest version to which each operator is either converted by onnx, or the same.

    Args:
        model: The model.
        opset: The version to convert to in the end.
    """
    now = opset_of(model)
    nodes = {node.op_type: node for node in own_nodes(model)}.values()
    step = 1 if opset > now else -1
    for stage in range(now + 2 * step, opset + step, step):
        if any(len({*_steps(node, now, stage)}) > 1 for node in nodes):
            return stage - step
    return opset


def is_alike(node: ir.Node, now: int, opset: int) -> bool:
    """Whether an operator means the same in both versions, or was adapted before.

    The graphs within it are converted by themselves.
    """
    if any(subgraphs(attribute) for attribute in node.attributes.values()):
        return True
    if node.op_type == "Split" and opset > now:  # from opset 18 on one without sizes says into how many parts
        return min(now, opset) >= 13 and (max(now, opset) < 18 or len(node.inputs) > 1)
    if node.op_type in OPERATORS:
        return crosses(ALONG_ONE_AXIS_SINCE, now, opset) or integer(node, "axis", 1) >= 0
    if node.op_type == "Constant":
        return set(node.attributes) == {"value"}  # a tensor; the attribute has always been there
    return {*_steps(node, now, opset)} == {True}


def _steps(node: ir.Node, now: int, opset: int) -> list[bool]:
    """For each version of an operator between two others, whether it is alike to its version before."""
    name, older, found = node.op_type, min(now, opset), []
    version = max(now, opset)
    while version > older and onnx.defs.has(name, version):
        since = onnx.defs.get_schema(name, version).since_version
        if since <= older:
            break
        adapted = opset < now and (name, since) in ADAPTED
        found.append(adapted or since > _SINCE.get(name, _FARTHEST) or name in _ALIKE.get(since, ()))
        version = since - 1
    return found
