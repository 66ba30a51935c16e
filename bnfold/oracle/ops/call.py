"""What an operator is, and what it knows of its node: the attributes as Python values, and the opset.

An operator is a function `operator(call, *inputs)` that gives one array, or a tuple of them. Inputs are NumPy
arrays, None for an optional input that is left out; every floating-point one is float64. Float attributes are
stored as float32; they are taken at that value, widened, which is what every runtime computes with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from bnfold.tensors.precision import FLOATS

Array: TypeAlias = npt.NDArray[Any]
Operator: TypeAlias = Callable[..., Any]

NARROW = frozenset(np.dtype(dtype.numpy()) for dtype in FLOATS) - {np.dtype(np.float64)}
"""The types of numbers that are widened to float64. Float8 and float4 are quantised values and stay."""


class Refusal(Exception):  # noqa: N818 - what an operator refuses; it never leaves this package
    """Why an operator cannot be evaluated: the end of the sentence "The oracle cannot evaluate NODE: …"."""


def widen(value: Any) -> Any:
    """A value with its narrow floats as float64: arrays, lists of values, None and anything else."""
    if isinstance(value, list):
        return [widen(element) for element in value]
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype in NARROW:
        return value.astype(np.float64)
    return value


def is_float(element_type: int) -> bool:
    """Whether values of this ONNX element type are float64 in the oracle."""
    return element_type in FLOATS


def array_of(tensor: onnx.TensorProto) -> Array:
    """The elements of a tensor, floats widened."""
    return np.asarray(widen(ir.serde.deserialize_tensor(tensor).numpy()))


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """The attributes of a node, subgraphs left out, as numbers, strings and lists of them.

    Tensors, which may be large, stay as they are stored; `array_of` reads them.
    """
    kinds = onnx.AttributeProto
    found: dict[str, Any] = {}
    for attribute in node.attribute:
        if attribute.type in (kinds.GRAPH, kinds.GRAPHS):
            continue
        value = onnx.helper.get_attribute_value(attribute)
        if attribute.type == kinds.STRING:
            value = value.decode()
        elif attribute.type == kinds.STRINGS:
            value = [text.decode() for text in value]
        elif attribute.type in (kinds.INTS, kinds.FLOATS):
            value = list(value)
        found[attribute.name] = value
    return found


@dataclass(frozen=True)
class Call:
    """What an operator knows of its node.

    Attributes:
        node: The node itself.
        opset: The version of the operator set of the node's domain.
        attributes: The attributes that the node states.
    """

    node: onnx.NodeProto
    opset: int
    attributes: Mapping[str, Any]

    def get(self, name: str, default: Any = None) -> Any:
        """The value of an attribute, or its default, which is rounded to float32 as well."""
        if name in self.attributes:
            return self.attributes[name]
        return float(np.float32(default)) if isinstance(default, float) else default

    def wants(self, output: int) -> bool:
        """Whether the output of this number is to be computed."""
        return len(self.node.output) > output and bool(self.node.output[output])
