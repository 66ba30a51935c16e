"""The algebra: affine maps `y = scale · x + shift` whose coefficients vary along few axes of a tensor.

An eval-mode BatchNorm, a layer scale, a frozen BatchNorm written as Mul and Add: each is such a map, and
folding is composing them. This module knows NumPy and float64, and no ONNX.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Affine:
    """The map `y = scale · x + shift` on a tensor, each coefficient in float64.

    A coefficient is aligned with the tensor from the left: its axis `i` is the tensor's axis `i`, and along
    axes that it has with size 1, or does not have at all, it is constant. So a BatchNorm's coefficients are
    of shape `(1, C)` whatever the rank of its input, a scalar's are of shape `()`, and a map that has gone
    through a channel shuffle's reshape may vary along two axes. They are kept in their smallest form: so
    [`scale_axes`][bnfold.algebra.affine.Affine.scale_axes] is a statement about values, not about storage.

    Attributes:
        scale: Multiplier, of any shape as above.
        shift: Addend, of any shape as above, not necessarily that of `scale`.
    """

    scale: Array
    shift: Array

    def __init__(self, scale: npt.ArrayLike = 1.0, shift: npt.ArrayLike = 0.0) -> None:
        object.__setattr__(self, "scale", _smallest(np.asarray(scale, np.float64)))
        object.__setattr__(self, "shift", _smallest(np.asarray(shift, np.float64)))

    @classmethod
    def along(cls, axis: int, scale: npt.ArrayLike = 1.0, shift: npt.ArrayLike = 0.0) -> Affine:
        """The map whose coefficients, scalars or vectors, vary along one axis.

        Args:
            axis: The axis, counted from the left, not negative.
            scale: Shape `()` or `(C,)`.
            shift: Shape `()` or `(C,)`.
        """
        return cls(_on_axis(scale, axis), _on_axis(shift, axis))

    @property
    def scale_axes(self) -> frozenset[int]:
        """The axes along which the scale varies."""
        return _axes(self.scale)

    @property
    def shift_axes(self) -> frozenset[int]:
        """The axes along which the shift varies."""
        return _axes(self.shift)

    @cached_property
    def axes(self) -> frozenset[int]:
        """The axes along which either coefficient varies."""
        return self.scale_axes | self.shift_axes

    @cached_property
    def is_identity(self) -> bool:
        """Whether `y = x`."""
        return self.has_unit_scale and not self.has_shift

    @cached_property
    def has_unit_scale(self) -> bool:
        """Whether every scale is 1."""
        return self.scale.ndim == 0 and float(self.scale) == 1.0

    @cached_property
    def has_shift(self) -> bool:
        """Whether any shift differs from 0."""
        return bool(self.shift.any())

    @cached_property
    def kind(self) -> bytes:
        """What decides which operators let an affine pass; equal for those that all of them treat alike.

        For a coefficient of distinct elements other than 0 and 1, that is its shape and the signs of the
        scale: whatever part of it a node takes is again of this sort. Any other coefficient is only like
        itself.
        """
        signs = np.packbits(self.scale < 0).tobytes()
        return signs + b"".join(_kind(coefficient) for coefficient in (self.scale, self.shift))

    @property
    def is_monotone(self) -> bool:
        """Whether no scale is negative, so that the map keeps order."""
        return bool((self.scale >= 0).all())

    @property
    def is_finite(self) -> bool:
        """Whether no coefficient is NaN or infinite."""
        return bool(np.all(np.isfinite(self.scale)) and np.all(np.isfinite(self.shift)))

    @property
    def only_scale(self) -> Affine:
        """The map without its shift."""
        return Affine(self.scale)

    def then(self, after: Affine) -> Affine:
        """This map followed by `after`: `after.scale · (scale · x + shift) + after.shift`."""
        if self.is_identity or after.is_identity:
            return after if self.is_identity else self
        scale = _combine(np.multiply, after.scale, self.scale)
        shift = _combine(np.add, _combine(np.multiply, after.scale, self.shift), after.shift)
        return Affine(scale, shift)

    def inverse(self) -> Affine:
        """The map that undoes this one; every scale must differ from 0."""
        return Affine(1.0 / self.scale, _combine(np.divide, -self.shift, self.scale))

    def padded(self, rank: int) -> tuple[Array, Array]:
        """Both coefficients with exactly `rank` axes, ready to broadcast against a tensor of that rank."""
        return _pad(self.scale, rank), _pad(self.shift, rank)

    def vectors(self, axis: int, size: int) -> tuple[Array, Array]:
        """Both coefficients as vectors of shape `(size,)` along the one axis on which they may vary.

        Raises:
            ValueError: A coefficient varies along another axis, or has another size.
        """
        if not self.axes <= {axis}:
            raise ValueError(f"coefficients vary along axes {sorted(self.axes)}, not {axis} alone")
        return _vector(self.scale, size), _vector(self.shift, size)

    def mapped(self, rank: int, function: Callable[[Array], Array]) -> Affine:
        """Apply a rearrangement to both coefficients, each given with `rank` axes."""
        scale, shift = self.padded(rank)
        return Affine(function(scale), function(shift))

    def transposed(self, perm: Sequence[int]) -> Affine:
        """The map on `numpy.transpose(x, perm)`."""
        return self.mapped(len(perm), lambda c: np.transpose(c, perm))

    def taken(self, axis: int, indices: npt.NDArray[np.int64], rank: int) -> Affine:
        """The map on `numpy.take(x, indices, axis)`."""
        return self.mapped(rank, lambda c: c if c.shape[axis] == 1 else np.take(c, indices, axis))

    def embedded(self, axis: int, indices: npt.NDArray[np.int64], size: int, rank: int) -> Affine:
        """The map on a larger tensor that acts at `indices` of `axis` as this one and elsewhere as identity.

        Args:
            axis: The axis that grows.
            indices: Where, on an axis of length `size`, each element of this map's axis lands; no repeats.
            size: The axis's length in the larger tensor.
            rank: The tensor's rank.
        """
        scale, shift = self.padded(rank)
        return Affine(
            _scatter(scale, axis, indices, size, fill=1.0), _scatter(shift, axis, indices, size, fill=0.0)
        )


def _smallest(coefficient: Array) -> Array:
    """Drop the extent of every axis along which nothing varies, then the trailing axes of size 1."""
    for axis, size in enumerate(coefficient.shape):
        if size > 1:
            first = coefficient[(slice(None),) * axis + (slice(1),)]
            if (coefficient == first).all():
                coefficient = first
    rank = coefficient.ndim
    while rank and coefficient.shape[rank - 1] == 1:
        rank -= 1
    return coefficient.reshape(coefficient.shape[:rank])


def _vector(coefficient: Array, size: int) -> Array:
    flat = coefficient.reshape(-1)
    return flat if flat.size == size else np.broadcast_to(flat, (size,))


def _kind(coefficient: Array) -> bytes:
    if coefficient.size > 1:
        size = np.abs(coefficient).reshape(-1)
        size.sort()
        if size[0] > 0 and not (size == 1.0).any() and (size[1:] > size[:-1]).all():
            return repr(coefficient.shape).encode()
    return repr(coefficient.shape).encode() + b":" + coefficient.tobytes()


def _axes(coefficient: Array) -> frozenset[int]:
    return frozenset(axis for axis, size in enumerate(coefficient.shape) if size != 1)


def _pad(coefficient: Array, rank: int) -> Array:
    if coefficient.ndim > rank:
        raise ValueError(f"a coefficient of shape {coefficient.shape} does not fit a tensor of rank {rank}")
    return coefficient.reshape(coefficient.shape + (1,) * (rank - coefficient.ndim))


def _combine(operation: Callable[[Array, Array], Array], a: Array, b: Array) -> Array:
    rank = max(a.ndim, b.ndim)
    return operation(_pad(a, rank), _pad(b, rank))


def _on_axis(coefficient: npt.ArrayLike, axis: int) -> Array:
    vector = np.asarray(coefficient, np.float64)
    return vector.reshape((1,) * axis + (-1,)) if vector.ndim else vector


def _scatter(coefficient: Array, axis: int, indices: npt.NDArray[np.int64], size: int, fill: float) -> Array:
    if np.all(coefficient == fill):
        return np.asarray(fill)
    shape = list(coefficient.shape)
    shape[axis] = size
    larger = np.full(shape, fill)
    where = (slice(None),) * axis + (indices,)
    larger[where] = coefficient
    return larger
