"""Identity, Dropout, Cast: nothing happens, so everything passes."""

from __future__ import annotations

import numpy as np
import pytest

from tests.graphs import build, fold_and_compare, operators, weight
from tests.ops.sandwich import above, below, gone, settled, statistics, stays

HELD = {"ratio": np.float32(0.4), "off": np.bool_(False), "on": np.bool_(True), "like": weight(2)}


@pytest.mark.parametrize(
    ("lines", "opset"),
    [
        ("b = Identity(a)", 18),
        ("b = Dropout(a)", 18),
        ("b = Dropout(a, ratio)", 13),
        ("b = Dropout(a, ratio, off)", 12),
        ("b, m = Dropout(a, ratio, off)", 18),
        ("b = Dropout <ratio=0.5> (a)", 7),
        ("b = Dropout <ratio=0.5> (a)", 10),
        ("b = Cast <to=1> (a)", 18),
        ("b = CastLike(a, like)", 18),
        ("c = Identity(a)\n d = Dropout(c)\n e = Cast <to=1> (d)\n b = Identity(e)", 18),
    ],
)
@pytest.mark.parametrize("build_", [above, below])
def test_both_directions(lines: str, opset: int, build_: object) -> None:
    gone(build_(lines, HELD, opset=opset))  # type: ignore[operator]


def test_dropout_that_may_train_stays() -> None:
    end = "y = BatchNormalization(b, scale, bias, mean, var)"
    training = above("b = Dropout(a, zero, on)", {**HELD, "zero": np.float32(0)}, end=end)
    stays(training, "BN210")
    caller = build(
        "g (float[2,3,6,6] x, bool t) => (float y) { a = Conv(x, w)\n b = Dropout(a, zero, t)\n "
        + end
        + " }",
        {"w": weight(4, 3, 3, 3), "zero": np.float32(0), **statistics(4)},
    )
    stays(settled(caller), "BN210")


def test_a_mask_that_is_read_stays() -> None:
    stays(above("b, m = Dropout(a)", outputs="float y, bool m"), "BN210")


def test_a_cast_that_rounds_stays() -> None:
    half = "c = Cast <to=10> (a)\n b = Cast <to=1> (c)"
    for model in (above(half), below(half)):
        result = stays(model, "BN212")
        assert operators(result.model) == operators(model)


def test_two_batchnorms_in_a_row_that_a_passthrough_separates() -> None:
    """The first goes into the second before the second goes on: both have to arrive."""
    second = "y = BatchNormalization(b, scale, bias, mean, var)"
    gone(below(f"b = Dropout(a)\n {second.replace('y =', 'c =')}", end="y = Conv(c, w)"))
    gone(above("c = BatchNormalization(a, scale, bias, mean, var)\n b = Identity(c)"))


def test_an_affine_that_a_passthrough_separates_from_its_batchnorm() -> None:
    gone(below("t = Identity(a)\n b = Mul(t, k)", {"k": weight(4, 1, 1)}))
    gone(below("t = Identity(a)\n b = Add(t, k)", {"k": weight(4, 1, 1)}))


@pytest.mark.parametrize(
    ("signature", "lines"),
    [
        ("float[2,4] x) => (float[2,4] y", "y = Mul(x, one)"),
        ("float[2,4] x) => (float[2,4] y, float[2,4] z", "y = Mul(x, one)\n z = Mul(x, one)"),
        ("float[2,4] x) => (float[2,4] y, float[2,4] a", "a = Relu(x)\n y = Mul(a, one)"),
        ("float[2,4] x) => (float[2,4] y, float[2,4] z", "a = Relu(x)\n y = Mul(a, one)\n z = Mul(a, one)"),
        (
            "bool c, float[2,4] x) => (float[2,4] y",
            "a = Relu(x)\n y = If(c) <then_branch = t () => (float[2,4] p) { p = Mul(a, one) },"
            " else_branch = e () => (float[2,4] q) { q = Neg(a) }>",
        ),
    ],
)
def test_an_affine_that_does_nothing_keeps_the_interface(signature: str, lines: str) -> None:
    fold_and_compare(build(f"g ({signature}) {{ {lines} }}", {"one": np.ones(4, np.float32)}))
