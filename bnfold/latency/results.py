"""What a benchmark found: one row for each setting, its verdict, and a sentence for people."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from bnfold.display.shown import Shown
from bnfold.latency.bootstrap import Ratio
from bnfold.latency.footprint import Footprint
from bnfold.latency.interleave import Measures
from bnfold.latency.verdicts import Verdict, verdict
from bnfold.runtime.sessions import Optimizer

if TYPE_CHECKING:
    from bnfold.display.plots import Bar


@dataclass(frozen=True)
class Row:
    """Latency of both models at one setting; times are milliseconds per run.

    Attributes:
        optimizer: ONNX Runtime's optimizer: `"default"`, `"basic"` or `"off"`.
        rounds: Number of rounds over all loads; each times original, folded and control once.
        repeats: Runs of the original within one timing.
        original_ms: Median of the original.
        original_p90_ms: 90 % of the original's timings are below this.
        folded_ms: Median of the folded model.
        folded_p90_ms: 90 % of the folded model's timings are below this.
        ratio: `original_ms / folded_ms`; above 1 if the folded model is faster.
        low: Lower end of the ratio's 95 % interval.
        high: Upper end.
        folded_repeats: Runs of the folded model within one timing.
        measures: `"end to end"`, from NumPy arrays to NumPy arrays; or `"on the device"`, where inputs and
            outputs stay in the GPU's memory.
        batch: The requested batch size; None without one.
        provider_options: The name of what the provider was set to.
        original_p99_ms: 99 % of the original's timings are below this.
        folded_p99_ms: 99 % of the folded model's timings are below this.
        control_ms: Median of the original's second session.
        control_ratio: `original_ms / control_ms`: how much the original differs from itself.
        control_low: Lower end of its 95 % interval.
        control_high: Upper end.
        original_load_ms: Median time to make a session of the original.
        folded_load_ms: Median time to make a session of the folded model.
        loads: How often all sessions were made.
        pinned: Number of loads in which the threads were pinned to free CPUs.
        settled: Whether every session had stopped becoming faster before it was timed.
        threads: Threads within an operator.
        stopped_early: Whether the timing ended before its time, since its answer was clear
            ([`stopping`][bnfold.latency.stopping]).
        original_times_ms: Every timing of the original, load by load.
        folded_times_ms: Those of the folded model.
        control_times_ms: Those of the original's second session.
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
    provider_options: str = "bnfold"
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
    threads: int = 1
    stopped_early: bool = False
    original_times_ms: tuple[float, ...] = field(default=(), repr=False)
    folded_times_ms: tuple[float, ...] = field(default=(), repr=False)
    control_times_ms: tuple[float, ...] = field(default=(), repr=False)

    @property
    def conditions(self) -> str:
        """The options and the batch size, where there are other than the usual ones; begins with a comma."""
        options = f", options {self.provider_options}" if self.provider_options != "bnfold" else ""
        return f"{options}{f', batch {self.batch}' if self.batch else ''}"

    @property
    def verdict(self) -> Verdict:
        """The verdict by the rules of [`bnfold.latency.benchmark`][bnfold.latency.benchmark]."""
        control = Ratio(self.control_ratio, self.control_low, self.control_high)
        return verdict(Ratio(self.ratio, self.low, self.high), control)

    @property
    def sentence(self) -> str:
        """The verdict with its figures, to follow the conditions under which it holds."""
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


@dataclass(frozen=True, repr=False)
class Benchmark(Shown):
    """The outcome of [`bnfold.benchmark`][bnfold.api.benchmark.benchmark].

    It is true if the folded model is faster at ONNX Runtime's default, or in another runtime.

    Attributes:
        provider: Where both models ran; the title of another runtime than ONNX Runtime.
        threads: Threads within an operator; of several numbers the first.
        seed: Seed of the inputs, the order and the bootstrap.
        shapes: Shape of every input, at the first of several batch sizes.
        rows: One for each number of threads, batch size, set of options, kind of measurement and optimizer
            setting, the default first.
        original: The size of the original.
        folded: The size of the folded model.
        cpus: CPUs that this process may use.
        cpu_quota: CPUs' worth of time that a cgroup allows it, as 1.5; None without a limit.
        placement: Where the nodes of the original and of the folded model ran at ONNX Runtime's default, as
            sentences; empty for the CPU.
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
    placement: tuple[str, ...] = ()

    axis: ClassVar[str] = "original by folded latency (above 1: faster), with the 95 % interval"
    line: ClassVar[float | None] = 1.0

    @property
    def headline(self) -> str:
        """The sentence with the provider, or first of all where it is slower."""
        threads = "" if self.has_several_threads else f", {_threads(self.threads)}"
        return " ".join(self.slower) or f"On {self.provider}{threads}: {self.sentence}"

    def __bool__(self) -> bool:
        return bool(self.defaults) and all(row.verdict == "faster" for row in self.defaults)

    def records(self) -> list[dict[str, Any]]:
        """A row for each setting, with times in milliseconds."""
        return [
            {
                "provider": self.provider,
                "optimizer": row.optimizer,
                "measures": row.measures,
                "options": row.provider_options,
                "threads": row.threads,
                "batch": row.batch,
                "verdict": row.verdict,
                "ratio": row.ratio,
                "low": row.low,
                "high": row.high,
                "original_ms": row.original_ms,
                "folded_ms": row.folded_ms,
                "original_p99_ms": row.original_p99_ms,
                "folded_p99_ms": row.folded_p99_ms,
                "original_load_ms": row.original_load_ms,
                "folded_load_ms": row.folded_load_ms,
            }
            for row in self.rows
        ]

    def bars(self) -> Sequence[Bar]:
        """The ratio at each setting."""
        from bnfold.display.plots import Bar

        return [
            Bar(f"{self.place(row)}, optimizer {row.optimizer}", row.ratio, row.low, row.high)
            for row in self.rows
        ]

    @property
    def sentence(self) -> str:
        """Whether the fold made the model faster, as a sentence."""
        groups: dict[str, dict[str, Row]] = {}
        for row in self.rows:
            groups.setdefault(f"{row.measures}{self._conditions(row)}", {})[row.optimizer] = row
        sentences = {name: _gain(rows["default"], rows.get("off")) for name, rows in groups.items()}
        if len(sentences) == 1:
            return next(iter(sentences.values()))
        return " ".join(f"{name[0].upper()}{name[1:]}: {sentence}" for name, sentence in sentences.items())

    @property
    def has_several_threads(self) -> bool:
        """Whether several numbers of threads were timed."""
        return len({row.threads for row in self.rows}) > 1

    @property
    def defaults(self) -> tuple[Row, ...]:
        """The rows at ONNX Runtime's default, one for each number of threads, batch size, and so on."""
        return tuple(row for row in self.rows if row.optimizer == "default")

    @property
    def first(self) -> tuple[Row, ...]:
        """Those of these rows with the first number of threads, which are the answer in short."""
        return tuple(row for row in self.defaults if row.threads == self.rows[0].threads)

    @property
    def slower(self) -> tuple[str, ...]:
        """A sentence for each of these rows at which the folded model is slower."""
        slow = [row for row in self.defaults if row.verdict == "slower"]
        return tuple(f"Slower: {row.sentence} on {self.place(row)}." for row in slow)

    def place(self, row: Row) -> str:
        """The provider, and what distinguishes a row from the others at its optimizer setting."""
        measures = f", {row.measures}" if len({other.measures for other in self.rows}) > 1 else ""
        return f"{self.provider}{self._conditions(row)}{measures}"

    def _conditions(self, row: Row) -> str:
        """Those of the row, and its threads where there are several numbers of them; begins with a comma."""
        return f", {_threads(row.threads)}{row.conditions}" if self.has_several_threads else row.conditions

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks on the conditions, as sentences."""
        return tuple(self._notes())

    def _notes(self) -> Iterator[str]:
        for model, sentence in zip(("original", "folded model"), self.placement, strict=False):
            yield f"Of the {model}, {sentence}"
        most = max(self.threads, *(row.threads for row in self.rows))
        if self.cpu_quota is not None:
            too_little = f", too little for {most} threads, so they are stopped at times"
            rest = too_little if self.cpu_quota < most else ""
            yield f"A cgroup allows this process {self.cpu_quota:g} CPUs' worth of time{rest}."
        if self.cpus is not None and self.cpus < most:
            yield f"There are more threads than the {self.cpus} CPUs that this process may use."
        loads, pinned = (sum(getattr(row, name) for row in self.rows) for name in ("loads", "pinned"))
        if pinned < loads:
            yield (
                f"The threads were pinned to free CPUs in {pinned} of {loads} loads; in the"
                " others too few were free."
            )
        if early := sorted({row.optimizer for row in self.rows if not row.settled}):
            yield (
                f"Some sessions (optimizer {', '.join(early)}) were still becoming faster when the time to"
                " warm up was over. Higher --seconds give them more time."
            )
        if stopped := sum(row.stopped_early for row in self.rows):
            which = "The timing" if stopped == len(self.rows) else f"{stopped} of {len(self.rows)} timings"
            yield f"{which} ended early, since the answer was clear; --seconds N takes N seconds."


def _threads(number: int) -> str:
    return f"{number} thread{'' if number == 1 else 's'}"


def _gain(default: Row, off: Row | None) -> str:
    if off is None:  # another runtime than ONNX Runtime has one setting
        return f"{default.sentence[0].upper()}{default.sentence[1:]}."
    if default.verdict != "no measurable difference":
        return f"At ONNX Runtime's default, {default.sentence}; with its optimizer off, {off.sentence}."
    if off.verdict == "faster":
        return (
            f"No measurable gain at ONNX Runtime's default; with its optimizer off, {off.sentence}. "
            "The reason may be that its default session folds a BatchNorm after a convolution by itself."
        )
    return f"No measurable gain at ONNX Runtime's default. With its optimizer off, {off.sentence}."
