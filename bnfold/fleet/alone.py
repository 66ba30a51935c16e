"""A function called in a process of its own, from whatever thread of whatever engine's worker.

Each thread that asks has a [`process_server`][bnfold.fleet.process_server], which it starts once.
"""

from __future__ import annotations

import atexit
import json
import os
import pickle
import subprocess
import sys
import threading
from typing import Any

from bnfold.errors import BnfoldError
from bnfold.fleet.process_server import Call, Ended

_ENDING = 5.0  # seconds for a server to end by itself, which has nothing to do then


class WorkerLostError(Exception):
    """The server itself ended, which says nothing of the model: the call may be made again."""


class _Server:
    """A running server, for one thread."""

    def __init__(self, unit: str) -> None:
        if not hasattr(os, "fork"):
            raise BnfoldError(
                "bnfold fleet forks a process for each model, which this system does not.",
                "Use Linux or macOS; on Windows, WSL.",
            )
        # as multiprocessing does for processes that it spawns: what can be imported here can be there
        path = os.pathsep.join(filter(None, sys.path))
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "bnfold.fleet.process_server", unit],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )

    def ask(self, call: Call) -> Ended:
        """Make a call, and wait.

        Raises:
            WorkerLostError: The server has ended.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            pickle.dump(call, self.process.stdin)
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except (BrokenPipeError, ValueError):  # ValueError: another thread has closed it
            line = b""
        if not line.endswith(b"\n"):
            raise WorkerLostError("the process that starts others has ended")
        return Ended(**json.loads(line))

    def close(self) -> None:
        """End it, and the call that it may be waiting for."""
        for stream in (self.process.stdin, self.process.stdout):
            try:
                if stream is not None:
                    stream.close()
            except OSError:
                continue  # it had something to write to a process that has ended
        try:
            self.process.wait(_ENDING)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


_mine = threading.local()
_all: set[_Server] = set()


def run(unit: str, argument: Any, *, seconds: float, memory: int | None = None) -> Ended:
    """Call a function in a process of its own.

    Args:
        unit: The function, as `"module:function"`. It returns what JSON can hold.
        argument: What it is called with.
        seconds: How long it may take.
        memory: Bytes that it may write to.

    Raises:
        WorkerLostError: What started the process has ended before it.
        BnfoldError: The system cannot fork.
    """
    servers: dict[str, _Server] = vars(_mine).setdefault("servers", {})
    if unit not in servers:
        servers[unit] = _Server(unit)
        _all.add(servers[unit])
    try:
        return servers[unit].ask(Call(argument, seconds, memory))
    except BaseException:
        _end(servers.pop(unit))
        raise


def close() -> None:
    """End every server of this process, with what it is doing; threads that wait for one lose it."""
    for server in list(_all):
        server.process.terminate()
    for server in list(_all):
        _end(server)


def _end(server: _Server) -> None:
    _all.discard(server)
    server.close()


atexit.register(close)
