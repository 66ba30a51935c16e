"""The sizes and the values that a sample is drawn with.

Dimension 0 is taken for the batch, dimension 1 of an input of rank three or more for the channels, and every
other one for a length. An image whose last dimension is its only fixed one has its channels there. A state,
of which only the middle dimension is dynamic, has its batch there if another input's batch is dynamic too. If
an input has two lengths or more, the last is the width. A symbol has the same size in all inputs.

Integers whose use is known ([`bnfold.inputs.uses`][bnfold.inputs.uses]) are drawn for it: indices below the
size of their table, masks of ones, lengths that the sequences have, small sizes of tensors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bnfold.errors import InputError
from bnfold.inputs.coverage import dynamic
from bnfold.inputs.uses import Use
from bnfold.inputs.values import KINDS, WIDE_INTEGERS, Array, draw_extents, draw_mask, draw_steps, draw_values
from bnfold.runtime.interface import Port
from bnfold.runtime.sessions import Feeds

BATCHES = (1, 3, 2)
CHANNELS = (3, 1, 4, 64)
LENGTHS = (64, 96, 224, 128, 32, 256, 28, 299, 384, 48, 16, 8)
LONG = (512, 576, 1024, 2048, 4000, 8000, 16000, 24000, 32000, 48000, 80000, 160000, 480000)  # raw audio
INTEGER_CEILINGS = (100, 2)  # a vocabulary has at least a hundred entries, a token type or a mask only two
_LARGEST = 2**28  # elements, which are 2 GB in float64
EXTENTS = (1, 2, 4, 8, 16, 32, 64, 99)


@dataclass(frozen=True)
class Sizing:
    """The sizes of dynamic dimensions by their role, and the bounds of integers.

    Attributes:
        batch: Size of the dimensions in that role.
        channels: Likewise.
        length: Likewise.
        ceiling: Wide integers whose use is not known are drawn below it.
        width: As `batch`; None makes a square: it is as large as `length`.
        extent: The largest integer that becomes a size of a tensor.
        choice: Which of its `choices` a number has; after the last comes a number that is not among them.
    """

    batch: int = BATCHES[0]
    channels: int = CHANNELS[0]
    length: int = LENGTHS[0]
    ceiling: int = INTEGER_CEILINGS[0]
    width: int | None = None
    extent: int = EXTENTS[0]
    choice: int = 0

    def of(self, role: str) -> int:
        """The size of the dimensions in a role: `"batch"`, `"channels"`, `"length"` or `"width"`."""
        sizes = {"batch": self.batch, "channels": self.channels, "length": self.length}
        sizes["width"] = self.length if self.width is None else self.width
        return sizes[role]


def draw(
    ports: Sequence[Port],
    sizing: Sizing,
    *,
    seed: int | Sequence[int],
    kind: str = KINDS[0],
    uses: Mapping[str, Use] | None = None,
) -> Feeds:
    """Draw one value for every input, of one of the `KINDS`, with the sizes of `sizing`."""
    rng = np.random.default_rng(seed)
    known = roles(ports)

    def shape(port: Port) -> tuple[int, ...]:
        symbols = dict(dynamic(port))
        sizes = tuple(
            size if isinstance(size, int) else sizing.of(known[symbols[axis]])
            for axis, size in enumerate(port.shape or ())
        )
        if math.prod(sizes) > _LARGEST:
            shown = "×".join(map(str, sizes))
            raise InputError(
                f"The input {port.name!r} of shape {shown} is too large to be drawn at random.",
                "If that is its real shape, give inputs with --inputs FILE.npz; otherwise export it again.",
            )
        return sizes

    used = uses or {}
    return {
        port.name: _drawn(rng, port, shape(port), sizing, kind, used.get(port.name, Use())) for port in ports
    }


def extreme(feeds: Feeds, ports: Sequence[Port], sizing: Sizing, uses: Mapping[str, Use]) -> Feeds:
    """The same, with the largest integers in it that `draw` may give other samples of that sizing."""
    for port in ports:
        array, use = feeds[port.name], uses.get(port.name, Use())
        if port.type not in WIDE_INTEGERS or use.choices or use.mask or use.steps:
            continue
        if use.sizes and use.table is None:
            array.fill(sizing.extent)
        elif array.size:
            array.flat[0] = _ceiling(sizing, use) - 1
    return feeds


def roles(ports: Sequence[Port]) -> dict[str, str]:
    """The role of every symbol, as `Sizing.of` takes it; the first dimension that has it decides."""
    open_batch = any(axis == 0 for port in ports for axis, _ in dynamic(port))
    found: dict[str, str] = {}
    for port in ports:
        shape = port.shape or ()
        axes = [axis for axis, _ in dynamic(port)]
        channels_last = len(shape) > 3 and [axis for axis in axes if axis] == [*range(1, len(shape) - 1)]
        state = open_batch and len(shape) == 3 and axes == [1]
        lengths = []
        for axis, symbol in dynamic(port):
            if axis == 0 or state:
                found.setdefault(symbol, "batch")
            elif axis == 1 and len(shape) > 2 and not channels_last:
                found.setdefault(symbol, "channels")
            else:
                lengths.append(symbol)
        for symbol in lengths:
            last = len(lengths) > 1 and symbol == lengths[-1] != lengths[0]
            found.setdefault(symbol, "width" if last else "length")
    return found


def by_symbol(ports: Sequence[Port], sizing: Sizing) -> Iterator[tuple[str, int]]:
    """Every symbol with its size."""
    return ((symbol, sizing.of(role)) for symbol, role in roles(ports).items())


def _drawn(
    rng: np.random.Generator, port: Port, shape: tuple[int, ...], sizing: Sizing, kind: str, use: Use
) -> Array:
    if port.type not in WIDE_INTEGERS:
        return draw_values(rng, port.type, shape, kind=kind, ceiling=sizing.ceiling)
    if use.choices:
        return np.full(shape, _chosen(use.choices, sizing.choice), np.dtype(port.type))
    if use.mask and shape:
        return draw_mask(rng, port.type, shape, kind=kind)
    if use.steps:
        return draw_steps(rng, port.type, shape, kind=kind, longest=sizing.length)
    if use.sizes and use.table is None:
        return draw_extents(rng, port.type, shape, kind=kind, largest=sizing.extent)
    return draw_values(rng, port.type, shape, kind=kind, ceiling=_ceiling(sizing, use))


def _chosen(choices: tuple[int, ...], number: int) -> int:
    """One of the numbers that decide something, or half of the largest after the last of them."""
    if number < len(choices):
        return choices[number]
    half = max(choices) // 2
    return half if half not in choices else max(choices) + 1


def _ceiling(sizing: Sizing, use: Use) -> int:
    return sizing.ceiling if use.table is None else max(1, use.table)
