"""What operators were before opset 7, where their newer versions do not cover it.

Broadcasting had to be asked for: with `broadcast = 1` the second input is repeated to the shape of the first,
along whose axes from `axis` on it lies, or along the last ones. Before opset 6, operators had the attribute
`consumed_inputs`, which is about memory and changes no value; sizes were often attributes.

Source: ONNX's Changelog.md, which has every version of every operator.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from bnfold.oracle.ops.call import Array, Call, Operator, Refusal
from bnfold.oracle.ops.onnx_reference import reference

_BINARY = ("Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "Pow", "Sub", "Xor")
_LAST = 6  # the newest of these opsets


def binary(call: Call, a: Array, b: Array) -> Any:
    """An operator of two values, of any opset."""
    if call.opset > _LAST:
        return reference(call)(call, a, b)
    if a.shape != b.shape:
        if not call.get("broadcast", 0):
            raise Refusal(f"the shapes {list(a.shape)} and {list(b.shape)} differ")
        if "axis" in call.attributes:
            axis = call.get("axis") % a.ndim
            b = b.reshape(*b.shape, *[1] * (a.ndim - axis - b.ndim))
    return _as(_LAST + 1, call, a, b)


def unchanged(call: Call, *inputs: Array | None) -> Any:
    """An operator that lost nothing but `consumed_inputs` in opset 6."""
    if call.opset >= _LAST:
        return reference(call)(call, *inputs)
    kept = {name: value for name, value in call.attributes.items() if name != "consumed_inputs"}
    return _as(_LAST, call, *inputs, **kept)


def concat(call: Call, *inputs: Array) -> Array:
    """`Concat`, along axis 1 unless it says otherwise before opset 4."""
    return np.concatenate(inputs, axis=call.get("axis", 1))


def reshape(call: Call, x: Array, shape: Array | None = None) -> Any:
    """`Reshape`, to an attribute before opset 5."""
    if shape is not None:
        return reference(call)(call, x, shape)
    return _as(5, call, x, np.asarray(call.get("shape"), np.int64))


def split(call: Call, x: Array, sizes: Array | None = None) -> Any:
    """`Split`, before opset 13 into the sizes of an attribute, in opset 1 also of an input."""
    if call.opset >= 13:
        return reference(call)(call, x, *([] if sizes is None else [sizes]))
    given = call.get("split") if sizes is None else sizes.tolist()
    axis, parts = call.get("axis", 0), len(call.node.output)
    return tuple(np.split(x, np.cumsum(given)[:-1] if given else parts, axis))


def tile(call: Call, x: Array, repeats: Array, axis: Array | None = None) -> Any:
    """`Tile`, along one axis in opset 1."""
    if axis is None:
        return reference(call)(call, x, repeats)
    return np.concatenate([x] * int(repeats), axis=int(axis))


def _as(opset: int, call: Call, *inputs: Array | None, **attributes: Any) -> Any:
    """What a newer version of an operator gives."""
    node = onnx.helper.make_node(call.node.op_type, call.node.input, call.node.output, **attributes)
    newer = Call(node, opset, attributes)
    return reference(newer)(newer, *inputs)


OPERATORS: dict[str, Operator] = {
    **dict.fromkeys(_BINARY, binary),
    **dict.fromkeys(("Clip", "Max", "Mean", "Min", "PRelu", "Selu", "Sum"), unchanged),
    "Concat": concat,
    "Reshape": reshape,
    "Split": split,
    "Tile": tile,
}
