"""Searching for constants that can take an affine, from operator to operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import onnx_ir as ir

from bnfold import reasons
from bnfold.algebra.affine import Affine
from bnfold.folding.memory import Mode, Question, Refusals, holds_for_all
from bnfold.folding.recognise import Link, link_of
from bnfold.folding.ways import Enter, Guide, Task, Ways
from bnfold.graph.facts import Facts
from bnfold.graph.nodes import label
from bnfold.ops.base import Absorb, Operand, Step, ToInput, ToOutput
from bnfold.patterns import NO_PATTERNS, Patterns
from bnfold.reasons import Reason

_LIMIT = 20_000  # steps; a search that takes more has met something unforeseen

Start = tuple[ir.Node, ToInput | ToOutput]


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
    guide = Guide(
        facts,
        patterns,
        frozenset(leaving),
        ample=ample,
        leaves_rest=facts.has_halves and mode == "push" and _leaves_rest(starts, leaving, facts),
        mode=mode,
    )
    found = _Search(guide, memory).run(starts)
    if isinstance(found, Reason) and not guide.depends_on_mode:
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
    """One search: what is left to do, what was found, and where another way could be taken."""

    def __init__(self, guide: Guide, memory: Refusals) -> None:
        self._guide = guide
        self._edits: list[tuple[ir.Node, Absorb | Operand]] = []
        self._choices: list[_Choice] = []
        self._refused = memory.in_mode(guide.mode)

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
            ways, place = self._known(asked.node, asked.step) or self._guide.ways(asked.node, asked.step), 0
            if isinstance(ways, Reason):
                refusal = refusal or ways
                self._remember(asked, ways)
                if not self._choices:
                    return refusal
                asked, place, todo = self._reconsidered()
            else:
                asked.ways = ways
            if place + 1 < len(asked.ways):
                choice = _Choice(asked, place + 1, todo, len(self._edits), len(self._guide.touched))
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
        while len(self._guide.touched) > choice.touched:
            self._guide.touched.popitem()
        return choice.asked, choice.next, choice.todo

    def _known(self, node: ir.Node, step: Step | Enter) -> Reason | None:
        """Why a task cannot be done, if that is known already."""
        if isinstance(step, (Absorb, Operand)):
            return None
        refused = self._refused.get(_question(node, step))
        if refused is None:
            return None
        self._guide.depends_on_mode = True  # as far as is known here: another search has found that out
        return refused.get(step.affine.kind)

    def _remember(self, failed: _Asked, reason: Reason) -> None:
        """Note that a task cannot be done, and so none that needs it; choices since then cannot help."""
        if not holds_for_all(reason, self._guide.mode):
            return
        asked: _Asked | None = failed
        while asked is not None and asked.node not in self._guide.leaving:
            assert not isinstance(asked.step, (Absorb, Operand)), "the constants of a node never refuse"
            self._refused.setdefault(_question(asked.node, asked.step), {})[asked.step.affine.kind] = reason
            del self._choices[asked.choices :]
            asked = asked.parent
            others = () if asked is None or len(asked.ways) < 2 else asked.ways
            if not all(any(self._known(*task) is not None for task in way) for way in others):
                return

    def _plan(self) -> Plan:
        inserts = {node: None for node, step in self._edits if isinstance(step, Absorb) and step.inserts}
        return Plan(tuple(self._edits), tuple(inserts), tuple(self._guide.touched))


def _question(node: ir.Node, step: ToInput | ToOutput | Enter) -> Question:
    return node, type(step), step.index, step.uses if isinstance(step, ToInput) else ()
