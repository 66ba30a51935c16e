"""Which channels of which values have to be scaled alike.

A positive scale of a channel goes through Relu, pools, residual Adds, Concats and the like unchanged, and a
linear layer takes any scale on either side into its weight. So the channels of all values fall into classes:
channels of one class have one scale. A class that meets anything else, such as a Sigmoid or an output of the
model, has the scale 1.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import onnx_ir as ir

from bnfold.edge.classes import Classes, Ids, Labels
from bnfold.edge.passing import LINEAR, RULES
from bnfold.graph.facts import Facts
from bnfold.graph.naming import QUANTIZATION
from bnfold.graph.nodes import captured
from bnfold.graph.scopes import ONNX_DOMAINS

_EXACT = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE})  # others have too little range to move in


@dataclass(frozen=True)
class Layer:
    """A linear node whose weight can take scales on both sides.

    Attributes:
        node: The node; its weight is input 1.
        outputs: The numbers of its output channels.
        inputs: The numbers of its input channels; None where what it reads is held at the scale 1.
        out_axis: The axis of the weight along which the output channels lie.
        sizes: The number of output and of input channels.
        groups: How many groups of channels it has.
        biases: The constants that are added to its output channels and take their scale, as node and input.
    """

    node: ir.Node
    outputs: Ids
    inputs: Ids | None
    out_axis: int
    sizes: tuple[int, int]
    groups: int = 1
    biases: list[tuple[ir.Node, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Refused:
    """A linear node that takes no scale.

    Attributes:
        node: The node.
        why: What stands in the way, as part of a sentence.
    """

    node: ir.Node
    why: str


class Channels:
    """The channels of the main graph of a model.

    Attributes:
        facts: What is proved about the model.
        classes: Which channels are scaled alike.
        layers: The linear nodes that can take scales, in the order of the graph.
        refused: Those that cannot.
        added: Constants that are added to channels and take their scale, as node, input and channels.
    """

    def __init__(self, facts: Facts) -> None:
        self.facts, self.classes = facts, Classes()
        self.layers: list[Layer] = []
        self.refused: list[Refused] = []
        self.added: list[tuple[ir.Node, int, Labels]] = []
        self._labels: dict[ir.Value, Labels] = {}
        self._seen: set[ir.Value] = set()
        graph = facts.model.graph
        self._uses = Counter(value for node in graph for value in node.inputs if value is not None)
        self._weights = {node.inputs[1] for node in graph if node.op_type in LINEAR and len(node.inputs) > 1}
        for node in graph:
            self._visit(node)
            for value in captured(node):
                self._hold(value, "is read inside a branch or loop")
                self._seen.add(value)
        for value in graph.outputs:
            self._hold(value, "is an output of the model")

    def _visit(self, node: ir.Node) -> None:
        rule = RULES.get(node.op_type) if node.domain in ONNX_DOMAINS else None
        known = any(value in self._labels for value in node.inputs) or node.op_type in LINEAR
        labels = rule(self, node) if rule and known else None
        self._seen.update(value for value in node.inputs if value is not None)
        if labels is None:  # it does not let a scale through
            for value in node.inputs:
                self._hold(value, f"{node.op_type} does not let a scale through")
            return
        for value, one in zip(node.outputs, labels, strict=False):
            if one is None:
                continue
            self._labels[value] = one
            if value in self._seen:
                self._hold(value, "is read before it is computed")
            if QUANTIZATION in value.meta:
                self._hold(value, "has a recorded scale of quantisation")

    def _hold(self, value: ir.Value | None, why: str) -> None:
        if value in self._labels:
            self.classes.fix(self._labels[value].ids, why)

    def labelled(self) -> list[tuple[ir.Value, Labels]]:
        """Every value whose channels are known."""
        return list(self._labels.items())

    def of(self, value: ir.Value | None) -> Labels | None:
        """The channels of a value; None where it is held at the scale 1."""
        return self._labels.get(value) if value is not None else None

    def obstacle(self, node: ir.Node, index: int, *, shared: bool = False) -> str | None:
        """Why an input cannot be replaced by a multiple of itself; None where it is a constant that can.

        One that others read as well would be in the file twice, which is allowed of what is small: `shared`.
        """
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is None or self.facts.constants.is_overridable(value):
            return "may be set by callers" if value is not None else "is left out"
        if not self.facts.has_constant(node, index) or self.facts.constants.stored(value) is None:
            return "is computed"
        if not shared and (self._uses[value] > 1 or value.is_graph_output()):
            return "is read by other nodes too"
        dtype = self.facts.constant_dtype(node, index)
        return None if dtype in _EXACT else f"is in {dtype.name.lower()}, whose range is narrow"

    def is_vector(self, node: ir.Node, index: int, axis: int, size: int) -> bool:
        """Whether an input is a constant of this size that lies along an axis, counted from the last one."""
        shape = tuple(self.facts.shape(node.inputs[index]) or ())
        return (
            len(shape) >= -axis
            and shape == tuple(size if at == axis + len(shape) else 1 for at in range(len(shape)))
            and node.inputs[index] not in self._weights  # which this would leave to its layer alone
            and self.obstacle(node, index, shared=True) is None
        )

    def has_weight(self, node: ir.Node, fewest: int, most: int) -> bool:
        """Whether input 1 is a weight of so many axes that can be scaled; note why where it is not."""
        why = self.obstacle(node, 1)
        if why is None and fewest <= len(self.weight_shape(node)) <= most:
            return True
        if why is not None:
            self.refused.append(Refused(node, f"the weight {why}"))
            self._hold(node.inputs[0], f"{node.op_type} reads it, and the weight {why}")
        return False

    def weight_shape(self, node: ir.Node) -> tuple[int, ...]:
        """The sizes of the constant at input 1."""
        return tuple(int(size) for size in self.facts.stored(node, 1).shape.numpy())

    def layer(
        self, node: ir.Node, axis: int, sizes: tuple[int, int], out_axis: int, groups: int = 1
    ) -> Labels:
        """Add a linear layer whose weight is input 1, and give the channels of its output.

        Args:
            node: The node.
            axis: The axis of what it reads and of its output along which the channels lie.
            sizes: The number of output and of input channels.
            out_axis: The axis of the weight along which the output channels lie.
            groups: How many groups of channels it has.
        """
        read = self.of(node.inputs[0])
        if read is not None and (read.axis != axis or len(read.ids) != sizes[1]):
            self._hold(node.inputs[0], f"{node.op_type} reads it along another axis")
            read = None
        made = Labels(axis, self.classes.new(sizes[0]))
        self.layers.append(Layer(node, made.ids, read.ids if read else None, out_axis, sizes, groups))
        return made
