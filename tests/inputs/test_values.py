"""Every kind of values is what its name says, in every type."""

from __future__ import annotations

import numpy as np
import pytest

from bnfold.inputs import values
from bnfold.inputs.values import FURTHER_KINDS, KINDS


def drawn(type_name: str, kind: str, shape: tuple[int, ...] = (4000,), ceiling: int = 100) -> np.ndarray:
    rng = np.random.default_rng(0)
    return values.draw_values(rng, type_name, shape, kind=kind, ceiling=ceiling)


@pytest.mark.parametrize("type_name", sorted(values.DRAWN))
def test_every_type_has_every_kind(type_name: str):
    for kind in (*KINDS, *FURTHER_KINDS):
        array = drawn(type_name, kind, (2, 3))
        assert array.dtype == (object if type_name == "string" else type_name)
        assert array.shape == (2, 3)
        assert np.shape(drawn(type_name, kind, ())) == ()
        assert drawn(type_name, kind, (0, 2)).shape == (0, 2)


@pytest.mark.parametrize("type_name", sorted(values.NUMPY_FLOATS))
def test_floats(type_name: str):
    by_kind = {kind: drawn(type_name, kind) for kind in KINDS}
    assert abs(by_kind["normal"].mean(dtype=float)) < 0.1
    assert 0.9 < by_kind["normal"].std(dtype=float) < 1.1
    assert 0 <= by_kind["uniform"].min() < 0.01 < 0.99 < by_kind["uniform"].max() <= 1
    assert set(by_kind["zeros"]) == {0}
    assert set(by_kind["ones"]) == {1}
    scale = 16 if type_name == "float16" else 1000
    np.testing.assert_allclose(by_kind["large"].astype(float), by_kind["normal"] * float(scale), rtol=1e-3)


@pytest.mark.parametrize("type_name", sorted(values.NUMPY_FLOATS))
def test_kinds_for_what_the_others_leave_at_zero(type_name: str):
    one_sided, flat, spikes = (drawn(type_name, kind, (4, 6, 50)).astype(float) for kind in FURTHER_KINDS)
    assert len(np.unique(np.sign(one_sided[one_sided != 0]))) == 1
    assert (np.ptp(flat, axis=2) == 0).all()
    assert len(np.unique(flat)) == 24
    assert 0.01 < (spikes != 0).mean() < 0.1
    assert all(np.isfinite(array).all() for array in (one_sided, flat, spikes))


@pytest.mark.parametrize("type_name", sorted(values.NUMPY_FLOATS))
def test_tiny_floats_are_normal_numbers_of_both_signs(type_name: str):
    tiny = drawn(type_name, "tiny", (100_000,)).astype(float)
    assert np.abs(tiny).min() >= np.finfo(np.float16).tiny
    assert 5e-4 < np.abs(tiny).mean() < 2e-3
    assert 0.45 < (tiny < 0).mean() < 0.55


@pytest.mark.parametrize("type_name", sorted(values.BYTES))
def test_bytes(type_name: str):
    bounds = np.iinfo(type_name)
    for kind in ("normal", "uniform"):
        assert (drawn(type_name, kind).min(), drawn(type_name, kind).max()) == (bounds.min, bounds.max)
    assert set(drawn(type_name, "large")) == {bounds.max}
    assert set(drawn(type_name, "tiny")) == {0, 1}


@pytest.mark.parametrize("type_name", sorted(values.WIDE_INTEGERS))
def test_wider_integers_stay_below_the_ceiling(type_name: str):
    for kind in ("normal", "uniform"):
        assert set(drawn(type_name, kind)) == set(range(100))
    assert set(drawn(type_name, "large")) == {99}
    assert all(set(drawn(type_name, kind, ceiling=2)) <= {0, 1} for kind in KINDS)


def test_bools_and_strings():
    assert not drawn("bool", "zeros").any()
    assert drawn("bool", "ones").all()
    assert all(1800 < drawn("bool", kind).sum() < 2200 for kind in ("normal", "uniform", "large", "tiny"))
    assert set(drawn("string", "zeros")) == {"a", "b", "c"}


def test_conversions_that_lose_nothing():
    assert values.converted(np.full(2, 0.5), "float32").dtype == np.float32
    assert values.converted(np.full(2, np.inf), "float16").dtype == np.float16
    assert values.converted(np.array([1, 200], np.int64), "uint8").dtype == np.uint8
    assert values.converted(np.array([1, 2]), "float32").dtype == np.float32
    assert values.converted(np.array(["a", "bc"]), "string").dtype == object


@pytest.mark.parametrize(
    ("array", "type_name"),
    [
        (np.full(2, 1e30), "float16"),
        (np.full(2, 1.0), "int64"),
        (np.array([300]), "uint8"),
        (np.array([-1]), "uint8"),
        (np.array([2**24 + 1]), "float32"),
        (np.array([1]), "bool"),
        (np.array([True]), "float32"),
        (np.array([1.0]), "string"),
        (np.array([1.0]), "bfloat16"),
        (np.array([1j]), "float32"),
    ],
)
def test_conversions_that_would_lose(array: np.ndarray, type_name: str):
    assert values.converted(array, type_name) is None
