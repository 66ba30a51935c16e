"""Keeping threads where they are, on CPUs that nothing else is using.

A thread that moves to another CPU finds its caches empty. So the calling thread, and with it the threads of
the sessions that are made meanwhile (they inherit its mask), is kept on as many CPUs as there are threads,
each on a core of its own. Other loads of the sessions get other CPUs, so that no figure rests on one of them.

A thread that is pinned beside a busy one waits for it, where the scheduler would have moved it away. So only
a CPU that is free is taken: one that gives a short loop all of its time. Where too few are, the
threads are left to the scheduler.
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
    """Keep the calling thread on `threads` free CPUs, and give it back what it had in the end.

    Args:
        threads: As many CPUs are taken.
        turn: Where to begin looking, so that every turn gets other CPUs.

    Yields:
        Whether the thread is pinned: False where the platform cannot, or not enough CPUs are free.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield False
        return
    before = os.sched_getaffinity(0)
    try:
        chosen = choose(sorted(before), threads, turn)
        with suppress(OSError):  # where changing it is forbidden, no CPU was found free either
            os.sched_setaffinity(0, chosen or before)
        yield bool(chosen)
    finally:
        with suppress(OSError):  # a CPU that was taken away meanwhile is none to go back to
            os.sched_setaffinity(0, before)


def choose(
    cpus: list[int], threads: int, turn: int, free: Callable[[int], bool] | None = None
) -> set[int] | None:
    """The first `threads` CPUs, from a place that `turn` moves on, that are free and on cores of their own.

    Args:
        cpus: Those that may be taken.
        threads: How many are wanted.
        turn: Begins at another CPU each time.
        free: Whether a CPU is free; by default a short loop on it finds out.

    Returns:
        None where too few are free, among sixteen and as many as there are threads.
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
    """Whether a loop of five milliseconds gets all the time of a CPU; leaves the thread on that CPU."""
    try:
        os.sched_setaffinity(0, {cpu})
    except OSError:
        return False
    start, used = time.perf_counter(), time.thread_time()
    while time.perf_counter() - start < _LOOK_MS / 1e3:
        pass
    return time.thread_time() - used >= _FREE * (time.perf_counter() - start)


def _core(cpu: int) -> str:
    """What two CPUs have in common that are threads of one core."""
    try:
        return (_TOPOLOGY / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text()
    except OSError:
        return str(cpu)
