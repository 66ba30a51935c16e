"""Outputs that are recorded, so that a session need not stay."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest

from bnfold.errors import ModelError
from bnfold.validation.recorded import Recorded

SMALL, LARGE = np.arange(6.0).reshape(2, 3), np.arange(400_000, dtype=np.int64).reshape(4, -1)
WORDS = np.array(["a", "bc"] * 100_000, dtype=object)


class Session:
    """Counts its runs; rejects inputs named `bad`."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, feeds: Any) -> list[Any]:
        self.runs += 1
        if "bad" in feeds:
            raise ModelError("It does not fit.")
        return [SMALL + self.runs, LARGE[:, ::2] + self.runs, WORDS, np.float32(2.0) * np.ones(()), None]


def _recorded() -> tuple[Recorded, list[weakref.ref[Session]]]:
    made: list[weakref.ref[Session]] = []

    def start() -> Session:
        session = Session()
        made.append(weakref.ref(session))
        return session

    return Recorded(start, lambda session, feeds: session(feeds)), made


def test_what_is_recorded_is_not_run_again_and_needs_no_session() -> None:
    recorded, made = _recorded()
    one, other = {"x": SMALL}, {"x": SMALL}
    ticks: list[int] = []
    recorded.record([one, other], lambda: ticks.append(1))
    assert len(ticks) == 2
    assert [session() for session in made] == [None], "the session is closed"
    for _ in range(2):  # what is in the file is read each time
        for number, feeds in enumerate((one, other), start=1):
            small, large, words, scalar, nothing = recorded.run(feeds)
            assert np.array_equal(small, SMALL + number)
            assert np.array_equal(large, LARGE[:, ::2] + number)
            assert large.dtype == np.int64
            assert list(words) == list(WORDS)
            assert scalar == 2.0
            assert nothing is None
    assert len(made) == 1


def test_other_inputs_and_a_second_run_open_the_session_again() -> None:
    recorded, made = _recorded()
    recorded.record([one := {"x": SMALL}])
    assert np.array_equal(recorded.again(one)[0], SMALL + 1)
    assert np.array_equal(recorded.run({"x": SMALL})[0], SMALL + 2)
    assert len(made) == 2


def test_a_rejection_is_recorded() -> None:
    recorded, made = _recorded()
    recorded.record([bad := {"bad": SMALL}])
    for _ in range(2):
        with pytest.raises(ModelError, match="does not fit"):
            recorded.run(bad)
    assert len(made) == 1
    assert recorded.broken is None


def test_a_session_that_cannot_be_made_is_tried_once() -> None:
    tries: list[int] = []

    def start() -> Any:
        tries.append(1)
        raise ModelError("No kernel.")

    recorded = Recorded(start, lambda *_: [])
    recorded.record([one := {"x": SMALL}])
    for _ in range(2):
        with pytest.raises(ModelError, match="No kernel"):
            recorded.run(one)
    assert (tries, str(recorded.broken)) == ([1], "No kernel.")
