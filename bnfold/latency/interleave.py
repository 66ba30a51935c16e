"""Original, folded, and the original once more, timed against each other at one setting.

The third contestant is the control: a second session of the same file as the first. The fold did not cause
the difference between these two, so a difference counts only if it is clearly larger.

Two sessions of the same model differ by about a percent for as long as they exist, because of where their
weights happen to be in memory. So all three are loaded several times, each time in a new random order: up to
8 times in a time that was given, and otherwise up to 32 times with fewer rounds each, so that the verdict can
be looked at early ([`stopping`][bnfold.latency.stopping]).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bnfold.engines.base import Loaded
from bnfold.latency.bootstrap import Times
from bnfold.latency.pinning import pinned
from bnfold.latency.stopping import MOST_LOADS, may_end
from bnfold.latency.timing import Plan, Run, measure, plan, warm_up
from bnfold.options import SECONDS
from bnfold.runtime import sessions
from bnfold.runtime.providers import device
from bnfold.runtime.sessions import Feeds, Optimizer

Measures = Literal["end to end", "on the device"]

MIN_LOADS = 4
MAX_LOADS = 8
_LOADING = 0.4  # share of the time for loading; if it takes more, there are fewer loads
_WARMING = 0.04  # share of the time for warming up one session


@dataclass(frozen=True)
class Setting:
    """The conditions of a contest.

    Attributes:
        optimizer: ONNX Runtime's optimizer; other runtimes are at their default.
        measures: `"end to end"`: from NumPy arrays to NumPy arrays; `"on the device"`: inputs and outputs
            stay in the GPU's memory.
        provider: Its short name.
        threads: Threads within an operator.
        batch: The requested batch size; None without one.
        provider_options: The name of what the provider is set to.
        load: Loads a file in another runtime; None for ONNX Runtime.
    """

    optimizer: Optimizer
    measures: Measures
    provider: str
    threads: int
    batch: int | None = None
    provider_options: str = "bnfold"
    load: Callable[[Path], Loaded] | None = None


@dataclass(frozen=True)
class Contest:
    """The timings of a contest; contestants are in the order original, folded, control.

    Attributes:
        times: Milliseconds per run, of the shape `[loads, rounds, 3]`.
        repeats: Runs of each within one timing.
        load_ms: Median time to make a session of each.
        pinned: Number of loads in which the threads were pinned to free CPUs.
        settled: Whether every session had stopped becoming faster before it was timed.
        stopped_early: Whether it ended before its time, since its answer was clear.
    """

    times: Times
    repeats: tuple[int, ...]
    load_ms: tuple[float, ...]
    pinned: int
    settled: bool
    stopped_early: bool = False


@dataclass(frozen=True)
class _Load:
    """Three warm sessions: how to run each, how long it took to make, and its fastest run."""

    runs: tuple[Run, ...]
    load_ms: tuple[float, ...]
    fastest_ms: tuple[float, ...]
    settled: bool


@dataclass(frozen=True)
class Budget:
    """How long a contest may take.

    Attributes:
        rounds: Least number of rounds over all loads; None fills the time.
        seconds: The time for everything. A slow model takes longer, since fewer than 16 rounds on four loads
            are too few.
        may_stop: Whether it ends before its time once its answer is clear; there are more and shorter loads
            then.
    """

    rounds: int | None = None
    seconds: float = SECONDS
    may_stop: bool = False

    def share(self, taken: float) -> tuple[int, float]:
        """The number of loads, and the seconds left for rounds, if one load took `taken` seconds."""
        if self.rounds is not None:
            return min(MAX_LOADS, self.rounds), self.seconds
        most = MOST_LOADS if self.may_stop else MAX_LOADS
        loads = min(most, max(MIN_LOADS, int(_LOADING * self.seconds / taken)))
        return loads, max(self.seconds - loads * taken, self.seconds / 2)


def contest(
    original: Path,
    folded: Path,
    setting: Setting,
    feeds: Feeds,
    budget: Budget,
    rng: np.random.Generator,
    on_load: Callable[[int, int], None] | None = None,
) -> Contest:
    """Time the original, the folded model and the control.

    Args:
        original: The original's file, as its runtime takes it.
        folded: The folded model's file, likewise.
        setting: The conditions.
        feeds: Inputs by name.
        budget: How long it may take.
        rng: Draws the order.
        on_load: Called with the number of loads timed and their total; at the end both are equal.

    Raises:
        ModelError: ONNX Runtime cannot load or run a model.
        ProviderError: The provider is unknown, absent, or would be silently replaced.
    """
    times: list[Times] = []
    load_ms: list[tuple[float, ...]] = []
    settled, pins, stopped = True, 0, False
    total, planned = MAX_LOADS, Plan((), 0)
    while len(times) < total and not stopped:
        with pinned(setting.threads, len(times)) as pin:
            start = time.perf_counter()
            load = _load((original, folded, original), setting, feeds, 1e3 * budget.seconds * _WARMING, rng)
            if not times:
                total, left = budget.share(time.perf_counter() - start)
                planned = plan(load.runs, load.fastest_ms, total, budget.rounds, 1e3 * left)
            times.append(measure(load.runs, planned, rng))
        load_ms.append(load.load_ms)
        settled, pins = settled and load.settled, pins + pin
        del load  # frees its sessions before the next ones are made
        stopped = budget.may_stop and len(times) < total and may_end(np.array(times), rng)
        if on_load:
            on_load(total if stopped else len(times), total)
    medians = np.median(load_ms, axis=0).tolist()
    return Contest(np.array(times), planned.repeats, tuple(medians), pins, settled, stopped)


def _load(
    files: tuple[Path, ...], setting: Setting, feeds: Feeds, limit_ms: float, rng: np.random.Generator
) -> _Load:
    """Make a session of every file, in random order since the order has an effect; then warm up each."""
    runs: dict[int, Run] = {}
    load_ms: dict[int, float] = {}
    for which in rng.permutation(len(files)).tolist():
        start = time.perf_counter_ns()
        made = _opened(files[which], setting)
        load_ms[which] = (time.perf_counter_ns() - start) / 1e6
        if isinstance(made, Loaded):
            runs[which] = made.caller(feeds)
        elif setting.measures == "end to end":
            runs[which] = sessions.on_host(made, feeds)
        else:
            runs[which] = sessions.on_device(made, feeds, device(setting.provider) or "cpu")
    order = range(len(files))
    warm = [warm_up(runs[which], limit_ms) for which in order]
    return _Load(
        runs=tuple(runs[which] for which in order),
        load_ms=tuple(load_ms[which] for which in order),
        fastest_ms=tuple(one.fastest_ms for one in warm),
        settled=all(one.settled for one in warm),
    )


def _opened(file: Path, setting: Setting) -> Any:
    """A session of ONNX Runtime, or what another runtime loads."""
    if setting.load is not None:
        return setting.load(file)
    return sessions.session(
        file,
        provider=setting.provider,
        optimized=setting.optimizer,
        threads=setting.threads,
        provider_options=setting.provider_options,
    )
