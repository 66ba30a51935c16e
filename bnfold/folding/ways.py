"""The ways in which an affine can move on from a node, or why there are none.

Each operator answers for itself. What holds for all of them is here: which values may change and by how much,
and what the other readers of a value must take.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from bnfold import reasons
from bnfold.algebra.affine import Affine
from bnfold.folding.memory import Mode
from bnfold.graph.facts import Facts
from bnfold.graph.nodes import caller_problem, label, name_of
from bnfold.ops import operator
from bnfold.ops.base import Answer, Operand, Step, ToInput, ToOutput, unknown_shape
from bnfold.ops.constraints import invalid
from bnfold.patterns import Patterns
from bnfold.reasons import Reason

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


Task = tuple[ir.Node, Step | Enter]
Ways = Sequence[Sequence[Task]]


class Guide:
    """Says for each task of one search what would fulfil it.

    Attributes:
        leaving: The nodes that will be removed, and so can take nothing themselves.
        mode: How far the search may go.
        touched: The values that change, in the order of the search. When the search gives up a way, it
            removes that way's values.
        depends_on_mode: Whether a search from the same starts may take another course in another mode.

    Args:
        facts: What is known of the model.
        patterns: What must stay whole.
        leaving: The nodes that will be removed.
        ample: Whether the range of float16 is known to be ample for what the affine makes of a term of a sum.
        leaves_rest: Whether a part of what these nodes do stays.
        mode: How far the search may go.
    """

    def __init__(
        self,
        facts: Facts,
        patterns: Patterns,
        leaving: frozenset[ir.Node],
        *,
        ample: bool,
        leaves_rest: bool,
        mode: Mode,
    ) -> None:
        self.leaving = leaving
        self.mode = mode
        self.touched: dict[ir.Value, None] = {}
        self.depends_on_mode = facts.has_halves
        self._facts = facts
        self._patterns = patterns
        self._ample = ample and mode == "push"
        # what goes away as a whole leaves a value that the original holds too
        self._unranged = frozenset() if leaves_rest else leaving

    def ways(self, node: ir.Node, step: ToInput | ToOutput | Enter) -> Ways | Reason:
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
        if node in self.leaving:
            return _own_reader(node, step.index)
        if self.mode == "stream" and step.affine.has_shift and node.op_type == "BatchNormalization":
            # one goes and one stays, which then has to take a shift away that may be far larger than its own
            return _read_elsewhere(node.inputs[step.index], 1, node)
        family = operator(node)
        self.depends_on_mode |= family.is_rebalanced
        at_input = family.at_input if self.mode == "push" else family.at_input_rebalanced
        answer = self._ask(node, lambda: at_input(node, step.index, step.affine, self._facts))
        return answer if isinstance(answer, Reason) else [[(node, s) for s in way] for way in answer]

    def _to_producer(self, node: ir.Node, step: ToInput) -> Ways | Reason:
        value = node.inputs[step.index]
        if value is None:
            return reasons.NO_PRODUCER(value=name_of(value), node=label(node))
        if self._facts.constants.has(value):
            if node in self.leaving:
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
        if producer in self.leaving:
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
        if self.mode == "push" or not self._is_movable(value, step.affine):
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
        return moderate and wide and (self.mode == "stream" or not affine.has_shift)

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
        self.touched.update(dict.fromkeys(self._facts.unheeded_after(value)))
        return [[(reader, Enter(index, step.affine)) for reader, index in uses]]

    def _touch(self, node: ir.Node, value: ir.Value) -> Reason | None:
        """Note that a value changes.

        Steps in one direction commute. When a search goes both ways, as rebalancing does, two changes of one
        value could meet in the wrong order, so each value changes at most once.
        """
        if value in self.touched:
            self.depends_on_mode = True
            if self.mode != "push":
                return _read_elsewhere(value, 1, node)
        self.touched[value] = None
        return None


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
