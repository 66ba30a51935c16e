"""Pools over windows and over everything, tap by tap."""

from __future__ import annotations

from functools import reduce

import numpy as np

from bnfold.oracle.ops.call import Array, Call, Operator
from bnfold.oracle.ops.windows import Windows, windows_of


def max_pool(call: Call, x: Array) -> tuple[Array, ...]:
    """`MaxPool`, with `Indices` into the flattened input where they are asked for."""
    windows = windows_of(call, x.shape[2:], call.get("kernel_shape"))
    lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    padded = windows.padded(x, lowest)
    if not call.wants(1):
        return (reduce(np.maximum, (windows.seen(padded, tap) for tap in windows.taps())),)
    best = np.full((*x.shape[:2], *windows.outputs), lowest, x.dtype)
    indices = np.zeros(best.shape, np.int64)
    for tap in windows.taps():
        seen = windows.seen(padded, tap)
        better = seen > best
        best = np.where(better, seen, best)
        indices = np.where(better, _flat(windows, tap, column_major=call.get("storage_order", 0)), indices)
    planes = np.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *(1,) * len(windows.sizes))
    return best, indices + planes * int(np.prod(windows.sizes))


def _flat(windows: Windows, tap: tuple[int, ...], *, column_major: int) -> Array:
    """For each window, the place of `tap` in its plane of the input."""
    places = np.meshgrid(
        *(
            np.arange(count) * step + position * gap - begin
            for count, step, position, gap, begin in zip(
                windows.outputs, windows.strides, tap, windows.dilations, windows.before, strict=True
            )
        ),
        indexing="ij",
    )
    axes = range(len(places)) if column_major else reversed(range(len(places)))
    flat, stride = np.zeros(windows.outputs, np.int64), 1
    for axis in axes:
        flat = flat + places[axis] * stride
        stride *= windows.sizes[axis]
    return flat


def average_pool(call: Call, x: Array) -> Array:
    """`AveragePool`: the sum over a window by its number of elements; padding may count too."""
    windows = windows_of(call, x.shape[2:], call.get("kernel_shape"))
    return _total(windows, x) / _counts(windows, padding=bool(call.get("count_include_pad", 0)))


def _total(windows: Windows, x: Array) -> Array:
    padded = windows.padded(x, 0.0)
    total = np.zeros((*x.shape[:2], *windows.outputs))
    for tap in windows.taps():
        total += windows.seen(padded, tap)
    return total


def _counts(windows: Windows, *, padding: bool) -> Array:
    """The number of elements of each window; what lies beyond the padding never counts."""
    counts = np.ones(())
    for axis, size in enumerate(windows.sizes):
        begin, end = windows.before[axis], windows.after[axis]
        starts = np.arange(windows.outputs[axis]) * windows.strides[axis] - begin
        places = starts[:, None] + np.arange(windows.kernel[axis]) * windows.dilations[axis]
        inside = (places >= -begin) & (places < size + end) if padding else (places >= 0) & (places < size)
        counts = np.multiply.outer(counts, inside.sum(axis=1))
    return counts


def lp_pool(call: Call, x: Array) -> Array:
    """`LpPool`: `(Σ |x|^p)^(1/p)` over each window."""
    power = call.get("p", 2)
    windows = windows_of(call, x.shape[2:], call.get("kernel_shape"))
    return np.asarray(_total(windows, np.abs(x) ** power) ** (1 / power))


def global_average_pool(call: Call, x: Array) -> Array:  # noqa: ARG001
    """`GlobalAveragePool`: the mean over all spatial axes, which stay with size 1."""
    # of nothing the mean is NaN, without NumPy's warning
    return np.asarray(x.sum(axis=tuple(range(2, x.ndim)), keepdims=True) / np.prod(x.shape[2:]))


def global_max_pool(call: Call, x: Array) -> Array:  # noqa: ARG001
    """`GlobalMaxPool`: the maximum over all spatial axes, which stay with size 1."""
    return np.asarray(x.max(axis=tuple(range(2, x.ndim)), keepdims=True))


def global_lp_pool(call: Call, x: Array) -> Array:
    """`GlobalLpPool`: `(Σ |x|^p)^(1/p)` over all spatial axes, which stay with size 1."""
    power = call.get("p", 2)
    total = (np.abs(x) ** power).sum(axis=tuple(range(2, x.ndim)), keepdims=True)
    return np.asarray(total ** (1 / power))


OPERATORS: dict[str, Operator] = {
    "AveragePool": average_pool,
    "GlobalAveragePool": global_average_pool,
    "GlobalLpPool": global_lp_pool,
    "GlobalMaxPool": global_max_pool,
    "LpPool": lp_pool,
    "MaxPool": max_pool,
}
