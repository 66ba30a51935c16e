"""A model as the rules of targets look at it."""

from __future__ import annotations

from functools import cached_property

import onnx_ir as ir

from bnfold.graph.facts import Facts
from bnfold.graph.scopes import ONNX_DOMAINS


class View:
    """A model, and what several rules ask of it.

    Attributes:
        model: The model.
        facts: What is known of it.
    """

    def __init__(self, model: ir.Model, facts: Facts | None = None) -> None:
        self.model = model
        self.facts = facts or Facts(model)

    @cached_property
    def nodes(self) -> tuple[ir.Node, ...]:
        """What a target has to run, in graph order.

        Calls of the model's own functions are left out, whose bodies are looked at, and so is what computes
        constants alone: converters evaluate that.
        """
        own = {(function.domain, function.name) for function in self.model.functions.values()}
        return tuple(
            node
            for node in self.facts.nodes()
            if (node.domain, node.op_type) not in own and not self._is_constant(node)
        )

    def _is_constant(self, node: ir.Node) -> bool:
        return bool(node.outputs) and all(self.facts.constants.has(value) for value in node.outputs)


def operator(node: ir.Node) -> str:
    """An operator as profiles write it: `"Conv"`, or `"com.microsoft::Gelu"`."""
    return node.op_type if node.domain in ONNX_DOMAINS else f"{node.domain}::{node.op_type}"


def grouped(pairs: list[tuple[str, str]]) -> dict[str, list[str]]:
    """Sites by what is said of them, in the order of the first ones."""
    found: dict[str, list[str]] = {}
    for what, site in pairs:
        found.setdefault(what, []).append(site)
    return found
