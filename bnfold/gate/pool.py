"""Work on files, in processes that a hostile file can end or hold up without harm to any other."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing.context import SpawnContext, SpawnProcess
from types import ModuleType
from typing import Any, TypeVar

KeyT = TypeVar("KeyT")
_WAITING = 4  # calls for each process that are handed over to the pool, the one that it works on included


@dataclass(frozen=True)
class NotAnswered:
    """Why a file has no answer; plain texts, since not every exception can travel from process to process.

    Attributes:
        why: What went wrong: the end of a sentence, or a whole one where there is a `fix`.
        fix: What to type; empty but where the fault is not of the file, so that no file can be asked.
    """

    why: str
    fix: str = ""


def outcomes(
    function: Callable[..., Any], asked: Mapping[KeyT, tuple[Any, ...]], jobs: int, limit: float
) -> Iterator[tuple[KeyT, Any]]:
    """Call a function of a module once for each of several arguments, in processes of their own.

    Args:
        function: What is called; it and all it takes and returns can be pickled.
        asked: Its arguments, by what identifies the call.
        jobs: How many processes at most.
        limit: Seconds for one call, after which its process is ended.

    Yields:
        What identifies a call, and what came of it: a `NotAnswered` where its process ended early.
    """
    if not asked:
        return
    from pebble import ProcessExpired, ProcessPool

    left = iter(asked.items())
    with ProcessPool(min(jobs, len(asked)), context=_Context(), initializer=_quiet) as pool:
        running: dict[Any, KeyT] = {}
        try:
            while True:
                # not all at once: the pool looks at every call that waits, again and again
                for key, given in islice(left, _WAITING * jobs - len(running)):
                    running[pool.schedule(_call, (function, *given), timeout=limit)] = key
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    try:
                        outcome = future.result()
                    except TimeoutError:
                        outcome = NotAnswered(f"it took more than {limit:g} s")
                    except ProcessExpired as error:
                        outcome = NotAnswered(f"its process ended with {error.exitcode}")
                    yield running.pop(future), outcome
        except BaseException:
            pool.stop()  # type: ignore[no-untyped-call]
            raise


class _Process(SpawnProcess):
    """A process that does not run the caller's script again.

    multiprocessing would run it, so that names of `__main__` can be unpickled. The script would then need
    `if __name__ == "__main__"`, and one from standard input would not be found at all. bnfold needs none of
    these names.
    """

    def start(self) -> None:
        with _main_without_a_file():
            super().start()


class _Context(SpawnContext):
    """What pebble starts processes with."""

    Process = _Process


_replacing = threading.Lock()


@contextmanager
def _main_without_a_file() -> Iterator[None]:
    """Exchange `__main__` for a copy that says nothing of where it came from.

    The copy has all other names, so that threads that pickle something of it meanwhile find the same objects.
    """
    with _replacing:
        main = sys.modules["__main__"]
        other = ModuleType("__main__")  # its __spec__ is None
        other.__dict__.update(
            {name: value for name, value in main.__dict__.items() if name not in ("__file__", "__spec__")}
        )
        sys.modules["__main__"] = other
        try:
            yield
        finally:
            sys.modules["__main__"] = main


def _call(function: Callable[..., Any], *given: Any) -> Any:
    """Call it, and leave no memory in use: the nodes of a graph refer to each other in circles."""
    try:
        return function(*given)
    finally:
        gc.collect()
        gc.freeze()  # modules, most of all: the next collection need not look at them


def _quiet() -> None:
    """Leave interrupts to the process that waits, and one thread to each process that works."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
