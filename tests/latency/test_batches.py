"""One sample, repeated to every batch size."""

from __future__ import annotations

import numpy as np
import pytest

from bnfold.errors import InputError, ModelError
from bnfold.latency.batches import by_batch
from bnfold.runtime.interface import Port
from bnfold.runtime.sessions import Feeds

FREE = (Port("x", "float32", ("N", 2)), Port("k", "float32", (3,)))
GIVEN = {"x": np.array([[1, 2], [3, 4]], np.float32), "k": np.ones(3, np.float32)}


def take(_: Feeds) -> list[object]:
    return []


def test_without_sizes_the_sample_is_taken_as_it_is() -> None:
    made = by_batch(FREE, take, GIVEN, (), 0)
    assert list(made) == [None]
    np.testing.assert_array_equal(made[None]["x"], GIVEN["x"])
    assert by_batch(FREE, take, None, (), 0)[None]["x"].shape == (1, 2)


def test_rows_are_repeated_where_the_batch_is_free() -> None:
    made = by_batch(FREE, take, GIVEN, (1, 3), 0)
    assert {batch: feeds["x"].tolist() for batch, feeds in made.items()} == {
        1: [[1, 2]],
        3: [[1, 2], [3, 4], [1, 2]],
    }
    assert all(feeds["k"].shape == (3,) for feeds in made.values())
    assert by_batch(FREE, take, None, (4, 4), 0)[4]["x"].shape == (4, 2)


def test_a_fixed_batch_size_is_said() -> None:
    with pytest.raises(InputError, match="is fixed, so it cannot be 8") as caught:
        by_batch((Port("x", "float32", (1, 2)),), take, None, (8,), 0)
    assert "--dynamic batch" in caught.value.fix


def test_a_size_that_the_model_rejects_is_told() -> None:
    def run(feeds: Feeds) -> list[object]:
        if len(feeds["x"]) > 2:
            raise ModelError("Too many.")
        return []

    with pytest.raises(InputError, match="Too many"):
        by_batch(FREE, run, GIVEN, (2, 3), 0)
