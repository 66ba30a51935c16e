"""Gelu: with the error function, with the hyperbolic tangent, and with the sigmoid."""

from __future__ import annotations

import math

from bnfold.patterns.formula import Either, Formula, Number, Op, Pattern, Product, Sum, X, square

_BY_ERF = Op("Erf", (Product((X,), math.sqrt(0.5)),))
_CUBE = Either((Op("Pow", (X, Number(3.0))), Product((X, X, X)), Product((square(X), X))))
_INNER = Either(
    (
        Product((Sum((X, Product((_CUBE,), 0.044715))),), math.sqrt(2 / math.pi)),
        Product((X, Sum((Product((square(X),), 0.044715),), 1.0)), math.sqrt(2 / math.pi)),
        Product((X, Sum((Product((X, X), 0.044715),), 1.0)), math.sqrt(2 / math.pi)),
    )
)


def _half(of: Formula) -> Formula:
    """`0.5 · x · (1 + of)`, also as `x · (0.5 · of + 0.5)`."""
    return Either((Product((X, Sum((of,), 1.0)), 0.5), Product((X, Sum((Product((of,), 0.5),), 0.5)))))


PATTERNS = (
    Pattern(
        "Gelu",
        _half(_BY_ERF),
        anchors=("Erf",),
        last=("Mul", "Div"),
        sources=(
            "ONNX Runtime GeluFusion (extended; basic from opset 20), BiasGeluFusion (extended)",
            "OpenVINO GeluFusionWithErfOne to GeluFusionWithErfFour",
            "TensorRT developer guide, Types of Fusions: GELU reduction",
        ),
    ),
    Pattern(
        "Gelu (tanh)",
        _half(Op("Tanh", (_INNER,))),
        anchors=("Tanh",),
        last=("Mul", "Div"),
        sources=(
            "ONNX Runtime FastGeluFusion (extended)",
            "OpenVINO GeluFusionWithTanh",
            "TensorRT developer guide, Types of Fusions: GELU reduction",
        ),
    ),
)
