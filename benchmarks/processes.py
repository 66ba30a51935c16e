"""Whole processes, measured: from their start to their end, with what they held in memory at most."""

from __future__ import annotations

import functools
import os
import resource
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
LAUNCHER = Path(__file__).with_name("launcher.py")
TIME_LIMIT = 600.0


class ProcessFailedError(Exception):
    """A measured process did not end well; says how it did."""


@dataclass(frozen=True)
class Usage:
    """What one process took.

    Attributes:
        seconds: From its start to its end, the interpreter's start included.
        bytes: The most memory that it held (resident), or that a process that it started did.
    """

    seconds: float
    bytes: int


@dataclass(frozen=True)
class Middle:
    """The median of some figures, and how far they reach."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, figures: Iterable[float]) -> Middle:
        """Of at least one figure."""
        these = list(figures)
        return cls(statistics.median(these), min(these), max(these))

    def __format__(self, spec: str) -> str:
        low, middle, high = (format(figure, spec) for figure in (self.low, self.median, self.high))
        return middle if low == high else f"{middle} ({low} to {high})"


def run(command: Sequence[str], time_limit: float = TIME_LIMIT, memory_limit: int | None = None) -> Usage:
    """Run a command in the project's root and measure it.

    The limit on memory, in bytes, is on what the process may write to (Linux: `RLIMIT_DATA`).

    Python may keep the modules that it compiles, as it does for users; where that is switched off, every
    process would compile bnfold's again, but not those of other tools, which were installed compiled.

    Raises:
        ProcessFailedError: It failed, or took too long and was ended.
    """
    launched = subprocess.Popen(
        [sys.executable, "-I", "-S", str(LAUNCHER), *command],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
        preexec_fn=functools.partial(_limit, memory_limit) if memory_limit else None,
    )
    try:
        answer, complaints = launched.communicate(timeout=time_limit)
    except BaseException as error:
        os.killpg(launched.pid, signal.SIGKILL)  # the launcher and all that it started
        launched.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise ProcessFailedError(f"was stopped after {time_limit:g} seconds") from None
        raise
    last = (complaints.strip().splitlines() or ["no message"])[-1]
    if launched.returncode:
        raise ProcessFailedError(f"could not be started: {last}")
    seconds, kilobytes, code = answer.split()
    if code != "0":
        raise ProcessFailedError(f"ended with exit code {code}: {last}")
    return Usage(float(seconds), 1024 * int(kilobytes))


def _limit(memory: int) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))


def forget(*paths: Path) -> None:
    """Drop what the page cache has of some files, which are flushed to disk first.

    Works for the system's own cache where it has `posix_fadvise` (Linux); a disk or a host may have others.
    """
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)


def remember(*paths: Path) -> None:
    """Have the page cache hold some files, as far as there is memory."""
    buffer = bytearray(2**24)
    for path in paths:
        with path.open("rb", buffering=0) as stream:
            while stream.readinto(buffer):
                pass
