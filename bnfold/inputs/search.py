"""The search for sizes that a model accepts, and which of them matter.

A fault may show at odd sizes only, at a single row, or at the smallest map. So every dynamic dimension is
tried at odd and at even sizes, at one and at many, and at the smallest that runs, as far as the model accepts
them. They are combined in pairs (an odd height with an even width and with an even batch, …) instead of all
with all.

Numbers that size tensors grow from small to large, and stop before an output could become large.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from bnfold.errors import InputError, ModelError
from bnfold.inputs import sizes
from bnfold.inputs.sizes import Sizing
from bnfold.inputs.uses import Use
from bnfold.inputs.values import WIDE_INTEGERS, Array
from bnfold.runtime.interface import Port
from bnfold.runtime.sessions import Feeds

Runner: TypeAlias = Callable[[Feeds], Any]

GIVE_INPUTS = "Give real inputs with --inputs FILE.npz."

_SMALL = (1, 2, 3, 4, 5, 7, 8, 12, 16, 24, 32, 48)
_HALVINGS = 8  # of the range in which the smallest size lies
_MOST_ELEMENTS = 2**26  # of an output
_LARGER_SIZES = 8  # as often as large as at the first sizing, at most, is an output at another


@dataclass(frozen=True)
class Plan:
    """What to try a model at.

    Attributes:
        sizings: At least one; the first is an ordinary one.
        rejected: The sizes that the model rejected, by symbol. Another dimension may have been the cause.
    """

    sizings: tuple[Sizing, ...]
    rejected: Mapping[str, set[int]]


def plan(
    ports: Sequence[Port], run: Runner, seed: int, uses: Mapping[str, Use] | None = None, *, one: bool = False
) -> Plan:
    """Find the sizings to go through.

    Args:
        ports: The inputs that the model needs.
        run: Runs the model; raises ModelError where it rejects the inputs.
        seed: Seed of the values that it is tried with.
        uses: What the model does with its integers.
        one: Whether the first sizing is enough.

    Returns:
        At least one sizing. Nothing is run unless a dimension is dynamic or an input has wide integers.

    Raises:
        InputError: The model rejects all sizes that were tried.
    """
    search = _Search(ports, run, seed, uses or {})
    first = search.first()
    found = [first] if one else search.further(first)
    refused: dict[str, set[int]] = {}
    for sizing in search.rejected():
        for symbol, size in sizes.by_symbol(ports, sizing):
            refused.setdefault(symbol, set()).add(size)
    return Plan(tuple(found), refused)


def leaves(outputs: object) -> Iterator[Array]:
    """Every array in what a model gives: sequences, maps and optionals hold several or none."""
    match outputs:
        case None:
            return
        case list() | tuple():
            for element in outputs:
                yield from leaves(element)
        case Mapping():
            yield from leaves(list(outputs.values()))
        case _:
            yield np.asarray(outputs)


def has_finite_values(arrays: Iterable[Array]) -> bool:
    """Whether every array of floats with anything in it has a finite value."""
    floats = (array for array in arrays if array.dtype.kind == "f" and array.size)
    return all(bool(np.isfinite(array).any()) for array in floats)


@dataclass(frozen=True)
class _Probe:
    """One run: what the model said, or what its outputs are like."""

    rejection: ModelError | None
    shapes: tuple[tuple[int, ...], ...] = ()
    finite: bool = False

    @property
    def proves(self) -> bool:
        """Whether it ran, and gave anything that could be compared."""
        return self.finite and (not self.shapes or any(map(math.prod, self.shapes)))

    def grown(self) -> int:
        """The most elements that an output can have where every size of a tensor doubles."""
        return max((2 ** len(shape) * math.prod(shape) for shape in self.shapes), default=0)


class _Search:
    """Tries sizings of one model, each once."""

    def __init__(self, ports: Sequence[Port], run: Runner, seed: int, uses: Mapping[str, Use]) -> None:
        self._ports, self._run, self._seed, self._uses = ports, run, seed, uses
        self._roles = set(sizes.roles(ports).values())
        self._probes: dict[Sizing, _Probe] = {}
        self._demanding = False
        wide = [uses.get(port.name, Use()) for port in ports if port.type in WIDE_INTEGERS]
        self._wide = bool(wide)
        self._open_integers = any(
            not (use.table or use.choices or use.mask or use.steps or use.sizes) for use in wide
        )
        self._sizing_integers = any(use.sizes for use in wide)
        self._choices = max((len(use.choices) for use in wide), default=0)

    def rejected(self) -> list[Sizing]:
        """The sizings that were tried in vain."""
        return [sizing for sizing, probe in self._probes.items() if probe.rejection]

    def first(self) -> Sizing:
        """The first sizing that the model accepts, with numbers as large as they should become."""
        if not self._roles and not self._wide:
            return Sizing()  # nothing to choose: if the model rejects its own sizes, the real run will fail
        last: ModelError | None = None
        for sizing in self._beginnings():
            probe = self._probe(sizing)
            last = probe.rejection or last
            if probe.rejection is None:
                self._demanding = probe.proves  # where nothing is finite, no other size is to blame for it
                return self._grown(sizing)
        raise InputError(
            f"The model rejects all values that were tried for its inputs "
            f"({'; '.join(map(str, self._ports))}). The last time: {last.problem if last else ''}",
            GIVE_INPUTS,
        )

    def further(self, first: Sizing) -> list[Sizing]:
        """The first sizing and others, in the order of their use; those next to each other differ most."""
        if not self._roles and not self._choices:
            return [first]
        batches = self._batches(first)
        odd_batch = next((batch for batch in batches if batch % 2), first.batch)
        even_batch = next((batch for batch in batches if batch % 2 == 0), odd_batch)
        opposite = self._pair(first, self._of_other_parity(first.length))
        other = self._pair(first, self._of_same_parity(first.length))
        mixed = self._first_of(self._combined(first, odd_batch, opposite, opposite))
        wide = self._first_of(self._combined(first, even_batch, other, opposite))
        tall = self._first_of(self._combined(first, even_batch, opposite, other))
        smallest = self._smallest(first)
        small = [] if smallest is None else [smallest, replace(smallest, batch=even_batch)]
        chosen = [first, *mixed, *(one for one in small if self._accepts(one)), *wide, *tall]
        chosen.extend(self._left_over(first, chosen, batches, (*opposite, *other)))
        chosen.extend(self._decided(first))
        return list(dict.fromkeys(map(self._plain, chosen)))

    # --- the first ----------------------------------------------------------------------------------------

    def _beginnings(self) -> Iterator[Sizing]:
        """Sizings to begin with. Long sequences come last: pictures of that size would take all memory."""
        lengths = sizes.LENGTHS if "width" in self._roles else (*sizes.LENGTHS, *sizes.LONG)
        extents = sizes.EXTENTS if self._sizing_integers else sizes.EXTENTS[:1]
        for channels, length, ceiling, extent, choice in itertools.product(
            sizes.CHANNELS if "channels" in self._roles else sizes.CHANNELS[:1],
            lengths if "length" in self._roles else sizes.LENGTHS[:1],
            sizes.INTEGER_CEILINGS if self._open_integers else sizes.INTEGER_CEILINGS[:1],
            extents[:4],
            range(self._choices or 1),
        ):
            yield Sizing(1, channels, length, ceiling, extent=extent, choice=choice)

    def _grown(self, sizing: Sizing) -> Sizing:
        """The same with the largest numbers that size tensors: each is tried before twice as much is."""
        if not self._sizing_integers:
            return sizing
        for extent in sizes.EXTENTS[sizes.EXTENTS.index(sizing.extent) + 1 :]:
            if self._probe(sizing).grown() * _LARGER_SIZES > _MOST_ELEMENTS:
                break
            larger = replace(sizing, extent=extent)
            if not self._accepts(larger):
                break
            sizing = larger
        return sizing

    # --- others -------------------------------------------------------------------------------------------

    def _batches(self, first: Sizing) -> list[int]:
        """Other batches that the model accepts."""
        wanted = sizes.BATCHES[1:] if "batch" in self._roles else ()
        return [batch for batch in wanted if self._accepts(replace(first, batch=batch))]

    def _of_other_parity(self, length: int) -> list[int]:
        candidates = (length + 1, length - 1, 2 * length + 1, length // 2 + (1 - length // 2 % 2))
        return [size for size in candidates if size > 0 and size % 2 != length % 2]

    def _of_same_parity(self, length: int) -> list[int]:
        """Another size: a longer one, twice the first, and a shorter one.

        Those before the first size in the list have already been rejected. Twice the size suits networks that
        halve their maps many times, the shorter one those with a longest sequence.
        """
        known = sizes.LENGTHS if length in sizes.LENGTHS else sizes.LONG
        untried = [size for size in known[known.index(length) + 1 :] if size % 2 == length % 2]
        longer = [size for size in untried if size > length][:1]
        shorter = [size for size in untried if size < length][:1]
        return list(dict.fromkeys([*longer, 2 * length, *shorter]))

    def _pair(self, first: Sizing, candidates: Sequence[int]) -> tuple[int, int]:
        """A length and a width among the candidates that the model accepts; the first where it accepts none.

        Squares come first. A model that takes none may still leave one of the two free.
        """
        if "length" not in self._roles:
            return first.length, first.length
        square = next((size for size in candidates if self._accepts(replace(first, length=size))), None)
        if square is not None or "width" not in self._roles:
            return square or first.length, square or first.length
        base = first.length
        length = next((s for s in candidates if self._accepts(replace(first, length=s, width=base))), base)
        width = next((s for s in candidates if self._accepts(replace(first, width=s))), base)
        return length, width

    def _combined(
        self, first: Sizing, batch: int, lengths: tuple[int, int], widths: tuple[int, int]
    ) -> Iterator[Sizing]:
        """The length of one pair with the width of another, and what comes nearest to it."""
        length, width = lengths[0], widths[1]
        for number in dict.fromkeys((batch, first.batch)):
            yield replace(first, batch=number, length=length, width=width)
            yield replace(first, batch=number, length=length)

    def _smallest(self, first: Sizing) -> Sizing | None:
        """The smallest square that the model accepts, or the smallest width; None where none is smaller."""
        if "length" not in self._roles:
            return None
        changes: list[Callable[[int], Sizing]] = [lambda size: replace(first, length=size)]
        if "width" in self._roles:
            changes.append(lambda size: replace(first, width=size))
        for change in changes:
            refused, found = 0, first.length
            for size in (size for size in _SMALL if size < first.length):
                if self._accepts(change(size)):
                    found = size
                    break
                refused = size
            found = self._halved(change, refused, found)
            if found < first.length:
                return change(found)
        return None

    def _halved(self, change: Callable[[int], Sizing], refused: int, found: int) -> int:
        """The smallest accepted size between a refused and an accepted one, or close to it."""
        for _ in range(_HALVINGS):
            middle = (refused + found) // 2
            if middle in (refused, found):
                break
            if self._accepts(change(middle)):
                found = middle
            else:
                refused = middle
        return found

    def _left_over(
        self, first: Sizing, chosen: Sequence[Sizing], batches: Iterable[int], others: Iterable[int]
    ) -> Iterator[Sizing]:
        """Batches and sizes that the model accepts, and that no combination has."""
        for batch in batches:
            if all(sizing.batch != batch for sizing in chosen):
                yield replace(first, batch=batch)
        have = {size for sizing in chosen for size in (sizing.length, sizing.of("width"))}
        for size in dict.fromkeys(others):
            if size not in have:
                alone = (replace(first, length=size), replace(first, width=size))
                yield from self._first_of(alone)

    def _decided(self, first: Sizing) -> Iterator[Sizing]:
        """For every other number that decides something, a sizing at which the model accepts it."""
        lengths = (sizes.LENGTHS + sizes.LONG[:3]) if "length" in self._roles else ()
        for choice in range(self._choices + 1 if self._choices else 0):
            if choice != first.choice:
                one = replace(first, choice=choice)
                smaller = (replace(one, length=size) for size in lengths)
                yield from self._first_of((one, *smaller))

    # --- runs ---------------------------------------------------------------------------------------------

    def _first_of(self, sizings: Iterable[Sizing]) -> list[Sizing]:
        """The first one that the model accepts, if there is one."""
        return next(([sizing] for sizing in sizings if self._accepts(sizing)), [])

    def _accepts(self, sizing: Sizing) -> bool:
        probe = self._probe(sizing)
        return probe.rejection is None and (probe.proves or not self._demanding)

    def _plain(self, sizing: Sizing) -> Sizing:
        """The one way to write a sizing: no width where the model has none or where it makes a square."""
        width = None if "width" not in self._roles or sizing.width == sizing.length else sizing.width
        return replace(sizing, width=width)

    def _probe(self, sizing: Sizing) -> _Probe:
        """Run the model, or remember what it said."""
        plain = self._plain(sizing)
        if plain not in self._probes:
            drawn = sizes.draw(self._ports, plain, seed=self._seed, uses=self._uses)
            feeds = sizes.extreme(drawn, self._ports, plain, self._uses)
            try:
                arrays = list(leaves(self._run(feeds)))
            except ModelError as error:
                self._probes[plain] = _Probe(error)
            else:
                shapes = tuple(array.shape for array in arrays)
                self._probes[plain] = _Probe(None, shapes, has_finite_values(arrays))
        return self._probes[plain]
