"""Reading and writing single elements; ONNX's reference fails beyond 64 of them along an axis, or is slow."""

from __future__ import annotations

from typing import Any

import numpy as np

from bnfold.oracle.ops.call import Array, Call, Operator, Refusal

_REDUCTIONS: dict[str, np.ufunc] = {
    "add": np.add,
    "max": np.maximum,
    "min": np.minimum,
    "mul": np.multiply,
}


def gather_elements(call: Call, data: Array, indices: Array) -> Array:
    """`GatherElements`: `y[i][j] = data[indices[i][j]][j]` along axis 0, and likewise along others."""
    return np.asarray(data[_places(call, data, indices)])


def scatter_elements(call: Call, data: Array, indices: Array, updates: Array) -> Array:
    """`ScatterElements`, and `Scatter` before opset 11: `y[indices[i][j]][j] = updates[i][j]`, or reduced.

    Where two updates meet without a reduction, the last one counts; ONNX leaves that open.
    """
    made, reduction = data.copy(), call.get("reduction", "none")
    if reduction == "none":
        made[_places(call, data, indices)] = updates
    elif reduction in _REDUCTIONS:
        _REDUCTIONS[reduction].at(made, _places(call, data, indices), updates)
    else:
        raise Refusal(f"the reduction {reduction!r} is not known")
    return made


def _places(call: Call, data: Array, indices: Array) -> tuple[Any, ...]:
    """NumPy's index of the elements that `indices` stands for; it counts negative ones from the end too."""
    places: list[Any] = list(np.ogrid[tuple(map(slice, indices.shape))])
    places[call.get("axis", 0) % data.ndim] = indices
    return tuple(places)


OPERATORS: dict[str, Operator] = {
    "GatherElements": gather_elements,
    "Scatter": scatter_elements,
    "ScatterElements": scatter_elements,
}
