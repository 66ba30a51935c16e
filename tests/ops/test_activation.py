"""Relu, LeakyRelu, PRelu, Abs: a positive scale without a shift passes; nothing else passes anything."""

from __future__ import annotations

import numpy as np
import pytest

from tests.graphs import positive, weight
from tests.ops.sandwich import above, below, gone, statistics, stays

NO_SHIFT = {"bias": np.zeros(4, np.float32), "mean": np.zeros(4, np.float32)}
POSITIVE = {**positive(statistics(4)), **NO_SHIFT}
HELD = {
    "slope": np.array([0.3, -0.5, 1.2, 0.1], np.float32).reshape(4, 1, 1),
    "last": weight(4),
    "one": weight(1),
}
LINES = [
    "b = Relu(a)",
    "b = LeakyRelu <alpha=0.3> (a)",
    "b = PRelu(a, slope)",
    "b = PRelu(a, last)",
    "b = PRelu(a, one)",
    "b = Abs(a)",
]


@pytest.mark.parametrize("lines", LINES)
@pytest.mark.parametrize("build", [above, below])
def test_a_positive_scale_passes(lines: str, build: object) -> None:
    gone(build(lines, HELD, stats=POSITIVE))  # type: ignore[operator]


@pytest.mark.parametrize("lines", LINES)
@pytest.mark.parametrize("build", [above, below])
def test_a_negative_scale_or_a_shift_does_not(lines: str, build: object) -> None:
    stays(build(lines, HELD, stats={**statistics(4), **NO_SHIFT}), "BN206")  # type: ignore[operator]
    stays(build(lines, HELD, stats={**POSITIVE, "bias": weight(4)}), "BN207")  # type: ignore[operator]


@pytest.mark.parametrize("lines", LINES)
def test_a_scale_of_zero_passes(lines: str) -> None:
    gone(above(lines, HELD, stats={**POSITIVE, "scale": np.array([0, 1, 0, 2], np.float32)}))


def test_a_slope_that_is_computed_may_be_anything() -> None:
    gone(above("c = Sigmoid(z)\n b = PRelu(a, c)", stats=POSITIVE))


def test_the_slope_itself_takes_nothing() -> None:
    stays(below("b = PRelu(z, a)", stats=POSITIVE), "BN201")
    stays(below("b = PRelu(a, a)", stats=POSITIVE), "BN201")
    stays(above("b = PRelu(a, a)", stats=POSITIVE), "BN301")


@pytest.mark.parametrize(
    "op", ["Sigmoid", "Tanh", "Elu", "Selu", "Softplus", "HardSigmoid", "Softmax", "Clip"]
)
def test_other_activations_commute_with_nothing(op: str) -> None:
    stays(above(f"b = {op}(a)", stats=POSITIVE), "BN201")
    stays(below(f"b = {op}(a)", stats=POSITIVE), "BN201")


@pytest.mark.parametrize("op", ["Exp", "Sqrt", "Reciprocal", "Trilu"])
def test_of_what_might_let_something_pass_it_is_only_said_that_there_is_no_rule(op: str) -> None:
    held = below("c = Exp(a)\n b = Identity(c)" if op == "Sqrt" else f"b = {op}(a)", stats=POSITIVE)
    stays(held, "BN215")
    stays(above(f"c = Exp(a)\n b = {op}(c)", stats=POSITIVE), "BN215")
