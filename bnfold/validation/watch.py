"""What the values inside a model were while the oracle evaluated it.

The oracle asks for the function of every node when it is made. `Watch.choose` gives it that function with
eyes: which branches run, which rows of constant tables are met, and which channels are ever anything but
zero. What it keeps is a flag for each branch, row and channel, and none of the values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from bnfold.graph.scopes import ONNX_DOMAINS, scopes
from bnfold.oracle.ops import operator
from bnfold.oracle.ops.call import Array, Call, Operator

Flags = npt.NDArray[np.bool_]

_FEW = 4  # places along an axis that are looked at first
_LONGEST = 2**20  # channels of a value; what is longer is a signal and not a row of channels

# The zeros of a value in its own channels, and what moves numbers to other places: neither makes new zeros.
_KEEPING = frozenset(
    {"AveragePool", "Cast", "Dropout", "GlobalAveragePool", "GlobalMaxPool", "Identity", "MaxPool", "Resize"}
)
_MOVING = frozenset(
    {"Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Pad", "Reshape"}
    | {"Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
)
# Channels of what it reads are not its own.
_MIXING = frozenset(
    {
        "Conv",
        "ConvTranspose",
        "Einsum",
        "GRU",
        "Gemm",
        "LSTM",
        "MatMul",
        "QLinearConv",
        "QLinearMatMul",
        "RNN",
    }
)
_TAKING_SIZES = frozenset({"ConstantOfShape", "EyeLike", "Range", "Shape", "Size"})
_CONDITIONS = {"If": 1, "Loop": 2}  # how many of the first inputs decide whether a body runs


@dataclass
class Branches:
    """The bodies of one control-flow node.

    Attributes:
        label: Its name, or that of its first output.
        op_type: `"If"`, `"Loop"`, `"Scan"` or `"SequenceMap"`.
        ran: Whether each has run, by its name.
        reached: Whether the node itself was evaluated; not if it stands in a branch that never ran.
    """

    label: str
    op_type: str
    ran: dict[str, bool]
    reached: bool = False

    @property
    def missed(self) -> list[str]:
        """The bodies that never ran, of a node that did."""
        return [name for name, ran in self.ran.items() if not ran] if self.reached else []

    def watched(self, bodies: Mapping[str, Any]) -> dict[str, Any]:
        """Bodies that note that they run."""
        self.reached = True
        return {name: partial(self._run, name, body) for name, body in bodies.items()}

    def _run(self, name: str, body: Any, inputs: list[Any]) -> Any:
        self.ran[name] = True
        return body(inputs)


@dataclass
class Table:
    """A constant from which a Gather takes rows by numbers that depend on the inputs.

    Attributes:
        label: The Gather's name, or that of its output.
        source: The constant's name.
        met: Which rows an index met; empty until it ran.
    """

    label: str
    source: str
    met: Flags = field(default_factory=lambda: np.zeros(0, np.bool_))

    def add(self, size: int, indices: Array) -> None:
        """Note which of its `size` rows are taken."""
        if self.met.size != size:
            self.met = np.zeros(size, np.bool_)
        self.met[np.asarray(indices).ravel()] = True


@dataclass
class Channels:
    """Which slices of one value have been anything but zero, along axis 1 and along the last one.

    Attributes:
        name: The value.
        op_type: The operator that computes it.
        reads: The values that it is computed from.
        groups: Of a convolution; where each channel has its own, what it reads has the same channels.
        lives: Whether any element has been.
        axes: The slices by axis; an axis whose size changes is left out.
    """

    name: str
    op_type: str
    reads: Sequence[str] = ()
    groups: int = 1
    lives: bool = False
    axes: dict[int, Flags] | None = None
    _done: bool = False

    def add(self, value: object) -> None:
        """Note what is not zero in a value; NaN is not."""
        if self._done or not isinstance(value, np.ndarray) or value.dtype.kind != "f" or not value.size:
            return
        if self.axes is None:
            own = {1, value.ndim - 1} if value.ndim > 1 else set()
            tracked = sorted(axis for axis in own if 1 < value.shape[axis] <= _LONGEST)
            self.axes = {axis: np.zeros(value.shape[axis], np.bool_) for axis in tracked}
        for axis, lives in tuple(self.axes.items()):
            if axis >= value.ndim or value.shape[axis] != lives.size:
                del self.axes[axis]
            else:
                _wake(lives, axis, value)
        self.lives = self.lives or any(map(np.any, self.axes.values())) or bool(value.any())
        self._done = self.lives and all(lives.all() for lives in self.axes.values())

    @property
    def ran(self) -> bool:
        """Whether the value was computed at all."""
        return self.axes is not None

    def dead(self, sources: Sequence[Channels]) -> tuple[int | None, Flags]:
        """The axis, and which of its slices were zero throughout; no axis where all of the value was.

        Args:
            sources: The values that it is computed from, whose zeros are not counted again.
        """
        if not self.ran or any(one.ran and not one.lives for one in sources):
            return None, np.zeros(0, np.bool_)
        if not self.lives:
            return None, np.ones(1, np.bool_)
        for axis, lives in (self.axes or {}).items():
            dead = ~lives
            mixes = self.op_type in _MIXING and self.groups != dead.size
            for one in () if mixes else sources:
                known = (one.axes or {}).get(axis)
                if known is not None and known.size == dead.size:
                    dead &= known
            if dead.any():
                return axis, dead
        return None, np.zeros(0, np.bool_)


class Watch:
    """What was seen of one model.

    Args:
        model: The model.
        only_branches: Whether nothing but its control flow is looked at.
    """

    def __init__(self, model: ir.Model, *, only_branches: bool = False) -> None:
        self.branches: dict[tuple[str, ...], Branches] = {}
        self.tables: dict[str, Table] = {}
        self._only_branches = only_branches
        self._outputs = [value.name or "" for value in model.graph.outputs]
        self._fixed = {name for scope in scopes(model) for name in scope.graph.initializers}
        self._still = set(self._fixed)  # no number of an input reaches these, only sizes
        self._same: dict[str, str] = {}
        self._values: dict[str, Channels] = {}
        self._ports: dict[str, Channels] = {}

    def choose(self, call: Call) -> Operator:
        """The function that evaluates a node, with eyes.

        Raises:
            Refusal: No function does.
        """
        node = call.node
        is_fixed, is_still = self._follow(node)
        function = operator(call)
        if bodies := [one.name for one in node.attribute if one.type == onnx.AttributeProto.GRAPH]:
            deciding = [name for name in node.input[: _CONDITIONS.get(node.op_type, 0)] if name]
            if deciding and self._fixed.issuperset(deciding):
                return function  # no input changes which of them runs
            key = (node.name, *node.output)
            branches = self.branches.setdefault(key, Branches(_label(node), node.op_type, _unrun(bodies)))
            return partial(_enter, branches, function)
        if self._only_branches or is_fixed or node.domain not in ONNX_DOMAINS:
            return function
        if node.op_type == "Gather" and node.input[0] in self._fixed:
            table = self.tables.setdefault(node.output[0], Table(_label(node), node.input[0]))
            return partial(_look_up, table, function)
        if is_still or node.op_type in _MOVING:
            return function
        if node.op_type in _KEEPING:
            self._same[node.output[0]] = self._same.get(node.input[0], node.input[0])
            return function
        watched = [
            self._values.setdefault(
                name, Channels(name, node.op_type, tuple(node.input), call.get("group", 1))
            )
            for name in node.output
        ]
        return partial(_see, watched, function)

    def compared(self, feeds: Mapping[str, Any], outputs: Sequence[Any]) -> None:
        """Note the inputs and outputs of one sample on which the models are compared."""
        made = dict(zip(self._outputs, outputs, strict=True))
        for kind, values in (("input", feeds), ("output", made)):
            for name, value in values.items():
                self._ports.setdefault(f"{kind} {name}", Channels(name, kind)).add(value)

    def dead(self) -> Iterator[tuple[Channels, int | None, Flags]]:
        """Every value with zeros of its own: inputs, inner values and outputs, each with axis and slices."""
        inputs, outputs = (
            [one for one in self._ports.values() if one.op_type == kind] for kind in ("input", "output")
        )
        inner = (one for name, one in self._values.items() if name not in self._outputs)
        for one in (*inputs, *inner, *outputs):
            names = (self._same.get(name, name) for name in one.reads)
            sources = [self._values[name] for name in names if name in self._values]
            axis, dead = one.dead(sources)
            if dead.any():
                yield one, axis, dead

    @property
    def seen(self) -> tuple[int, int, int]:
        """How many branches ran and rows were met, and minus how many channels are dead.

        A branch that runs for the first time may show more of what was not seen, so that no sum says whether
        something new was.
        """
        branches = sum(sum(one.ran.values()) for one in self.branches.values())
        rows = sum(int(table.met.sum()) for table in self.tables.values())
        return branches, rows, -sum(int(dead.sum()) for _, _, dead in self.dead())

    def _follow(self, node: onnx.NodeProto) -> tuple[bool, bool]:
        """Whether a node computes from constants alone, and whether it reads no more of inputs than sizes."""
        read = {name for name in node.input if name}
        has_body = any(one.type == onnx.AttributeProto.GRAPH for one in node.attribute)
        is_fixed = not has_body and read <= self._fixed
        by_value = set(node.input[:1]) if node.op_type == "CastLike" else read
        is_still = not has_body and (node.op_type in _TAKING_SIZES or by_value <= self._still)
        self._fixed.update(node.output if is_fixed else ())
        self._still.update(node.output if is_still else ())
        return is_fixed, is_still


def _wake(lives: Flags, axis: int, value: Array) -> None:
    """Note which slices are not zero: a few elements show it of most, and the rest is read for the others."""
    others = tuple(number for number in range(value.ndim) if number != axis)
    few = tuple(
        slice(None, None, 1 if number == axis else max(1, size // _FEW))
        for number, size in enumerate(value.shape)
    )
    if not lives.all():
        lives |= value[few].any(axis=others)
    if not lives.all():
        lives[~lives] = np.compress(~lives, value, axis).any(axis=others)


def _enter(
    branches: Branches, function: Operator, call: Call, *inputs: Any, bodies: Mapping[str, Any]
) -> Any:
    return function(call, *inputs, bodies=branches.watched(bodies))


def _look_up(table: Table, function: Operator, call: Call, rows: Array, indices: Array) -> Any:
    taken = function(call, rows, indices)
    table.add(np.shape(rows)[call.get("axis", 0)], indices)
    return taken


def _see(values: Sequence[Channels], function: Operator, call: Call, *inputs: Any) -> Any:
    made = function(call, *inputs)
    for one, value in zip(values, made if isinstance(made, tuple) else (made,), strict=False):
        one.add(value)
    return made


def _label(node: onnx.NodeProto) -> str:
    return node.name or next(filter(None, node.output), node.op_type)


def _unrun(bodies: Sequence[str]) -> dict[str, bool]:
    return dict.fromkeys(bodies, False)
