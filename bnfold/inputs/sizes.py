"""The sizes at which the dynamic dimensions of a model's inputs are tried.

A dynamic dimension is tried at more than one size. Dimension 0 is taken for the batch, dimension 1 of an
input of rank three or more for the channels, and every other one for a length. An image whose last dimension
is its only fixed one has its channels there. If an input has two lengths or more, the last is the width, and
one of the sizes is not square. A symbol has the same size in all inputs. Sizes that the model rejects are
skipped.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from bnfold.errors import InputError, ModelError
from bnfold.inputs.values import WIDE_INTEGERS, draw_values
from bnfold.runtime.interface import Port
from bnfold.runtime.sessions import Feeds

Runner: TypeAlias = Callable[[Feeds], Any]

GIVE_INPUTS = "Give real inputs with --inputs FILE.npz."

BATCHES = (1, 3, 2)
CHANNELS = (3, 1, 4, 64)
LENGTHS = (64, 96, 224, 128, 32, 256, 28, 299, 384, 16, 8)
INTEGER_CEILINGS = (100, 2)  # a vocabulary has at least a hundred entries, a token type or a mask only two


@dataclass(frozen=True)
class Sizing:
    """The sizes of dynamic dimensions by their role, and the bound below which wide integers are drawn.

    A `width` of None makes a square: it is as large as `length`.
    """

    batch: int = BATCHES[0]
    channels: int = CHANNELS[0]
    length: int = LENGTHS[0]
    ceiling: int = INTEGER_CEILINGS[0]
    width: int | None = None

    def of(self, role: str) -> int:
        """The size of the dimensions in a role: `"batch"`, `"channels"`, `"length"` or `"width"`."""
        sizes = {"batch": self.batch, "channels": self.channels, "length": self.length}
        sizes["width"] = self.length if self.width is None else self.width
        return sizes[role]


def draw(ports: Sequence[Port], sizing: Sizing, *, seed: int | Sequence[int], kind: str = "normal") -> Feeds:
    """Draw one value for every input, of one of the `KINDS`, with the sizes of `sizing`."""
    rng = np.random.default_rng(seed)
    roles = _roles(ports)

    def shape(port: Port) -> tuple[int, ...]:
        symbols = dict(dynamic(port))
        return tuple(
            size if isinstance(size, int) else sizing.of(roles[symbols[axis]])
            for axis, size in enumerate(port.shape or ())
        )

    return {
        port.name: draw_values(rng, port.type, shape(port), kind=kind, ceiling=sizing.ceiling)
        for port in ports
    }


def sizings(ports: Sequence[Port], run: Runner, seed: int) -> list[Sizing]:
    """The sizings to go through: other batches and another size are found separately, then tried together.

    Args:
        ports: The inputs that the model needs.
        run: Runs the model; raises ModelError where it rejects the inputs.
        seed: Seed of the values that it is tried with.

    Returns:
        At least one. Nothing is run unless a dimension is dynamic or an input has wide integers.

    Raises:
        InputError: The model rejects all sizes that were tried.
    """

    def accepted(sizing: Sizing) -> bool:
        return _rejection(ports, sizing, run, seed) is None

    first = _first(ports, run, seed)
    roles = set(_roles(ports).values())
    batches = [replace(first, batch=batch) for batch in BATCHES[1:]] if "batch" in roles else []
    further = [sizing for sizing in batches if accepted(sizing)]
    other = next((sizing for sizing in _resized(first, roles) if accepted(sizing)), None)
    if other is None:
        return [first, *further]
    if further and accepted(together := replace(other, batch=further[0].batch)):
        return [first, together, *further[1:]]
    return [first, other, *further]


def notes(ports: Sequence[Port], tried: Sequence[Sizing]) -> Iterator[str]:
    """One sentence for every dynamic dimension that was tried at a single size."""
    for symbol, role in _roles(ports).items():
        sizes = {sizing.of(role) for sizing in tried}
        if len(sizes) == 1:
            yield f"The dynamic dimension {symbol} was tried at the size {sizes.pop()} only."


def dynamic(port: Port) -> Iterator[tuple[int, str]]:
    """Axis and symbol of every dynamic dimension; an unnamed one is named after its input and axis."""
    for axis, size in enumerate(port.shape or ()):
        if not isinstance(size, int):
            yield axis, size or f"{port.name}.{axis}"


def _roles(ports: Sequence[Port]) -> dict[str, str]:
    """The role of every symbol, as `Sizing.of` takes it; the first dimension that has it decides."""
    roles: dict[str, str] = {}
    for port in ports:
        shape = port.shape or ()
        channels_last = len(shape) > 3 and [axis for axis, _ in dynamic(port) if axis] == [
            *range(1, len(shape) - 1)
        ]
        lengths = []
        for axis, symbol in dynamic(port):
            if axis == 0:
                roles.setdefault(symbol, "batch")
            elif axis == 1 and len(shape) > 2 and not channels_last:
                roles.setdefault(symbol, "channels")
            else:
                lengths.append(symbol)
        for symbol in lengths:
            last = len(lengths) > 1 and symbol == lengths[-1] != lengths[0]
            roles.setdefault(symbol, "width" if last else "length")
    return roles


def _first(ports: Sequence[Port], run: Runner, seed: int) -> Sizing:
    """The first sizing that the model accepts."""
    roles = set(_roles(ports).values())
    wide = any(port.type in WIDE_INTEGERS for port in ports)
    if not roles and not wide:
        return Sizing()  # nothing to choose: if the model rejects its own sizes, the real run will fail
    rejection: ModelError | None = None
    for channels, length, ceiling in itertools.product(
        CHANNELS if "channels" in roles else CHANNELS[:1],
        LENGTHS if "length" in roles else LENGTHS[:1],
        INTEGER_CEILINGS if wide else INTEGER_CEILINGS[:1],
    ):
        sizing = Sizing(BATCHES[0], channels, length, ceiling)
        rejection = _rejection(ports, sizing, run, seed)
        if rejection is None:
            return sizing
    raise InputError(
        f"The model rejects all values that were tried for its inputs "
        f"({'; '.join(map(str, ports))}). The last time: {rejection.problem if rejection else ''}",
        GIVE_INPUTS,
    )


def _resized(first: Sizing, roles: set[str]) -> Iterator[Sizing]:
    """Other sizes to try, first those that are not square: a longer one, twice the first, and a shorter one.

    Those before the first size in `LENGTHS` have already been rejected. Twice the size suits networks that
    halve their maps many times, the shorter one those with a longest sequence.
    """
    if "length" not in roles:
        return
    untried = LENGTHS[LENGTHS.index(first.length) + 1 :]
    longer = [length for length in untried if length > first.length][:1]
    shorter = [length for length in untried if length < first.length][:1]
    lengths = list(dict.fromkeys([*longer, 2 * first.length, *shorter]))
    if "width" in roles:
        both_new = list(itertools.pairwise(lengths))[:1]
        for length, width in [*both_new, *((length, first.length) for length in lengths)]:
            yield replace(first, length=length, width=width)
    yield from (replace(first, length=length) for length in lengths)


def _rejection(ports: Sequence[Port], sizing: Sizing, run: Runner, seed: int) -> ModelError | None:
    feeds = draw(ports, sizing, seed=seed)
    for port in ports:
        if port.type in WIDE_INTEGERS and feeds[port.name].size:
            feeds[port.name].flat[0] = sizing.ceiling - 1  # other samples may hold it too
    try:
        run(feeds)
    except ModelError as error:
        return error
    return None
