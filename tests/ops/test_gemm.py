"""Gemm takes an affine on either side, whatever its factors, transpositions and C."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.graphs import build, fold_and_compare, kept_codes, operators, statistics, weight
from tests.pairwise import pairwise

SHAPES_OF_C = [None, (), (1,), (4,), (1, 4), (2, 1), (2, 4)]


def gemm(body: str, constants: dict, x: str = "2,3", *, inputs: str = "", opset: int = 18) -> onnx.ModelProto:
    return build(f"g (float[{x}] x{inputs}) => (float[M,N] y) {{ {body} }}", constants, opset=opset)


def with_c(shape: tuple[int, ...] | None) -> tuple[str, dict[str, np.ndarray]]:
    return ("", {}) if shape is None else (", c", {"c": weight(*shape, seed=7)})


@pairwise(c=SHAPES_OF_C, trans_b=[0, 1], trans_a=[0, 1], factors=["", "alpha=0.5, beta=-1.7,", "beta=0.0,"])
def test_a_gemm_takes_what_follows(factors, trans_a, trans_b, c):
    operand, constant = with_c(c)
    model = gemm(
        f"m = Gemm<{factors} transA={trans_a}, transB={trans_b}>(x, w{operand}) "
        "y = BatchNormalization(m, scale, bias, mean, var)",
        {"w": weight(*((4, 3) if trans_b else (3, 4))), **constant, **statistics(4, 2)},
        "3,2" if trans_a else "2,3",
    )
    result = fold_and_compare(model)
    assert operators(result.model) == ["Gemm"]
    assert [site.status for site in result.sites] == ["folded"]


@pairwise(c=SHAPES_OF_C, trans_b=[0, 1], factors=["", "alpha=0.5, beta=-1.7,", "beta=0.0,"], start=["x", "r"])
def test_a_gemm_takes_what_precedes(factors, trans_b, c, start):
    operand, constant = with_c(c)
    model = gemm(
        f"r = Relu(x) n = BatchNormalization({start}, scale, bias, mean, var) "
        f"y = Gemm<{factors} transB={trans_b}>(n, w{operand})",
        {"w": weight(*((4, 3) if trans_b else (3, 4))), **constant, **statistics(3)},
    )
    result = fold_and_compare(model)
    assert operators(result.model).count("Gemm") == 1
    assert "BatchNormalization" not in operators(result.model)


@pairwise(
    c=[None, (), (1,), (5,), (1, 5), (4, 1), (4, 5)], trans_a=[0, 1], factors=["", "alpha=0.5, beta=-1.7,"]
)
def test_a_constant_on_the_left_takes_what_varies_along_the_rows(factors, trans_a, c):
    operand, constant = with_c(c)
    model = gemm(
        f"m = Gemm<{factors} transA={trans_a}>(w, x{operand}) s = Mul(m, k) y = Add(s, l)",
        {
            "w": weight(*((3, 4) if trans_a else (4, 3))),
            "k": weight(4, 1, seed=3),
            "l": weight(4, 1, seed=4),
            **constant,
        },
        "3,5",
    )
    assert operators(fold_and_compare(model).model) == ["Gemm"]


@pairwise(trans_b=[0, 1], trans_a=[0, 1], c=[None, (5,), (1, 5), (4, 1), (4, 5)])
def test_a_constant_on_the_left_takes_what_comes_in_along_the_contraction(c, trans_a, trans_b):
    operand, constant = with_c(c)
    k = (1, 3) if trans_b else (3, 1)
    model = gemm(
        "r = Relu(x) s = Mul(r, k) n = Add(s, l) "
        f"y = Gemm<alpha=0.7, transA={trans_a}, transB={trans_b}>(w, n{operand})",
        {
            "w": weight(*((3, 4) if trans_a else (4, 3))),
            "k": weight(*k, seed=3),
            "l": weight(*k, seed=4),
            **constant,
        },
        "5,3" if trans_b else "3,5",
    )
    assert operators(fold_and_compare(model).model) == ["Relu", "Gemm"]


def test_both_sides_of_one_gemm():
    model = gemm(
        "n = BatchNormalization(x, ascale, abias, amean, avar) m = Gemm<alpha=2.0>(n, w, c) "
        "y = BatchNormalization(m, bscale, bbias, bmean, bvar)",
        {"w": weight(3, 4), "c": weight(4), **statistics(3, 0, "a"), **statistics(4, 1, "b")},
    )
    result = fold_and_compare(model)
    assert operators(result.model) == ["Gemm"]
    assert len(result.folded) == 2


@pytest.mark.parametrize("flat", ["Flatten(n)", "Flatten<axis=1>(n)", "Reshape(n, s)"])
def test_batchnorm_then_flatten_then_linear(flat):
    """AIMET's BN→Flatten→Linear: each channel's numbers are repeated over its pixels."""
    model = build(
        "g (float[2,3,2,2] x) => (float[2,5] y) { r = Relu(x) "
        "n = BatchNormalization(r, scale, bias, mean, var) "
        f"f = {flat} y = Gemm(f, w, b) }}",
        {"w": weight(12, 5), "b": weight(5), "s": np.array([0, -1]), **statistics(3)},
    )
    assert operators(fold_and_compare(model).model) == ["Relu", flat[:7], "Gemm"]


@pytest.mark.parametrize("opset", [7, 9, 11, 13])
def test_every_version_that_onnx_runtime_runs(opset):
    model = gemm(
        "m = Gemm<transB=1>(x, w, c) y = BatchNormalization(m, scale, bias, mean, var)",
        {"w": weight(4, 3), "c": weight(4), **statistics(4, 2)},
        opset=opset,
    )
    assert operators(fold_and_compare(model).model) == ["Gemm"]


@pytest.mark.parametrize(
    ("body", "constants", "inputs", "codes"),
    [
        ("m = Gemm(x, w, c)", {"c": weight(4)}, ", float[3,4] w", {"BN202"}),
        ("m = Gemm(x, w, c)", {"w": weight(3, 4)}, ", float[4] c", {"BN211"}),
    ],
    ids=["weight", "bias"],
)
def test_what_is_not_constant_is_not_touched(body, constants, inputs, codes):
    model = gemm(
        f"{body} y = BatchNormalization(m, scale, bias, mean, var)",
        {**constants, **statistics(4, 2)},
        inputs=inputs,
    )
    result = fold_and_compare(model)
    assert operators(result.model) == operators(model)
    assert kept_codes(result) >= codes


def test_rows_are_not_columns():
    """Equal sizes on another axis: (4, 1) scales the rows of a product whose weight has columns."""
    model = gemm("m = Gemm(x, w) y = Mul(m, k)", {"w": weight(4, 4), "k": weight(4, 1)}, "4,4")
    result = fold_and_compare(model)
    assert operators(result.model) == ["Gemm", "Mul"]
    assert kept_codes(result) >= {"BN204"}


def test_rows_are_not_columns_at_the_input():
    model = gemm(
        "r = Relu(x) s = Mul(r, k) y = Gemm<transA=1>(s, w)", {"w": weight(4, 4), "k": weight(4)}, "4,4"
    )
    result = fold_and_compare(model)
    assert operators(result.model) == ["Relu", "Mul", "Gemm"]
    fine = gemm(
        "r = Relu(x) s = Mul(r, k) y = Gemm<transA=1>(s, w)", {"w": weight(4, 4), "k": weight(4, 1)}, "4,4"
    )
    assert operators(fold_and_compare(fine).model) == ["Relu", "Gemm"]


def test_a_value_as_c_is_not_an_input_of_the_product():
    model = gemm(
        "r = Relu(x) n = BatchNormalization(r, scale, bias, mean, var) y = Gemm(v, w, n)",
        {"v": weight(2, 3, seed=8), "w": weight(3, 4), **statistics(4, 2)},
        "2,4",
    )
    result = fold_and_compare(model)
    assert "BatchNormalization" in operators(result.model)


def test_a_value_multiplied_by_itself():
    model = gemm(
        "r = Relu(x) n = BatchNormalization(r, scale, bias, mean, var) y = Gemm(n, n)", statistics(3), "3,3"
    )
    result = fold_and_compare(model)
    assert operators(result.model) == ["Relu", "BatchNormalization", "Gemm"]


def test_a_second_reader_and_a_graph_output():
    for output, body in (("z", "z = Relu(m)"), ("m", "")):
        model = build(
            f"g (float[2,3] x) => (float[2,4] y, float[2,4] {output}) {{ m = Gemm(x, w) "
            f"y = BatchNormalization(m, scale, bias, mean, var) {body} }}",
            {"w": weight(3, 4), **statistics(4, 2)},
        )
        result = fold_and_compare(model)
        assert operators(result.model) == operators(model)
        assert kept_codes(result) & {"BN301", "BN302"}


@pytest.mark.parametrize(
    "maker",
    [
        "w = Transpose(w0)",
        "w = Transpose<perm=[1,0]>(w0)",
        "i = Identity(w0) w = Transpose(i)",
        "f = Flatten<axis=0>(w0) t = Reshape(f, s) w = Transpose(t)",
    ],
)
def test_a_weight_that_is_computed_from_constants(maker):
    model = gemm(
        f"{maker} m = Gemm(x, w, c) y = BatchNormalization(m, scale, bias, mean, var)",
        {"w0": weight(4, 3), "s": np.array([-1, 3]), "c": weight(4), **statistics(4, 2)},
    )
    assert operators(fold_and_compare(model).model) == ["Gemm"]
