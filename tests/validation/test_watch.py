"""Flags for branches, rows and channels are all that is kept of the values."""

from __future__ import annotations

import numpy as np
import pytest

from bnfold.oracle.oracle import Oracle
from bnfold.runtime.interface import as_ir
from bnfold.validation.watch import Channels, Table, Watch
from tests.graphs import build, weight


def channels(*values: np.ndarray) -> Channels:
    found = Channels("r", "Relu")
    for value in values:
        found.add(value)
    return found


@pytest.mark.parametrize("shape", [(2, 6), (2, 6, 5), (2, 6, 9, 11), (1, 6, 1, 1, 40), (0, 6)])
def test_every_element_counts_wherever_it_is(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    for member in range(6):
        value = np.zeros(shape)
        if value.size:
            place = tuple(rng.integers(size) for size in shape)
            value[(place[0], member, *place[2:])] = np.nan if member == 3 else 1e-300
        axis, dead = channels(value).dead([])
        assert np.flatnonzero(~dead).tolist() == ([member] if value.size else [])
        assert axis == (1 if value.size else None)


def test_channels_may_be_last_and_add_up_over_values() -> None:
    values = [np.ones((1, 5, 4)), np.ones((1, 7, 4))]
    for value in values:
        value[..., 1] = 0
    axis, dead = channels(*values).dead([])
    assert (axis, dead.tolist()) == (2, [False, True, False, False])
    values[1][0, 6, 1] = 3
    assert not channels(*values).dead([])[1].any()


def test_slices_along_an_axis_that_changes_are_not_counted() -> None:
    longer = np.eye(4)[:, :3]
    shorter = np.zeros((4, 2))
    assert not channels(longer * [1, 1, 0], shorter).dead([])[1].any()
    assert channels(longer * [1, 1, 0]).dead([])[1].tolist() == [False, False, True]
    assert channels(shorter, np.zeros((1, 9))).dead([]) == (None, np.ones(1, np.bool_))


def test_integers_lists_and_what_never_ran_have_no_channels() -> None:
    assert not channels(np.zeros((1, 3), np.int64), [np.zeros(3)]).ran
    assert not channels().dead([])[1].any()


def test_indices_from_the_end_are_rows_too() -> None:
    table = Table("g", "t")
    table.add(5, np.array([[0, -1], [2, 0]]))
    assert np.flatnonzero(~table.met).tolist() == [1, 3]


def test_the_oracle_computes_the_same_under_watch() -> None:
    model = as_ir(
        build(
            """g (float[2,4] x, int64[3] k) => (float[2,3] y, float[3,4] e) {
                a = MatMul (x, w) y = Relu (a) e = Gather (t, k)
            }""",
            {"w": weight(4, 3), "t": weight(9, 4)},
        )
    )
    watch = Watch(model)
    feeds = {"x": weight(2, 4, seed=5), "k": np.array([1, 8, 1])}
    plain, watched = Oracle(model).run(feeds), Oracle(model, choose=watch.choose).run(feeds)
    for one, other in zip(plain, watched, strict=True):
        np.testing.assert_array_equal(one, other)
    assert watch.seen[:2] == (0, 2)
    (table,) = watch.tables.values()
    assert (table.source, np.flatnonzero(table.met).tolist()) == ("t", [1, 8])
