"""Models in float16 or bfloat16 that stay within their range, and are judged in that precision.

First the float64 evaluation says how large every value becomes on samples. Channels that are too large for
the type are scaled down by powers of two where layers on both sides can take them
([`channels`][bnfold.edge.channels]); that changes no digit. Nodes that compute or read what is still too
large stay in float32. Then the model is converted, evaluated as its types say, and compared.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import onnx_ir as ir

from bnfold.edge import equalize, half
from bnfold.edge.called import called
from bnfold.edge.channels import Channels
from bnfold.edge.classes import Ids
from bnfold.edge.magnitudes import MARGIN, OutOfRange, Sizes, magnitudes, of_tensor, out_of_range
from bnfold.edge.rounded import Judgement, judge
from bnfold.graph.editor import Editor
from bnfold.graph.facts import Facts
from bnfold.runtime.sessions import Feeds
from bnfold.tensors.precision import LARGEST, SMALLEST_NORMAL

Precision: TypeAlias = Literal["float16", "bfloat16", "mixed"]

TYPES = {"float16": ir.DataType.FLOAT16, "bfloat16": ir.DataType.BFLOAT16, "mixed": ir.DataType.FLOAT16}

MIXED = frozenset({
    *("Pow", "Exp", "Log", "Softplus", "Softmax", "LogSoftmax", "Reciprocal", "Sqrt", "Erf", "Sinh", "Cosh"),
    *("ReduceSum", "ReduceProd", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp"),
    *("ReduceSumSquare", "CumSum", "LpNormalization", "BatchNormalization", "InstanceNormalization"),
    *("LayerNormalization", "GroupNormalization", "RMSNormalization", "Tan", "Acos", "Asin"),
})  # fmt: skip
"""What stays in float32 with `mixed`: the operators that PyTorch's autocast computes in float32.

Source: "CUDA Ops that can autocast to float32", docs.pytorch.org/docs/stable/amp.html, and normalisations.
"""

_ROOM = 2.0  # powers of two by which a scaled channel is kept below the largest number
_DIGITS = 2.0**6  # how far a weight that was scaled down has to stay above where digits are lost


@dataclass(frozen=True)
class Kept:
    """A node that stays in float32.

    Attributes:
        node: Its name.
        operator: Its operator.
        why: The reason, as a clause.
    """

    node: str
    operator: str
    why: str


@dataclass(frozen=True)
class Converted:
    """The outcome of a conversion.

    Attributes:
        model: The model in the new precision; inputs and outputs are float32 unless asked otherwise.
        precision: What was asked for.
        out_of_range: The tensors that the type does not hold, in the order of the graph; the first is where
            a conversion without repair goes wrong.
        repaired: Names of those that powers of two brought into range.
        scaled: How many channels were scaled for it.
        kept: The nodes that stay in float32.
        judgement: How near the model is to the truth, in units of the precision.
    """

    model: ir.Model
    precision: Precision
    out_of_range: tuple[OutOfRange, ...]
    repaired: tuple[str, ...]
    scaled: int
    kept: tuple[Kept, ...]
    judgement: Judgement

    @property
    def first(self) -> OutOfRange | None:
        """The first tensor that the type does not hold."""
        return self.out_of_range[0] if self.out_of_range else None

    @property
    def passed(self) -> bool:
        """Whether the model is as near to the truth as the digits of the type allow."""
        return self.judgement.passed

    @property
    def sentence(self) -> str:
        """What was done, and how far the model is from the truth."""
        text = f"Converted to {self.precision}"
        if self.first is not None:
            many = len(self.out_of_range)
            text += (
                f"; {'1 tensor was' if many == 1 else f'{many} tensors were'} out of range, "
                f"{len(self.repaired)} repaired by powers of two, "
                f"first: {self.first.sentence.removesuffix('.')}"
            )
        if self.kept:
            many = len(self.kept)
            text += f"; {'1 node stays' if many == 1 else f'{many} nodes stay'} in float32"
        worst = max(self.judgement.outputs, key=lambda one: one.error, default=None)
        if worst is not None:
            text += (
                f"; largest error {worst.error:.3g} units of {self.judgement.unit}; rounding every value "
                f"would cost {worst.ideal:.3g}"
            )
        for one in self.judgement.others:
            text += f"; {one.differing} of {one.elements} elements of {one.output!r} differ"
        return f"{text}."


def convert(
    model: ir.Model,
    precision: Precision,
    samples: Sequence[Feeds],
    *,
    keep_io: bool = True,
    keep: Collection[str] = (),
    repair: bool = True,
) -> Converted:
    """Convert a model in float32.

    Args:
        model: The model; it is not modified.
        precision: `"float16"`, `"bfloat16"`, or `"mixed"`: float16 but for the operators of `MIXED`.
        samples: Inputs by name that show how large its values become.
        keep_io: Whether inputs and outputs stay float32.
        keep: Names of nodes, or of modules, that stay in float32 in any case.
        repair: Whether channels may be scaled by powers of two.

    Raises:
        NotEvaluableError: An operator is not known in float64.
        ModelError: The model has branches or loops, or cannot be converted.
        MissingExtraError: ONNX Runtime is not installed.
    """
    dtype, whole = TYPES[precision], half.prepared(model)
    channels = Channels(Facts(whole))
    axes = {str(value.name): labels.axis for value, labels in channels.labelled()}
    sizes: Sizes = magnitudes(whole, samples, axes)
    found = out_of_range(whole, sizes, dtype)
    scaled, after, moved = whole, sizes, 0
    names: dict[str, str] = {}
    if found and repair:
        scaled, after, moved, names = _repaired(whole, sizes, dtype)
    left = out_of_range(scaled, after, dtype)
    blocked = {*half.blocked_by_default(), *(MIXED if precision == "mixed" else ())}
    # What is small loses digits, which matters only where nothing larger is added to it: the judge says.
    for sides in (("above",), ("above", "below")):
        lost = [one for one in left if one.side in sides]
        kept = _kept(scaled, lost, dtype, keep, blocked)
        made = half.to_half(scaled, dtype, {one.node for one in kept}, blocked, keep_io=keep_io)
        judgement = judge(whole, made, dtype, samples)
        if judgement.passed or len(lost) == len(left):
            break
    gone = {one.value for one in left}
    repaired = tuple(one.value for one in found if moved and names.get(one.value, one.value) not in gone)
    return Converted(made, precision, found, repaired, moved, kept, judgement)


def _repaired(
    model: ir.Model, sizes: Sizes, dtype: ir.DataType
) -> tuple[ir.Model, Sizes, int, dict[str, str]]:
    """Scale the channels that are out of range, as far as the weights on both sides can take it.

    Returns:
        The scaled model, the sizes of its values, how many channels were scaled, and the names that values
        have in it by those that they had.
    """
    barred: set[int] = set()
    while True:
        copy = model.clone()
        channels = Channels(Facts(copy))
        roots = channels.classes.root(np.arange(channels.classes.size))
        steps = _steps(channels, roots, sizes, dtype, barred)
        if not steps.any():
            return model, sizes, 0, {}
        names = {str(value.name): (value, labels.ids) for value, labels in channels.labelled()}
        bad = _written(channels, roots, steps, dtype)
        if not bad:
            break
        barred |= bad
    after = {}
    for name, size in sizes.items():
        value, ids = names.get(name, (None, np.zeros(0, np.int64)))
        factor = np.exp2(steps[roots[ids]].astype(float)) if len(ids) else np.ones(())
        if value is not None and size.shape != factor.shape:
            factor = np.asarray(factor.max(initial=0.0))
        after[str(value.name) if value is not None else name] = size * factor
    renamed = {name: str(value.name) for name, (value, _) in names.items()}
    return copy, after, int(np.count_nonzero(steps[np.unique(roots)])), renamed


def _steps(channels: Channels, roots: Ids, sizes: Sizes, dtype: ir.DataType, barred: Collection[int]) -> Ids:
    """By how many powers of two each channel has to move to be in range."""
    largest = np.zeros(len(roots))
    for value, labels in channels.labelled():
        size = sizes.get(str(value.name))
        if size is not None:
            each = size if size.shape == labels.ids.shape else np.broadcast_to(size.max(), labels.ids.shape)
            np.maximum.at(largest, roots[labels.ids], each)
    for layer in channels.layers:
        rows = _by_output(channels.facts.weight(layer.node, 1), layer.out_axis, len(layer.outputs), dtype)
        if rows is not None:
            np.maximum.at(largest, roots[layer.outputs], rows)
    free = np.array([why is None for why in channels.classes.why_fixed(np.arange(len(roots)))], bool)
    free &= ~np.isin(roots, sorted(barred))
    top = math.log2(LARGEST[dtype]) - _ROOM
    with np.errstate(divide="ignore"):
        logs = np.log2(largest)
    steps = np.where(largest > LARGEST[dtype] / MARGIN, np.floor(top - logs), 0.0)
    for value, labels in channels.labelled():
        whole = float(np.max(sizes.get(str(value.name), np.zeros(())), initial=0.0))
        if 0 < whole < SMALLEST_NORMAL[dtype]:
            own = roots[labels.ids]
            room = np.floor(top - logs[own])
            steps[own] = np.maximum(steps[own], np.minimum(np.ceil(-math.log2(whole)), room))
    steps = np.where(free & np.isfinite(steps) & np.isfinite(logs), steps, 0.0)
    return steps[roots].astype(np.int64)


def _by_output(
    tensor: ir.TensorProtocol, axis: int, count: int, dtype: ir.DataType
) -> np.ndarray[Any, Any] | None:
    """The largest weights of each output channel, where a weight is too large for a type."""
    if of_tensor(tensor) <= LARGEST[dtype]:
        return None
    array = np.abs(tensor.numpy().astype(np.float64))
    rows = array.max(axis=tuple(at for at in range(array.ndim) if at != axis), initial=0.0)
    return rows if rows.shape == (count,) else None


def _written(channels: Channels, roots: Ids, steps: Ids, dtype: ir.DataType) -> set[int]:
    """Scale the weights, and find the channels after whose move a weight loses digits or leaves float32.

    A weight that becomes too large for the type is left so: its layer stays in float32, instead of all that
    computes and passes on the channel.
    """
    editor = Editor(channels.facts)
    equalize.write(channels, steps, editor)
    misfits = {id(error.node) for error in editor.misfits()}
    bad: set[int] = set()
    for layer in channels.layers:
        written = roots[layer.outputs][steps[roots[layer.outputs]] != 0]
        read = np.zeros(0, np.int64) if layer.inputs is None else roots[layer.inputs]
        read = read[steps[read] != 0]
        if not written.size and not read.size:
            continue
        if id(layer.node) in misfits:
            bad.update(written.tolist() + read.tolist())
            continue
        weight = layer.node.inputs[1]
        tensor = weight.const_value if weight is not None else None
        assert tensor is not None, "it is a constant"
        array = np.abs(tensor.numpy().astype(np.float64))
        axes = tuple(at for at in range(array.ndim) if at != layer.out_axis)
        rows = array.max(axis=axes, initial=0.0)
        if np.any((rows > 0) & (rows < SMALLEST_NORMAL[dtype] * _DIGITS)):
            bad.update(written.tolist())
    if not bad:
        editor.compute()
    return bad


def _kept(
    model: ir.Model,
    left: Sequence[OutOfRange],
    dtype: ir.DataType,
    keep: Collection[str],
    blocked: Collection[str],
) -> tuple[Kept, ...]:
    """Those that were asked for, that have no such type, or that compute or read what is out of range."""
    nodes = {str(node.name): node for node in model.graph}
    why = dict.fromkeys(called(model, keep), "it was asked for") | half.unsupported(model, dtype)
    why |= {name: "it stays in float32 as a rule" for name, node in nodes.items() if node.op_type in blocked}
    lost = {one.value: one for one in left}
    for node in model.graph:
        for value in (*node.outputs, *node.inputs):
            one = lost.get(str(value.name)) if value is not None else None
            if one is not None:
                why.setdefault(str(node.name), one.sentence.removesuffix("."))
    return tuple(Kept(name, nodes[name].op_type, text) for name, text in why.items())
