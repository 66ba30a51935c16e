"""The covering arrays of the tests cover what they promise."""

from __future__ import annotations

import itertools

from tests.pairwise import pairwise


def test_every_two_values_of_two_parameters_meet_in_few_cases() -> None:
    values = {"a": "pqrs", "b": (1, 2, 3), "c": (None, print, 0), "d": (False, True)}
    names, cases = pairwise(**values).args
    assert names == ("a", "b", "c", "d")
    for first, second in itertools.combinations(range(4), 2):
        met = {(case.values[first], case.values[second]) for case in cases}
        assert met == set(itertools.product(values[names[first]], values[names[second]]))
    assert 12 <= len(cases) <= 15, "of 72"
    assert len({case.id for case in cases}) == len(cases)
    assert pairwise(**values) == pairwise(**values)
