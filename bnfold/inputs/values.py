"""Values for a model's inputs, of six kinds: ordinary ones, and others that reveal faults that those hide.

| kind | floats | 8-bit integers | wider integers | bools |
|---|---|---|---|---|
| normal | standard normal | the whole range, as image bytes | from 0 up to a ceiling | coin tosses |
| uniform | from 0 to 1, as pixels | the same | the same | the same |
| zeros | 0: only biases and shifts remain | 0 | 0 | all False |
| ones | 1: the same everywhere | 1 | 1 | all True |
| large | normal · 1000, as data that nobody normalised | the largest | the ceiling | coin tosses |
| tiny | of either sign, about 0.001 | 0 and 1 | 0 and 1 | coin tosses |

float16 ends at 65504, so its large values are normal · 16: the largest of them is near 80, and the layers
may amplify it 800 times before anything overflows.

Tiny values are `sign(z) · (0.1 + |z|) / 1000` with `z` standard normal: at least 0.0001, because below
0.00006 float16 has only subnormal numbers, and whether a provider treats those as zero does not depend on the
fold. What still smaller values would reveal in wider types, zeros reveal.

Wider integers are small and not negative, as token and class numbers are; those whose use is known have their
own values ([`bnfold.inputs.sizes`][bnfold.inputs.sizes]). Strings are letters in every kind.

Three more kinds of floats wake channels that those six leave at zero: one-sided (all of one sign), flat (one
number for each slice along axis 1) and spikes (a few large numbers among zeros). Except for the spikes, which
are as large as the large kind, they are scaled by a random power between `1 / large` and `large`.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]

KINDS = ("normal", "uniform", "zeros", "ones", "large", "tiny")
FURTHER_KINDS = ("one-sided", "flat", "spikes")
"""Kinds of floats that `--cover` draws besides; other types are drawn as the normal kind."""

NUMPY_FLOATS = frozenset({"float16", "float32", "float64"})  # NumPy itself has no bfloat16
BYTES = frozenset({"int8", "uint8"})
WIDE_INTEGERS = frozenset({"int16", "int32", "int64", "uint16", "uint32", "uint64"})
DRAWN = NUMPY_FLOATS | BYTES | WIDE_INTEGERS | {"bool", "string"}

_LARGE = {"float16": 16.0, "float32": 1e3, "float64": 1e3}
_TINY = 1e-3
_SPIKES = 1 / 32  # the share of them


def draw_values(
    rng: np.random.Generator, type_name: str, shape: tuple[int, ...], *, kind: str, ceiling: int
) -> Array:
    """Draw one input.

    Args:
        rng: The source of the numbers.
        type_name: One of `DRAWN`.
        shape: The array's sizes; `()` gives a scalar.
        kind: One of `KINDS`.
        ceiling: Wide integers are drawn below it; at least 2, so that both 0 and 1 can be drawn.
    """
    if type_name == "string":
        return rng.choice(np.array(["a", "b", "c"], dtype=object), size=shape)
    dtype = np.dtype(type_name)
    if kind in ("zeros", "ones"):
        return np.full(shape, kind == "ones", dtype)
    if type_name == "bool":
        return np.asarray(rng.integers(0, 2, size=shape), dtype)
    if type_name in NUMPY_FLOATS:
        return np.asarray(_floats(rng, shape, kind, _LARGE[type_name]), dtype)
    bounds = np.iinfo(dtype)
    low, high = (bounds.min, bounds.max) if type_name in BYTES else (0, ceiling - 1)
    if kind == "large":
        return np.full(shape, high, dtype)
    if kind == "tiny":
        low, high = 0, 1
    return np.asarray(rng.integers(low, high, size=shape, endpoint=True), dtype)


def draw_extents(
    rng: np.random.Generator, type_name: str, shape: tuple[int, ...], *, kind: str, largest: int
) -> Array:
    """Draw integers that become sizes of tensors: from 1 to `largest`, and 1 where other kinds are 0 or 1."""
    dtype = np.dtype(type_name)
    if kind in ("zeros", "ones", "large"):
        return np.full(shape, largest if kind == "large" else 1, dtype)
    high = min(2, largest) if kind == "tiny" else largest
    return np.asarray(rng.integers(1, high, size=shape, endpoint=True), dtype)


def draw_mask(rng: np.random.Generator, type_name: str, shape: tuple[int, ...], *, kind: str) -> Array:
    """Draw which places of sequences count: all, but in the uniform kind only the first few of every row."""
    if kind != "uniform":
        return np.ones(shape, np.dtype(type_name))
    ends = rng.integers(min(1, shape[-1]), shape[-1], size=(*shape[:-1], 1), endpoint=True)
    return np.asarray(np.arange(shape[-1]) < ends, np.dtype(type_name))


def draw_steps(
    rng: np.random.Generator, type_name: str, shape: tuple[int, ...], *, kind: str, longest: int
) -> Array:
    """Draw lengths of sequences: the longest, but in the uniform kind shorter ones after the first."""
    steps = np.full(shape, longest, np.dtype(type_name))
    if kind == "uniform" and steps.size > 1:
        steps.flat[1:] = rng.integers(min(1, longest), longest, size=steps.size - 1, endpoint=True)
    return steps


def converted(array: Array, type_name: str) -> Array | None:
    """The array in the type that a model takes; None where it would lose more than a float's last bits.

    Floats convert to any float type with a large enough range, integers to any type that holds their values.
    """
    if type_name == "string":
        return array.astype(object) if array.dtype.kind in "OSU" else None
    if type_name not in DRAWN:
        return None
    dtype = np.dtype(type_name)
    if array.dtype == dtype:
        return array
    if (
        array.dtype.kind not in "iuf"
        or dtype.kind not in "iuf"
        or (array.dtype.kind == "f" and dtype.kind != "f")
    ):
        return None
    with np.errstate(over="ignore"):  # the next lines check
        other = array.astype(dtype)
    if array.dtype.kind == "f":
        return other if np.array_equal(np.isfinite(other), np.isfinite(array)) else None
    return other if np.array_equal(other, array) else None


def _floats(rng: np.random.Generator, shape: tuple[int, ...], kind: str, large: float) -> Array | float:
    """Random floats of a kind, in float64; a plain number for a scalar."""
    if kind == "uniform":
        return rng.random(shape)
    normal = rng.standard_normal(shape)
    if kind == "large":
        return normal * large
    if kind == "tiny":
        return np.copysign(0.1 + np.abs(normal), normal) * _TINY
    if kind not in FURTHER_KINDS:
        return normal
    if kind == "spikes":
        return np.asarray(np.where(rng.random(shape) < _SPIKES, normal * large, 0.0))
    scale = math.pow(large, rng.uniform(-1, 1))
    if kind == "one-sided":
        return np.asarray(np.abs(normal) * rng.choice([-scale, scale]))
    slices = rng.standard_normal([size if axis < 2 else 1 for axis, size in enumerate(shape)])
    return np.asarray(np.broadcast_to(slices, shape) * scale)
