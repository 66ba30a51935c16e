"""Mul and Div of two values, and by constants that are part of no chain."""

from __future__ import annotations

import numpy as np
import pytest

import bnfold
from tests.graphs import build, fold_and_compare, kept_codes, operators, weight
from tests.ops.sandwich import BATCHNORM, above, below, gone, settled, statistics, stays

SCALES = {name: array for name, array in statistics(4).items() if name in ("scale", "var")}
SCALES |= {"bias": np.zeros(4, np.float32), "mean": np.zeros(4, np.float32)}
HELD = {
    "v": weight(4, 4, 1, 1, seed=8),
    "k": weight(4, 1, 1),
    "row": weight(4),
    "n": np.float32(1.3),
    "full": weight(2, 4, 4, 4),
}


def test_a_scale_goes_to_one_factor() -> None:
    gone(above("g = Sigmoid(z)\n b = Mul(a, g)", stats=SCALES))
    gone(above("g = Sigmoid(z)\n b = Mul(g, a)", stats=SCALES))
    gone(below("g = Sigmoid(z)\n b = Mul(g, a)", stats=SCALES))


def test_a_shift_does_not_pass_a_gate() -> None:
    stays(above("g = Sigmoid(z)\n b = Mul(a, g)"), "BN207")
    stays(below("g = Sigmoid(z)\n b = Mul(a, g)"), "BN207")


def test_the_second_factor_is_tried_where_the_first_refuses() -> None:
    result = gone(
        above(
            "g = Sigmoid(z)\n c = Conv(z, v)\n d = Mul(g, c)\n b = Mul(d, g)",
            HELD,
            stats=SCALES,
            end=BATCHNORM,
        )
    )
    assert [site.status for site in result.sites] == ["folded"]


def test_a_square_takes_no_scale_upwards_but_squares_it_downwards() -> None:
    stays(above("b = Mul(a, a)", stats=SCALES), "BN215")
    gone(below("b = Mul(a, a)", stats=SCALES))
    stays(below("b = Mul(a, a)"), "BN207")


@pytest.mark.parametrize("way", ["up", "down"])
def test_squeeze_and_excitation(way: str) -> None:
    """A gate of shape [N, C, 1, 1], broadcast over the rows and columns."""
    lines = "p = GlobalAveragePool(z)\n c = Conv(p, v)\n g = Sigmoid(c)\n b = Mul(a, g)"
    gone((above if way == "up" else below)(lines, HELD, stats=SCALES))


def test_a_gate_of_lower_rank_meets_other_axes() -> None:
    model = build(
        "g (float[4,3,4] x, float[4,4] z) => (float y) { a = Sigmoid(x)\n c = MatMul(z, v)\n b = Mul(a, c)\n"
        + BATCHNORM + " }",
        {"v": weight(4, 4), **{n: a[:3] for n, a in SCALES.items()}},
    )  # fmt: skip
    model.graph.input[1].type.tensor_type.shape.dim[0].dim_value = 3
    stays(settled(model), "BN213", "BN201", "BN204")


def test_a_factor_of_unknown_size_might_be_broadcast() -> None:
    """C and D may be 1: then one number would have to take four scales."""
    lines = "a = Relu(x) c = Relu(z) b = Mul(a, c)"
    model = build(f"g (float[N,C] x, float[N,D] z) => (float[N,4] y) {{ {lines} {BATCHNORM} }}", SCALES)
    assert kept_codes(bnfold.fold(model)) >= {"BN208"}


@pytest.mark.parametrize("constant", ["k", "row", "n", "full"])
@pytest.mark.parametrize("order", ["Mul(t, {c})", "Mul({c}, t)", "Div(t, {c})"])
def test_constants_of_every_broadcast_shape(constant: str, order: str) -> None:
    lines = f"t = Identity(a)\n b = {order.format(c=constant)}"
    fold_and_compare(above(lines, HELD))
    gone(above(lines, HELD, stats=SCALES))


@pytest.mark.parametrize(
    ("line", "constants"),
    [
        ("b = Mul(t, k)", HELD),
        ("b = Mul(row, t)", HELD),
        ("b = Mul(n, t)", HELD),
        ("b = Mul(t, full)", HELD),
        ("b = Div(t, k)", HELD),
        ("b = Div(t, row)", HELD),
        ("b = Div(t, full)", HELD),
    ],
)
def test_constants_downwards(line: str, constants: dict[str, np.ndarray]) -> None:
    fold_and_compare(below(f"t = Identity(a)\n {line}", constants))


@pytest.mark.parametrize("order", ["Mul(t, full)", "Mul(full, t)", "Div(t, full)"])
def test_downwards_through_a_constant_that_is_no_affine(order: str) -> None:
    """The scale goes on, or into the constant; the shift times the constant varies along all axes."""
    gone(below(f"t = Identity(a)\n b = {order}", HELD, stats=SCALES))
    stays(below(f"t = Identity(a)\n b = {order}", HELD), "BN204")


def test_quotients() -> None:
    gone(above("g = Sigmoid(z)\n b = Div(a, g)", stats=SCALES))
    gone(below("g = Sigmoid(z)\n b = Div(a, g)", stats=SCALES))
    stays(below("g = Sigmoid(z)\n b = Div(a, g)"), "BN207")
    stays(below("g = Sigmoid(z)\n b = Div(z, a)", stats=SCALES), "BN215")
    fold_and_compare(above("g = Sigmoid(a)\n b = Div(z, g)", stats=SCALES))
    stays(above("g = Sigmoid(a)\n b = Div(g, g)", stats=SCALES), "BN201")


def test_a_constant_over_a_value() -> None:
    gone(above("g = Sigmoid(a)\n b = Div(k, g)", HELD, stats=SCALES))
    stays(above("g = Sigmoid(a)\n b = Div(k, g)", HELD), "BN207")


def test_a_scale_of_zero_does_not_divide() -> None:
    zero = {**SCALES, "scale": np.array([0, 1.5, 0, -2], np.float32)}
    gone(above("t = Identity(a)\n b = Div(t, full)", HELD, stats=zero))


@pytest.mark.filterwarnings("error")
def test_a_division_by_zero_is_left_alone() -> None:
    held = {"full": HELD["full"] * (np.arange(4) > 0)}
    model = below("t = Identity(a)\n b = Div(t, full)", held, end="c = IsInf(b)\n y = Cast <to=1> (c)")
    assert "BatchNormalization" in operators(fold_and_compare(model).model)


def test_dual_path_and_dual_consumer() -> None:
    """TVM's FoldScaleAxis: one scale before two consumers, and one behind two producers."""
    end = "p = Conv(b, w)\n q = Conv(b, u)\n y = Add(p, q)"
    gone(
        below(
            "b = Relu(a)",
            {"u": weight(5, 4, 2, 2, seed=9)},
            stats={n: np.abs(a) for n, a in SCALES.items()},
            end=end,
        )
    )
    stays(below("b = Relu(a)", {"u": weight(5, 4, 2, 2, seed=9)}, stats=SCALES, end=end), "BN206")
    other = below("b = Identity(a)", end="y = Conv(b, w)\n q = Sigmoid(b)", outputs="float y, float q")
    stays(other, "BN201")


def test_a_negated_value_takes_the_scale_and_the_negated_shift() -> None:
    gone(above("b = Neg(a)"))
    gone(below("b = Neg(a)"))
    gone(above("c = Neg(a)\n b = Neg(c)"))
    stays(above("c = Sigmoid(a)\n b = Neg(c)"), "BN201")
