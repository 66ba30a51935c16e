"""Where the windows of convolutions and pools are, and the values that one tap of each window sees.

A tap is one position in the kernel. A convolution is a sum over its taps of a matrix product, and a pool is a
sum or a maximum over its taps, each over whole arrays: no loop over output elements, no unfolded copy, and
the same few lines in one, two and three dimensions.

The fold has its own window arithmetic, and that is intended: a judge shares no code with what it judges.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bnfold.oracle.ops.call import Array, Call, Refusal


@dataclass(frozen=True)
class Windows:
    """Windows over the spatial axes; every field has one entry for each axis.

    Attributes:
        sizes: Input sizes.
        kernel: Taps.
        strides: Steps between windows.
        dilations: Steps between taps.
        before: Padding at the beginning.
        after: Padding at the end; with `ceil_mode` windows may reach beyond it.
        outputs: The number of windows.
    """

    sizes: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    outputs: tuple[int, ...]

    def taps(self) -> Iterator[tuple[int, ...]]:
        """Every tap, the last axis fastest."""
        return itertools.product(*map(range, self.kernel))

    def padded(self, x: Array, fill: float) -> Array:
        """`x` of shape `(N, C, *sizes)` with the padding that the windows reach."""
        ends = [
            (out - 1) * step + (taps - 1) * gap + 1 - size - begin
            for out, step, taps, gap, size, begin in zip(
                self.outputs, self.strides, self.kernel, self.dilations, self.sizes, self.before, strict=True
            )
        ]
        widths = [(begin, max(end, 0)) for begin, end in zip(self.before, ends, strict=True)]
        if not any(map(any, widths)):
            return x
        return np.pad(x, [(0, 0), (0, 0), *widths], constant_values=fill)

    def seen(self, padded: Array, tap: Sequence[int]) -> Array:
        """What `tap` of each window sees: a view of shape `(N, C, *outputs)`."""
        return np.asarray(padded[strided(tap, self.outputs, self.strides, self.dilations)])


def strided(
    first: Sequence[int], count: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[Any, ...]:
    """The index that selects `count` elements of each last axis, from `first·dilation` on, a stride apart."""
    return (
        ...,
        *(
            slice(begin * gap, begin * gap + max((number - 1) * step + 1, 0), step)
            for begin, number, step, gap in zip(first, count, strides, dilations, strict=True)
        ),
    )


def steps_of(call: Call, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The strides and dilations of a node with this number of spatial axes."""
    return tuple(call.get("strides") or (1,) * rank), tuple(call.get("dilations") or (1,) * rank)


def windows_of(call: Call, sizes: Sequence[int], kernel: Sequence[int]) -> Windows:
    """The windows that a Conv or pool node describes over an input of these spatial sizes.

    With `extent = (kernel − 1)·dilation + 1`, `auto_pad = SAME_*` gives `⌈size / stride⌉` windows, padded
    evenly with the odd one at the end (`UPPER`) or the beginning (`LOWER`). Otherwise there are
    `(size + padding − extent) / stride + 1`, rounded down, or up with `ceil_mode`, where a window that would
    begin in the padding at the end is left out.
    """
    rank = len(sizes)
    strides, dilations = steps_of(call, rank)
    pads = tuple(call.get("pads") or (0,) * (2 * rank))
    auto, ceil = call.get("auto_pad", "NOTSET"), call.get("ceil_mode", 0)
    if auto == "VALID":
        pads = (0,) * (2 * rank)
    before, after, outputs = [], [], []
    for axis in range(rank):
        size, step = sizes[axis], strides[axis]
        extent = (kernel[axis] - 1) * dilations[axis] + 1
        if auto.startswith("SAME"):
            count = -(-size // step)
            total = (count - 1) * step + extent - size
            if total < -1 and not call.node.op_type.endswith("Conv"):
                raise Refusal("ONNX Runtime shifts pools whose strides skip more than auto_pad can pad")
            total = max(total, 0)
            begin = total // 2 if auto == "SAME_UPPER" else total - total // 2
            end = total - begin
        else:
            begin, end = pads[axis], pads[axis + rank]
            room = size + begin + end - extent
            count = (-(-room // step) if ceil else room // step) + 1
            if ceil and (count - 1) * step >= size + begin:
                count -= 1
        before.append(begin)
        after.append(end)
        outputs.append(max(count, 0))
    return Windows(
        tuple(sizes), tuple(kernel), strides, dilations, tuple(before), tuple(after), tuple(outputs)
    )
