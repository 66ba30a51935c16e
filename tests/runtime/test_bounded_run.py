"""A run ends, one way or another: with its result, its error, its time, or a signal."""

from __future__ import annotations

import contextvars
import signal
import sys
import threading
import time

import numpy as np
import pytest

from bnfold.runtime import bounded_run

NAME: contextvars.ContextVar[str] = contextvars.ContextVar("NAME")


def test_the_result_comes_back_from_another_thread() -> None:
    assert bounded_run.run(lambda: threading.current_thread()) is not threading.current_thread()
    NAME.set("outside")
    assert bounded_run.run(NAME.get) == "outside"
    assert not bounded_run.is_left()


@pytest.mark.parametrize("error", [ValueError("this"), KeyboardInterrupt()])
def test_what_it_raises_is_raised(error: BaseException) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)):
        bounded_run.run(fail)


def test_its_time_has_an_end() -> None:
    gate = threading.Event()
    begun = time.monotonic()
    with pytest.raises(bounded_run.TooLongError, match="0 seconds"):
        bounded_run.run(gate.wait, seconds=0.1)
    assert time.monotonic() - begun < 5
    assert bounded_run.is_left()
    gate.set()
    for _ in range(100):
        time.sleep(0.01)
    assert not bounded_run.is_left()


def test_a_signal_interrupts_it_at_once() -> None:
    gate = threading.Event()
    threading.Timer(0.2, signal.raise_signal, [signal.SIGINT]).start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        bounded_run.run(gate.wait)
    assert time.monotonic() - begun < 2
    gate.set()


@pytest.mark.skipif(sys.platform != "linux", reason="no other system says how much memory is free")
def test_more_memory_than_there_is_fails_as_an_allocation() -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(MemoryError):
        bounded_run.run(lambda: np.empty(1 << 45, np.uint8))
    assert resource.getrlimit(resource.RLIMIT_AS) == before
