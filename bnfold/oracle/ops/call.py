"""What an operator is, and what it is told of its node: the attributes as Python values, and the opset.

An operator is a function `operator(call, *inputs)` that gives one array, or a tuple of them. Inputs are NumPy
arrays, None for an optional input that is left out; every floating-point one is float64. Float attributes are
stored as float32; they are taken at that value, widened, which is what every runtime computes with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

Array: TypeAlias = npt.NDArray[Any]
Operator: TypeAlias = Callable[..., Any]

NARROW = frozenset(np.dtype(kind) for kind in (np.float16, np.float32, ml_dtypes.bfloat16))
"""The types of numbers that are widened to float64. Float8 and float4 are quantised values and stay."""

_NARROW_ONNX = frozenset(
    (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE)
)


class Refusal(Exception):  # noqa: N818 - says what an operator declines; it never leaves this package
    """What an operator cannot do, as the end of the sentence "The oracle cannot evaluate NODE: …"."""


def widen(value: Any) -> Any:
    """A value with its narrow floats as float64: arrays, lists of values, None and anything else."""
    if isinstance(value, list):
        return [widen(element) for element in value]
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype in NARROW:
        return value.astype(np.float64)
    return value


def is_float(element_type: int) -> bool:
    """Whether values of this ONNX element type are float64 in the oracle."""
    return element_type in _NARROW_ONNX


def array_of(tensor: onnx.TensorProto) -> Array:
    """The elements of a tensor, floats widened."""
    return np.asarray(widen(ir.serde.deserialize_tensor(tensor).numpy()))


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """The attributes of a node, subgraphs left out, as numbers, strings, lists of them and arrays."""
    kinds = onnx.AttributeProto
    found: dict[str, Any] = {}
    for attribute in node.attribute:
        if attribute.type in (kinds.GRAPH, kinds.GRAPHS):
            continue
        value = onnx.helper.get_attribute_value(attribute)
        if attribute.type == kinds.TENSOR:
            value = array_of(value)
        elif attribute.type == kinds.STRING:
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
        attributes: Those that the node states.
    """

    node: onnx.NodeProto
    opset: int
    attributes: Mapping[str, Any]

    def get(self, name: str, default: Any = None) -> Any:
        """The value of an attribute, or its default, which is rounded to float32 alike."""
        if name in self.attributes:
            return self.attributes[name]
        return float(np.float32(default)) if isinstance(default, float) else default

    def wants(self, output: int) -> bool:
        """Whether anything is to be computed for the output of this number."""
        return len(self.node.output) > output and bool(self.node.output[output])
