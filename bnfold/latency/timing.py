"""Timing several contestants in turn.

Every round times each contestant once, in a new random order, so that whatever else the machine does affects
all of them equally. A timing repeats a fast contestant until a millisecond has passed. That is far above the
resolution of a clock, and shorter than a busy system lets a thread run without interruption: most timings
have no interruption, and the others do not affect a median. The faster contestant is repeated more often, so
that all timings last about equally long and are interrupted about equally often.

Before that, a contestant runs until it is warm: until it has not become faster for a while. In the first runs
caches fill, memory is allocated and algorithms are chosen, so the runs become faster. The fastest run shows
this even if interruptions slow down other runs.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bnfold.latency.bootstrap import Times

Run = Callable[[], object]

SHORTEST_TIMING_MS = 1.0
FASTER_BY = 0.02
WARM_RUNS = 3
WARM_MS = 5.0
MIN_ROUNDS = 16
MAX_ROUNDS = 1000


@dataclass(frozen=True)
class Warm:
    """How a contestant ran while it warmed up.

    Attributes:
        fastest_ms: Its fastest run.
        settled: Whether it stopped becoming faster before the time was over.
    """

    fastest_ms: float
    settled: bool


@dataclass(frozen=True)
class Plan:
    """How to fill the time.

    Attributes:
        repeats: Runs of each contestant within one timing.
        rounds: Rounds on each load.
    """

    repeats: tuple[int, ...]
    rounds: int


def warm_up(run: Run, limit_ms: float) -> Warm:
    """Run until three runs and five milliseconds have brought no run that is 2 % faster than the fastest.

    Args:
        run: The contestant.
        limit_ms: When to give up, but not before the third run.
    """
    fastest = last_gain = math.inf
    spent, runs_since, ms_since = 0.0, 0, 0.0
    runs = 0
    while runs_since < WARM_RUNS or ms_since < WARM_MS:
        if spent > limit_ms and runs >= WARM_RUNS:
            return Warm(fastest, settled=False)
        taken = time_once(run, 1)
        spent, runs = spent + taken, runs + 1
        fastest = min(fastest, taken)
        if taken < last_gain * (1 - FASTER_BY):
            last_gain, runs_since, ms_since = taken, 0, 0.0
        else:
            runs_since, ms_since = runs_since + 1, ms_since + taken
    return Warm(fastest, settled=True)


def repeats(fastest_ms: Sequence[float]) -> tuple[int, ...]:
    """Runs of each contestant within one timing, so that all timings last long enough and equally long.

    A longer timing is interrupted more often, so a slow model that is timed for longer would seem slower than
    it is. The fastest runs decide, because any other run may have been interrupted.
    """
    longest = max(fastest_ms) * max(1, math.ceil(SHORTEST_TIMING_MS / max(fastest_ms)))
    return tuple(max(1, round(longest / one)) for one in fastest_ms)


def plan(
    runs: Sequence[Run], fastest_ms: Sequence[float], loads: int, rounds: int | None, milliseconds: float
) -> Plan:
    """The repeats of each contestant, and the rounds of each load with which all loads fill the time.

    Args:
        runs: The contestants, warm.
        fastest_ms: Their fastest runs.
        loads: How often all of them will be loaded.
        rounds: Rounds over all loads; None fills the time.
        milliseconds: The time for the rounds on all loads.
    """
    numbers = repeats(fastest_ms)
    if rounds is None:
        trials = [
            sum(time_once(run, number) * number for run, number in zip(runs, numbers, strict=True))
            for _ in range(3)
        ]
        rounds = min(MAX_ROUNDS, max(MIN_ROUNDS, int(milliseconds / statistics.median(trials))))
    return Plan(numbers, math.ceil(rounds / loads))


def measure(runs: Sequence[Run], planned: Plan, rng: np.random.Generator) -> Times:
    """Time all contestants in turn.

    Returns:
        Milliseconds per run, of the shape `[rounds, contestants]`.
    """
    times = np.empty((planned.rounds, len(runs)))
    collected = gc.isenabled()
    gc.disable()  # a collection would slow down whichever contestant happens to run
    try:
        for turn in times:
            for which in rng.permutation(len(runs)):
                turn[which] = time_once(runs[which], planned.repeats[which])
    finally:
        if collected:
            gc.enable()
    return times


def time_once(run: Run, repeats: int) -> float:
    """Milliseconds per run, over `repeats` runs."""
    start = time.perf_counter_ns()
    for _ in range(repeats):
        run()
    return (time.perf_counter_ns() - start) / repeats / 1e6
