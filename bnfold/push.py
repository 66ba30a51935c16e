"""Searching a place for an affine: from operator to operator until constants have taken all of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Union

import onnx_ir as ir

from bnfold import reasons
from bnfold.affine import Affine
from bnfold.graph import Facts, other_readers
from bnfold.ops import operator
from bnfold.ops.base import Absorb, Operand, Step, ToInput, ToOutput, label, name_of
from bnfold.reasons import Reason

_LIMIT = 20_000  # steps; a search that takes more has met something that nobody thought of


@dataclass(frozen=True)
class Enter:
    """A reader that must take the affine at one of its inputs."""

    index: int
    affine: Affine


Task = tuple[ir.Node, Step | Enter]
_Tasks = tuple[
    Task, Union["_Tasks", None]
]  # a linked list: a choice point keeps its own view of what is left


@dataclass(frozen=True)
class Plan:
    """All that has to change so that an affine can go, decided before anything does.

    Attributes:
        edits: What each node's constants take, in the order of the search.
        inserts: The nodes that would get a new bias Add.
    """

    edits: tuple[tuple[ir.Node, Absorb | Operand], ...]
    inserts: tuple[ir.Node, ...]


def search(node: ir.Node, step: ToInput | ToOutput, facts: Facts) -> Plan | Reason:
    """Find a way for an affine that leaves `node` through an input or an output.

    Where an operator offers several ways they are tried in its order; the steps of one way, and all readers
    of a value, have to succeed together. The search is a loop and not a recursion, so depth costs no stack.

    Returns:
        A plan, or the reason that stood in the way of the first way tried.
    """
    todo: _Tasks | None = ((node, step), None)
    edits: list[tuple[ir.Node, Absorb | Operand]] = []
    choices: list[tuple[Sequence[Sequence[Task]], _Tasks | None, int]] = []
    refusal: Reason | None = None
    for _ in range(_LIMIT):
        if todo is None:
            return Plan(tuple(edits), _inserts(edits))
        (at, current), todo = todo
        if isinstance(current, (Absorb, Operand)):
            edits.append((at, current))
            continue
        ways = _ways(at, current, facts)
        if isinstance(ways, Reason):
            refusal = refusal or ways
            if not choices:
                return refusal
            ways, todo, kept = choices.pop()
            del edits[kept:]
        if len(ways) > 1:
            choices.append((ways[1:], todo, len(edits)))
        for task in reversed(ways[0]):
            todo = (task, todo)
    return reasons.TOO_FAR(steps=_LIMIT, node=label(node))


def _ways(node: ir.Node, step: ToInput | ToOutput | Enter, facts: Facts) -> Sequence[Sequence[Task]] | Reason:
    """What would fulfil a task: at least one way, each a sequence of further tasks."""
    if step.affine.is_identity:
        return [()]
    if isinstance(step, ToInput):
        return _from_producer(node, step, facts)
    if isinstance(step, ToOutput):
        return _from_readers(node, step)
    refusal = _caller_attribute(node)
    answer = refusal or operator(node).at_input(node, step.index, step.affine, facts)
    return answer if isinstance(answer, Reason) else [[(node, s) for s in way] for way in answer]


def _from_producer(node: ir.Node, step: ToInput, facts: Facts) -> Sequence[Sequence[Task]] | Reason:
    value = node.inputs[step.index]
    if value is None:
        return reasons.NO_PRODUCER(value=name_of(value), node=label(node))
    if facts.constants.has(value):
        rank = facts.rank(value) or 0
        return [[(node, Operand(step.index, *step.affine.padded(max(rank, len(step.affine.axes)))))]]
    count = other_readers(value, node, step.uses or (step.index,))
    if count:
        return reasons.OTHER_READERS(value=name_of(value), count=count, node=label(node))
    if value.is_graph_output():
        return reasons.GRAPH_OUTPUT(value=name_of(value))
    producer = value.producer()
    if producer is None:
        return reasons.NO_PRODUCER(value=name_of(value), node=label(node))
    if producer.graph is not node.graph:
        return reasons.OTHER_GRAPH(value=name_of(value), node=label(node))
    index = next(i for i, output in enumerate(producer.outputs) if output is value)
    answer = _caller_attribute(producer) or operator(producer).at_output(producer, index, step.affine, facts)
    return answer if isinstance(answer, Reason) else [[(producer, s) for s in way] for way in answer]


def _from_readers(node: ir.Node, step: ToOutput) -> Sequence[Sequence[Task]] | Reason:
    value = node.outputs[step.index]
    if value.is_graph_output():
        return reasons.GRAPH_OUTPUT(value=name_of(value))
    uses = value.uses()
    for reader, _ in uses:
        if reader.graph is not node.graph:
            return reasons.OTHER_GRAPH(value=name_of(value), node=label(reader))
    return [[(reader, Enter(index, step.affine)) for reader, index in uses]]


def _caller_attribute(node: ir.Node) -> Reason | None:
    for attribute in node.attributes.values():
        if attribute.is_ref():
            return reasons.CALLER_ATTRIBUTE(node=label(node), attribute=attribute.name)
    return None


def _inserts(edits: Iterable[tuple[ir.Node, Absorb | Operand]]) -> tuple[ir.Node, ...]:
    nodes = {node: None for node, step in edits if isinstance(step, Absorb) and step.inserts}
    return tuple(nodes)
