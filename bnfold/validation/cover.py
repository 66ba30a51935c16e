"""More samples, until nothing new is seen or a budget ends: what `--cover` does.

Inputs are drawn in rounds, aimed at what is still unseen ([`bnfold.inputs.further`][bnfold.inputs.further]),
and evaluated. One that shows nothing new is dropped; the others are compared like all samples.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bnfold.errors import ModelError
from bnfold.inputs import coverage, search
from bnfold.inputs.further import Aims, Further
from bnfold.inputs.samples import Samples
from bnfold.oracle.evaluator import NotEvaluableError
from bnfold.runtime.sessions import Feeds
from bnfold.validation.choose_reference import PROOF_BUDGET, Truth
from bnfold.validation.runners import Original, Runner
from bnfold.validation.watch import Watch

MOST_TRIED = 200
_IDLE_ROUNDS = 2


@dataclass(frozen=True)
class Found:
    """A sample that shows something new.

    Attributes:
        label: Its name.
        feeds: The inputs, in the original's types.
        expected: The original's outputs in ONNX Runtime.
        true: The true outputs; None for each that is not known.
        refused: Why the oracle cannot evaluate it; None where it can.
    """

    label: str
    feeds: Feeds
    expected: list[Any]
    true: list[Any]
    refused: str | None = None


@dataclass
class Cover:
    """One search for what was not seen.

    Attributes:
        further: Draws the inputs.
        watch: What was seen of the original so far, and is seen of it while this goes on.
        reference: The truth.
        original: Gives its outputs in ONNX Runtime.
        convert: Brings inputs into the original's types.
        seconds: How long it may take.
    """

    further: Further
    watch: Watch
    reference: Truth
    original: Original
    convert: Callable[[Feeds], Feeds]
    seconds: float
    _samples: list[Feeds] = field(default_factory=list)
    _tried: int = 0
    _kept: int = 0
    _ended: str = ""

    def extend(self, samples: Samples, runners: Sequence[Runner]) -> Samples:
        """Compare more samples, those that show something new; the samples with them."""
        self._samples = [samples.feeds[number] for number in self.reference.chosen]
        added: list[tuple[str, Feeds]] = []
        for one in self._draw():
            self.reference.add(one.feeds, one.refused)
            added.append((one.label, one.feeds))
            for runner in runners:
                runner.compare(one.feeds, one.true, one.expected, self.original)
        return replace(
            samples,
            feeds=(*samples.feeds, *(feeds for _, feeds in added)),
            labels=(*samples.labels, *(label for label, _ in added)),
            outputs=(*samples.outputs, *[None] * len(added)) if samples.outputs else (),
        )

    def _draw(self) -> Iterator[Found]:
        """Samples that show what others do not, while there is anything to be shown."""
        ends = time.monotonic() + self.seconds
        idle = 0
        for number in range(MOST_TRIED):
            kept = self._kept
            for label, feeds in self.further.round(number, self._aims):
                if self._is_over(ends):
                    return
                found = self._try(label, self.convert(feeds))
                if found is not None:
                    yield found
            idle = 0 if self._kept > kept else idle + 1
            if self._is_over(ends):
                return
            if idle == _IDLE_ROUNDS:
                self._ended = f"after {_IDLE_ROUNDS} rounds without anything new"
                return

    @property
    def sentence(self) -> str:
        """What was drawn, and why no more."""
        return (
            f"--cover tried {self._tried} more inputs, compared the models on {self._kept} that showed "
            f"something new, and ended {self._ended}."
        )

    def _is_over(self, ends: float) -> bool:
        aims = self._aims()
        if not (aims.rows or aims.branches or aims.channels or aims.sizes):
            self._ended = "when all that it can aim at had been seen"
        elif time.monotonic() >= ends:
            self._ended = f"with its budget of {self.seconds:g} seconds"
        elif self._tried >= MOST_TRIED:
            self._ended = f"with its budget of {MOST_TRIED} inputs"
        return bool(self._ended)

    def _try(self, label: str, feeds: Feeds) -> Found | None:
        """Run one input; None where it shows nothing new, or cannot be compared."""
        self._tried += 1
        before, refused = self._seen(), None
        try:
            if self.reference.cost(feeds) > max(PROOF_BUDGET, self.reference.cost(self._samples[0])):
                return None
            expected = self.original.expected(feeds)
        except (ModelError, NotEvaluableError):
            return None
        if not search.has_finite_values(search.leaves(expected)):
            return None
        true: list[Any] = [None] * len(expected)
        try:
            true = self.reference.evaluate(feeds, len(expected))
        except NotEvaluableError as error:
            refused = error.problem
        self.watch.compared(feeds, expected)
        self._samples.append(feeds)
        if all(now <= then for now, then in zip(self._seen(), before, strict=True)):
            self._samples.pop()
            return None
        self._kept += 1
        return Found(label, feeds, expected, true, refused)

    def _gaps(self) -> int:
        found = coverage.dimensions(self.further.ports, self._samples)
        return sum(one.gap is not None for one in found)

    def _seen(self) -> tuple[int, ...]:
        return (*self.watch.seen, -self._gaps())

    def _aims(self) -> Aims:
        watch = self.watch
        missing = {gather: np.flatnonzero(~table.met) for gather, table in watch.tables.items()}
        return Aims(
            {gather: rows for gather, rows in missing.items() if rows.size},
            any(one.missed for one in watch.branches.values()),
            next(watch.dead(), None) is not None,
            bool(self._gaps()),
        )
