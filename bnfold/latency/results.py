"""What a benchmark found: one row a setting, its verdict, and the sentence that says it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from bnfold.latency.footprint import Footprint
from bnfold.latency.interleave import Measures
from bnfold.runtime.sessions import Optimizer

Verdict = Literal["faster", "slower", "no measurable difference", "too noisy to say"]


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
