"""What ONNX's operators look at: the numbers of an input, or only its type and shape."""

from __future__ import annotations

import onnx_ir as ir

from bnfold.graph.scopes import ONNX_DOMAINS

ELEMENTWISE = frozenset(
    """
    Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast
    CastLike Ceil Celu Clip Cos Cosh DequantizeLinear Div Elu Equal Erf Exp Floor Gelu Greater
    GreaterOrEqual HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min
    Mish Mod Mul Neg Not Or PRelu Pow QuantizeLinear Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh
    Softplus Softsign Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu Where Xor
    """.split()  # noqa: SIM905 - a list of strings would be 72 lines long
)
"""Operators that compute each element from the elements in its place."""

REDUCTIONS = frozenset(
    """
    ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare
    """.split()  # noqa: SIM905 - a list of strings would be 10 lines long
)
ARRANGING = frozenset(
    """
    ConstantOfShape DepthToSpace Expand EyeLike Flatten Gather Pad Reshape Shape Size Slice SpaceToDepth
    Split Squeeze Tile Transpose Trilu Unsqueeze
    """.split()  # noqa: SIM905 - a list of strings would be 18 lines long
)
"""Operators that put elements elsewhere; where to is what further inputs say."""

_MIXING = frozenset(
    """
    ArgMax ArgMin AveragePool BatchNormalization Concat Conv ConvTranspose Dropout Gemm GlobalAveragePool
    GlobalLpPool GlobalMaxPool GroupNormalization Hardmax InstanceNormalization LRN LayerNormalization
    LogSoftmax LpNormalization LpPool MatMul MaxPool MeanVarianceNormalization RMSNormalization Softmax
    """.split()  # noqa: SIM905 - a list of strings would be 25 lines long
)
_PLACED = (ARRANGING - {"ConstantOfShape"}) | REDUCTIONS | {"CumSum", "GRU", "LSTM", "RNN", "Resize", "TopK"}
_BLIND = {
    *(("Shape", 0), ("Size", 0), ("EyeLike", 0), ("RandomNormalLike", 0), ("RandomUniformLike", 0)),
    ("CastLike", 1),
}
_DIVISORS = {("Div", 1), ("Mod", 1)}  # runtimes may stop at a whole number that is divided by zero


def looks_at_numbers(node: ir.Node, index: int) -> bool:
    """Whether an input of a node is read for more than its type and its shape."""
    return (node.op_type, index) not in _BLIND or node.domain not in ONNX_DOMAINS


def is_indifferent(node: ir.Node, index: int) -> bool:
    """Whether the numbers of an input decide nothing but numbers: no shape, and not whether the node can run.

    Indices and sizes do, and nobody knows of operators of other domains, or of those with subgraphs.
    """
    kind = node.op_type
    if node.domain not in ONNX_DOMAINS or (kind, index) in _DIVISORS:
        return False
    return kind in ELEMENTWISE or kind in _MIXING or (index == 0 and kind in _PLACED)
