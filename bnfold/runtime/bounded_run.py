"""Running what a file describes, within the memory that there is, for a time that has an end, interruptibly.

A single call into a library can take hours, or never end, as a loop in TorchScript; meanwhile Python sees no
signal. So it runs in a thread of its own, for which the main one waits. A thread cannot be ended: one that is
left is counted, and the command ends its process without waiting for it.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from bnfold.runtime.cgroups import memory_limit

ResultT = TypeVar("ResultT")

SECONDS = 600.0
"""How long a single run may take."""

_WAKE = 0.05  # seconds, after which the main thread looks for signals
_SLACK = 1 << 30  # bytes of addresses that are reserved and never used
_STATUS = Path("/proc/self/status")
_MEMORY = Path("/proc/meminfo")
_going: set[threading.Event] = set()  # of each run, set at its end
_limiting = threading.Lock()
_limited = 0  # runs that share the limit, which is the process's
_before: tuple[int, int] | None = None


class TooLongError(Exception):
    """A run that did not end within its time."""


def run(function: Callable[[], ResultT], seconds: float = SECONDS, *, in_memory: bool = True) -> ResultT:
    """Call `function` in a thread, and wait for it.

    Args:
        function: What to run; it sets up by itself what torch keeps for each thread, such as `no_grad`.
        seconds: How long it may take.
        in_memory: Whether the memory that there is limits it. A GPU's driver reserves more addresses than
            that.

    Raises:
        TooLongError: It did; it goes on in its thread.
        BaseException: What it raises, or what a signal raises meanwhile.
    """
    found: list[ResultT] = []
    errors: list[BaseException] = []
    context, end = contextvars.copy_context(), threading.Event()

    def work() -> None:
        try:
            found.append(context.run(function))
        except BaseException as error:  # raised again below, where somebody waits for it
            errors.append(error)
        finally:
            end.set()
            _going.discard(end)

    latest = time.monotonic() + seconds
    with within_memory() if in_memory else contextlib.nullcontext():
        _going.add(end)
        threading.Thread(target=work, daemon=True).start()
        while not end.wait(_WAKE):
            if time.monotonic() > latest:
                raise TooLongError(f"it did not end within {seconds:.0f} seconds")
    if errors:
        raise errors[0]
    return found[0]


def is_left() -> bool:
    """Whether a run that was given up still goes on."""
    return bool(_going)


@contextlib.contextmanager
def within_memory() -> Iterator[None]:
    """Let allocations fail that the machine could not satisfy, instead of the process being killed for them.

    Only Linux says how much there is; elsewhere nothing changes.
    """
    global _before, _limited
    with _limiting:
        if not _limited:
            _before = _limit()
        _limited += 1
    try:
        yield
    finally:
        with _limiting:
            _limited -= 1
            if not _limited and _before is not None:
                import resource

                resource.setrlimit(resource.RLIMIT_AS, _before)


def _limit() -> tuple[int, int] | None:
    """Set the limit; what it was before, None where it stays."""
    try:
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = _kilobytes(_STATUS, "VmSize") + _available() + _SLACK
    except (ImportError, OSError, ValueError, KeyError, StopIteration):
        return None
    if any(one != resource.RLIM_INFINITY and one <= limit for one in (soft, hard)):
        return None
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    return soft, hard


def _available() -> int:
    """Bytes that may still be used, on the machine and in its control group."""
    free = _kilobytes(_MEMORY, "MemAvailable") + _kilobytes(_MEMORY, "SwapFree")
    group = _group()
    return free if group is None else min(free, max(0, group - _kilobytes(_STATUS, "VmRSS")))


@functools.cache
def _group() -> int | None:
    """The control group's limit, read once: it costs more than most runs."""
    return memory_limit()


def _kilobytes(path: Path, name: str) -> int:
    """A number of bytes that the kernel states in kB."""
    lines = path.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) << 10
