"""A value times a function of itself: SiLU, QuickGelu, HardSwish, Mish; and what they are made of."""

from __future__ import annotations

from bnfold.patterns.formula import Constant, Either, Number, Op, Pattern, Product, Sum, X, clipped

_SIGMOID = Either((Op("Sigmoid", (X,)), Op("Sigmoid", (Product((X,), None),))))
_NEGATIVE = Either((Op("Neg", (X,)), Op("Neg", (Product((X,), None),)), Product((X,), None)))
_SIX = clipped(Sum((X,), 3.0), 0.0, 6.0)
_SOFTPLUS = Either(
    (
        Op("Softplus", (X,)),
        Op("Log", (Sum((Op("Exp", (X,)),), 1.0),)),
        Op("Where", (Op("Greater", (X, Number())), X, Op("Softplus", (X,)))),
    )
)

PATTERNS = (
    Pattern(
        "SiLU",
        Either((Product((X, _SIGMOID)), Op("Div", (X, Sum((Op("Exp", (_NEGATIVE,)),), 1.0))))),
        anchors=("Sigmoid", "Exp"),
        last=("Mul", "Div"),
        sources=(
            "ONNX Runtime QuickGeluFusion (extended), which takes any factor within the sigmoid",
            "OpenVINO SwishFusionWithSigmoid, SwishFusionWithBeta, SwishFusionWithoutBeta",
        ),
    ),
    Pattern(
        "HardSwish",
        Either((Product((X, _SIX), 1 / 6), Product((X, Product((_SIX,), 1 / 6))))),
        anchors=("Clip", "Min", "Max"),
        last=("Mul", "Div"),
        sources=("OpenVINO HSwishFusionWithClamp, HSwishFusionWithReluMul, HSwishFusionWithReluDiv",),
    ),
    Pattern(
        "HardSwish",
        Product((X, Op("HardSigmoid", (X,)))),
        anchors=("HardSigmoid",),
        last=("Mul",),
        sources=("OpenVINO HSwishFusionWithHSigmoid",),
    ),
    Pattern(
        "HardSigmoid",
        Product((_SIX,), 1 / 6),
        anchors=("Clip", "Min", "Max"),
        last=("Mul", "Div"),
        sources=(
            "OpenVINO HSigmoidFusionWithClampMul, HSigmoidFusionWithClampDiv, HSigmoidFusionWithReluMul",
        ),
    ),
    Pattern(
        "Softplus",
        _SOFTPLUS,
        anchors=("Log", "Softplus"),
        last=("Log", "Softplus", "Where"),
        sources=("OpenVINO SoftPlusFusion",),
    ),
    Pattern(
        "Mish",
        Product((X, Op("Tanh", (_SOFTPLUS,)))),
        anchors=("Tanh",),
        last=("Mul",),
        sources=("OpenVINO MishFusion, SoftPlusToMishFusion",),
    ),
    Pattern(
        "LeakyRelu",
        Op("Max", (X, Product((X,), None))),
        anchors=("Max",),
        last=("Max",),
        sources=("OpenVINO LeakyReluFusion",),
    ),
    Pattern(
        "PRelu",
        Either(
            (
                Op(
                    "Add",
                    (Op("Relu", (X,)), Op("Mul", (Op("Neg", (Op("Relu", (Op("Neg", (X,)),)),)), Constant()))),
                ),
                Op("Sub", (Op("Relu", (X,)), Op("Mul", (Op("Relu", (Op("Neg", (X,)),)), Constant())))),
                Op("Sub", (Op("Relu", (X,)), Op("Mul", (Op("Relu", (Product((X,), -1.0),)), Constant())))),
                Op("Add", (Op("Relu", (X,)), Op("Mul", (Op("Relu", (Product((X,), -1.0),)), Constant())))),
                Op("Where", (Op("Greater", (X, Number(0.0))), X, Op("Mul", (X, Constant())))),
            )
        ),
        anchors=("Relu", "Where"),
        last=("Add", "Sub", "Where"),
        sources=("OpenVINO PReluFusionNegativeAdd, PReluFusionNegativeSub, PReluFusionMultiplyAdd",),
    ),
)
