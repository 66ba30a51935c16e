"""How a target wants constants to be written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bnfold.graph.constants import held
from bnfold.graph.nodes import label
from bnfold.targets.obstacle import Obstacle, counted
from bnfold.targets.view import View


@dataclass(frozen=True)
class PlainConstants:
    """Constants hold tensors; numbers (`value_ints` and the like) are not read."""

    def look(self, view: View) -> Iterator[Obstacle]:
        """Name the Constants that hold numbers."""
        numbers = [
            label(node)
            for node in view.facts.nodes()
            if "value" not in node.attributes and held(node) is not None
        ]
        if numbers:
            yield counted("Constant", ("holds", "hold"), "numbers, and only tensors are read", numbers)
