"""Whether folding made a model faster, measured so that the answer can be believed.

Original and folded run in one process, turn by turn, and so does the original a second time, in a session of
its own: a control that shows how far the original differs from itself
([`interleave`][bnfold.latency.interleave]). The figure is the ratio of the medians, original by folded, with
a 95 % bootstrap interval; the control has a ratio and an interval like it
([`bootstrap`][bnfold.latency.bootstrap]).

The verdict, with `THRESHOLD` at 3 % and `RESOLUTION` at 10 %:

- **faster** where the interval lies above 1, and the folded model beats both sessions of the original by the
  threshold, and the ratio lies above the control's interval; **slower** likewise.
- **too noisy to say** where a difference was seen that does not stand out against the control in this way, or
  where one interval of the two reaches beyond the resolution, so that a difference of 10 % could hide in it.
- **no measurable difference** otherwise: a difference of 10 % can be ruled out.

Everything is timed at three settings of ONNX Runtime's optimizer: at its default, which is what users run and
which folds Conv → BatchNormalization by itself; at basic; and off, which shows what the fold is worth to a
runtime that does not.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np

from bnfold.errors import InputError, ModelError
from bnfold.inputs.given import Inputs
from bnfold.latency.batches import by_batch
from bnfold.latency.bootstrap import ratios
from bnfold.latency.footprint import Footprint, footprint, on_disk
from bnfold.latency.interleave import MAX_LOADS, Contest, Measures, Setting, contest
from bnfold.latency.timing import MIN_ROUNDS
from bnfold.runtime import sessions
from bnfold.runtime.interface import Port, as_ir, differences, interface
from bnfold.runtime.sessions import Feeds, ModelLike, Optimizer
from bnfold.system.environment import cpu_quota

Verdict = Literal["faster", "slower", "no measurable difference", "too noisy to say"]

OPTIMIZERS: tuple[Optimizer, ...] = ("default", "basic", "off")
THRESHOLD = 0.03
RESOLUTION = 0.10


@dataclass(frozen=True)
class Row:
    """Latency of both models under one setting; times are milliseconds a run.

    Attributes:
        optimizer: ONNX Runtime's optimizer: `"default"`, `"basic"` or `"off"`.
        rounds: Number of rounds over all loads; each timed original, folded and control once.
        repeats: Runs of the original within one timing.
        original_ms: Median of the original.
        original_p90_ms: What 90 % of the original's timings stay below.
        folded_ms: Median of the folded model.
        folded_p90_ms: What 90 % of the folded model's timings stay below.
        ratio: `original_ms / folded_ms`; above 1 the folded model is faster.
        low: Lower end of the ratio's 95 % interval.
        high: Upper end.
        folded_repeats: Runs of the folded model within one timing.
        measures: `"end to end"`, from NumPy arrays to NumPy arrays; or `"on the device"`, where inputs and
            outputs stay in the GPU's memory.
        batch: The batch size that was asked for; None where none was.
        original_p99_ms: What 99 % of the original's timings stay below.
        folded_p99_ms: What 99 % of the folded model's timings stay below.
        control_ms: Median of the original's second session.
        control_ratio: `original_ms / control_ms`: what the original differs from itself by.
        control_low: Lower end of its 95 % interval.
        control_high: Upper end.
        original_load_ms: Median time to make a session of the original.
        folded_load_ms: Median time to make a session of the folded model.
        loads: How often all sessions were made afresh.
        pinned: Loads in which the threads were kept on free CPUs of their own.
        settled: Whether every session had stopped becoming faster before it was timed.
        original_times_ms: Every timing of the original, load by load.
        folded_times_ms: Likewise of the folded model.
        control_times_ms: Likewise of the original's second session.
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
    measures: Measures = "end to end"
    batch: int | None = None
    original_p99_ms: float = math.nan
    folded_p99_ms: float = math.nan
    control_ms: float = math.nan
    control_ratio: float = 1.0
    control_low: float = 1.0
    control_high: float = 1.0
    original_load_ms: float = math.nan
    folded_load_ms: float = math.nan
    loads: int = 1
    pinned: int = 0
    settled: bool = True
    original_times_ms: tuple[float, ...] = field(default=(), repr=False)
    folded_times_ms: tuple[float, ...] = field(default=(), repr=False)
    control_times_ms: tuple[float, ...] = field(default=(), repr=False)

    @property
    def verdict(self) -> Verdict:
        """What the ratio, its interval and the control allow to say; the rule stands above."""
        least = 1 + THRESHOLD
        if self.low > 1 and self.ratio >= least:
            clear = self.ratio / self.control_ratio >= least and self.ratio > self.control_high
            return "faster" if clear else "too noisy to say"
        if self.high < 1 and 1 / self.ratio >= least:
            clear = self.control_ratio / self.ratio >= least and self.ratio < self.control_low
            return "slower" if clear else "too noisy to say"
        widest = 1 + RESOLUTION
        low, high = min(self.low, self.control_low), max(self.high, self.control_high)
        return "no measurable difference" if 1 / widest < low and high < widest else "too noisy to say"

    @property
    def sentence(self) -> str:
        """The verdict with its figures, to be put after the conditions that it holds under."""
        interval = f"{self.low:.2f} to {self.high:.2f}"
        match self.verdict:
            case "faster":
                return f"the folded model is {self.ratio:.2f} times as fast ({interval})"
            case "slower":
                ratio, low, high = 1 / self.ratio, 1 / self.high, 1 / self.low
                return f"the folded model takes {ratio:.2f} times as long ({low:.2f} to {high:.2f})"
            case "no measurable difference":
                return f"no measurable difference (ratio {self.ratio:.2f}, {interval})"
            case _:
                control = f"{self.control_ratio:.2f}, {self.control_low:.2f} to {self.control_high:.2f}"
                return f"too noisy to say (ratio {self.ratio:.2f}, {interval}; original by itself {control})"


@dataclass(frozen=True)
class Benchmark:
    """The outcome of [`bnfold.benchmark`][bnfold.latency.benchmark.benchmark].

    Attributes:
        provider: Where both models ran.
        threads: Threads within an operator.
        seed: Seed of the inputs, the order and the bootstrap.
        shapes: Shape of every input; at the first batch size where several were asked for.
        rows: One a batch size, kind of measurement and optimizer setting, the default first.
        original: What the original weighs.
        folded: What the folded model weighs.
        cpus: CPUs that this process may be scheduled on.
        cpu_quota: CPUs' worth of time that a cgroup allows it; None without a limit.
    """

    provider: str
    threads: int
    seed: int
    shapes: dict[str, tuple[int, ...]]
    rows: tuple[Row, ...]
    original: Footprint | None = None
    folded: Footprint | None = None
    cpus: int | None = None
    cpu_quota: float | None = None

    @property
    def sentence(self) -> str:
        """What to tell somebody who asks whether the fold made the model faster."""
        groups: dict[str, dict[str, Row]] = {}
        for row in self.rows:
            batch = f"batch {row.batch}, " if row.batch else ""
            groups.setdefault(f"{batch}{row.measures}", {})[row.optimizer] = row
        sentences = {name: _gain(rows["default"], rows["off"]) for name, rows in groups.items()}
        if len(sentences) == 1:
            return next(iter(sentences.values()))
        return " ".join(f"{name[0].upper()}{name[1:]}: {sentence}" for name, sentence in sentences.items())

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know about the conditions, as sentences."""
        return tuple(self._notes())

    def _notes(self) -> Iterator[str]:
        if self.cpu_quota is not None:
            stopped = self.cpu_quota < self.threads
            rest = (
                f", too little for {self.threads} threads: they are stopped now and then" if stopped else ""
            )
            yield f"A cgroup allows this process {self.cpu_quota:g} CPUs' worth of time{rest}."
        if self.cpus is not None and self.cpus < self.threads:
            yield f"There are more threads than the {self.cpus} CPUs that this process may use."
        loads, pinned = (sum(getattr(row, name) for row in self.rows) for name in ("loads", "pinned"))
        if pinned < loads:
            yield (
                f"The threads had CPUs of their own in {pinned} of {loads} loads; else none was free, and the"
                " system placed them."
            )
        if early := sorted({row.optimizer for row in self.rows if not row.settled}):
            yield (
                f"Some sessions (optimizer {', '.join(early)}) were still becoming faster when the time to"
                " warm up was over. More --seconds give them longer."
            )


def _gain(default: Row, off: Row) -> str:
    if default.verdict != "no measurable difference":
        return f"With ONNX Runtime as it comes, {default.sentence}; with its optimizer off, {off.sentence}."
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
    inputs: Inputs | None = None,
    batches: Sequence[int] = (),
    on_progress: Callable[[int, int], None] | None = None,
) -> Benchmark:
    """Time a folded model against its original.

    On `"cuda"` everything is timed twice: from NumPy arrays to NumPy arrays, where the copies to the GPU and
    back count; and on inputs and outputs that stay on the GPU, where they are numbers.

    Args:
        original: A path, a `ModelProto` or an `onnx_ir.Model`.
        folded: The same, after folding.
        provider: `"cpu"` or `"cuda"`.
        rounds: Rounds for each setting, rounded up to a multiple of the loads; None fills the time.
        seconds: Time to measure for, all in all, where `rounds` is None. A slow model takes longer, because
            fewer than 16 rounds say nothing.
        threads: Threads within an operator.
        seed: Seed of the inputs, the order and the bootstrap.
        inputs: Arrays by input name, or files, to be used instead of random ones (with batch size 1, where it
            is free); the first sample of several.
        batches: Batch sizes to time, of a model that leaves it open; none takes the inputs as they are.
        on_progress: Called with the number of loads timed and the most that there can be.

    Raises:
        InputError: The inputs given do not fit the model, or none can be drawn that it takes; or a batch size
            is asked for that the model does not leave open.
        ModelError: A model cannot be read, the two have other inputs or outputs, or ONNX Runtime does not run
            one.
        ProviderError: The provider is unknown, absent, or would be silently replaced.
        MissingExtraError: ONNX Runtime is not installed.
    """
    _check(rounds, seconds, batches)
    start = time.perf_counter()
    rng = np.random.default_rng(seed)
    feeds = _feeds(original, folded, provider, threads, inputs, batches, seed)
    first = next(iter(feeds.values()))
    settings = [
        Setting(optimizer, measures, provider, threads, batch)
        for batch, measures, optimizer in itertools.product(feeds, _kinds(provider, first), OPTIMIZERS)
    ]
    rows = []
    with ExitStack() as stack:
        files = [stack.enter_context(on_disk(model)) for model in (original, folded)]
        weights = [footprint(file, first, provider, threads) for file in files]
        left = max(seconds - (time.perf_counter() - start), seconds / 2)
        for place, setting in enumerate(settings):
            tell = on_progress and _within(on_progress, place, len(settings))
            share = left / len(settings)
            given = feeds[setting.batch]
            held = contest(
                files[0], files[1], setting, given, rounds=rounds, seconds=share, rng=rng, on_load=tell
            )
            rows.append(_row(held, setting, rng))
    shapes = {name: np.shape(array) for name, array in first.items()}
    cpus, quota = sessions.usable_cpus(), cpu_quota()
    return Benchmark(provider, threads, seed, shapes, tuple(rows), weights[0], weights[1], cpus, quota)


def _check(rounds: int | None, seconds: float, batches: Sequence[int]) -> None:
    if rounds is not None and rounds < 2:
        raise InputError(f"{rounds} rounds give no interval.", f"Ask for {MIN_ROUNDS} or more.")
    if not 0 < seconds < math.inf:
        raise InputError(f"{seconds} seconds cannot be measured for.", "Give a finite, positive number.")
    if any(batch < 1 for batch in batches):
        raise InputError(f"{min(batches)} is no batch size.", "Give 1 or more.")


def _common_inputs(original: ModelLike, folded: ModelLike) -> tuple[Port, ...]:
    """The inputs of both models, whose inputs and outputs must be the same."""
    ports = interface(as_ir(original))
    if found := differences(ports, interface(as_ir(folded))):
        raise ModelError(
            f"The second model does not stand for the first. {' '.join(found)}",
            "Give a model and what was folded from it.",
        )
    return ports.inputs


def _feeds(
    original: ModelLike,
    folded: ModelLike,
    provider: str,
    threads: int,
    inputs: Inputs | None,
    batches: Sequence[int],
    seed: int,
) -> dict[int | None, Feeds]:
    """Inputs by batch size that the original accepts."""
    made = sessions.session(original, provider=provider, optimized="off", threads=threads)
    ports = _common_inputs(original, folded)
    return by_batch(ports, partial(sessions.run, made), inputs, batches, seed)


def _kinds(provider: str, feeds: Feeds) -> tuple[Measures, ...]:
    """What can be measured: strings cannot lie on a device, and a CPU has no memory apart from the host's."""
    strings = any(np.asarray(array).dtype.kind in "OSU" for array in feeds.values())
    return ("end to end",) if provider == "cpu" or strings else ("end to end", "on the device")


def _within(on_progress: Callable[[int, int], None], place: int, settings: int) -> Callable[[int, int], None]:
    """Progress within one setting of several, each of which has at most `MAX_LOADS` loads."""

    def tell(done: int, total: int) -> None:
        on_progress(place * MAX_LOADS + done * MAX_LOADS // total, settings * MAX_LOADS)

    return tell


def _row(held: Contest, setting: Setting, rng: np.random.Generator) -> Row:
    """Medians, quantiles, and the ratios with their intervals."""
    ratio, control = ratios(held.times, rng)
    pooled = held.times.reshape(-1, held.times.shape[-1])
    medians = np.median(pooled, axis=0).tolist()
    p90, p99 = np.quantile(pooled, [0.9, 0.99], axis=0).tolist()
    original, folded, again = (tuple(column) for column in pooled.T.tolist())
    return Row(
        optimizer=setting.optimizer,
        rounds=len(pooled),
        repeats=held.repeats[0],
        original_ms=medians[0],
        original_p90_ms=p90[0],
        folded_ms=medians[1],
        folded_p90_ms=p90[1],
        ratio=ratio.value,
        low=ratio.low,
        high=ratio.high,
        folded_repeats=held.repeats[1],
        measures=setting.measures,
        batch=setting.batch,
        original_p99_ms=p99[0],
        folded_p99_ms=p99[1],
        control_ms=medians[2],
        control_ratio=control.value,
        control_low=control.low,
        control_high=control.high,
        original_load_ms=held.load_ms[0],
        folded_load_ms=held.load_ms[1],
        loads=len(held.times),
        pinned=held.pinned,
        settled=held.settled,
        original_times_ms=original,
        folded_times_ms=folded,
        control_times_ms=again,
    )
