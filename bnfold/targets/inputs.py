"""Which inputs of an operator have to be constant, how many outputs it may have, and of which rank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bnfold.graph.nodes import label
from bnfold.targets.obstacle import HAS, Obstacle, counted
from bnfold.targets.view import View, grouped, operator

_READS = ("reads", "read")


@dataclass(frozen=True)
class Constant:
    """An input that has to be constant.

    Attributes:
        operators: Whose input it is.
        input: Its place, from 0.
        name: What it is, such as `"weight"`.
    """

    operators: tuple[str, ...]
    input: int
    name: str

    def look(self, view: View) -> Iterator[Obstacle]:
        """Name the nodes that get the input from elsewhere."""
        computed = [
            (node.op_type, label(node))
            for node in view.nodes
            if operator(node) in self.operators
            and len(node.inputs) > self.input
            and node.inputs[self.input] is not None
            and not view.facts.has_constant(node, self.input)
        ]
        for name, sites in grouped(computed).items():
            yield counted(name, HAS, f"a computed {self.name}, and only a constant one is taken", sites)


@dataclass(frozen=True)
class Outputs:
    """How many outputs are taken.

    Attributes:
        operators: Of which operators.
        max: The largest number.
    """

    operators: tuple[str, ...]
    max: int

    def look(self, view: View) -> Iterator[Obstacle]:
        """Name the nodes that have more, not counting those that nothing reads."""
        outputs = set(view.model.graph.outputs)
        more = [
            (node.op_type, label(node))
            for node in view.nodes
            if operator(node) in self.operators
            and any(value.uses() or value in outputs for value in node.outputs[self.max :])
        ]
        for name, sites in grouped(more).items():
            yield counted(name, HAS, f"more outputs in use than the {self.max} that is taken", sites)


@dataclass(frozen=True)
class Rank:
    """How many dimensions an input may have; one whose rank is not known is not held against the model.

    Attributes:
        operators: Of which operators; empty for every operator.
        input: The place of the input, from 0.
        min: The smallest rank.
        max: The largest rank.
    """

    operators: tuple[str, ...] = ()
    input: int = 0
    min: int | None = None
    max: int | None = None

    def look(self, view: View) -> Iterator[Obstacle]:
        """Name the nodes that read more or fewer dimensions."""
        found = []
        for node in view.nodes:
            if self.operators and operator(node) not in self.operators:
                continue
            known = view.facts.rank(node.inputs[self.input]) if len(node.inputs) > self.input else None
            if known is not None and not self._takes(known):
                found.append((f"{node.op_type}\0{known}", label(node)))
        for what, sites in grouped(found).items():
            name, _, rank = what.rpartition("\0")
            yield counted(name, _READS, f"{rank} dimensions, and {self.wanted} are taken", sites)

    @property
    def wanted(self) -> str:
        """What is taken, in words."""
        if self.min == self.max:
            return f"{self.min}"
        if self.min is None:
            return f"at most {self.max}"
        return f"at least {self.min}" if self.max is None else f"{self.min} to {self.max}"

    def _takes(self, rank: int) -> bool:
        return (self.min is None or rank >= self.min) and (self.max is None or rank <= self.max)
