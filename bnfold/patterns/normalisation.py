"""Normalisations by the data's own statistics: LayerNorm, RMSNorm, GroupNorm, the L2 norm."""

from __future__ import annotations

from bnfold.patterns.formula import (
    Constant,
    Either,
    Formula,
    Number,
    Op,
    Pattern,
    Sum,
    X,
    over_root,
    root,
    square,
)

_MEAN = Op("ReduceMean", (X,))
_CENTRED = Either((Op("Sub", (X, _MEAN)), Op("Add", (X, Op("Neg", (_MEAN,))))))
_VARIANCE = Op("ReduceMean", (square(_CENTRED),))


def _guarded(value: Formula) -> Formula:
    """A value that is kept away from zero."""
    return Either((Sum((value,), None), Op("Max", (value, Number())), Op("Clip", (value,)), value))


_INVERSE = Either(
    (
        Op("Reciprocal", (root(_guarded(_VARIANCE)),)),
        Op("Pow", (_guarded(_VARIANCE), Number(-0.5))),
    )
)
_FACTOR = Either((Op("Mul", (_INVERSE, Constant())), _INVERSE))
_SHIFTED = Op("Sub", (Constant(), Op("Mul", (_MEAN, _FACTOR))))
_SQUARES = Either((Op("ReduceSum", (square(X),)), Op("ReduceSumSquare", (X,))))
_NORM = Either((Op("ReduceL2", (X,)), root(_guarded(_SQUARES))))
_LENGTH = Either((_guarded(_NORM), Op("Expand", (_guarded(_NORM),))))

PATTERNS = (
    Pattern(
        "LayerNorm",
        Either(
            (over_root(_CENTRED, _guarded(_VARIANCE)), Op("Div", (_CENTRED, Sum((root(_VARIANCE),), None))))
        ),
        anchors=("Sqrt", "Pow"),
        last=("Div", "Mul"),
        sources=(
            "ONNX Runtime LayerNormFusion (basic from opset 17, else extended)",
            "ONNX Runtime SkipLayerNormFusion (extended)",
            "OpenVINO MVNFusionWithoutConstants",
            "TensorRT INormalizationLayer",
        ),
        own=("Mul", "Add"),
    ),
    Pattern(
        "LayerNorm (TensorFlow)",
        Op("Add", (Op("Mul", (X, _FACTOR)), _SHIFTED)),
        anchors=("Reciprocal", "Pow"),
        last=("Add",),
        sources=(
            "ONNX Runtime's transformer optimizer, FusionLayerNormalizationTF",
            "OpenVINO MVNFusionWithConstantsInside",
        ),
    ),
    Pattern(
        "RMSNorm",
        over_root(X, _guarded(Op("ReduceMean", (square(X),)))),
        anchors=("Sqrt", "Pow"),
        last=("Div", "Mul"),
        sources=("ONNX Runtime SimplifiedLayerNormFusion (extended)", "OpenVINO RMSFusion"),
        own=("Mul",),
    ),
    Pattern(
        "GroupNorm",
        Op("Reshape", (Op("InstanceNormalization", (Op("Reshape", (X,)), Constant(), Constant())),)),
        anchors=("InstanceNormalization",),
        last=("Reshape",),
        sources=(
            "ONNX Runtime's transformer optimizer, FusionGroupNorm",
            "OpenVINO GroupNormalizationFusion",
        ),
        own=("Mul", "Add"),
    ),
    Pattern(
        "L2 norm",
        Either((Op("Div", (X, _LENGTH)), over_root(X, _guarded(_SQUARES)))),
        anchors=("ReduceL2", "ReduceSum", "ReduceSumSquare"),
        last=("Div", "Mul"),
        sources=(
            "OpenVINO NormalizeL2Fusion",
            "TensorRT developer guide, Types of Fusions: L2Norm reduction",
        ),
    ),
)
