"""Which readers of a value have to be asked before its numbers may change."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import onnx_ir as ir

from bnfold.graph.operators import is_indifferent, looks_at_numbers
from bnfold.graph.scopes import scopes, subgraphs

Use = tuple[ir.Node, int]
_MANY = 8  # uses of one value, which are worth remembering


class Readers:
    """Readers of the values of a model, without those for which numbers do not matter.

    Such are readers that take only a type or a shape, and readers whose results reach no output, or reach one
    only as a shape. Runtimes compute dead nodes too, so an input that can make one fail, as an index can,
    matters all the same.

    What is found stays true while a model is folded: no fold lets a node read what it did not depend on.

    Args:
        model: The model.
    """

    def __init__(self, model: ir.Model) -> None:
        self._owners: dict[ir.Graph, ir.Node] = {}  # of the branches of If
        nodes = [node for scope in scopes(model) for node in scope.graph]
        pending = [*model.graph.outputs, *(v for one in model.functions.values() for v in one.outputs)]
        for node in nodes:
            pending += (
                value
                for index, value in enumerate(node.inputs)
                if value is not None and looks_at_numbers(node, index) and not is_indifferent(node, index)
            )
            for graph in _branches(node):
                if node.op_type == "If":
                    self._owners[graph] = node
                else:
                    pending.extend(graph.outputs)
        heeded = _heeded(pending)
        self._unheeded = {value for node in nodes for value in node.outputs if value not in heeded}
        self._found: dict[ir.Value, tuple[Collection[Use], list[Use]]] = {}

    def of(self, value: ir.Value) -> list[Use]:
        """The uses of a value for which its numbers matter."""
        uses = value.uses()
        known, found = self._found.get(value, ((), []))
        if known != uses:
            found = [(node, index) for node, index in uses if self._heeds(node, index)]
            if len(uses) >= _MANY:
                self._found[value] = uses, found
        return found

    def unheeded_after(self, value: ir.Value) -> list[ir.Value]:
        """The values that are computed from `value` and whose numbers do not matter."""
        found: dict[ir.Value, None] = {}
        pending = [value]
        while pending:
            current = pending.pop()
            readers = [
                node
                for node, index in current.uses()
                if looks_at_numbers(node, index) and not self._heeds(node, index)
            ]
            owner = self._owners.get(current.graph) if current.is_graph_output() and current.graph else None
            outputs = [output for node in readers for output in node.outputs]
            outputs.extend(() if owner is None else owner.outputs)
            new = [output for output in outputs if output in self._unheeded and output not in found]
            found.update(dict.fromkeys(new))
            pending += new
        return list(found)

    def _heeds(self, node: ir.Node, index: int) -> bool:
        if not looks_at_numbers(node, index):
            return False
        return not is_indifferent(node, index) or not self._unheeded.issuperset(node.outputs)


def _heeded(pending: list[ir.Value]) -> set[ir.Value]:
    """The given values and all on which their numbers depend."""
    found: set[ir.Value] = set()
    while pending:
        value = pending.pop()
        if value in found:
            continue
        found.add(value)
        node = value.producer()
        if node is None:
            continue
        pending += (
            source
            for index, source in enumerate(node.inputs)
            if source is not None and source not in found and looks_at_numbers(node, index)
        )
        if node.op_type == "If":
            pending += (output for graph in _branches(node) for output in graph.outputs)
    return found


def _branches(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.data.values():
        yield from subgraphs(attribute)
