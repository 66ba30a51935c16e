"""AffineGrid and GridSample, as PyTorch has them: all positions at once, one tap after another.

ONNX's function for AffineGrid fails for a batch of one, and its reference rounds to float32. For GridSample,
ONNX's reference rounds positions to float32, computes one output element at a time, and differs from PyTorch
and ONNX Runtime in bicubic interpolation beyond a border.
"""

from __future__ import annotations

import itertools
from typing import TypeAlias

import numpy as np

from bnfold.oracle.ops.call import Array, Call, Operator, Refusal

# The elements along one axis that a position is interpolated from, and the weight of each.
_Taps: TypeAlias = list[tuple[Array, Array]]
_FAR = 2.0**30  # beyond it, positions are no longer exact; infinities and what is that far are the same


def affine_grid(call: Call, theta: Array, size: Array) -> Array:
    """`AffineGrid`: `theta·(x, y, …, 1)` at the centres of the elements, between −1 and 1.

    With `align_corners`, the outer elements are at −1 and 1; a single one is at 0.
    """
    axes = []
    for count in map(int, size[2:]):
        if call.get("align_corners", 0):
            axes.append(np.linspace(-1, 1, count) if count > 1 else np.zeros(count))
        else:
            axes.append((2 * np.arange(count) + 1) / count - 1)
    places = np.meshgrid(*axes, indexing="ij")
    # The last axis comes first.
    points = np.stack([*reversed(places), np.ones(places[0].shape)], axis=-1)
    grid = points.reshape(1, -1, points.shape[-1]) @ np.swapaxes(theta, 1, 2)
    return np.asarray(grid.reshape(len(theta), *points.shape[:-1], theta.shape[1]))


def grid_sample(call: Call, x: Array, grid: Array) -> Array:
    """`GridSample` in any number of dimensions: `Σ weight·x[element]` over the taps of all axes."""
    sizes, places = x.shape[2:], grid.shape[1:-1]
    # The last coordinate belongs to the first axis.
    axes = [_taps(call, grid[..., -1 - axis].reshape(len(x), -1), size) for axis, size in enumerate(sizes)]
    flat = x.reshape(*x.shape[:2], -1)
    y = np.zeros((*x.shape[:2], int(np.prod(places))))
    for taps in itertools.product(*axes):
        index, weight = np.zeros(y.shape[::2], np.int64), np.ones(y.shape[::2])
        for (element, part), size in zip(taps, sizes, strict=True):
            index, weight = index * size + element, weight * part
        y += np.take_along_axis(flat, index[:, None], axis=2) * weight[:, None]
    return y.reshape(*x.shape[:2], *places)


def _taps(call: Call, position: Array, size: int) -> _Taps:
    """The taps along an axis of this size, for normalised positions: -1 is its beginning, 1 its end."""
    corners, padding = bool(call.get("align_corners", 0)), call.get("padding_mode", "zeros")
    low, high = (0.0, size - 1.0) if corners else (-0.5, size - 0.5)
    at = np.clip(low + (position + 1) / 2 * (high - low), -_FAR, _FAR)
    mode = call.get("mode", "linear").removeprefix("bi")
    if mode == "nearest":
        at = np.rint(at)
    if padding == "reflection":
        at = np.where((at < low) | (at > high), _reflected(at, low, high), at)
    start = np.floor(at)
    part = at - start
    if mode == "nearest":
        weights = {0: np.ones(at.shape)}
    elif mode == "linear":
        weights = {0: 1 - part, 1: part}
    elif mode == "cubic":
        weights = {-1: _outer(1 + part), 0: _inner(part), 1: _inner(1 - part), 2: _outer(2 - part)}
    else:
        raise Refusal(f"the mode {mode!r} is not known")
    taps = []
    for shift, weight in weights.items():
        element = start + shift
        if padding == "zeros":
            weight = np.where((element >= 0) & (element < size), weight, 0.0)
        elif padding == "reflection":
            inside = (element >= low) & (element <= high)
            element = np.where(inside, element, _reflected(element, low, high))
        # With "border", elements beyond an end are the last one; others have no weight or are inside.
        taps.append((np.clip(np.nan_to_num(element), 0, size - 1).astype(np.int64), weight))
    return taps


def _reflected(at: Array, low: float, high: float) -> Array:
    """Positions outside of an interval, reflected at its ends until they are inside."""
    span = high - low
    if not span:
        return np.full_like(at, low)
    turns, rest = np.divmod(np.where(at < low, low - at, at - high), span)
    return np.where((at < low) == (turns % 2 == 0), low + rest, high - rest)


def _inner(distance: Array) -> Array:
    """Keys' cubic kernel with a = −0.75, for distances up to 1."""
    return np.asarray((1.25 * distance - 2.25) * distance * distance + 1)


def _outer(distance: Array) -> Array:
    """Keys' cubic kernel with a = −0.75, for distances from 1 to 2."""
    return np.asarray(((-0.75 * distance + 3.75) * distance - 6) * distance + 3)


OPERATORS: dict[str, Operator] = {"AffineGrid": affine_grid, "GridSample": grid_sample}
