"""Add, Sub and Sum: the scale to every term, the shift to one."""

from __future__ import annotations

import numpy as np
import pytest

from tests.graphs import build, fold_and_compare, operators, weight
from tests.ops.sandwich import BATCHNORM, above, below, gone, settled, statistics, stays
from tests.pairwise import pairwise

SHIFT = {
    "k": weight(4, 1, 1),
    "one": weight(1),
    "n": np.float32(0.7),
    "full": weight(2, 4, 4, 4),
    "last": weight(4),
    "up": weight(3, 1, 1, 1, 1),
}
ONLY_SHIFT = {
    "scale": np.ones(4),
    "bias": np.array([1.0, -2, 0.5, 3]),
    "mean": np.zeros(4),
    "var": np.ones(4),
}
SHIFTS = {name: array.astype(np.float32) for name, array in ONLY_SHIFT.items()}


@pytest.mark.parametrize("op", ["Add", "Sub", "Sum"])
def test_two_values(op: str) -> None:
    model = build(
        f"g (float[2,3,6,6] x) => (float y) {{ a = Conv(x, w)\n c = Conv(x, v)\n"
        f" b = {op}(a, c)\n {BATCHNORM} }}",
        {"w": weight(4, 3, 3, 3), "v": weight(4, 3, 3, 3, seed=4), **statistics(4)},
    )
    gone(settled(model))


@pytest.mark.parametrize("lines", ["b = Add(a, a)", "b = Sum(a, a, a)", "c = Identity(a)\n b = Add(c, c)"])
def test_a_value_added_to_itself_counts_once(lines: str) -> None:
    gone(above(lines))


def test_a_value_minus_itself() -> None:
    model = above("b = Sub(a, a)")
    fold_and_compare(model)
    mixed = above("d = Sub(a, a)\n b = Sum(d, a)")
    fold_and_compare(mixed)


@pairwise(
    constant=["k", "one", "n", "full", "last"], order=["{op}(t, {c})", "{op}({c}, t)"], op=["Add", "Sub"]
)
def test_constants_of_every_broadcast_shape(constant: str, order: str, op: str) -> None:
    """A Relu-free path up whose constant takes its part, whichever axis it varies along."""
    lines = f"t = Identity(a)\n b = {order.format(op=op, c=constant)}"
    gone(above(lines, SHIFT))
    fold_and_compare(below(lines, SHIFT))


def test_a_constant_that_makes_the_value_larger() -> None:
    model = above("c = Add(a, up)\n b = Identity(c)", SHIFT, end="y = Relu(b)")
    fold_and_compare(model)
    grown = build(
        "g (float[4,5] x) => (float y) { a = MatMul(x, w)\n b = Add(a, up)\n" + BATCHNORM + " }",
        {"w": weight(5, 6), "up": weight(2, 4, 1), **statistics(4)},
    )
    stays(settled(grown), "BN204", "BN213")


def test_sum_with_a_constant_term() -> None:
    gone(above("b = Sum(a, k, n)", SHIFT))


def test_a_term_that_is_broadcast_along_the_channels_stays() -> None:
    model = build(
        "g (float[2,3,6,6] x) => (float y) { a = Conv(x, w)\n c = Conv(x, v)\n b = Add(a, c)\n"
        + BATCHNORM
        + " }",
        {"w": weight(4, 3, 3, 3), "v": weight(1, 3, 3, 3, seed=4), **statistics(4)},
    )
    stays(settled(model), "BN213")


def test_a_term_that_is_broadcast_off_the_channels_folds() -> None:
    model = build(
        "g (float[2,3,4,4] x) => (float y) { a = Conv(x, w)\n c = Conv(x, v)\n b = Add(a, c)\n"
        + BATCHNORM
        + " }",
        {"w": weight(4, 3, 1, 1), "v": weight(4, 3, 4, 4, seed=4), **statistics(4)},
    )
    gone(settled(model))


def test_a_term_of_lower_rank_is_aligned_from_the_right() -> None:
    """C is [4, 4]: its first axis meets the rows and not the channels, though sizes agree."""
    model = build(
        "g (float[2,3,4,4] x, float[4,5] z) => (float y) { a = Conv(x, w)\n c = MatMul(z, v)\n"
        " b = Add(a, c)\n"
        + BATCHNORM + " }",
        {"w": weight(4, 3, 1, 1), "v": weight(5, 4), **statistics(4)},
    )  # fmt: skip
    stays(settled(model), "BN213")


def test_every_term_has_to_absorb() -> None:
    stays(above("c = Sigmoid(z)\n b = Add(a, c)"), "BN201")
    stays(above("b = Add(a, z)"), "BN304")


def test_a_scale_does_not_enter_a_sum_of_values() -> None:
    stays(below("c = Sigmoid(z)\n b = Add(a, c)"), "BN201")


def test_a_plain_shift_goes_on_through_a_sum() -> None:
    start = "s = Sigmoid(x)\n a = BatchNormalization <epsilon=0.0> (s, scale, bias, mean, var)"
    for sum_ in ("Add(a, z)", "Sub(z, a)", "Sum(z, a)", "Add(a, a)"):
        signature = "float[2,4,4,4] x, float[2,4,4,4] z" if "z" in sum_ else "float[2,4,4,4] x"
        model = build(
            f"g ({signature}) => (float y) {{ {start}\n b = {sum_}\n y = Conv(b, w) }}",
            {"w": weight(5, 4, 2, 2), **SHIFTS},
        )
        gone(settled(model))


def test_the_sign_of_a_subtrahend() -> None:
    gone(above("c = Conv(z, v)\n b = Sub(c, a)", {"v": weight(4, 4, 1, 1)}))


def test_a_graph_output_on_the_way_stays() -> None:
    model = above("b = Add(a, a)", outputs="float y, float b")
    assert "BatchNormalization" in operators(stays(model, "BN302").model)


def test_branches_that_are_rescaled() -> None:
    model = build(
        "g (float[2,3,4,4] x) => (float y, float z) { a = Conv(x, w)\n b = Conv(x, v)\n c = Add(a, b)\n"
        " y = Div(c, k)\n z = MatMul(c, m) }",
        {"w": weight(4, 3, 1, 1), "v": weight(4, 3, 1, 1, seed=5), "k": np.float32([2]), "m": weight(4, 4)},
    )
    fold_and_compare(settled(model))
