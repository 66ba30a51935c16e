"""`Pad`, whose negative amounts cut off."""

from __future__ import annotations

from typing import Any

import numpy as np

from bnfold.oracle.ops.call import Array, Call, Operator
from bnfold.oracle.ops.onnx_reference import reference


def pad(
    call: Call,
    x: Array,
    amounts: Array | None = None,
    value: Array | None = None,
    axes: Array | None = None,
) -> Array:
    """`Pad` from opset 2 on; before opset 11, the amounts and the value are attributes."""
    if call.opset < 2:
        return np.asarray(reference(call)(call, x))
    stated = call.get("pads") if amounts is None else amounts
    filling = call.get("value", 0.0) if value is None or not value.size else value.reshape(())
    begins, ends = np.reshape(np.asarray(stated, np.int64), (2, -1))
    where = range(x.ndim) if axes is None else [int(axis) % x.ndim for axis in axes.reshape(-1)]
    widths = [(0, 0)] * x.ndim
    for axis, begin, end in zip(where, begins, ends, strict=True):
        widths[axis] = int(begin), int(end)
    kept = tuple(
        slice(max(-begin, 0), size - max(-end, 0)) for (begin, end), size in zip(widths, x.shape, strict=True)
    )
    added = [(max(begin, 0), max(end, 0)) for begin, end in widths]
    mode = call.get("mode", "constant")
    options: dict[str, Any] = {"constant_values": filling} if mode == "constant" else {}
    return np.asarray(np.pad(x[kept], added, mode, **options))


OPERATORS: dict[str, Operator] = {"Pad": pad}
