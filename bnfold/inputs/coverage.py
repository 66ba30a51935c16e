"""What a set of samples covers: the sizes of each dynamic dimension and the numbers of each integer input."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bnfold.inputs.uses import Use
from bnfold.inputs.values import WIDE_INTEGERS
from bnfold.runtime.interface import Port
from bnfold.runtime.sessions import Feeds

_LISTED = 8  # sizes in a sentence


@dataclass(frozen=True)
class Dimension:
    """The sizes at which one dynamic dimension was tried.

    Attributes:
        symbol: Its name in the model; `input.axis` where it has none.
        sizes: The sizes of the samples, ascending.
        rejected: Sizes that the model rejected when the samples were chosen and that no sample has. Another
            dimension may have been the cause.
    """

    symbol: str
    sizes: tuple[int, ...]
    rejected: tuple[int, ...] = ()

    @property
    def odd(self) -> tuple[int, ...]:
        """The odd ones among the sizes."""
        return tuple(size for size in self.sizes if size % 2)

    @property
    def even(self) -> tuple[int, ...]:
        """The even ones among the sizes."""
        return tuple(size for size in self.sizes if not size % 2)

    @property
    def one(self) -> bool:
        """Whether it was tried at 1."""
        return 1 in self.sizes

    @property
    def many(self) -> bool:
        """Whether it was tried at more than 1."""
        return any(size > 1 for size in self.sizes)

    @property
    def gap(self) -> str | None:
        """A sentence on what was not tried: other sizes than one, or sizes of one parity."""
        if len(self.sizes) == 1:
            return f"The dynamic dimension {self.symbol} was tried at the size {self.sizes[0]} only."
        if self.odd and self.even:
            return None
        found, missing = ("odd", 0) if self.odd else ("even", 1)
        refused = [size for size in self.rejected if size % 2 == missing]
        sizes = f"{found} sizes only: {_listed(self.sizes)}."
        said = f" The model rejects {_listed(refused)}." if refused else ""
        return f"The dynamic dimension {self.symbol} was tried at {sizes}{said}"


@dataclass(frozen=True)
class Integers:
    """The numbers that one integer input was tried with.

    Attributes:
        name: The input.
        low: The smallest.
        high: The largest.
        distinct: How many different ones.
        use: What the model does with them, as far as it is known.
    """

    name: str
    low: int
    high: int
    distinct: int
    use: Use


def dynamic(port: Port) -> Iterator[tuple[int, str]]:
    """Axis and symbol of every dynamic dimension; an unnamed one is named after its input and axis."""
    for axis, size in enumerate(port.shape or ()):
        if not isinstance(size, int):
            yield axis, size or f"{port.name}.{axis}"


def dimensions(
    ports: Sequence[Port], samples: Iterable[Feeds], rejected: Mapping[str, set[int]] | None = None
) -> tuple[Dimension, ...]:
    """The sizes of every dynamic dimension in some samples.

    Args:
        ports: The inputs that the model needs.
        samples: Arrays by the name of the input.
        rejected: Sizes by symbol that the model rejected.
    """
    sizes: dict[str, set[int]] = {}
    for feeds in samples:
        for port in ports:
            for axis, symbol in dynamic(port):
                sizes.setdefault(symbol, set()).add(np.shape(feeds[port.name])[axis])
    refused = rejected or {}
    return tuple(
        Dimension(symbol, tuple(sorted(found)), tuple(sorted(refused.get(symbol, set()) - found)))
        for symbol, found in sizes.items()
    )


def integers(
    ports: Sequence[Port], samples: Sequence[Feeds], uses: Mapping[str, Use]
) -> tuple[Integers, ...]:
    """The numbers of every wide integer input in some samples."""
    found = []
    for port in ports:
        if port.type in WIDE_INTEGERS:
            arrays = [np.unique(feeds[port.name]) for feeds in samples]
            numbers = np.unique(np.concatenate(arrays)) if arrays else np.zeros(0, np.int64)
            if numbers.size:
                low, high = int(numbers[0]), int(numbers[-1])
                found.append(Integers(port.name, low, high, numbers.size, uses.get(port.name, Use())))
    return tuple(found)


def shapes_text(feeds: Feeds) -> str:
    """The sizes of a sample as text: `1×3×64×64`, or `x 1×3×64×64, k scalar` for several inputs."""
    texts = {name: "×".join(map(str, np.shape(array))) or "scalar" for name, array in feeds.items()}
    if len(texts) == 1:
        return next(iter(texts.values()))
    return ", ".join(f"{name} {text}" for name, text in texts.items())


def _listed(sizes: Sequence[int]) -> str:
    more = f" and {len(sizes) - _LISTED} more" if len(sizes) > _LISTED else ""
    return ", ".join(map(str, sizes[:_LISTED])) + more
