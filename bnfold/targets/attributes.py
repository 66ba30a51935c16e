"""Which values of an attribute, or of a constant input that stands for one, a target takes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import onnx
import onnx_ir as ir

from bnfold.graph.nodes import label
from bnfold.targets.obstacle import HAS, Obstacle, counted
from bnfold.targets.view import View, grouped, operator

Scalar: TypeAlias = int | float | str
_CHANNELS = "channels"  # stands for the number of the input's channels
_OF_ONE = ("strides", "dilations")  # lists of ones where they are left out


@dataclass(frozen=True)
class Attribute:
    """The values of one attribute that are taken; of a list, each element has to be one.

    Attributes:
        operators: Whose attribute it is.
        name: Its name in ONNX.
        input: The place, from 0, of the input that has it in place of an attribute; one that is computed is
            not held against the model.
        allowed: The only values that are taken; `"channels"` is as many as the input has channels.
        refused: Values that are not taken.
        min: The smallest number that is taken.
        max: The largest.
    """

    operators: tuple[str, ...]
    name: str
    allowed: tuple[Scalar, ...] = ()
    refused: tuple[Scalar, ...] = ()
    min: float | None = None
    max: float | None = None
    input: int | None = None

    def look(self, view: View) -> Iterator[Obstacle]:
        """Name the nodes with each value that is not taken."""
        found = []
        for node in view.nodes:
            if operator(node) not in self.operators:
                continue
            value = _value(node, self.name, view) if self.input is None else _held(node, self.input, view)
            if value is not None and not all(self._takes(one, node, view) for one in _elements(value)):
                found.append((f"{node.op_type}\0{_written(value)}", label(node)))
        for what, sites in grouped(found).items():
            name, _, written = what.partition("\0")
            yield counted(name, HAS, f"{self.name} = {written}, and {self.wanted} is taken", sites)

    @property
    def wanted(self) -> str:
        """What is taken, in words."""
        parts = []
        if self.allowed:
            parts.append(
                " or ".join("one a channel" if v == _CHANNELS else _written(v) for v in self.allowed)
            )
        if self.refused:
            parts.append(f"anything but {' and '.join(map(str, self.refused))}")
        if self.min is not None:
            parts.append(f"at least {self.min:g}")
        if self.max is not None:
            parts.append(f"at most {self.max:g}")
        return " and ".join(parts)

    def _takes(self, value: Scalar, node: ir.Node, view: View) -> bool:
        allowed = [self._channels(node, view) if one == _CHANNELS else one for one in self.allowed]
        if None in allowed:  # not known, so not held against the model
            return True
        if (allowed and value not in allowed) or value in self.refused:
            return False
        if isinstance(value, str):
            return True
        return (self.min is None or value >= self.min) and (self.max is None or value <= self.max)

    @staticmethod
    def _channels(node: ir.Node, view: View) -> int | None:
        return view.facts.size(node.inputs[0], 1) if node.inputs else None


def _value(node: ir.Node, name: str, view: View) -> Any:
    """An attribute's value, or what it is where it is left out; None where that is not known."""
    given = node.attributes.get(name)
    if given is not None:
        return None if given.is_ref() else given.value
    if name == "kernel_shape" and len(node.inputs) > 1:  # of a Conv, whose weight says it
        shape = view.facts.shape(node.inputs[1])
        return None if shape is None else tuple(size for size in shape[2:] if isinstance(size, int))
    if name in _OF_ONE:
        return (1,)
    with contextlib.suppress(onnx.defs.SchemaError):  # an operator of another domain
        schema = onnx.defs.get_schema(node.op_type, view.facts.version(node), node.domain)
        default = schema.attributes[name].default_value if name in schema.attributes else None
        if default is not None and default.type != onnx.AttributeProto.UNDEFINED:
            return onnx.helper.get_attribute_value(default)
    return None


def _held(node: ir.Node, place: int, view: View) -> list[Scalar] | None:
    """The different elements of a constant input; None where it is left out or computed."""
    array = view.facts.operand(node, place) if view.facts.has_constant(node, place) else None
    return None if array is None else [_whole(one) for one in sorted({*array.reshape(-1).tolist()})]


def _whole(one: Scalar) -> Scalar:
    return int(one) if isinstance(one, float) and one.is_integer() else one


def _elements(value: Any) -> list[Scalar]:
    many = list(value) if isinstance(value, (list, tuple)) or hasattr(value, "__array__") else [value]
    return [one.decode(errors="backslashreplace") if isinstance(one, bytes) else one for one in many]


def _written(value: Any) -> str:
    texts = [f"{one:g}" if isinstance(one, float) else str(one) for one in _elements(value)]
    return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
