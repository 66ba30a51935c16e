"""Pinning threads to CPUs that nothing else is using.

A thread that moves to another CPU finds empty caches. So the calling thread, and with it the threads of the
sessions that are made meanwhile (they inherit its mask), is kept on as many CPUs as there are threads, each
on a different core. Later loads of the sessions get other CPUs, so that no figure depends on a single one.

A thread that is pinned to a busy CPU has to wait, where the scheduler would have moved it elsewhere. So only
free CPUs are used: those that give a short loop all of their time. If too few are free, the scheduler places
the threads.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_FREE = 0.97
_LOOK_MS = 5.0
_LOOKS = 16
_TOPOLOGY = Path("/sys/devices/system/cpu")


@contextmanager
def pinned(threads: int, turn: int = 0) -> Iterator[bool]:
    """Keep the calling thread on `threads` free CPUs, and restore its previous CPUs at the end.

    Args:
        threads: The number of CPUs to use.
        turn: Where to begin looking, so that every turn gets other CPUs.

    Yields:
        Whether the thread is pinned: False if the platform cannot do it, or too few CPUs are free.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield False
        return
    before = os.sched_getaffinity(0)
    try:
        chosen = choose(sorted(before), threads, turn)
        with suppress(OSError):  # if changing it is forbidden, no CPU was found free either
            os.sched_setaffinity(0, chosen or before)
        yield bool(chosen)
    finally:
        with suppress(OSError):  # the previous CPUs may have been taken away meanwhile
            os.sched_setaffinity(0, before)


def choose(
    cpus: list[int], threads: int, turn: int, free: Callable[[int], bool] | None = None
) -> set[int] | None:
    """The first `threads` CPUs that are free and on different cores, from a place that depends on `turn`.

    Args:
        cpus: The CPUs that may be used.
        threads: How many are needed.
        turn: Every turn begins at another CPU.
        free: Whether a CPU is free; by default a short loop on it finds out.

    Returns:
        None if too few are free; at most sixteen more than `threads` are tried.
    """
    free = free or _is_free
    start = turn * threads % len(cpus)
    chosen: dict[str, int] = {}
    for cpu in (cpus[start:] + cpus[:start])[: threads + _LOOKS]:
        core = _core(cpu)
        if core not in chosen and free(cpu):
            chosen[core] = cpu
        if len(chosen) == threads:
            return set(chosen.values())
    return None


def _is_free(cpu: int) -> bool:
    """Whether a loop of five milliseconds gets all the time of a CPU; the thread stays on that CPU."""
    try:
        os.sched_setaffinity(0, {cpu})
    except OSError:
        return False
    start, used = time.perf_counter(), time.thread_time()
    while time.perf_counter() - start < _LOOK_MS / 1e3:
        pass
    return time.thread_time() - used >= _FREE * (time.perf_counter() - start)


def _core(cpu: int) -> str:
    """An identifier that is the same for all CPUs on one core."""
    try:
        return (_TOPOLOGY / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text()
    except OSError:
        return str(cpu)
