"""Which operators a target has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from bnfold.graph.nodes import label
from bnfold.graph.scopes import ONNX_DOMAINS
from bnfold.targets.obstacle import IS, Obstacle, counted
from bnfold.targets.view import View, grouped, operator


@dataclass(frozen=True)
class Operators:
    """The operators that are taken, or those that are not.

    Attributes:
        allowed: The only ones that are taken, as `"Conv"` or `"com.microsoft::Gelu"`; empty where the
            documentation lists none.
        refused: Those that are not taken.
        domains: Domains all of whose operators are taken, next to ONNX's own.
    """

    allowed: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()

    def look(self, view: View) -> Iterator[Obstacle]:
        """Name the nodes of each operator that is not taken."""
        missing = [(operator(node), label(node)) for node in view.nodes if not self._takes(node)]
        for name, sites in grouped(missing).items():
            yield counted(name, IS, "not among the operators that the target has", sites)

    def _takes(self, node: ir.Node) -> bool:
        name = operator(node)
        if name in self.allowed:
            return True
        if node.domain not in ONNX_DOMAINS:
            return node.domain in self.domains and name not in self.refused
        return not self.allowed and name not in self.refused
