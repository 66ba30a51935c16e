"""Original, folded, and the original once more, against each other under one setting.

The third contestant is the control: a session of its own that runs the very same file as the first. What the
original differs from itself by is nothing that a fold did, and what a difference has to stand out against.

Two sessions of the same model differ by a percent or so through where their weights happen to lie in memory,
for as long as they live. So all three are loaded afresh several times, in an order drawn anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from bnfold.latency.bootstrap import Times
from bnfold.latency.pinning import pinned
from bnfold.latency.timing import Plan, Run, measure, plan, warm_up
from bnfold.runtime import sessions
from bnfold.runtime.sessions import Feeds, Optimizer

Measures = Literal["end to end", "on the device"]

MIN_LOADS = 4
MAX_LOADS = 8
_LOADING = 0.4  # of the time may go into loading before there are fewer loads
_WARMING = 0.04  # of the time may go into warming one session up


@dataclass(frozen=True)
class Setting:
    """What a contest is held under.

    Attributes:
        optimizer: ONNX Runtime's optimizer.
        measures: `"end to end"`: from NumPy arrays to NumPy arrays; `"on the device"`: inputs and outputs
            stay in the GPU's memory.
        provider: `"cpu"` or `"cuda"`.
        threads: Threads within an operator.
        batch: The batch size that was asked for; None where none was.
    """

    optimizer: Optimizer
    measures: Measures
    provider: str
    threads: int
    batch: int | None = None


@dataclass(frozen=True)
class Contest:
    """What came of it; contestants are in the order original, folded, control.

    Attributes:
        times: Milliseconds a run, of the shape `[loads, rounds, 3]`.
        repeats: Runs within one timing, of each.
        load_ms: Median time to make a session, of each.
        pinned: Loads in which the threads were kept on CPUs of their own.
        settled: Whether every session had stopped becoming faster before it was timed.
    """

    times: Times
    repeats: tuple[int, ...]
    load_ms: tuple[float, ...]
    pinned: int
    settled: bool


@dataclass(frozen=True)
class _Load:
    """Three sessions, warm: how to run each, how long it took to make, and its fastest run."""

    runs: tuple[Run, ...]
    load_ms: tuple[float, ...]
    fastest_ms: tuple[float, ...]
    settled: bool


def contest(
    original: Path,
    folded: Path,
    setting: Setting,
    feeds: Feeds,
    *,
    rounds: int | None,
    seconds: float,
    rng: np.random.Generator,
    on_load: Callable[[int, int], None] | None = None,
) -> Contest:
    """Hold a contest.

    Args:
        original: A file.
        folded: A file.
        setting: What both are run under.
        feeds: Inputs by name.
        rounds: Rounds over all loads, at least; None fills the time.
        seconds: The time for everything. A slow model takes longer: fewer than 16 rounds on four loads say
            nothing.
        rng: Draws the order.
        on_load: Called with the number of loads timed and their total.

    Raises:
        ModelError: ONNX Runtime cannot load or run a model.
        ProviderError: The provider is unknown, absent, or would be silently replaced.
    """
    times: list[Times] = []
    load_ms: list[tuple[float, ...]] = []
    settled, pins = True, 0
    total, planned = MAX_LOADS, Plan((), 0)
    while len(times) < total:
        with pinned(setting.threads, len(times)) as pin:
            start = time.perf_counter()
            load = _load((original, folded, original), setting, feeds, 1e3 * seconds * _WARMING, rng)
            if not times:
                total, left = _share(time.perf_counter() - start, seconds, rounds)
                planned = plan(load.runs, load.fastest_ms, total, rounds, 1e3 * left)
            times.append(measure(load.runs, planned, rng))
        load_ms.append(load.load_ms)
        settled, pins = settled and load.settled, pins + pin
        del load  # its sessions go before the next ones come
        if on_load:
            on_load(len(times), total)
    medians = np.median(load_ms, axis=0).tolist()
    return Contest(np.array(times), planned.repeats, tuple(medians), pins, settled)


def _share(taken: float, seconds: float, rounds: int | None) -> tuple[int, float]:
    """Loads, and the seconds left for their rounds, where one load took `taken` seconds."""
    loads = min(MAX_LOADS, max(MIN_LOADS, int(_LOADING * seconds / taken)))
    if rounds is not None:
        return min(MAX_LOADS, rounds), seconds
    return loads, max(seconds - loads * taken, seconds / 2)


def _load(
    files: tuple[Path, ...], setting: Setting, feeds: Feeds, limit_ms: float, rng: np.random.Generator
) -> _Load:
    """Make a session of every file, in an order drawn anew, which shows; then warm each up."""
    runs: dict[int, Run] = {}
    load_ms: dict[int, float] = {}
    for which in rng.permutation(len(files)).tolist():
        start = time.perf_counter_ns()
        made = sessions.session(
            files[which], provider=setting.provider, optimized=setting.optimizer, threads=setting.threads
        )
        load_ms[which] = (time.perf_counter_ns() - start) / 1e6
        on_host = setting.measures == "end to end"
        runs[which] = (
            sessions.on_host(made, feeds) if on_host else sessions.on_device(made, feeds, setting.provider)
        )
    order = range(len(files))
    warm = [warm_up(runs[which], limit_ms) for which in order]
    return _Load(
        runs=tuple(runs[which] for which in order),
        load_ms=tuple(load_ms[which] for which in order),
        fastest_ms=tuple(one.fastest_ms for one in warm),
        settled=all(one.settled for one in warm),
    )
