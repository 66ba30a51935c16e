"""Matrix products and fused operators against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from bnfold.oracle.evaluator import NotEvaluableError
from bnfold.oracle.ops.call import Call
from bnfold.oracle.ops.matmul import contracted
from tests.oracle.ops.nodes import agrees, evaluated, floats
from tests.pairwise import pairwise


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((2, 3), (3, 4)),
        ((3,), (3, 4)),
        ((2, 3), (3,)),
        ((3,), (3,)),
        ((5, 2, 3), (3, 4)),
        ((2, 1, 2, 3), (4, 3, 2)),
    ],
)
def test_matmul(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    agrees("MatMul", {"a": floats(*a)}, {"b": floats(*b)})


@pairwise(left=[0, 1], right=[0, 1], c=[(4,), (1, 4), (2, 1), (), None])
def test_gemm(left: int, right: int, c: tuple[int, ...] | None) -> None:
    constants = {"b": floats(4, 3) if right else floats(3, 4)}
    if c is not None:
        constants["c"] = floats(*c)
    a = {"a": floats(3, 2) if left else floats(2, 3)}
    agrees("Gemm", a, constants, transA=left, transB=right, alpha=0.3, beta=0.7)


def test_einsum() -> None:
    agrees("Einsum", {"a": floats(2, 3, 4), "b": floats(2, 4, 5)}, equation="bij,bjk->bik")


def test_alpha_is_taken_at_its_float32_value() -> None:
    one = np.ones((1, 1), np.float32)
    assert evaluated("Gemm", {"a": one}, {"b": one}, alpha=0.1)[0, 0] == float(np.float32(0.1))


MICROSOFT = {"domain": "com.microsoft"}


@pytest.mark.parametrize(
    ("a", "b", "attributes"),
    [
        ((2, 3), (3, 4), {"alpha": 0.5}),
        ((2, 3, 4), (2, 5, 4), {"transB": 1}),
        ((2, 4, 3), (2, 4, 5), {"transA": 1}),
        ((3, 2, 4), (2, 4, 5), {"transBatchA": 1}),
        ((2, 3, 4), (4, 2, 5), {"transBatchB": 1}),
        ((4, 2, 3), (2, 4, 5), {"transBatchA": 1, "transA": 1}),
        ((2, 3, 4), (5, 2, 4), {"transBatchB": 1, "transB": 1}),
    ],
)
def test_fused_matmul(a: tuple[int, ...], b: tuple[int, ...], attributes: dict[str, Any]) -> None:
    agrees("FusedMatMul", {"a": floats(*a)}, {"b": floats(*b)}, **attributes, **MICROSOFT)
    call = Call(onnx.helper.make_node("FusedMatMul", ["a", "b"], ["y"]), 1, attributes)
    a_axis, b_axis = contracted(call, len(a), len(b))
    assert (a[a_axis], b[b_axis]) == (a[-1 if "transA" not in attributes else a_axis], a[a_axis])


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("Relu", []),
        ("Tanh", []),
        ("Sigmoid", []),
        ("LeakyRelu", [0.1]),
        ("Clip", [-0.2, 0.6]),
        ("HardSigmoid", [0.2, 0.5]),
    ],
)
def test_fused_conv_and_gemm(name: str, parameters: list[float]) -> None:
    x, constants = {"x": floats(1, 3, 6, 6)}, {"w": floats(4, 3, 3, 3), "b": floats(4)}
    stated = {"activation_params": parameters} if parameters else {}
    agrees("FusedConv", x, constants, activation=name, **stated, **MICROSOFT)
    names = ("activation_alpha", "activation_beta")
    stated = dict(zip(names, parameters, strict=False))
    constants = {"b": floats(3, 4), "c": floats(4)}
    if name != "Clip":  # which ONNX Runtime's FusedGemm does not have
        agrees("FusedGemm", {"a": floats(2, 3)}, constants, activation=name, **stated, **MICROSOFT)


def test_fused_conv_adds_its_fourth_input() -> None:
    constants = {"w": floats(4, 3, 3, 3), "b": floats(4), "z": floats(1, 4, 4, 4)}
    agrees("FusedConv", {"x": floats(1, 3, 6, 6)}, constants, activation="Relu", **MICROSOFT)


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(NotEvaluableError, match="'Sine'"):
        evaluated("FusedGemm", {"a": floats(2, 3)}, {"b": floats(3, 4)}, activation="Sine", **MICROSOFT)
