"""Einsum of a value and a constant: a linear layer whose axes are letters."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import bnfold
from tests.graphs import build, fold_and_compare, kept_codes, operators, statistics, weight

SIZES = {"a": 2, "b": 3, "c": 4, "d": 4, "e": 5, "k": 4, "n": 2}


def shape(letters: str) -> str:
    return ",".join(str(SIZES[letter]) for letter in letters)


def after(equation: str, along: str, *, left: bool = False, kind: str = "Mul Add") -> onnx.ModelProto:
    """An Einsum, and a scale and a shift along one letter of its output."""
    terms, _, output = equation.replace(" ", "").partition("->")
    value, constant = terms.split(",")[:: -1 if left else 1]
    size = [SIZES[letter] if letter == along else 1 for letter in output]
    lines = {"Mul Add": "s = Mul(m, k) y = Add(s, l)", "Mul": "y = Mul(m, k)"}[kind]
    held = {"w": weight(*(SIZES[letter] for letter in constant)), "k": weight(*size, seed=3)}
    if "Add" in kind:
        held["l"] = weight(*size, seed=4)
    operands = "w, x" if left else "x, w"
    return build(
        f"g (float[{shape(value)}] x) => (float[{shape(output)}] y) "
        f'{{ m = Einsum<equation="{equation}">({operands}) {lines} }}',
        held,
    )


def before(equation: str, along: str, *, left: bool = False, bias: bool = False) -> onnx.ModelProto:
    """A scale and a shift along one letter of what an Einsum reads."""
    terms, _, output = equation.replace(" ", "").partition("->")
    value, constant = terms.split(",")[:: -1 if left else 1]
    size = [SIZES[letter] if letter == along else 1 for letter in value]
    held = {"w": weight(*(SIZES[letter] for letter in constant)), "k": weight(*size, seed=3)}
    held |= {"l": weight(*size, seed=4)}
    operands = "w, t" if left else "t, w"
    last = "y"
    more = ""
    if bias:
        last, more = "m", "y = Add(m, c)"
        held["c"] = weight(SIZES[output[-1]], seed=5)
    return build(
        f"g (float[{shape(value)}] x) => (float[{shape(output)}] y) {{ r = Relu(x) s = Mul(r, k) "
        f't = Add(s, l) {last} = Einsum<equation="{equation}">({operands}) {more} }}',
        held,
    )


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize(
    ("equation", "along"),
    [
        ("ab,bc->ac", "c"),
        ("ab, bc -> ac", "c"),
        ("ab,bc->ca", "c"),
        ("nab,bc->nca", "c"),
        ("nab,bec->naec", "c"),
        ("nab,bec->naec", "e"),
        ("nabd,bdc->nac", "c"),
        ("nab,nbc->nac", "n"),
        ("nab,nbc->nac", "c"),
        ("nac,cb->nab", "b"),
    ],
)
def test_at_the_output(equation: str, along: str, left: bool) -> None:
    if left:
        first, second = equation.replace(" ", "").split("->")[0].split(",")
        equation = f"{second},{first}->{equation.replace(' ', '').split('->')[1]}"
    result = fold_and_compare(after(equation, along, left=left))
    assert operators(result.model) == ["Einsum", "Add"]
    scaled = fold_and_compare(after(equation, along, left=left, kind="Mul"))
    assert operators(scaled.model) == ["Einsum"]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("equation", "along"),
    [
        ("ab,bc->ac", "b"),
        ("ab,bc->ca", "b"),
        ("nab,bec->naec", "b"),
        ("nabd,bdc->nac", "b"),
        ("nabd,bdc->nac", "d"),
        ("nab,nbc->nac", "n"),
        ("nab,nbc->nac", "b"),
        ("nac,cb->nab", "c"),
    ],
)
def test_at_the_input(equation: str, along: str, bias: bool) -> None:
    result = fold_and_compare(before(equation, along, bias=bias))
    assert operators(result.model) == ["Relu", "Einsum", "Add"]


def test_an_implicit_output_is_in_the_order_of_letters() -> None:
    model = after("cb,ba->ac", "a")
    model.graph.node[0].attribute[0].s = b"cb,ba"
    assert operators(fold_and_compare(model).model) == ["Einsum", "Add"]


@pytest.mark.parametrize(("equation", "along"), [("ab,bc->ac", "a"), ("nab,bc->nac", "n")])
def test_along_an_axis_of_the_value_alone(equation: str, along: str) -> None:
    result = fold_and_compare(after(equation, along, kind="Mul"))
    assert operators(result.model) == ["Einsum", "Mul"]
    assert "BN204" in kept_codes(result)
    result = fold_and_compare(before(equation, along))
    assert operators(result.model)[-1] == "Einsum"
    assert "BN204" in kept_codes(result)


@pytest.mark.parametrize("equation", ["nac,cd->nad", "nak,dk->nad"])
def test_equal_sizes_prove_nothing(equation: str) -> None:
    """Letters decide, and all axes of the constant have one size."""
    assert operators(fold_and_compare(after(equation, "d", kind="Mul")).model) == ["Einsum"]
    batchnorm = build(
        "g (float[2,4,4] x) => (float[2,4,4] y) "
        f'{{ m = Einsum<equation="{equation}">(x, w) y = BatchNormalization(m, scale, bias, mean, var) }}',
        {"w": weight(4, 4), **statistics(4)},
    )
    result = fold_and_compare(batchnorm)
    assert "BN204" in kept_codes(result)


@pytest.mark.parametrize(
    ("equation", "value", "constant", "output"),
    [
        ("...b,bc->...c", "2,3", (3, 4), "2,4"),
        ("aa,ac->c", "4,4", (4, 4), "4"),
        ("abd,bc->ac", "2,3,5", (3, 4), "2,4"),
        ("ab,bcd->ac", "2,3", (3, 4, 5), "2,4"),
    ],
)
def test_other_equations_stay(equation: str, value: str, constant: tuple[int, ...], output: str) -> None:
    model = build(
        f"g (float[{value}] x) => (float[{output}] y) "
        f'{{ m = Einsum<equation="{equation}">(x, w) s = Mul(m, k) y = Add(s, l) }}',
        {"w": weight(*constant), "k": weight(4, seed=3), "l": weight(4, seed=4)},
    )
    result = fold_and_compare(model)
    assert operators(result.model) == ["Einsum", "Mul", "Add"]
    assert "BN215" in kept_codes(result)


def test_two_values_stay() -> None:
    model = build(
        'g (float[2,3] x, float[3,4] z) => (float[2,4] y) { m = Einsum<equation="ab,bc->ac">(x, z) '
        "y = BatchNormalization(m, scale, bias, mean, var) }",
        statistics(4),
    )
    assert "BN215" in kept_codes(fold_and_compare(model))


def test_a_constant_of_size_one_may_be_summed_up_more_often_than_it_is_long() -> None:
    """ONNX Runtime broadcasts it: three elements of x are added up, and the constant has one."""
    text = (
        "g (float[2,{0}] x) => (float[2,4] y) {{ r = Relu(x) s = Mul(r, k) t = Add(s, l) "
        'y = Einsum<equation="ab,bc->ac">(t, w) }}'
    )
    held = {"w": weight(1, 4), "k": weight(1, 1, seed=3), "l": weight(1, 1, seed=4)}
    for size, names in (("3", ["Relu", "Mul", "Add", "Einsum"]), ("1", ["Relu", "Einsum", "Add"])):
        model = build(text.format(size), held)
        result = bnfold.fold(model)
        assert result.nodes_after <= result.nodes_before
        assert operators(result.model) == names or size == "1"


def test_no_node_more_than_before() -> None:
    """One shift into two products without a bias would add two nodes for one."""
    model = build(
        "g (float[2,3] x) => (float[2,4] y, float[2,4] z) "
        "{ r = Relu(x) n = BatchNormalization(r, scale, bias, mean, var) "
        'y = Einsum<equation="ab,bc->ac">(n, w) z = Einsum<equation="ab,bc->ac">(n, v) }',
        {"w": weight(3, 4), "v": weight(3, 4, seed=6), **statistics(3)},
    )
    result = fold_and_compare(model)
    assert "BN305" in kept_codes(result)


def test_half_precision() -> None:
    model = build(
        'g (float16[2,3] x) => (float16[2,4] y) { m = Einsum<equation="ab,bc->ac">(x, w) '
        "y = BatchNormalization(m, scale, bias, mean, var) }",
        {"w": weight(3, 4, dtype=np.float16), **statistics(4, dtype=np.float16)},
    )
    assert operators(bnfold.fold(model).model) == ["Einsum", "Add"]
