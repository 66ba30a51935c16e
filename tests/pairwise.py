"""Fewer cases than the full product of some parameters: every two values of two parameters meet in one."""

from __future__ import annotations

import itertools
from collections.abc import Collection

import pytest

Pairs = frozenset[tuple[tuple[int, int], tuple[int, int]]]


def pairwise(**values: Collection[object]) -> pytest.MarkDecorator:
    """Parametrise a test so that every pair of values of two parameters occurs; the same cases every time."""
    columns = [list(column) for column in values.values()]
    product = itertools.product(*(range(len(column)) for column in columns))
    left: dict[tuple[int, ...], Pairs] = {
        row: frozenset(itertools.combinations(enumerate(row), 2)) for row in product
    }
    missing = set().union(*left.values())
    cases = []
    while missing:
        best = max(left, key=lambda row: len(missing & left[row]))  # the first of the best
        missing -= left.pop(best)
        case = [column[index] for column, index in zip(columns, best, strict=True)]
        cases.append(pytest.param(*case, id="-".join(str(getattr(v, "__name__", v)) for v in case)))
    return pytest.mark.parametrize(tuple(values), cases)
