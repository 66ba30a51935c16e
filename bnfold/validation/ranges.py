"""Values that leave the range of their type in the folded model, where the original's stay within it.

Over the reals a fold may be right and yet pass through a number that float16 does not hold: `(1000·x)/1000`
is x, and infinite in float16 for an x of 66. The float64 evaluation shows how large each value becomes.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np
import onnx_ir as ir

from bnfold.graph.facts import Facts
from bnfold.graph.nodes import captured
from bnfold.oracle.prepare import take_apart
from bnfold.tensors.precision import LARGEST, ROUNDOFF

_NARROW = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_STATED = frozenset({"to", "dtype", "output_dtype"})
"""Attributes that may bring a type into a model; all others take it from what they read."""


class Ranges:
    """How large the values of one model become that are held in float16 or bfloat16.

    Args:
        model: The model; the values inside its functions are looked at too, those inside subgraphs are not.
        names: The values that both models compute: where one region ends and the next starts.
    """

    def __init__(self, model: ir.Model, names: Collection[str]) -> None:
        self._names = frozenset(names)
        self._types: dict[str, ir.DataType] = {}
        self._made: dict[str, ir.Node] = {}
        self._largest: dict[str, float] = {}
        if not _has_narrow_type(model):
            return
        inlined = ir.from_proto(take_apart(model)[0])  # the names are those that the oracle shows
        facts = Facts(inlined)
        for value in (value for node in inlined.graph for value in node.outputs):
            dtype = facts.dtype(value)
            if value.name and dtype in _NARROW:
                self._types[value.name] = dtype
            producer = value.producer()
            if value.name and producer is not None and producer.op_type != "Constant":
                self._made[value.name] = producer

    @property
    def is_narrow(self) -> bool:
        """Whether the model holds any value in float16 or bfloat16."""
        return bool(self._types)

    def see(self, name: str, value: object) -> None:
        """Note how large a value is; NaN counts as infinite."""
        if name in self._types and isinstance(value, np.ndarray) and value.dtype.kind == "f":
            largest = float(np.abs(value).max(initial=0.0))
            self._largest[name] = max(
                self._largest.get(name, 0.0), math.inf if math.isnan(largest) else largest
            )

    def stays_within(self, name: str) -> bool:
        """Whether all that computes a shared value, from the shared values before it, is within its type."""
        return all(largest <= LARGEST[self._types[value]] for value, largest in self._between(name))

    def excess(self, name: str) -> str | None:
        """A clause on the first value on the way to a shared one that its type does not hold.

        The shared values themselves are the original's too, up to rounding, and not looked at.
        """
        for value, largest in self._between(name):
            dtype = self._types[value]
            infinite = LARGEST[dtype] * (1 + ROUNDOFF[dtype] / 2)  # what is nearer is rounded to the largest
            if value not in self._names and largest >= infinite:
                kind = dtype.name.lower()
                return f"{value!r} reaches {largest:.2g}, beyond {kind}'s {LARGEST[dtype]:.5g}"
        return None

    def _between(self, name: str) -> list[tuple[str, float]]:
        """The sizes of what computes a shared value, itself and what it starts from included, in order."""
        found: set[str] = set()
        pending = [name]
        while pending:
            value = pending.pop()
            if value in found:
                continue
            found.add(value)
            node = self._made.get(value)
            if node is not None and (value == name or value not in self._names):
                inputs = (*node.inputs, *captured(node))
                pending.extend(before.name for before in inputs if before is not None and before.name)
        return [(value, largest) for value, largest in self._largest.items() if value in found]


def excesses(original: Ranges, folded: Ranges, names: Collection[str]) -> Mapping[str, str]:
    """For every shared value that the folded model computes through too large numbers, a clause that says so.

    What the original computes through numbers that its type does not hold is excused.
    """
    found = {name: clause for name in names if (clause := folded.excess(name)) is not None}
    return {
        name: f"{clause}; the original stays within it"
        for name, clause in found.items()
        if original.stays_within(name)
    }


def _has_narrow_type(model: ir.Model) -> bool:
    """Whether anything brings float16 or bfloat16 into a model."""
    tensors = (*model.graph.inputs, *model.graph.initializers.values())
    if any(value.dtype in _NARROW for value in tensors):
        return True
    graphs = (model.graph, *(function.graph for function in model.functions.values()))
    return any(
        _brings_narrow_type(attribute)
        for graph in graphs
        for node in graph.all_nodes()
        for attribute in node.attributes.values()
    )


def _brings_narrow_type(attribute: ir.Attr) -> bool:
    if attribute.is_ref():
        return attribute.name in _STATED  # a function's attribute: it may be any type
    if attribute.type == ir.AttributeType.INT:
        return attribute.name in _STATED and attribute.as_int() in _NARROW
    return attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype in _NARROW
