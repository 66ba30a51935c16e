"""More inputs than a comparison begins with, aimed at what the first ones left out.

Rows of a table that no index met are put into the input that indexes it. Bools, and integers that are
compared with a number, go through their combinations, to turn branches. Other sizes and other kinds of values
are for all the rest. Which of them show anything new only a run can say.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from bnfold.inputs import sizes
from bnfold.inputs.coverage import shapes_text
from bnfold.inputs.sizes import Sizing
from bnfold.inputs.uses import Use
from bnfold.inputs.values import FURTHER_KINDS, KINDS, WIDE_INTEGERS
from bnfold.runtime.interface import Port
from bnfold.runtime.sessions import Feeds

_EACH = 6  # of a round: inputs with one aim
_MOST_COMBINED = 4096


@dataclass(frozen=True)
class Aims:
    """What further inputs are to show.

    Attributes:
        rows: The rows that no index met, by the output of the node that looks them up.
        branches: Whether a branch or a body never ran.
        channels: Whether channels were zero throughout.
        sizes: Whether a dimension was tried at one size, or at sizes of one parity.
    """

    rows: Mapping[str, npt.NDArray[np.int64]]
    branches: bool = False
    channels: bool = False
    sizes: bool = False


class Further:
    """Draws inputs in rounds; the same seed gives the same ones.

    Args:
        ports: The inputs that the model needs.
        sizings: Those that it is known to accept, at least one.
        uses: What it does with its integers.
        seed: Seed of the values.
    """

    def __init__(
        self, ports: Sequence[Port], sizings: Sequence[Sizing], uses: Mapping[str, Use], seed: int
    ) -> None:
        self.ports = tuple(ports)
        self._sizings, self._uses, self._seed = tuple(sizings), uses, seed
        self._others = tuple(self._other_sizings())

    def round(self, number: int, aims: Callable[[], Aims]) -> Iterator[tuple[str, Feeds]]:
        """The inputs of one round, each with a label. The model may reject any of them.

        Args:
            number: The number of the round, from 0.
            aims: What is still to be shown; it is asked before every input.
        """
        yield from self._rows(number, aims)
        if aims().branches:
            yield from self._turned(number)
        now = aims()
        if now.branches or now.sizes or now.rows:
            for place, sizing in enumerate(self._others[number * _EACH : (number + 1) * _EACH]):
                yield self._drawn(KINDS[place % 2], sizing, (number, 0, place))
        now = aims()
        if now.branches or now.channels:
            kinds = (*FURTHER_KINDS, *KINDS)
            for place, kind in enumerate(kinds):
                sizing = self._sizings[(number * len(kinds) + place) % len(self._sizings)]
                label, feeds = self._drawn(kind, sizing, (number, 1, place))
                yield label, feeds
                if now.branches:  # a condition may be a comparison with zero
                    yield f"negative {label}", {name: _negative(array) for name, array in feeds.items()}

    def _drawn(self, kind: str, sizing: Sizing, seed: tuple[int, ...]) -> tuple[str, Feeds]:
        feeds = sizes.draw(self.ports, sizing, seed=(self._seed, *seed), kind=kind, uses=self._uses)
        return f"{kind} {shapes_text(feeds)}", feeds

    def _rows(self, number: int, aims: Callable[[], Aims]) -> Iterator[tuple[str, Feeds]]:
        """Inputs whose indices are those rows of tables that none met."""
        largest = max(self._sizings, key=lambda one: one.batch * one.length)
        for place in range(_EACH):
            missing = aims().rows
            _, feeds = self._drawn(KINDS[0], largest, (number, 2, place))
            aimed = False
            for name, use in self._uses.items():
                wanted = [missing[gather] for gather in use.gathers if gather in missing]
                rows = np.unique(np.concatenate([*wanted, np.zeros(0, np.int64)]))
                rows = rows[rows < (use.table or 0)][: feeds[name].size]
                feeds[name].flat[: rows.size] = rows
                aimed |= bool(rows.size)
            if not aimed:
                return
            yield f"rows {shapes_text(feeds)}", feeds

    def _turned(self, number: int) -> Iterator[tuple[str, Feeds]]:
        """Inputs with other combinations of what conditions may depend on."""
        options = {port.name: found for port in self.ports if (found := self._options(port))}
        if not options:
            return
        combined = list(itertools.islice(itertools.product(*options.values()), _MOST_COMBINED))
        np.random.default_rng(self._seed).shuffle(combined)
        for place, chosen in enumerate(combined[number * _EACH : (number + 1) * _EACH]):
            _, feeds = self._drawn(KINDS[0], self._sizings[place % len(self._sizings)], (number, 3, place))
            turned = {
                name: np.full_like(feeds[name], value) for name, value in zip(options, chosen, strict=True)
            }
            yield f"turned {shapes_text(feeds)}", {**feeds, **turned}

    def _options(self, port: Port) -> list[int]:
        """The values with which an input may turn a condition."""
        if port.type == "bool":
            return [0, 1]
        use = self._uses.get(port.name, Use())
        if port.type not in WIDE_INTEGERS or not use.compared or use.sizes:
            return []
        bounds = np.iinfo(np.dtype(port.type))
        low, high = (bounds.min, bounds.max) if use.table is None else (0, use.table - 1)
        near = {value + step for value in use.compared for step in (-1, 0, 1)}
        return sorted(value for value in near if low <= value <= high)

    def _other_sizings(self) -> Iterator[Sizing]:
        """Sizings that were not tried yet, small and large ones in turn."""
        roles = set(sizes.roles(self.ports).values())
        first = self._sizings[0]
        last = sizes.LENGTHS if "width" in roles else sizes.LONG
        lengths = [first.length + 1, *last[:2], 1, 2, 3, *last[2:4], 4, 5, 7, 8, *sizes.LENGTHS]
        found: list[list[Sizing]] = []
        if "batch" in roles:
            found.append([replace(first, batch=batch) for batch in (2, 3, 1, 4, 5, 8)])
        if "length" in roles:
            found.append([replace(first, length=length, width=None) for length in lengths])
        if "width" in roles:
            found.append([replace(first, width=length) for length in lengths])
        if "channels" in roles:
            found.append([replace(first, channels=channels) for channels in (*sizes.CHANNELS, 2, 5)])
        turns = itertools.chain.from_iterable(itertools.zip_longest(*found))
        tried = set(self._sizings)
        yield from dict.fromkeys(one for one in turns if one is not None and one not in tried)


def _negative(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Floats with the sign of all negative, anything else as it is."""
    return -np.abs(array) if array.dtype.kind == "f" else array
