"""This machine: a thread per worker, for which [`alone`][bnfold.fleet.alone] starts processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, TypeVar

from bnfold.fleet import alone

ResultT = TypeVar("ResultT")
_MOMENT = 0.1  # seconds, after which a call that goes on is ended again: it may have been about to begin


class Local:
    """A pool of threads."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._pool = ThreadPoolExecutor(jobs, thread_name_prefix="bnfold-fleet")
        self._going: set[Future[Any]] = set()

    def submit(self, function: Callable[..., ResultT], *arguments: Any) -> Future[ResultT]:
        """Have a function called in a thread."""
        future = self._pool.submit(function, *arguments)
        self._going.add(future)
        future.add_done_callback(self._going.discard)
        return future

    def slots(self) -> int:
        """The number of threads."""
        return self._jobs

    def close(self) -> None:
        """End the calls that go on, with what they wait for."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        while wait(list(self._going), _MOMENT).not_done:
            alone.close()
        alone.close()


@contextmanager
def opened(address: str, jobs: int | None) -> Iterator[Local]:
    """Open the pool.

    Args:
        address: Nothing; this machine has none.
        jobs: How many threads; None takes one per CPU.
    """
    del address
    engine = Local(jobs or available())
    try:
        yield engine
    finally:
        engine.close()


def available() -> int:
    """The CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
