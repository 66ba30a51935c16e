"""Operators that choose: which score is the largest, which rows come first, which boxes stay.

Where two scores are nearly equal, rounding turns a choice around, and whatever stands behind it is another
row's. So they are taken out of a model: the scores become outputs, and the choice becomes an input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.defs
import onnx_ir as ir

from bnfold.graph.nodes import captured, integer, label
from bnfold.graph.scopes import ONNX_DOMAINS
from bnfold.runtime.agreement import UNITS
from bnfold.runtime.interface import dtype_name
from bnfold.validation.cutting import expose, inlined, signature, with_bodies

_CHOICE = {"TopK": 1, "ArgMax": 0, "ArgMin": 0, "NonMaxSuppression": 0}
"""Which output is the choice. What else a TopK gives follows from it."""

_COMPARISONS = frozenset({"Greater", "GreaterOrEqual", "Less", "LessOrEqual"})
_SELECTORS = {"NonZero": 0, "Compress": 1}  # which input says what stays
_PASSING = frozenset(
    {"And", "Or", "Not", "Xor", "Cast", "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"}
)  # between a comparison with a threshold and the selector or output
_GATHER_ELEMENTS = 11  # the opset that brought it


class Side:
    """A copy of one model, and the nodes in it that choose, in the order of evaluation."""

    def __init__(self, model: ir.Model) -> None:
        self.model = inlined(model)
        self.nodes = list(_choosing(self.model))
        self.names = [f"{node.op_type} ({label(node)})" for node in self.nodes]

    @property
    def left(self) -> list[str]:
        """What chooses and cannot be taken out: TopK of an old opset, and nodes inside branches and loops."""
        others = _used(self.model.graph) - set(self.nodes)
        found = [node for node in others if any(map(_orders_floats, with_bodies(node)))]
        return sorted(f"{node.op_type} ({label(node)})" for node in found)

    @property
    def outputs_behind(self) -> frozenset[str]:
        """The outputs of the model that depend on a choice."""
        behind: set[ir.Value] = set()
        for node in self.model.graph:
            if node in self.nodes or behind.intersection((*node.inputs, *captured(node))):
                behind.update(node.outputs)
        return frozenset(value.name or "" for value in self.model.graph.outputs if value in behind)

    def asking(self) -> ir.Model:
        """A copy whose outputs are all choices, and after them, what every one is made from."""
        copy = self.model.clone()
        nodes = [list(copy.graph)[number] for number in self._numbers]
        copy.graph.outputs.clear()
        copy.graph.outputs.extend(_choice(node) for node in nodes)
        for number, node in enumerate(nodes):
            for place, value in _reads(node):
                expose(copy.graph, value, f"input {place} of choice {number}", None)
        return copy

    @property
    def _numbers(self) -> list[int]:
        return [number for number, node in enumerate(self.model.graph) if node in self.nodes]

    def answers(self, outputs: Sequence[Any]) -> list[Answer]:
        """What the model of `asking` gives, node by node."""
        rest = iter(outputs[len(self.nodes) :])
        return [
            Answer(choice, {place: next(rest) for place, _ in _reads(node)})
            for node, choice in zip(self.nodes, outputs, strict=False)
        ]


@dataclass(frozen=True)
class Answer:
    """What one node chose, and from what.

    Attributes:
        choice: Indices, or a mask.
        read: What the node read, by the place of the input.
    """

    choice: npt.NDArray[Any]
    read: dict[int, npt.NDArray[Any]]

    def distance(self, other: Answer) -> float:
        """How far apart what two nodes read is, relative to its scale; infinite for other shapes."""
        if {place: array.shape for place, array in self.read.items()} != {
            place: array.shape for place, array in other.read.items()
        }:
            return np.inf
        return max((_distance(array, other.read[place]) for place, array in self.read.items()), default=0.0)


def match(
    before: Side, after: Side, own: Sequence[Answer], others: Sequence[Answer]
) -> list[tuple[int, int]] | None:
    """Find for every node of the original that chooses the one of the other model that reads the same.

    Args:
        before: The original.
        after: The other model.
        own: What the original's nodes answered on one sample.
        others: What the other's answered.

    Returns:
        Pairs of their numbers; None where one has no partner.
    """
    left = dict(enumerate(after.nodes))
    pairs = []
    for number, node in enumerate(before.nodes):
        form = _form(node, own[number])
        alike = [one for one, other in left.items() if _form(other, others[one]) == form]
        if not alike:
            return None
        names = {one: _choice(left[one]).name != _choice(node).name for one in alike}
        best = min(alike, key=lambda one: (own[number].distance(others[one]), names[one]))
        pairs.append((number, best))
        del left[best]
    return None if left else pairs


def take_out(
    before: Side,
    after: Side,
    pairs: Sequence[tuple[int, int]],
    own: Sequence[Answer],
    others: Sequence[Answer],
) -> list[str]:
    """Take the nodes out of both models, in place.

    Args:
        before: The original.
        after: The other model.
        pairs: Which nodes correspond.
        own: What the original's nodes answered on one sample, which shows types and ranks.
        others: What the other's answered.

    Returns:
        The names of the inputs that take the choices, in the original's order.
    """
    labels = [label(node) for node in before.nodes]
    found = []
    for number, other in pairs:
        name = labels[number] if labels.count(labels[number]) == 1 else f"{labels[number]} ({number})"
        found.append(f"choice of {name}")
        nodes = (before.nodes[number], after.nodes[other])
        for (place, value), (_, its) in zip(*map(_reads, nodes), strict=True):
            constants = [_constant(one) for one in (value, its)]
            if constants[0] is not None and constants[0] == constants[1]:
                continue
            if value.is_graph_input() and its.is_graph_input() and value.name == its.name:
                continue
            for side, one, answer in ((before, value, own[number]), (after, its, others[other])):
                dtype = ir.DataType.from_numpy(answer.read[place].dtype)
                expose(side.model.graph, one, f"input {place} of {name}", dtype)
        for side, node in zip((before, after), nodes, strict=True):
            _replace(side.model.graph, node, found[-1], own[number].choice)
    return found


def _replace(graph: ir.Graph, node: ir.Node, name: str, like: npt.NDArray[Any]) -> None:
    """Put an input in place of what a node chooses."""
    kind = ir.TensorType(ir.DataType.from_numpy(like.dtype))
    given = ir.Value(name=name, type=kind, shape=ir.Shape([None] * like.ndim))
    graph.inputs.append(given)
    made = {_CHOICE.get(node.op_type, 0): ir.node("Identity", [given])}
    if node.op_type == "TopK":
        axis = {"axis": integer(node, "axis", -1)}
        made[0] = ir.node("GatherElements", [node.inputs[0], given], axis)
    for place, other in made.items():
        old, new = node.outputs[place], other.outputs[0]
        new.name, new.type, new.shape = old.name, old.type, old.shape
        old.name = None
        graph.insert_before(node, other)
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    graph.remove(node, safe=True)


# --- which nodes ------------------------------------------------------------------------------------------


def _choosing(model: ir.Model) -> Iterator[ir.Node]:
    """The nodes of the main graph that choose between computed numbers, and reach an output."""
    opset = model.graph.opset_imports.get("", 0)
    used = _used(model.graph)
    thresholds = set(_thresholds(model.graph))
    for node in model.graph:
        if node not in used:
            continue
        is_new = node.op_type != "TopK" or opset >= _GATHER_ELEMENTS
        if (_orders_floats(node) and is_new) or (node in thresholds and _takes_floats(node)):
            yield node


def _orders_floats(node: ir.Node) -> bool:
    return node.domain in ONNX_DOMAINS and node.op_type in _CHOICE and _takes_floats(node)


def _takes_floats(node: ir.Node) -> bool:
    return any(_is_computed(value) for _, value in _reads(node))


def _is_computed(value: ir.Value) -> bool:
    """Whether a value is of floats, as far as is known, and not a constant."""
    return (value.dtype is None or dtype_name(value.dtype) in UNITS) and _constant(value) is None


def _used(graph: ir.Graph) -> set[ir.Node]:
    """The nodes whose values reach an output."""
    pending = [value.producer() for value in graph.outputs]
    found: set[ir.Node] = set()
    while pending:
        node = pending.pop()
        if node is not None and node not in found:
            found.add(node)
            pending += [value.producer() for value in (*node.inputs, *captured(node)) if value is not None]
    return found


def _thresholds(graph: ir.Graph) -> Iterator[ir.Node]:
    """The comparisons that say which elements a selector keeps, or that are an output."""
    kept = [
        node.inputs[_SELECTORS[node.op_type]]
        for node in graph
        if node.op_type in _SELECTORS and node.domain in ONNX_DOMAINS
    ]
    pending = [value.producer() for value in (*kept, *graph.outputs) if value is not None]
    seen: set[ir.Node | None] = {None}
    while pending:
        node = pending.pop()
        if node in seen or node is None:
            continue
        seen.add(node)
        if node.op_type in _COMPARISONS:
            yield node
        elif node.op_type in _PASSING:
            pending += [value.producer() for value in node.inputs if value is not None]


# --- what they are ----------------------------------------------------------------------------------------


def _choice(node: ir.Node) -> ir.Value:
    return node.outputs[_CHOICE.get(node.op_type, 0)]


def _reads(node: ir.Node) -> list[tuple[int, ir.Value]]:
    return [(place, value) for place, value in enumerate(node.inputs) if value is not None]


def _constant(value: ir.Value) -> tuple[Any, ...] | None:
    """The content of a constant; None for another value."""
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None or value.is_graph_input():
        return None
    array = tensor.numpy()
    return str(array.dtype), array.shape, array.tobytes()


def _form(node: ir.Node, answer: Answer) -> tuple[object, ...]:
    """Operator, attributes and which inputs there are; defaults and negative axes are written out."""
    whole = ir.node(node.op_type, list(node.inputs), dict(node.attributes))
    for name, attribute in onnx.defs.get_schema(node.op_type).attributes.items():
        if name not in node.attributes and attribute.default_value.name:
            whole.attributes.add(ir.serde.deserialize_attribute(attribute.default_value))
    if "axis" in whole.attributes:
        axis = whole.attributes["axis"].as_int() % max(answer.read[0].ndim, 1)
        whole.attributes.add(ir.AttrInt64("axis", axis))
    return signature(whole), tuple(place for place, _ in _reads(node)), answer.choice.dtype.kind


def _distance(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    if one.dtype.kind not in "fbiu":
        return 0.0 if np.array_equal(one, other) else np.inf
    wide = one.astype(np.float64)
    with np.errstate(all="ignore"):
        apart = np.nan_to_num(np.abs(wide - other.astype(np.float64)), nan=0.0, posinf=0.0)
        scale = np.nan_to_num(np.abs(wide), nan=0.0, posinf=0.0).max(initial=0.0)
    return float(apart.max(initial=0.0) / (scale or 1.0))
