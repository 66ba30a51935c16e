"""Convolution kernels as linear forms of one source: align, add, widen, compose. NumPy float64, no ONNX.

A kernel reads its source as if zeros went on beyond the borders, which is what zero padding means. So two
kernels with the same stride over the same source add up tap by tap, wherever their taps stand, and the sum is
again one kernel (Ding et al., "RepVGG", 2021, section 3.3, for the case of 3×3, 1×1 and identity).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bnfold.algebra import matmul
from bnfold.algebra.affine import Array


@dataclass(frozen=True, eq=False)
class Kernel:
    """`y[o, p] = bias[o] + Σ weight[o, j, k] · x[g(o) + j, stride·p + dilation·k + offset]`, zeros outside.

    Attributes:
        weight: Shape `(Cout, Cin/groups, k…)`.
        bias: Shape `(Cout,)`.
        groups: Number of groups of channels.
        stride: Step of the window along each spatial axis.
        dilation: Distance of neighbouring taps along each spatial axis.
        offset: Where the first tap stands when the window is at 0: minus the padding at the beginning.
        margin: By how much the output is longer than the source before striding: the padding of both ends
            minus the reach of the taps. Kernels with the same margin and stride give outputs of one size.
    """

    weight: Array
    bias: Array
    groups: int
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    offset: tuple[int, ...]
    margin: tuple[int, ...]

    @classmethod
    def diagonal(cls, scale: Array, shift: Array, spatial: int) -> Kernel:
        """The kernel of a per-channel affine map over a source with `spatial` spatial axes.

        Args:
            scale: Shape `(C,)`; ones for the identity.
            shift: Shape `(C,)`.
            spatial: Number of spatial axes.
        """
        ones, zeros = (1,) * spatial, (0,) * spatial
        weight = np.asarray(scale, np.float64).reshape(-1, 1, *ones)
        return cls(weight, np.asarray(shift, np.float64), len(weight), ones, ones, zeros, zeros)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds for one output position."""
        return self.weight.size

    @property
    def channels(self) -> tuple[int, int]:
        """Number of input and of output channels."""
        return self.weight.shape[1] * self.groups, self.weight.shape[0]

    @property
    def size(self) -> tuple[int, ...]:
        """Number of taps along each spatial axis."""
        return self.weight.shape[2:]

    @property
    def pads(self) -> tuple[int, ...]:
        """ONNX's `pads`: the beginnings of all spatial axes, then the ends."""
        reach = [dilation * (size - 1) for dilation, size in zip(self.dilation, self.size, strict=True)]
        ends = [
            margin + far + start for margin, far, start in zip(self.margin, reach, self.offset, strict=True)
        ]
        return (*(-start for start in self.offset), *ends)

    @property
    def is_pointwise(self) -> bool:
        """Whether every output element reads the source at its own place only."""
        return {*self.size, *self.stride} == {1} and not any((*self.offset, *self.margin))

    @property
    def is_finite(self) -> bool:
        """Whether no number is NaN or infinite."""
        return bool(np.all(np.isfinite(self.weight)) and np.all(np.isfinite(self.bias)))

    def over_level(self, level: Array, size: Sequence[int]) -> Array:
        """What the taps make of a source that is one number throughout each channel; without the bias.

        Args:
            level: The numbers, shape `(Cin,)`.
            size: The source's size along each spatial axis.

        Returns:
            Shape `(Cout, …)`: it varies only near the borders.
        """
        rows, columns = self.weight.shape[0], self.weight.shape[1]
        levels = np.repeat(level.reshape(self.groups, columns), rows // self.groups, axis=0)
        sums = np.einsum("oj...,oj->o...", self.weight, levels)
        for axis, extent in enumerate(size):
            windows = np.arange((extent + self.margin[axis] - 1) // self.stride[axis] + 1) * self.stride[axis]
            taps = np.arange(self.size[axis]) * self.dilation[axis] + self.offset[axis]
            places = windows[:, None] + taps
            inside = ((places >= 0) & (places < extent)).astype(np.float64)
            sums = np.tensordot(sums, inside, axes=([1], [1]))  # takes one axis of taps, gives one of windows
        return np.asarray(sums)

    def scaled(self, scale: Array, shift: Array) -> Kernel:
        """This kernel followed by a per-channel affine map; both vectors broadcast to `(Cout,)`."""
        factor = np.broadcast_to(scale, self.bias.shape)
        weight = self.weight * factor.reshape(-1, *(1,) * (self.weight.ndim - 1))
        return replace(self, weight=weight, bias=factor * self.bias + shift)

    def difference(self, other: Kernel) -> str | None:
        """Why two kernels over one source are not one, in words; None where they are."""
        if self.channels != other.channels:
            return "its channels are {} → {} and not {} → {}".format(*self.channels, *other.channels)
        if self.stride != other.stride:
            return f"its stride is {self.stride} and not {other.stride}"
        return None

    def cost_with(self, other: Kernel) -> int:
        """Multiply-adds of [`plus`][bnfold.algebra.kernel.Kernel.plus], found without making it."""
        cin, cout = self.channels
        taps = math.prod(count for _, _, count in self._grid(other))
        return cout * (cin // math.gcd(self.groups, other.groups)) * taps

    def plus(self, other: Kernel) -> Kernel:
        """The sum of two kernels over one source.

        Channels and strides must be the same; the outputs must be of one size, which the caller proves.
        """
        groups = math.gcd(self.groups, other.groups)
        first, second = self._widened(groups), other._widened(groups)
        grid = self._grid(other)
        offset = tuple(start for start, _, _ in grid)
        step = tuple(distance for _, distance, _ in grid)
        taps = tuple(count for _, _, count in grid)
        weight = first.laid_out(offset, step, taps) + second.laid_out(offset, step, taps)
        # where sizes agree for other reasons than equal margins, the larger leaves room for every tap
        margin = tuple(map(max, self.margin, other.margin))
        return Kernel(weight, self.bias + other.bias, groups, self.stride, step, offset, margin)

    def _grid(self, other: Kernel) -> list[tuple[int, int, int]]:
        return [_grid(self, other, axis) for axis in range(len(self.stride))]

    def after(self, first: Kernel) -> Kernel | None:
        """This kernel over what a pointwise one gives, or None where that is not one kernel.

        Where `first` adds a bias, zeros around its output are not zeros around its source: then only a kernel
        without padding will do (Ding et al., "Diverse Branch Block", 2021, transform III).
        """
        if not first.is_pointwise or first.channels[1] != self.channels[0]:
            return None
        if any(self.pads) and np.any(first.bias):
            return None
        groups = math.gcd(self.groups, first.groups)
        outer, inner = self._widened(groups).weight, first._widened(groups).weight
        taps = outer.reshape(groups, len(outer) // groups, outer.shape[1], -1)
        mixing = inner.reshape(groups, 1, len(inner) // groups, -1)
        weight = (
            matmul.product(taps.swapaxes(2, 3), mixing).swapaxes(2, 3).reshape(len(outer), -1, *self.size)
        )
        passed = matmul.product(taps.sum(3), first.bias.reshape(groups, -1, 1)).reshape(-1)
        return replace(self, weight=weight, bias=self.bias + passed, groups=groups)

    def then(self, second: Kernel) -> Kernel | None:
        """This kernel followed by a pointwise one, or None where the second is not pointwise.

        Each output of the second is a sum of outputs of this one at the same place, so the borders stay what
        they are (Ding et al., "Diverse Branch Block", 2021, transform III, the other way round).
        """
        if not second.is_pointwise or self.channels[1] != second.channels[0]:
            return None
        groups = math.gcd(self.groups, second.groups)
        inner, outer = self._widened(groups), second._widened(groups).weight
        mixing = outer.reshape(groups, len(outer) // groups, -1)
        weight = matmul.product(mixing, inner.weight.reshape(groups, mixing.shape[2], -1))
        passed = matmul.product(mixing, inner.bias.reshape(groups, -1, 1)).reshape(-1)
        weight = weight.reshape(len(outer), -1, *self.size)
        return replace(self, weight=weight, bias=second.bias + passed, groups=groups)

    def _widened(self, groups: int) -> Kernel:
        """The same form with fewer groups: the blocks stand on the diagonal of larger ones."""
        ratio = self.groups // groups
        if ratio == 1:
            return self
        cout, per_group = self.weight.shape[:2]
        blocks = self.weight.reshape(groups, ratio, cout // self.groups, per_group, *self.size)
        wide = np.zeros((groups, ratio, cout // self.groups, ratio, per_group, *self.size))
        for block in range(ratio):
            wide[:, block, :, block] = blocks[:, block]
        return replace(self, weight=wide.reshape(cout, ratio * per_group, *self.size), groups=groups)

    def laid_out(self, offset: tuple[int, ...], step: tuple[int, ...], taps: tuple[int, ...]) -> Array:
        """The weight on a finer or larger grid of taps, zero at the new ones."""
        weight = np.zeros((*self.weight.shape[:2], *taps))
        where = tuple(
            slice(first, first + every * (size - 1) + 1, every)
            for first, every, size in (
                ((own - start) // distance, max(dilation // distance, 1), size)
                for own, start, distance, dilation, size in zip(
                    self.offset, offset, step, self.dilation, self.size, strict=True
                )
            )
        )
        weight[(slice(None), slice(None), *where)] = self.weight
        return weight


def _grid(first: Kernel, second: Kernel, axis: int) -> tuple[int, int, int]:
    """The coarsest grid that holds the taps of both along an axis: where it starts, its step, its length."""
    places = [
        kernel.offset[axis] + kernel.dilation[axis] * tap
        for kernel in (first, second)
        for tap in range(kernel.size[axis])
    ]
    start, reach = min(places), max(places) - min(places)
    step = math.gcd(*(place - start for place in places)) or 1
    return start, step, reach // step + 1
