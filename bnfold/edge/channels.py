"""Which channels of which values have to be scaled alike.

A positive scale of a channel goes through Relu, pools, residual Adds, Concats and the like unchanged, and a
linear layer takes any scale on either side into its weight. So the channels of all values fall into classes:
channels of one class have one scale. A class that meets anything else, such as a Sigmoid or an output of the
model, has the scale 1.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bnfold.graph.facts import Facts
from bnfold.graph.naming import QUANTIZATION
from bnfold.graph.nodes import captured, integer, integers, real, text
from bnfold.graph.scopes import ONNX_DOMAINS
from bnfold.ops.resize import kept_axes

Ids = npt.NDArray[np.int64]
_EXACT = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE})  # others have too little range to move in
_FREE = np.iinfo(np.int64).max


class Classes:
    """Numbered channels that are made members of one class, or held at the scale 1."""

    def __init__(self) -> None:
        self._parent = np.zeros(0, np.int64)
        self._held = np.zeros(0, np.int64)  # of those that stand for a class, the number of the reason
        self._reasons: list[str] = []

    def new(self, count: int) -> Ids:
        """Channels of classes of their own."""
        first = len(self._parent)
        made = np.arange(first, first + count)
        self._parent = np.concatenate([self._parent, made])
        self._held = np.concatenate([self._held, np.full(count, _FREE)])
        return made

    @property
    def size(self) -> int:
        """The number of all channels."""
        return len(self._parent)

    def root(self, ids: Ids) -> Ids:
        """One member for each channel that stands for its class."""
        found = self._parent[ids]
        while not np.array_equal(up := self._parent[found], found):
            found = up
        self._parent[ids] = found
        return found

    def join(self, first: Ids, second: Ids) -> None:
        """Let channels be of the same class in pairs."""
        while True:
            one, other = self.root(first), self.root(second)
            apart = one != other
            if not apart.any():
                return
            low, high = np.minimum(one, other)[apart], np.maximum(one, other)[apart]
            np.minimum.at(self._parent, high, low)  # what else it was to join comes in the next round
            np.minimum.at(self._held, low, self._held[high])

    def fix(self, ids: Ids, why: str) -> None:
        """Hold the classes of channels at the scale 1."""
        roots = self.root(ids)
        self._held[roots] = np.minimum(self._held[roots], len(self._reasons))
        self._reasons.append(why)

    def is_free(self, ids: Ids) -> npt.NDArray[np.bool_]:
        """Whether each channel may be scaled."""
        return np.asarray(self._held[self.root(ids)] == _FREE)

    def why_fixed(self, ids: Ids) -> list[str | None]:
        """What holds each channel; None where nothing does."""
        held = self._held[self.root(ids)].tolist()
        return [None if at == _FREE else self._reasons[at] for at in held]


@dataclass(frozen=True)
class Labels:
    """The channels of a value: along which axis they lie, and their numbers in order."""

    axis: int
    ids: Ids


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
            and shape[axis] == size == _elements(shape)
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


Rule = Callable[[Channels, ir.Node], "Sequence[Labels | None] | None"]


def _conv(channels: Channels, node: ir.Node) -> list[Labels | None] | None:
    if not channels.has_weight(node, 3, 5):
        return None
    shape = channels.weight_shape(node)
    groups = integer(node, "group", 1)
    transposed = node.op_type == "ConvTranspose"
    sizes = (shape[1] * groups, shape[0]) if transposed else (shape[0], shape[1] * groups)
    made = channels.layer(node, 1, sizes, out_axis=1 if transposed else 0, groups=groups)
    return [_with_bias(channels, node, 2, made)]


def _with_bias(channels: Channels, node: ir.Node, index: int, made: Labels) -> Labels:
    """Let a bias take the scale of the output; hold the output where it cannot."""
    if index >= len(node.inputs) or node.inputs[index] is None:
        return made
    if channels.is_vector(node, index, -1, len(made.ids)):
        channels.layers[-1].biases.append((node, index))
        return made
    channels.classes.fix(made.ids, f"the bias of {node.op_type} is not a vector of constants")
    return made


def _gemm(channels: Channels, node: ir.Node) -> list[Labels | None] | None:
    if integer(node, "transA", 0) or not channels.has_weight(node, 2, 2):
        return None
    shape = channels.weight_shape(node)
    out_axis = 0 if integer(node, "transB", 0) else 1
    made = channels.layer(node, 1, (shape[out_axis], shape[1 - out_axis]), out_axis=out_axis)
    return [_with_bias(channels, node, 2, made)]


def _matmul(channels: Channels, node: ir.Node) -> list[Labels | None] | None:
    rank = channels.facts.rank(node.inputs[0])
    if not rank or rank < 2 or not channels.facts.has_constant(node, 1):  # attention has no weight
        return None
    if not channels.has_weight(node, 2, 2):
        return None
    shape = channels.weight_shape(node)
    return [channels.layer(node, rank - 1, (shape[1], shape[0]), out_axis=1)]


def _same(channels: Channels, node: ir.Node) -> list[Labels | None] | None:
    return [channels.of(node.inputs[0])]


def _clip(channels: Channels, node: ir.Node) -> list[Labels | None] | None:
    """A Clip that is a Relu."""
    low, high = real(node, "min", -math.inf), real(node, "max", math.inf)
    if channels.facts.version(node) >= 11:
        bounds = [channels.facts.operand(node, index) if _given(node, index) else None for index in (1, 2)]
        if any(_given(node, at + 1) and bound is None for at, bound in enumerate(bounds)):
            return None
        low = -math.inf if bounds[0] is None else float(bounds[0].reshape(-1)[0])
        high = math.inf if bounds[1] is None else float(bounds[1].reshape(-1)[0])
    return [channels.of(node.inputs[0])] if low in (0.0, -math.inf) and high == math.inf else None


def _prelu(channels: Channels, node: ir.Node) -> list[Labels | None] | None:
    return [channels.of(node.inputs[0])] if channels.facts.has_constant(node, 1) else None


def _pool(channels: Channels, node: ir.Node) -> list[Labels | None] | None:
    labels = channels.of(node.inputs[0])
    return [labels] if labels and labels.axis == 1 and len(node.outputs) == 1 else None


def _times(channels: Channels, node: ir.Node) -> list[Labels | None] | None:
    """A product with a constant, or with what is held at the scale 1."""
    values = [channels.of(value) for value in node.inputs]
    if node.op_type == "Div" and values[1] is not None:
        return None
    known = [labels for labels in values if labels is not None]
    if len(known) != 1:
        return None if known else [None]
    one, value = known[0], node.inputs[values.index(known[0])]
    is_whole = channels.facts.rank(value) == channels.facts.rank(node.outputs[0])
    return [one] if is_whole and channels.facts.size(node.outputs[0], one.axis) == len(one.ids) else None


def _sum(channels: Channels, node: ir.Node) -> list[Labels | None] | None:
    """Terms that are scaled alike; a constant term takes the scale."""
    values = list(node.inputs)
    constants = [index for index, value in enumerate(values) if channels.facts.has_constant(node, index)]
    labels = [channels.of(value) for index, value in enumerate(values) if index not in constants]
    if not labels or any(one is None for one in labels):
        return None
    known = [one for one in labels if one is not None]
    first, rank = known[0], channels.facts.rank(node.outputs[0])
    ranks = {channels.facts.rank(values[index]) for index in range(len(values)) if index not in constants}
    if rank is None or ranks != {rank}:
        return None
    if any(one.axis != first.axis or len(one.ids) != len(first.ids) for one in known):
        return None
    if not all(channels.is_vector(node, index, first.axis - rank, len(first.ids)) for index in constants):
        return None
    for one in known[1:]:
        channels.classes.join(first.ids, one.ids)
    channels.added += [(node, index, first) for index in constants]
    return [first]


def _concat(channels: Channels, node: ir.Node) -> list[Labels | None] | None:
    labels = [channels.of(value) for value in node.inputs]
    rank = channels.facts.rank(node.inputs[0])
    known = [one for one in labels if one is not None]
    if rank is None or not known or len({one.axis for one in known}) > 1:
        return None
    axis = integer(node, "axis", 1) % rank
    if axis != known[0].axis:
        if len(known) < len(labels) or len({len(one.ids) for one in known}) > 1:
            return None
        for one in known[1:]:
            channels.classes.join(known[0].ids, one.ids)
        return [known[0]]
    parts = []
    for value, given in zip(node.inputs, labels, strict=True):
        size = channels.facts.size(value, axis)
        if given is None and size is None:
            return None
        parts.append(given.ids if given is not None else channels.classes.new(size or 0))
        if given is None:
            channels.classes.fix(parts[-1], "stands next to channels that are scaled")
    return [Labels(axis, np.concatenate(parts))]


def _split(channels: Channels, node: ir.Node) -> list[Labels | None] | None:
    labels, rank = channels.of(node.inputs[0]), channels.facts.rank(node.inputs[0])
    if labels is None or rank is None:
        return None
    axis = integer(node, "axis", 0) % rank
    if axis != labels.axis:
        return [labels] * len(node.outputs)
    known = [channels.facts.size(value, axis) for value in node.outputs]
    sizes = [size for size in known if size is not None]
    if len(sizes) < len(known) or sum(sizes) != len(labels.ids):
        return None
    return [Labels(axis, part) for part in np.split(labels.ids, np.cumsum(sizes)[:-1])]


def _transpose(channels: Channels, node: ir.Node) -> list[Labels | None] | None:
    labels, rank = channels.of(node.inputs[0]), channels.facts.rank(node.inputs[0])
    if labels is None or rank is None:
        return None
    order = list(integers(node, "perm")) or list(reversed(range(rank)))
    return [Labels(order.index(labels.axis), labels.ids)]


def _reshape(channels: Channels, node: ir.Node) -> list[Labels | None] | None:
    """A channel axis that stays, or takes in the axes after it, whose elements then repeat its channels."""
    labels = channels.of(node.inputs[0])
    before, after = (channels.facts.shape(value) for value in (node.inputs[0], node.outputs[0]))
    if labels is None or before is None or after is None or not len(labels.ids):
        return None
    inner = _elements(before[labels.axis + 1 :])
    for axis, size in enumerate(after):
        rest = _elements(after[axis + 1 :])
        if inner is None or rest is None:
            continue
        if size == len(labels.ids) and rest == inner:  # whatever became of the axes before it
            return [Labels(axis, labels.ids)]
        if size == len(labels.ids) * inner and rest == 1:
            return [Labels(axis, np.repeat(labels.ids, inner))]
    return None


def _elements(sizes: Sequence[object]) -> int | None:
    """The product of sizes; None where one is not known."""
    known = [size for size in sizes if isinstance(size, int)]
    return math.prod(known) if len(known) == len(sizes) else None


def _reduce(channels: Channels, node: ir.Node) -> list[Labels | None] | None:
    labels, rank = channels.of(node.inputs[0]), channels.facts.rank(node.inputs[0])
    axes = channels.facts.integers(node, 1, "axes")
    if labels is None or rank is None or not axes:
        return None
    gone = {axis % rank for axis in axes}
    if labels.axis in gone:
        return None
    kept = integer(node, "keepdims", 1)
    return [Labels(labels.axis - (0 if kept else sum(axis < labels.axis for axis in gone)), labels.ids)]


def _pad(channels: Channels, node: ir.Node) -> list[Labels | None] | None:
    labels, rank = channels.of(node.inputs[0]), channels.facts.rank(node.inputs[0])
    pads = channels.facts.integers(node, 1, "pads")
    if labels is None or rank is None or pads is None or len(pads) != 2 * rank or _given(node, 3):
        return None  # input 3 gives an order of axes
    if pads[labels.axis] or pads[rank + labels.axis]:
        return None
    if text(node, "mode", "constant") != "constant":
        return [labels]
    filled = channels.facts.operand(node, 2) if _given(node, 2) else None
    if _given(node, 2) and filled is None:
        return None
    value = real(node, "value", 0.0) if filled is None else float(filled.reshape(-1)[0])
    return [labels] if value == 0 else None


def _given(node: ir.Node, index: int) -> bool:
    return index < len(node.inputs) and node.inputs[index] is not None


def _resize(channels: Channels, node: ir.Node) -> list[Labels | None] | None:
    """A Resize that leaves the channel axis alone, and writes no fixed number beyond the border."""
    labels = channels.of(node.inputs[0])
    if labels is None or text(node, "coordinate_transformation_mode", "") == "tf_crop_and_resize":
        return None
    return [labels] if labels.axis in kept_axes(node, channels.facts) else None


LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})

RULES: Mapping[str, Rule] = {
    **dict.fromkeys(("Conv", "ConvTranspose"), _conv),
    "Gemm": _gemm,
    "MatMul": _matmul,
    **dict.fromkeys(("Relu", "LeakyRelu", "Identity", "Dropout", "Neg", "Abs"), _same),
    "Clip": _clip,
    "PRelu": _prelu,
    **dict.fromkeys(("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"), _pool),
    **dict.fromkeys(("Mul", "Div"), _times),
    **dict.fromkeys(("Add", "Sum", "Sub", "Max", "Min"), _sum),
    "Concat": _concat,
    "Split": _split,
    "Transpose": _transpose,
    **dict.fromkeys(("Flatten", "Reshape", "Squeeze", "Unsqueeze"), _reshape),
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"), _reduce),
    "Pad": _pad,
    **dict.fromkeys(("Resize", "Upsample"), _resize),
}
