"""Resize and Upsample of every version, in terms of the reference's newest Resize."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from bnfold.oracle.ops.call import Array, Call, Operator
from bnfold.oracle.ops.onnx_reference import evaluate

_NEWEST = 19


def upsample(call: Call, x: Array, scales: Array | None = None) -> Array:
    """`Upsample`: nearest or linear, where output `y` is read from input `y / scale`."""
    factors = call.get("scales") if scales is None else scales
    if factors is None:  # before opset 7
        factors = [1.0, 1.0, call.get("height_scale"), call.get("width_scale")]
    return _simple(call, x, np.asarray(factors, np.float64))


def resize(
    call: Call, x: Array, roi: Array | None = None, scales: Array | None = None, sizes: Array | None = None
) -> Array:
    """`Resize` since opset 10, where its second input is the scales and it works as `Upsample` does."""
    if call.opset < 11 and roi is not None:
        return _simple(call, x, roi)
    given = scales if scales is not None and scales.size else None
    return _resized(dict(call.attributes), x, roi, given, sizes)


def _simple(call: Call, x: Array, scales: Array) -> Array:
    """Resizing before opset 11: nearest rounds down where an axis grows and up where it shrinks."""
    common = {"mode": call.get("mode", "nearest"), "coordinate_transformation_mode": "asymmetric"}
    grown = _resized({**common, "nearest_mode": "floor"}, x, None, np.maximum(scales, 1), None)
    return _resized({**common, "nearest_mode": "ceil"}, grown, None, np.minimum(scales, 1), None)


def _resized(
    attributes: dict[str, Any], x: Array, roi: Array | None, scales: Array | None, sizes: Array | None
) -> Array:
    if scales is not None:
        corners = attributes.get("coordinate_transformation_mode") == "align_corners"
        scales = _that_fit(scales, x, attributes.get("axes"), corners=corners)
    roi = roi if roi is not None and roi.size else None
    node = onnx.helper.make_node("Resize", ["x", "roi", "scales", "sizes"], ["y"], **attributes)
    return np.asarray(evaluate(node, _NEWEST, x, roi, scales, sizes))


def _that_fit(scales: Array, x: Array, axes: list[int] | None, *, corners: bool) -> Array:
    """Scales that give the same sizes and neighbours in double as in float32, in which runtimes multiply.

    0.7 is slightly less in float32, and 10 times that is rounded up to 7 there, but down to 6 in double. A
    scale that equals the ratio of two sizes in float32 means that ratio; with aligned corners, only the sizes
    count.
    """
    sizes = np.asarray(x.shape if axes is None else [x.shape[axis] for axis in axes])
    single = scales.astype(np.float32)
    outputs = np.floor(single * sizes.astype(np.float32))
    ratios = outputs / np.maximum(sizes, 1)
    meant = (ratios.astype(np.float32) == single) | (np.floor(scales * sizes) != outputs)
    return np.where(meant | corners, ratios, scales)


OPERATORS: dict[str, Operator] = {"Resize": resize, "Upsample": upsample}
