"""How large every value of a model becomes, over the reals, and which of them a narrower type does not hold.

The float64 evaluation of the model on samples shows the magnitudes; what a runtime holds inside an operator,
such as the sum of a mean, is not seen. Samples are not everything, so that a value within a factor of two of
the type's largest number counts as too large.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from bnfold.algebra.affine import Array
from bnfold.graph.nodes import label
from bnfold.oracle.oracle import Oracle
from bnfold.runtime.interface import dtype_name
from bnfold.runtime.sessions import Feeds
from bnfold.tensors.parts import parts
from bnfold.tensors.precision import LARGEST, SMALLEST_NORMAL

MARGIN = 2.0
"""How far below the largest number of a type all values of the samples have to stay."""


@dataclass(frozen=True)
class OutOfRange:
    """A tensor that a type does not hold.

    Attributes:
        value: Its name.
        node: The node that computes it, or reads it if it is a constant; empty for an input of the model.
        operator: The node's operator.
        largest: Its largest absolute value on the samples.
        dtype: The type.
        side: Whether it is too large, or so small that every element loses digits.
        limit: The largest number of the type, or the smallest with all digits.
        is_constant: Whether it is a weight or another constant.
    """

    value: str
    node: str
    operator: str
    largest: float
    dtype: str
    side: Literal["above", "below"]
    limit: float
    is_constant: bool = False

    @property
    def sentence(self) -> str:
        """What it reaches, and what the type holds."""
        verb = "read" if self.is_constant else "computed"
        where = f", {verb} by {self.operator} {self.node}," if self.node else ""
        if self.side == "below":
            return (
                f"{self.value!r}{where} is at most {self.largest:.2g}, below {self.limit:.2g}, where "
                f"{self.dtype} loses digits."
            )
        how = "beyond" if self.largest > self.limit else "within a factor of two of"
        return f"{self.value!r}{where} reaches {self.largest:.2g}, {how} {self.dtype}'s {self.limit:.5g}."


Sizes = Mapping[str, Array]
"""The largest absolute values by name: a number, or one for each channel where its axis is known."""


def magnitudes(model: ir.Model, samples: Sequence[Feeds], axes: Mapping[str, int]) -> dict[str, Array]:
    """The largest absolute value of every float that the main graph computes or is given.

    Args:
        model: The model.
        samples: Inputs by name.
        axes: The axis along which the channels of a value lie, by name; other values give one number.

    Returns:
        By name, in the order of the graph: shape `(channels,)` or `()`. NaN counts as infinite.

    Raises:
        NotEvaluableError: An operator is not known in float64.
    """
    found: dict[str, Array] = {}

    def see(name: str, value: Any) -> None:
        if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
            return
        size = np.where(np.isnan(value), math.inf, np.abs(value))
        axis = axes.get(name)
        if axis is None or axis >= size.ndim:
            largest = size.max(initial=0.0)
        else:
            largest = size.max(axis=tuple(at for at in range(size.ndim) if at != axis), initial=0.0)
        known = found.get(name)
        if known is not None and known.shape != np.shape(largest):
            largest = np.maximum(known.max(initial=0.0), np.max(largest))
        found[name] = np.asarray(largest if known is None else np.maximum(known, largest))

    oracle = Oracle(model)
    for feeds in samples:
        for name, array in feeds.items():
            see(name, array.astype(np.float64) if array.dtype.kind == "f" else array)
        oracle.walk(feeds, see)
    return found


def of_tensor(tensor: ir.TensorProtocol) -> float:
    """The largest absolute value of a constant, read block by block."""
    largest = 0.0
    for _, part in parts(tensor):
        largest = max(largest, float(np.abs(np.asarray(part, np.float64)).max(initial=0.0)))
    return largest


def out_of_range(model: ir.Model, sizes: Sizes, dtype: ir.DataType) -> tuple[OutOfRange, ...]:
    """The tensors that a type does not hold: inputs, then each node's constants and results, in order."""
    found, seen = [], set()
    for given in model.graph.inputs:
        found += _judged(str(given.name), None, sizes.get(str(given.name)), dtype)
    for node in model.graph:
        for value in node.inputs:
            tensor = value.const_value if value is not None and value.is_initializer() else None
            if value is None or tensor is None or tensor.dtype != ir.DataType.FLOAT or value.name in seen:
                continue
            seen.add(value.name)
            found += _judged(str(value.name), node, np.asarray(of_tensor(tensor)), dtype, is_constant=True)
        for made in node.outputs:
            found += _judged(str(made.name), node, sizes.get(str(made.name)), dtype)
    return tuple(found)


def _judged(
    name: str, node: ir.Node | None, size: Array | None, dtype: ir.DataType, *, is_constant: bool = False
) -> list[OutOfRange]:
    if size is None:
        return []
    largest, kind = float(np.max(size, initial=0.0)), dtype_name(dtype)
    where = ("", "") if node is None else (label(node), node.op_type)
    if largest > LARGEST[dtype] / MARGIN and (not is_constant or largest > LARGEST[dtype]):
        return [OutOfRange(name, *where, largest, kind, "above", LARGEST[dtype], is_constant)]
    if not is_constant and 0 < largest < SMALLEST_NORMAL[dtype]:
        return [OutOfRange(name, *where, largest, kind, "below", SMALLEST_NORMAL[dtype])]
    return []
