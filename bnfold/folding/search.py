"""Searching for constants that can take an affine, from operator to operator."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from bnfold import reasons
from bnfold.algebra.affine import Affine
from bnfold.folding.memory import Mode, Question, Refusals, holds_for_all
from bnfold.folding.recognise import Link, link_of
from bnfold.graph.facts import Facts
from bnfold.graph.nodes import caller_problem, label, name_of
from bnfold.ops import operator
from bnfold.ops.base import Absorb, Answer, Operand, Step, ToInput, ToOutput, unknown_shape
from bnfold.ops.constraints import invalid
from bnfold.patterns import NO_PATTERNS, Patterns
from bnfold.reasons import Reason

_LIMIT = 20_000  # steps; a search that takes more has met something unforeseen
_KEEP_RANGE = frozenset(
    """
    Concat DepthToSpace Dropout Flatten GlobalMaxPool Identity MaxPool Relu Reshape SpaceToDepth Squeeze
    Transpose Unsqueeze
    """.split()  # noqa: SIM905 - a list of strings would be fourteen lines long
)
"""Operators through which a value changes into one that the original holds too, up to what Relu cuts off."""
_SUMS = frozenset({"AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum"})
"""Operators that may add up in float16 what is as large as their inputs, however many these are."""
_MOVED = 2.0**10  # the largest shift that a value in float16 takes: its range ends at 2¹⁶
_BALANCED = 2.0**16  # scales beyond this, or below its inverse, are not moved from one layer to another


@dataclass(frozen=True)
class Enter:
    """A reader that must take the affine at one of its inputs."""

    index: int
    affine: Affine


Start = tuple[ir.Node, ToInput | ToOutput]
Task = tuple[ir.Node, Step | Enter]
Ways = Sequence[Sequence[Task]]


@dataclass(eq=False, slots=True)
class _Asked:
    """A task, and what it was asked for.

    Attributes:
        node: The node that has to do it.
        step: What it has to do.
        parent: The task that led to this one.
        choices: How many choices had been made when it was set; later ones have no influence on it.
        ways: What would fulfil it.
    """

    node: ir.Node
    step: Step | Enter
    parent: _Asked | None
    choices: int
    ways: Ways = ()


# what is left to do is a linked list, so that a choice point can keep its own view of it
_Todo: TypeAlias = "tuple[_Asked, _Todo] | None"


@dataclass(frozen=True, slots=True)
class _Choice:
    """Another way that could be taken, and how things stood before the first was."""

    asked: _Asked
    next: int
    todo: _Todo
    edits: int
    touched: int


@dataclass(frozen=True)
class Plan:
    """All that has to change so that an affine can go, decided before anything does.

    Attributes:
        edits: What each node's constants take, in the order of the search.
        inserts: The nodes that would get a new bias Add.
        changed: The values that will hold other numbers than before.
    """

    edits: tuple[tuple[ir.Node, Absorb | Operand], ...]
    inserts: tuple[ir.Node, ...]
    changed: tuple[ir.Value, ...] = ()


def search(
    starts: Sequence[Start],
    facts: Facts,
    *,
    memory: Refusals | None = None,
    patterns: Patterns = NO_PATTERNS,
    ample: bool = False,
    leaving: Sequence[ir.Node] = (),
    mode: Mode = "push",
) -> Plan | Reason:
    """Find a way for affines that leave nodes through an input or an output, all of them together.

    Where an operator offers several ways they are tried in its order; the steps of one way, and all readers
    of a value, have to succeed together. The search is a loop and not a recursion, so depth costs no stack.

    Args:
        starts: Nodes, and through which input or output an affine leaves each.
        facts: What is known of the model.
        memory: What earlier searches of the same model have found impossible.
        patterns: What must stay whole.
        ample: Whether the range of float16 is known to be ample for what the affine makes of a term of a sum.
        leaving: The nodes that will be removed when there is a way, and so can take nothing themselves, in
            graph order. Where not all that they do leaves, something else will do the rest in their place.
        mode: How far it may go.

    Returns:
        A plan, or the reason that stood in the way of the first way tried.
    """
    memory = memory or Refusals()
    asked = (*starts, *leaving)
    known = memory.in_every_mode.get(asked) if mode == "rebalance" else None
    if known is not None:
        return known
    one = _Search(
        facts,
        memory,
        patterns,
        frozenset(leaving),
        ample=ample,
        leaves_rest=facts.has_halves and mode == "push" and _leaves_rest(starts, leaving, facts),
        mode=mode,
    )
    found = one.run(starts)
    if isinstance(found, Reason) and not one.depends_on_mode:
        memory.in_every_mode[asked] = found
    return found


def _leaves_rest(starts: Sequence[Start], leaving: Sequence[ir.Node], facts: Facts) -> bool:
    """Whether a part of what nodes do stays: a shift, where only the scale leaves through their output."""
    if any(isinstance(step, ToInput) or step.affine.has_shift for _, step in starts):
        return False
    links = [(node, link_of(node, facts)) for node in leaving]
    maps = [facts.composed(node, link.affine) if isinstance(link, Link) else None for node, link in links]
    whole = Affine()
    for each in maps:
        if each is None:
            return True
        whole = whole.then(each)
    return whole.has_shift


class _Search:
    """One search: what is left to do, what was found, and where another way could be taken.

    Attributes:
        depends_on_mode: Whether a search from the same starts may take another course in another mode.
    """

    def __init__(
        self,
        facts: Facts,
        memory: Refusals,
        patterns: Patterns,
        leaving: frozenset[ir.Node],
        *,
        ample: bool,
        leaves_rest: bool,
        mode: Mode,
    ) -> None:
        self._facts = facts
        self._patterns = patterns
        self._leaving = leaving
        self._ample = ample and mode == "push"
        # what goes away as a whole leaves a value that the original holds too
        self._unranged = frozenset() if leaves_rest else leaving
        self._mode = mode
        self._edits: list[tuple[ir.Node, Absorb | Operand]] = []
        self._touched: dict[ir.Value, None] = {}  # in the order of the search
        self._choices: list[_Choice] = []
        self._refused = memory.in_mode(mode)
        self.depends_on_mode = facts.has_halves

    def run(self, starts: Sequence[Task]) -> Plan | Reason:
        todo = self._with(starts, None, None)
        refusal: Reason | None = None
        for _ in range(_LIMIT):
            if todo is None:
                return self._plan()
            asked, todo = todo
            if isinstance(asked.step, (Absorb, Operand)):
                self._edits.append((asked.node, asked.step))
                continue
            ways, place = self._known(asked.node, asked.step) or self._ways(asked.node, asked.step), 0
            if isinstance(ways, Reason):
                refusal = refusal or ways
                self._remember(asked, ways)
                if not self._choices:
                    return refusal
                asked, place, todo = self._reconsidered()
            else:
                asked.ways = ways
            if place + 1 < len(asked.ways):
                choice = _Choice(asked, place + 1, todo, len(self._edits), len(self._touched))
                self._choices.append(choice)
            todo = self._with(asked.ways[place], asked, todo)
        return reasons.TOO_FAR(steps=_LIMIT, node=label(starts[0][0]))

    def _with(self, tasks: Sequence[Task], parent: _Asked | None, todo: _Todo) -> _Todo:
        """What is left to do with further tasks, of which one that is known to fail is enough."""
        failing = next((task for task in tasks if self._known(*task) is not None), None)
        for node, step in reversed(tasks) if failing is None else [failing]:
            todo = (_Asked(node, step, parent, len(self._choices)), todo)
        return todo

    def _reconsidered(self) -> tuple[_Asked, int, _Todo]:
        """Go back to the last choice, and take the next way."""
        choice = self._choices.pop()
        del self._edits[choice.edits :]
        while len(self._touched) > choice.touched:
            self._touched.popitem()
        return choice.asked, choice.next, choice.todo

    def _known(self, node: ir.Node, step: Step | Enter) -> Reason | None:
        """Why a task cannot be done, if that is known already."""
        if isinstance(step, (Absorb, Operand)):
            return None
        refused = self._refused.get(_question(node, step))
        if refused is None:
            return None
        self.depends_on_mode = True  # as far as is known here: another search has found that out
        return refused.get(step.affine.kind)

    def _remember(self, failed: _Asked, reason: Reason) -> None:
        """Note that a task cannot be done, and so none that needs it; choices since then cannot help."""
        if not holds_for_all(reason, self._mode):
            return
        asked: _Asked | None = failed
        while asked is not None and asked.node not in self._leaving:
            assert not isinstance(asked.step, (Absorb, Operand)), "the constants of a node never refuse"
            self._refused.setdefault(_question(asked.node, asked.step), {})[asked.step.affine.kind] = reason
            del self._choices[asked.choices :]
            asked = asked.parent
            others = () if asked is None or len(asked.ways) < 2 else asked.ways
            if not all(any(self._known(*task) is not None for task in way) for way in others):
                return

    def _plan(self) -> Plan:
        inserts = {node: None for node, step in self._edits if isinstance(step, Absorb) and step.inserts}
        return Plan(tuple(self._edits), tuple(inserts), tuple(self._touched))

    def _ways(self, node: ir.Node, step: ToInput | ToOutput | Enter) -> Ways | Reason:
        """What would fulfil a task: at least one way, each a sequence of further tasks."""
        if step.affine.is_identity:
            return [()]
        if not isinstance(step, Enter) and node not in self._unranged:
            beyond = self._leaves_range(node, step)
            if beyond is not None:
                return beyond
        if isinstance(step, ToInput):
            return self._to_producer(node, step)
        if isinstance(step, ToOutput):
            return self._to_readers(node, step)
        if node in self._leaving:
            return _own_reader(node, step.index)
        if self._mode == "stream" and step.affine.has_shift and node.op_type == "BatchNormalization":
            # one goes and one stays, which then has to take a shift away that may be far larger than its own
            return _read_elsewhere(node.inputs[step.index], 1, node)
        family = operator(node)
        self.depends_on_mode |= family.is_rebalanced
        at_input = family.at_input if self._mode == "push" else family.at_input_rebalanced
        answer = self._ask(node, lambda: at_input(node, step.index, step.affine, self._facts))
        return answer if isinstance(answer, Reason) else [[(node, s) for s in way] for way in answer]

    def _to_producer(self, node: ir.Node, step: ToInput) -> Ways | Reason:
        value = node.inputs[step.index]
        if value is None:
            return reasons.NO_PRODUCER(value=name_of(value), node=label(node))
        if self._facts.constants.has(value):
            if node in self._leaving:
                return reasons.NO_PRODUCER(value=name_of(value), node=label(node))
            return _into_constant(node, step, value, self._facts)
        obstacle = self._touch(node, value)
        if obstacle is not None:
            return obstacle
        producer = value.producer()
        if value.is_graph_output():
            return reasons.GRAPH_OUTPUT(value=name_of(value))
        others = self._other_readers(node, step, value)
        if isinstance(others, Reason):
            return others
        if producer is None:
            return reasons.NO_PRODUCER(value=name_of(value), node=label(node))
        if producer.graph is not node.graph:
            return reasons.OTHER_GRAPH(value=name_of(value), node=label(node))
        if producer in self._leaving:
            return _own_reader(node, step.index)
        index = next(i for i, output in enumerate(producer.outputs) if output is value)
        family = operator(producer)
        answer = self._ask(producer, lambda: family.at_output(producer, index, step.affine, self._facts))
        if isinstance(answer, Reason):
            return answer
        return [[*((producer, s) for s in way), *others] for way in answer]

    def _leaves_range(self, node: ir.Node, step: ToInput | ToOutput) -> Reason | None:
        """Whether a value in float16 could become larger than any that the original holds.

        A term of a sum, an element of a mean or a factor can be far larger than the result. So it may shrink,
        and grow only where the statistics of the BatchNorm leave room for it, which they know of single terms
        and not of sums of many.
        """
        value = node.inputs[step.index] if isinstance(step, ToInput) else node.outputs[step.index]
        ample = self._ample and node.op_type not in _SUMS
        if ample or node.op_type in _KEEP_RANGE or self._facts.dtype(value) != ir.DataType.FLOAT16:
            return None
        size = np.abs(step.affine.scale)
        with np.errstate(divide="ignore"):
            factor = float(np.max(size if isinstance(step, ToInput) else 1 / size))
        if factor <= 1 and np.max(np.abs(step.affine.shift)) <= _MOVED:
            return None
        return reasons.ACTIVATIONS(value=name_of(value), factor=f"{factor:.3g}", dtype="float16")

    def _ask(self, node: ir.Node, ask: Callable[[], Answer]) -> Answer:
        """Ask a node's operator, unless the node must stay as it is.

        The scale and the shift of a normalisation that is written out take other numbers, in the same shape.
        """
        if node in self._patterns.fixed:
            return reasons.PATTERN(node=label(node), pattern=self._patterns.fixed[node].name)
        answer = caller_problem(node) or invalid(node, self._facts) or ask()
        if node not in self._patterns.free or isinstance(answer, Reason):
            return answer
        ways = [way for way in answer if all(self._keeps_shape(node, step) for step in way)]
        return ways or reasons.PATTERN(node=label(node), pattern=self._patterns.free[node].name)

    def _keeps_shape(self, node: ir.Node, step: Step) -> bool:
        if not isinstance(step, Operand):
            return True
        old = self._facts.operand(node, step.index)
        assert old is not None, "planned on a constant"
        return math.prod(np.broadcast_shapes(old.shape, step.scale.shape, step.shift.shape)) == old.size

    def _other_readers(self, node: ir.Node, step: ToInput, value: ir.Value) -> Sequence[Task] | Reason:
        """What the other readers of a value must take so that it can change."""
        indices = step.uses or (step.index,)
        if len(value.uses()) == len(indices):
            return ()
        others = [(user, i) for user, i in self._facts.readers(value) if user is not node or i not in indices]
        if not others:
            return ()
        self.depends_on_mode = True
        if self._mode == "push" or not self._is_movable(value, step.affine):
            return _read_elsewhere(value, len(others), node)
        if any(user.graph is not node.graph for user, _ in others):
            return reasons.OTHER_GRAPH(value=name_of(value), node=label(node))
        back = step.affine.inverse()
        return [(user, Enter(index, back)) for user, index in others]

    def _is_movable(self, value: ir.Value, affine: Affine) -> bool:
        size = np.abs(affine.scale)
        moderate = bool(np.all((size <= _BALANCED) & (size >= 1 / _BALANCED)))
        # half precision has no room for a scale that one layer multiplies by and another divides by
        wide = self._facts.dtype(value) in (ir.DataType.FLOAT, ir.DataType.DOUBLE)
        return moderate and wide and (self._mode == "stream" or not affine.has_shift)

    def _to_readers(self, node: ir.Node, step: ToOutput) -> Ways | Reason:
        value = node.outputs[step.index]
        obstacle = self._touch(node, value)
        if obstacle is not None:
            return obstacle
        if value.is_graph_output():
            return reasons.GRAPH_OUTPUT(value=name_of(value))
        uses = self._facts.readers(value)
        for reader, _ in uses:
            if reader.graph is not node.graph:
                return reasons.OTHER_GRAPH(value=name_of(value), node=label(reader))
        self._touched.update(dict.fromkeys(self._facts.unheeded_after(value)))
        return [[(reader, Enter(index, step.affine)) for reader, index in uses]]

    def _touch(self, node: ir.Node, value: ir.Value) -> Reason | None:
        """Note that a value changes.

        Steps in one direction commute. When a search goes both ways, as rebalancing does, two changes of one
        value could meet in the wrong order, so each value changes at most once.
        """
        if value in self._touched:
            self.depends_on_mode = True
            if self._mode != "push":
                return _read_elsewhere(value, 1, node)
        self._touched[value] = None
        return None


def _question(node: ir.Node, step: ToInput | ToOutput | Enter) -> Question:
    return node, type(step), step.index, step.uses if isinstance(step, ToInput) else ()


def _into_constant(node: ir.Node, step: ToInput, value: ir.Value, facts: Facts) -> Ways | Reason:
    rank = facts.rank(value)
    if rank is None:
        return unknown_shape(node, value)
    return [[(node, Operand(step.index, *step.affine.padded(rank)))]]


def _own_reader(node: ir.Node, index: int) -> Reason:
    """A search that goes both ways has come back to the nodes that it started from."""
    return _read_elsewhere(node.inputs[index], 1, node)


def _read_elsewhere(value: ir.Value | None, count: int, node: ir.Node) -> Reason:
    others = "another node" if count == 1 else f"{count} other nodes"
    return reasons.OTHER_READERS(value=name_of(value), others=others, node=label(node))
