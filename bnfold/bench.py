"""Whether folding made a model faster, measured so that the answer can be believed.

Original and folded run in one process, turn by turn: every round times both, in an order drawn anew, so that
whatever else the machine does meets both alike. A timing repeats a fast model until a few milliseconds have
passed, because a clock and an operating system blur anything shorter. The faster model of the two is repeated
more often, so that both timings last about equally long and are interrupted about equally often.

Two sessions of the very same model differ by a percent or so through where their weights happen to lie in
memory, for as long as they live. So both models are loaded afresh several times, and the figure, the ratio of
the medians, original by folded, has a 95 % bootstrap interval that draws loads first and rounds within them.
A difference counts when the interval leaves out 1 and the ratio is beyond `THRESHOLD`.

Everything is timed twice: with ONNX Runtime's optimizer at its default, which is what users run and which
folds Conv → BatchNormalization by itself, and with it off, which shows what the fold is worth to a runtime
that does not.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bnfold.errors import InputError, ModelError
from bnfold.runtime import samples, sessions
from bnfold.runtime.interface import Port, as_ir, differences, interface
from bnfold.runtime.sessions import Feeds, ModelLike

Optimizer = Literal["default", "off"]
Verdict = Literal["faster", "slower", "no measurable difference"]

OPTIMIZERS: tuple[Optimizer, ...] = ("default", "off")
THRESHOLD = 0.03
LOADS = 4
MIN_ROUNDS = 16
MAX_ROUNDS = 1000
_WARM_UP_RUNS = 3
_SHORTEST_TIMING_MS = 3.0
_RESAMPLES = 2000


@dataclass(frozen=True)
class Row:
    """Latency of both models under one optimizer setting; times are milliseconds a run.

    Attributes:
        optimizer: ONNX Runtime's optimizer: `"default"` or `"off"`.
        rounds: Number of rounds over all loads; each timed both models once.
        repeats: Runs of the original within one timing.
        original_ms: Median of the original.
        original_p90_ms: What 90 % of the original's timings stay below.
        folded_ms: Median of the folded model.
        folded_p90_ms: What 90 % of the folded model's timings stay below.
        ratio: `original_ms / folded_ms`; above 1 the folded model is faster.
        low: Lower end of the ratio's 95 % interval.
        high: Upper end.
        folded_repeats: Runs of the folded model within one timing.
    """

    optimizer: Optimizer
    rounds: int
    repeats: int
    original_ms: float
    original_p90_ms: float
    folded_ms: float
    folded_p90_ms: float
    ratio: float
    low: float
    high: float
    folded_repeats: int = 1

    @property
    def verdict(self) -> Verdict:
        """What the ratio and its interval allow to say."""
        if self.low > 1 and self.ratio >= 1 + THRESHOLD:
            return "faster"
        if self.high < 1 and 1 / self.ratio >= 1 + THRESHOLD:
            return "slower"
        return "no measurable difference"

    @property
    def sentence(self) -> str:
        """The verdict with its figures, to be put after the conditions that it holds under."""
        if self.verdict == "no measurable difference":
            return f"no measurable difference (ratio {self.ratio:.2f}, {self.low:.2f} to {self.high:.2f})"
        if self.verdict == "faster":
            return f"the folded model is {self.ratio:.2f} times as fast ({self.low:.2f} to {self.high:.2f})"
        ratio, low, high = 1 / self.ratio, 1 / self.high, 1 / self.low
        return f"the folded model takes {ratio:.2f} times as long ({low:.2f} to {high:.2f})"


@dataclass(frozen=True)
class Benchmark:
    """The outcome of [`bnfold.benchmark`][bnfold.bench.benchmark].

    Attributes:
        provider: Where both models ran.
        threads: Threads within an operator.
        seed: Seed of the inputs, the order and the bootstrap.
        shapes: Shape of every input.
        rows: One an optimizer setting, the default first.
    """

    provider: str
    threads: int
    seed: int
    shapes: dict[str, tuple[int, ...]]
    rows: tuple[Row, ...]

    @property
    def sentence(self) -> str:
        """What to tell somebody who asks whether the fold made the model faster."""
        default, off = (next(row for row in self.rows if row.optimizer == name) for name in OPTIMIZERS)
        if default.verdict != "no measurable difference":
            return (
                f"With ONNX Runtime as it comes, {default.sentence}; with its optimizer off, {off.sentence}."
            )
        if off.verdict == "faster":
            return (
                f"No measurable gain with ONNX Runtime as it comes; with its optimizer off, {off.sentence}. "
                "Its default session folds a BatchNorm behind a convolution by itself, which may be why."
            )
        return f"No measurable gain with ONNX Runtime as it comes. With its optimizer off, {off.sentence}."


def benchmark(
    original: ModelLike,
    folded: ModelLike,
    *,
    provider: str = "cpu",
    rounds: int | None = None,
    seconds: float = 10.0,
    threads: int = 1,
    seed: int = 0,
    inputs: Feeds | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Benchmark:
    """Time a folded model against its original.

    A run takes NumPy arrays and gives NumPy arrays, so on `"cuda"` the copies to the GPU and back count.

    Args:
        original: A path, a `ModelProto` or an `onnx_ir.Model`.
        folded: The same, after folding.
        provider: `"cpu"` or `"cuda"`.
        rounds: Rounds for each optimizer setting, rounded up to a multiple of 4; None fills the time.
        seconds: Time to measure for, all in all, where `rounds` is None. A slow model takes longer, because
            fewer than 16 rounds say nothing.
        threads: Threads within an operator.
        seed: Seed of the inputs, the order and the bootstrap.
        inputs: Arrays by input name, to be used instead of random ones (with batch size 1, where it is free).
        on_progress: Called with the number of loads timed and their total.

    Raises:
        InputError: The inputs given do not fit the model, or none can be drawn that it takes.
        ModelError: A model cannot be read, the two have other inputs or outputs, or ONNX Runtime does not run
            one.
        ProviderError: The provider is unknown, absent, or would be silently replaced.
        MissingExtraError: ONNX Runtime is not installed.
    """
    if rounds is not None and rounds < 2:
        raise InputError(f"{rounds} rounds give no interval.", f"Ask for {MIN_ROUNDS} or more.")
    if not 0 < seconds < math.inf:
        raise InputError(f"{seconds} seconds cannot be measured for.", "Give a finite, positive number.")
    rng = np.random.default_rng(seed)
    pair = _Pair(original, folded, provider, threads)
    ports = _common_inputs(original, folded)
    feeds = pair.feeds(ports, inputs, seed)
    rows = []
    for place, optimizer in enumerate(OPTIMIZERS):
        repeats, per_load = _plan(pair.load(optimizer), feeds, rounds, seconds / len(OPTIMIZERS))
        times = []
        for number in range(LOADS):
            loaded = pair.load(optimizer, swapped=number % 2 == 1)
            times.append(_measure(loaded, feeds, per_load, repeats, rng))
            if on_progress:
                on_progress(place * LOADS + number + 1, LOADS * len(OPTIMIZERS))
        rows.append(_row(optimizer, np.array(times), repeats, rng))
    shapes = {name: array.shape for name, array in feeds.items()}
    return Benchmark(provider, threads, seed, shapes, tuple(rows))


@dataclass(frozen=True)
class _Pair:
    """The two models and where they run."""

    original: ModelLike
    folded: ModelLike
    provider: str
    threads: int

    def load(self, optimizer: Optimizer, *, swapped: bool = False) -> list[Any]:
        """New sessions of original and folded; `swapped` makes them in the other order, which shows."""
        models = (self.folded, self.original) if swapped else (self.original, self.folded)
        made = [self._session(model, optimized=optimizer == "default") for model in models]
        return made[::-1] if swapped else made

    def feeds(self, ports: Sequence[Port], inputs: Feeds | None, seed: int) -> Feeds:
        """The inputs that were given, or one random sample that the original accepts."""
        if inputs is not None:
            return samples.fit(inputs, ports)
        run = partial(sessions.run, self._session(self.original, optimized=False))
        (feeds, *_) = samples.choose(ports, run, count=1, seed=seed).feeds
        samples.run_drawn(run, feeds)
        return feeds

    def _session(self, model: ModelLike, *, optimized: bool) -> Any:
        return sessions.session(model, provider=self.provider, optimized=optimized, threads=self.threads)


def _common_inputs(original: ModelLike, folded: ModelLike) -> tuple[Port, ...]:
    """The inputs of both models, whose inputs and outputs must be the same."""
    ports = interface(as_ir(original))
    if found := differences(ports, interface(as_ir(folded))):
        raise ModelError(
            f"The second model does not stand for the first. {' '.join(found)}",
            "Give a model and what was folded from it.",
        )
    return ports.inputs


def _plan(pair: list[Any], feeds: Feeds, rounds: int | None, seconds: float) -> tuple[tuple[int, int], int]:
    """Runs a timing of each, so that both last long and alike, and rounds a load, so that all fill the time.

    A longer timing is interrupted more often: a slow model timed for longer would seem slower than it is.
    """
    _warm_up(pair, feeds)
    times = [statistics.median(_time(session, feeds, 1) for _ in range(3)) for session in pair]
    longest = max(times) * max(1, math.ceil(_SHORTEST_TIMING_MS / max(times)))
    original, folded = (max(1, round(longest / one)) for one in times)
    fitting = int(1e3 * seconds / (original * times[0] + folded * times[1]))
    wanted = rounds or min(MAX_ROUNDS, max(MIN_ROUNDS, fitting))
    return (original, folded), math.ceil(wanted / LOADS)


def _measure(
    pair: list[Any], feeds: Feeds, rounds: int, repeats: tuple[int, int], rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Time both sessions turn by turn; gives milliseconds a run as `[rounds, 2]`."""
    _warm_up(pair, feeds)
    times = np.empty((rounds, 2))
    collected = gc.isenabled()
    gc.disable()  # a collection would fall on whichever model happens to run
    try:
        for turn in times:
            for which in rng.permutation(2):
                turn[which] = _time(pair[which], feeds, repeats[which])
    finally:
        if collected:
            gc.enable()
    return times


def _warm_up(pair: list[Any], feeds: Feeds) -> None:
    for session in pair * _WARM_UP_RUNS:
        sessions.run(session, feeds)


def _time(session: Any, feeds: Feeds, repeats: int) -> float:
    """Milliseconds a run, over `repeats` runs."""
    run = session.run
    start = time.perf_counter_ns()
    for _ in range(repeats):
        run(None, feeds)
    return (time.perf_counter_ns() - start) / repeats / 1e6


def _row(
    optimizer: Optimizer, times: npt.NDArray[np.float64], repeats: tuple[int, int], rng: np.random.Generator
) -> Row:
    """Medians, their ratio and its interval, from times of the shape `[loads, rounds, 2]`.

    The bootstrap draws loads, then whole rounds within each, so that the two timings of a round stay a pair.
    """
    loads, rounds, _ = times.shape
    load = rng.integers(loads, size=(_RESAMPLES, loads, 1))
    turn = rng.integers(rounds, size=(_RESAMPLES, loads, rounds))
    medians = np.median(times[load, turn].reshape(_RESAMPLES, -1, 2), axis=1)
    low, high = np.quantile(medians[:, 0] / medians[:, 1], [0.025, 0.975])
    pooled = times.reshape(-1, 2)
    original, folded = np.median(pooled, axis=0)
    original_p90, folded_p90 = np.quantile(pooled, 0.9, axis=0)
    return Row(
        optimizer=optimizer,
        rounds=len(pooled),
        repeats=repeats[0],
        original_ms=float(original),
        original_p90_ms=float(original_p90),
        folded_ms=float(folded),
        folded_p90_ms=float(folded_p90),
        ratio=float(original / folded),
        low=float(low),
        high=float(high),
        folded_repeats=repeats[1],
    )
