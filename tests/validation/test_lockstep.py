"""Evaluations side by side: what is compared, what replaces what, and what is forgotten."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from bnfold.validation.lockstep import Steps, TrueValue, walk

TRUTH = {"a": 1.0, "b": 3.0, "y": 7.0}


def evaluation(formulas: dict[str, Any], made: list[weakref.ref] | None = None) -> Steps:
    """Values by name, each from a dict of those before it; what is sent replaces them."""

    def steps() -> Iterator[tuple[str, Any]]:
        values: dict[str, Any] = {}
        for name, formula in formulas.items():
            value = np.array([1.0, 2.0]) * formula(values)
            if made is not None:
                made.append(weakref.ref(value))
            values[name] = float(value[0])
            other = yield name, value
            if other is not None:
                values[name] = float(other[0])
            del value, other
        return []

    return steps()  # type: ignore[return-value]


def plain(factor: float = 1.0, offset: float = 0.0) -> dict[str, Any]:
    return {
        "a": lambda _: 1.0 * factor,
        "b": lambda values: values["a"] + 2.0 + offset,
        "y": lambda values: values["b"] + 4.0,
    }


def unseen(*_: object) -> None:
    """Nobody looks."""


def errors(other: dict[str, Any], *, pinned: bool) -> dict[str, tuple[float, ...]]:
    found = walk(
        evaluation(plain()), [(evaluation(other), unseen)], ["a", "b", "y"], pinned=pinned, watch=unseen
    )
    return {name: one.errors[0] for name, one in found.items()}


def test_a_pinned_value_passes_its_error_on_to_nobody() -> None:
    assert errors(plain(1.5), pinned=True) == {"a": (0.5,), "b": (0.0,), "y": (0.0,)}
    found = errors(plain(1.5), pinned=False)
    assert found == {"a": (0.5,), "b": pytest.approx((0.5 / 3,)), "y": pytest.approx((0.5 / 7,))}


def test_two_errors_do_not_hide_each_other() -> None:
    assert errors(plain(1.5, -0.5), pinned=True)["b"] == pytest.approx((0.5 / 3,))
    assert errors(plain(1.5, -0.5), pinned=False)["b"] == (0.0,)


def test_another_order_and_values_that_one_alone_has_are_no_hindrance() -> None:
    other = {
        "new": lambda _: 9.0,
        "b": lambda _: 3.0,
        "a": lambda _: 1.0,
        "y": lambda values: values["b"] + 4,
    }
    assert errors(other, pinned=True) == {"a": (0.0,), "b": (0.0,), "y": (0.0,)}
    assert errors({"y": lambda _: 7.0}, pinned=True) == {"a": (), "b": (), "y": (0.0,)}


def test_everybody_sees_the_values_in_order() -> None:
    seen: list[str] = []
    watched: list[str] = []
    others = [(evaluation(plain()), lambda name, _: watched.append(name)) for _ in range(2)]
    walk(evaluation(plain()), others, ["y"], pinned=True, watch=lambda name, _: seen.append(name))
    assert (seen, sorted(watched)) == (["a", "b", "y"], ["a", "a", "b", "b", "y", "y"])


def test_a_true_value_is_forgotten_once_all_were_compared_with_it() -> None:
    made: list[weakref.ref] = []
    alive: list[int] = []

    def count(*_: object) -> None:
        alive.append(sum(one() is not None for one in made))

    chain = {"v0": lambda _: 1.0}
    chain |= {f"v{i}": lambda values, i=i: values[f"v{i - 1}"] + 1.0 for i in range(1, 50)}
    others = [(evaluation(chain), unseen) for _ in range(3)]
    walk(evaluation(chain, made), others, list(chain), pinned=True, watch=count)
    assert max(alive) <= 3


def test_each_group_of_channels_has_an_error_of_its_own() -> None:
    rng = np.random.default_rng(1)
    truth = TrueValue(rng.normal(size=(3, 4)) * [1.0, 1.0, 1e-5, 1.0], 1)
    other = truth.value.copy()
    other[:, 2] *= 1.1
    large, small = truth.errors(other)
    assert (large, small) == (0.0, pytest.approx(0.1))
    assert truth.errors(truth.value) == (0.0, 0.0)
    assert truth.errors(truth.value[:2]) == (math.inf, math.inf)


def test_what_is_not_finite_must_be_the_same() -> None:
    truth = TrueValue(np.array([1.0, np.nan, np.inf]), 1)
    assert truth.errors(truth.value.copy()) == (0.0,)
    assert truth.errors(np.array([1.0, 2.0, np.inf])) == (math.inf,)
    assert truth.errors(np.array([1.5, np.nan, np.inf])) == (0.5,)
