"""A result becomes JSON values field by field."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from bnfold.report.record import record
from bnfold.system.environment import environment


@dataclass(frozen=True)
class Part:
    """What a whole has several of."""

    value: float
    sizes: tuple[int, ...] = ()

    @property
    def double(self) -> float:
        return 2 * self.value


@dataclass(frozen=True)
class Whole:
    """A result with parts."""

    parts: tuple[Part, ...]
    by_name: dict[str, Part]
    hidden: object = None


def test_fields_then_properties_in_order() -> None:
    whole = Whole((Part(1.5, (2, 3)), Part(math.nan)), {"x": Part(math.inf)})
    assert record(whole, without=("hidden",)) == {
        "parts": [{"value": 1.5, "sizes": [2, 3]}, {"value": None, "sizes": []}],
        "by_name": {"x": {"value": None, "sizes": []}},
    }
    assert list(record(Part(1.0), "double").items()) == [("value", 1.0), ("sizes", []), ("double", 2.0)]


def test_this_machine_is_json() -> None:
    here = record(environment())
    assert json.loads(json.dumps(here)) == here
