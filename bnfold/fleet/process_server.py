"""A process that has loaded everything, and forks one for each model.

A process of its own costs a model a few milliseconds this way, where starting Python and loading its packages
would take a second. This one runs nothing of a model itself, starts no thread, and opens no connection, which
is what makes forking it safe. pebble, multiprocessing and loky would do the same in principle, but refuse to
start a process within a daemonic one, as a worker of Dask is, and all but the first let one crash end others.

Started as `python -m bnfold.fleet.process_server MODULE:FUNCTION`; [`alone`][bnfold.fleet.alone] talks to it:
pickles arrive on standard input, lines of JSON leave on standard output. It is JSON, since what comes from a
process that has read a hostile file is to be data and nothing else.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pickle
import select
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

_MOST = 1 << 26  # bytes of one answer
_AT_ONCE = 1 << 16
_MAXRSS = 1 if sys.platform == "darwin" else 1024  # bytes of the unit in which the system states it
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Call:
    """One call in a process of its own.

    Attributes:
        argument: What the function is called with.
        seconds: How long the process may take.
        memory: Bytes that it may write to; None does not limit them.
    """

    argument: Any
    seconds: float
    memory: int | None = None


@dataclass(frozen=True)
class Ended:
    """How the process of a call ended.

    Attributes:
        answer: What the function returned; None where it did not.
        how: `"well"`, `"slow"`, `"memory"` or `"killed"`.
        why: The end of a sentence about the process; empty where it ended well.
        seconds: From its start to its end.
        processor_seconds: What it and its children took of the processors.
        memory: The most bytes that it held.
    """

    answer: Any
    how: str
    why: str = ""
    seconds: float = 0.0
    processor_seconds: float = 0.0
    memory: int = 0


class _GoneError(Exception):
    """The worker that asked has ended."""


def serve(unit: str) -> None:
    """Answer calls until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the worker says when to end
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    _silence(1, 2)  # whatever a library prints is not an answer
    function = _loaded(unit)
    gc.collect()
    gc.freeze()  # so that collecting does not touch, and so copy, the pages that all share
    while True:
        try:
            call = pickle.load(requests)  # from the process that started this one
            ended = _ended(function, call, answers.fileno())
        except (EOFError, _GoneError):
            return
        answers.write(json.dumps(asdict(ended)).encode() + b"\n")
        answers.flush()


def _silence(*descriptors: int) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(nothing, descriptor)
    os.close(nothing)


def _loaded(unit: str) -> Callable[[Any], Any]:
    """The function of a name; its module's `prepare`, if there is one, loads what calls will need."""
    name, _, function = unit.partition(":")
    module = importlib.import_module(name)
    getattr(module, "prepare", lambda: None)()
    found: Callable[[Any], Any] = getattr(module, function)
    return found


def _ended(function: Callable[[Any], Any], call: Call, answers: int) -> Ended:
    """Call a function in a new process, and wait for its end.

    Args:
        function: What is called.
        call: With what, and within which limits.
        answers: The descriptor of this process's own answers, which are not the new one's.

    Raises:
        _GoneError: Nobody waits for the answer any more.
    """
    begin = time.monotonic()
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reader)
        os.close(answers)
        _call(function, call, writer)
    os.close(writer)
    try:
        said, is_late = _read(reader, begin + call.seconds)
    finally:
        os.close(reader)
        _kill(process)
        _, status, usage = os.wait4(process, 0)
    spent = (time.monotonic() - begin, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * _MAXRSS)
    if is_late:
        return Ended(None, "slow", f"took more than {call.seconds:g} s", *spent)
    try:
        answer = json.loads(said)
    except ValueError:  # it ended before all was said
        return Ended(None, "killed", _end(status), *spent)
    if answer is None:
        return Ended(None, "memory", "needed more memory than it may have", *spent)
    return Ended(answer, "well", "", *spent)


def _call(function: Callable[[Any], Any], call: Call, writer: int) -> NoReturn:
    """Be the new process: call the function, say what it returned, end."""
    code = 70  # as sysexits.h has it, of software that failed
    try:
        os.setsid()  # so that whatever it starts can be ended with it
        _silence(0)
        _end_with_parent()
        _limit(call.memory)
        try:
            said = json.dumps(function(call.argument), allow_nan=False)
        except MemoryError:
            said = "null"
        with os.fdopen(writer, "wb") as stream:
            stream.write(said.encode() + b"\n")
        code = 0
    finally:
        os._exit(code)  # without the work of a parent's end, which is not this one's


def _end_with_parent() -> None:
    """Have Linux end this process when its parent is killed; elsewhere it goes on to its own end."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _limit(memory: int | None) -> None:
    """Limit what the process writes to, and let a crash leave no copy of it on the disk."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))


def _read(reader: int, latest: float) -> tuple[bytes, bool]:
    """What the process says, until the end of the line or its own, and whether its time was over first.

    Raises:
        _GoneError: Standard input has ended meanwhile.
    """
    said = bytearray()
    while (left := latest - time.monotonic()) > 0:
        ready, _, _ = select.select([reader, 0], [], [], left)
        if 0 in ready:  # nobody asks for another before this one is answered, so it is the end
            raise _GoneError
        if reader in ready:
            part = os.read(reader, _AT_ONCE)
            said += part
            if not part or said.endswith(b"\n") or len(said) > _MOST:
                return bytes(said), False
    return bytes(said), True


def _kill(process: int) -> None:
    for end in (os.killpg, os.kill):  # the group is not there yet if the process ended at once
        try:
            end(process, signal.SIGKILL)
        except ProcessLookupError:
            continue
        except PermissionError:  # macOS, of a group of which all have ended
            continue


def _end(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


if __name__ == "__main__":
    serve(sys.argv[1])
