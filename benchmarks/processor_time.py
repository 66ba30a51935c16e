"""The processor's time of ONNX files that take turns in one process, as multiples of the first's."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from math import ceil
from pathlib import Path

import numpy as np

from bnfold.runtime import sessions

SHORTEST = 2e-3  # seconds of one timing


def processor_ratios(
    files: Mapping[str, Path], feeds: sessions.Feeds, loads: int, rounds: int
) -> tuple[float, dict[str, list[float]]]:
    """Let files take turns, and compare the processor's time of each with the first's.

    All run in ONNX Runtime's default session with one thread. Every session has its own speed for as long as
    it exists, because of where its weights happen to be in memory; so all are loaded several times.

    Args:
        files: What takes part, by name.
        feeds: The inputs of all.
        loads: How often all files are loaded.
        rounds: In how many rounds all take turns after each loading.

    Returns:
        Milliseconds of one run of the first, and for every other its ratio in each load.
    """
    draw = np.random.default_rng(0)
    times = np.array([_one_load(list(files.values()), feeds, rounds, draw) for _ in range(loads)])
    relative = times / times[:, :1]
    others = {name: relative[:, place].tolist() for place, name in enumerate(files) if place}
    return 1e3 * float(np.median(times[:, 0])), others


def _one_load(
    files: Sequence[Path], feeds: sessions.Feeds, rounds: int, draw: np.random.Generator
) -> list[float]:
    """Load all files in random order, and return the median seconds of one run of each."""
    runs: dict[int, Callable[[], object]] = {}
    for place in draw.permutation(len(files)).tolist():
        session = sessions.session(files[place], optimized="default", threads=1)
        runs[place] = sessions.on_host(session, feeds)
    for run in runs.values():
        _seconds(run, 3)
    repeats = ceil(SHORTEST / max(min(_seconds(run, 1) for run in runs.values()), 1e-6))
    times = np.empty((rounds, len(files)))
    for turn in times:
        for place in draw.permutation(len(files)).tolist():
            turn[place] = _seconds(runs[place], repeats)
    return [float(median) for median in np.median(times, axis=0)]


def _seconds(run: Callable[[], object], repeats: int) -> float:
    """The processor's seconds for one run."""
    start = time.process_time()
    for _ in range(repeats):
        run()
    return (time.process_time() - start) / repeats
