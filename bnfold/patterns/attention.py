"""Attention: the softmax with its scale, the softmax written out, rotary embeddings."""

from __future__ import annotations

from bnfold.patterns.formula import Constant, Either, Formula, Op, Pattern, Product, Value, X

_Q, _K, _MASK = Value("q"), Value("k"), Value("mask")
_KEPT = "Reshape Transpose Unsqueeze Squeeze"


def _maybe_scaled(value: Value) -> Formula:
    """A value, or a number times it, also with a change of layout in between."""
    scaled = Product((value,), None)
    return Either((scaled, Op(_KEPT, (scaled,), fixed=False), value))


_SCORES = Either(
    (
        Op("MatMul", (_maybe_scaled(_Q), _maybe_scaled(_K)), fixed=False),
        Product((Op("MatMul", (_maybe_scaled(_Q), _maybe_scaled(_K)), fixed=False),), None),
    )
)
_MASKED = Either(
    (
        _SCORES,
        Op("Add", (_SCORES, Either((_MASK, Constant())))),
        Op("Where", (Value("condition"), _SCORES, Constant())),
        Op("Where", (Value("condition"), Constant(), _SCORES)),
    )
)
_EXPONENTIAL = Either((Op("Exp", (X,)), Op("Exp", (Op("Sub", (X, Op("ReduceMax", (X,)))),))))
_HALVES = Op(
    "Concat", (Op("Neg", (Op("Slice Split", (X,), fixed=False),)), Op("Slice Split", (X,), fixed=False))
)
_ANGLES = Either((Constant(), Value("cosine"))), Either((Constant(), Value("sine")))

PATTERNS = (
    Pattern(
        "attention",
        Op("Softmax", (_MASKED,)),
        anchors=("Softmax",),
        last=("Softmax",),
        sources=(
            "ONNX Runtime MatMulScaleFusion, AttentionFusion, BiasSoftmaxFusion (extended)",
            "OpenVINO SDPAFusion",
            "TensorRT, Fused Attention: the scale stands before the first product",
        ),
    ),
    Pattern(
        "Softmax",
        Op("Div", (_EXPONENTIAL, Op("ReduceSum", (_EXPONENTIAL,)))),
        anchors=("Exp",),
        last=("Div",),
        sources=("OpenVINO SoftmaxFusion",),
    ),
    Pattern(
        "rotary embedding",
        Op("Add", (Op("Mul", (X, _ANGLES[0])), Op("Mul", (_HALVES, _ANGLES[1])))),
        anchors=("Concat",),
        last=("Add",),
        sources=(
            "ONNX Runtime's transformer optimizer, FusionRotaryEmbeddings",
            "OpenVINO RoPEFusion",
        ),
    ),
)
