"""Which element types a target computes in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from bnfold.graph.nodes import label
from bnfold.runtime.interface import dtype_name, interface
from bnfold.targets.obstacle import IS, Obstacle, counted
from bnfold.targets.view import View, grouped

_COMPUTES = ("computes", "compute")


@dataclass(frozen=True)
class Types:
    """The element types that are taken.

    Attributes:
        allowed: Them, as `"float32"`.
        of: Of what: of the model's `"inputs"`, or of all `"values"` that nodes compute.
    """

    allowed: tuple[str, ...]
    of: Literal["inputs", "values"] = "values"

    def look(self, view: View) -> Iterator[Obstacle]:
        """Name the inputs or the nodes of each type that is not taken."""
        if self.of == "inputs":
            found = [(port.type, port.name) for port in interface(view.model).inputs]
        else:
            found = [
                (dtype_name(dtype), label(node))
                for node in view.nodes
                for value in node.outputs[:1]
                if (dtype := view.facts.dtype(value)) is not None
            ]
        one, verbs = ("input", IS) if self.of == "inputs" else ("node", _COMPUTES)
        wrong = [(name, site) for name, site in found if name not in self.allowed]
        for name, sites in grouped(wrong).items():
            yield counted(one, verbs, f"in {name}, which is not taken", sites)
