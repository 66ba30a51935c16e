"""What a model does with its integer inputs, as far as its graph shows it; their values are chosen by it.

An index of a table has to stay below the table's size, a number that sizes a tensor must not be large, and
one that is compared with a constant decides between branches at that very number. Two uses are taken from the
names of inputs, because graphs show them in many ways: masks, and lengths of sequences.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from bnfold.graph import shape_inference
from bnfold.graph.constants import held, initializer
from bnfold.graph.scopes import ONNX_DOMAINS, scopes
from bnfold.graph.shape_inference import Dims
from bnfold.inputs.values import WIDE_INTEGERS
from bnfold.runtime.interface import Port

# What hands on the numbers of its first input, all of them or some, and what makes others of them.
_CARRYING = frozenset(
    {"Cast", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile"}
    | {"Transpose", "Unsqueeze"}
)
_COMPUTING = frozenset(
    {"Abs", "Add", "Ceil", "Clip", "CumSum", "Div", "Floor", "Max", "Min", "Mod", "Mul", "Neg", "ReduceMax"}
    | {"ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "Round", "Sub", "Sum", "Where"}
)
_COMPARING = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"})

# Inputs of operators whose numbers are sizes of the output, and those that take only a few small numbers.
_SIZING = frozenset(
    {("BlackmanWindow", 0), ("CenterCropPad", 1), ("Col2Im", 1), ("ConstantOfShape", 0), ("Expand", 1)}
    | {("HammingWindow", 0), ("HannWindow", 0), ("Loop", 0), ("MaxUnpool", 2), ("OneHot", 1), ("Pad", 1)}
    | {("Range", 1), ("Reshape", 1), ("Resize", 3), ("Slice", 2), ("Tile", 1), ("TopK", 1)}
)
_CHOICES = {("Range", 0): (0, 1), ("Range", 2): (1, 2), ("Slice", 1): (0, 1), ("Slice", 4): (1, 2)}
_STEPS = frozenset({("LSTM", 4), ("GRU", 4), ("RNN", 4)})

_MASK = re.compile(r"(?:^|[_.\W])mask(?:[_:.]?\d+)*$|attention_?mask", re.IGNORECASE)
_LENGTH = re.compile(r"(?:^|[_.\W])(?:lengths?|lens?)(?:[_:.]?\d+)*$", re.IGNORECASE)


@dataclass(frozen=True)
class Use:
    """What one integer input is used for.

    Attributes:
        table: The size of the smallest table that it indexes; None where it indexes none of a known size.
        sizes: Whether its numbers become sizes of tensors.
        choices: Numbers that decide something, if it is a single number: each is worth a sample.
        mask: Whether it says which places of a sequence count.
        steps: Whether it says how long sequences are.
        gathers: The outputs of the nodes that look it up in a table.
        compared: Numbers that it, or what is made of it, is compared with.
    """

    table: int | None = None
    sizes: bool = False
    choices: tuple[int, ...] = ()
    mask: bool = False
    steps: bool = False
    gathers: tuple[str, ...] = ()
    compared: tuple[int, ...] = ()


@dataclass
class _Found:
    """What the readers of one input show, while they are looked at."""

    tables: list[int] = field(default_factory=list)
    choices: dict[int, None] = field(default_factory=dict)  # in the order of the graph
    compared: dict[int, None] = field(default_factory=dict)
    gathers: dict[str, None] = field(default_factory=dict)
    sizes: bool = False
    steps: bool = False


def of(ports: Sequence[Port], model: ir.Model | None = None) -> dict[str, Use]:
    """The use of every wide integer input, by its name.

    Args:
        ports: The inputs that the model needs.
        model: The model; without it, only names say something.
    """
    wide = [port for port in ports if port.type in WIDE_INTEGERS]
    if not wide:
        return {}
    shapes: Mapping[ir.Value, Dims] = {}
    if model is not None:
        shapes, _ = shape_inference.infer(model, list(scopes(model)))
    values = {} if model is None else {value.name: value for value in model.graph.inputs}
    return {port.name: _use(port, values.get(port.name), shapes) for port in wide}


def _use(port: Port, value: ir.Value | None, shapes: Mapping[ir.Value, Dims]) -> Use:
    found = _Found()
    single = port.shape in ((), (1,))
    if value is not None:
        for node, index, exact in _readers(value):
            _look(found, node, index, shapes, exact=exact)
    ranked = bool(port.shape)
    steps = found.steps or (ranked and len(port.shape or ()) == 1 and bool(_LENGTH.search(port.name)))
    return Use(
        min(found.tables, default=None),
        found.sizes and not steps,
        tuple(found.choices) if single else (),
        ranked and bool(_MASK.search(port.name)),
        steps,
        tuple(found.gathers),
        tuple(found.compared),
    )


def _look(found: _Found, node: ir.Node, index: int, shapes: Mapping[ir.Value, Dims], *, exact: bool) -> None:
    """Note what a node does with a number at its input `index`; `exact` if it is the input's own number."""
    place = (node.op_type, index)
    found.sizes |= place in _SIZING
    number = None
    if node.op_type in _COMPARING and len(node.inputs) == 2:
        number = _constant(node.inputs[1 - index])
    if number is not None:
        found.compared[number] = None
    if not exact:
        return
    found.steps |= place in _STEPS
    for choice in _CHOICES.get(place, ()):
        found.choices[choice] = None
    if place == ("Gather", 1) and (size := _table(node, shapes)):
        found.tables.append(size)
        found.gathers[node.outputs[0].name or ""] = None
    if number is not None and number >= 0:
        found.choices[number] = None


def _readers(value: ir.Value) -> Iterator[tuple[ir.Node, int, bool]]:
    """Every ONNX operator that a number of the value reaches, at which input, and whether unchanged."""
    pending, seen = [(value, True)], {(value, True)}
    while pending:
        one, exact = pending.pop(0)
        for node, index in one.uses():
            if node.domain not in ONNX_DOMAINS:
                continue
            yield node, index, exact
            carries = (node.op_type in _CARRYING and index == 0) or node.op_type == "Concat"
            if not carries and node.op_type not in _COMPUTING:
                continue
            for output in node.outputs:
                reached = (output, exact and carries)
                if reached not in seen:
                    seen.add(reached)
                    pending.append(reached)


def _table(node: ir.Node, shapes: Mapping[ir.Value, Dims]) -> int | None:
    """The size of what a Gather reads along its axis; None where that is not known."""
    table = node.inputs[0]
    shape = None if table is None else shapes.get(table)
    attribute = node.attributes.get("axis")
    axis = 0 if attribute is None or attribute.is_ref() else attribute.as_int()
    if not shape or not -len(shape) <= axis < len(shape):
        return None
    size = shape[axis]
    return size if isinstance(size, int) else None


def _constant(value: ir.Value | None) -> int | None:
    """A single integer that the graph holds."""
    if value is None:
        return None
    producer = value.producer()
    tensor = initializer(value, overridable=True) if producer is None else held(producer)
    if tensor is None or tensor.size != 1 or tensor.dtype not in (ir.DataType.INT32, ir.DataType.INT64):
        return None
    return int(tensor.numpy().item())
