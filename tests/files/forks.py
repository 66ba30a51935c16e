"""Saves in separate processes: forks of one that has imported everything, so each takes milliseconds.

`Forks` starts this file as a program, which reads a request a line: a list of JSON, with the name of one of
`SAVES` and its arguments. It answers with the exit code of the fork (negative for a signal) and what was
returned there.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx_ir as ir

from bnfold.errors import SaveError
from bnfold.files.load import load_onnx
from bnfold.files.save import save_onnx
from tests.files.models import add_model

ROOT = Path(__file__).parents[2]


class Forks:
    """The program, from the side of the tests."""

    def __enter__(self) -> Forks:
        command = [sys.executable, "-m", "tests.files.forks"]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=ROOT, text=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def run(self, name: str, *arguments: object) -> tuple[int, Any]:
        """The exit code and the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([name, *arguments], default=str) + "\n")
        self._process.stdin.flush()
        code, answer = json.loads(self._process.stdout.readline())
        return code, answer


def killed_at(source: str, target: str, step: int, as_external: bool) -> None:
    """Save, and be killed at the step of this number: after an fsync, before a rename or a removal."""
    model, count = load_onnx(source), 0

    def deadly(function: Callable[..., Any], after: bool) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            if count == step and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*arguments, **named)
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    os.fsync = deadly(os.fsync, after=True)
    Path.replace = deadly(Path.replace, after=False)  # type: ignore[method-assign]
    Path.unlink = deadly(Path.unlink, after=False)  # type: ignore[method-assign]
    save_onnx(model, target, external_data=as_external)


def killed_after(target: str, one: str, two: str, as_external: bool, seconds: float) -> None:
    """Save two models by turns, and be killed after so many seconds."""
    child = os.fork()
    if child:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return
    while True:
        for source in (one, two):
            save_onnx(load_onnx(source), target, external_data=as_external)


def limited(source: str, target: str, as_external: bool, limit: int) -> str:
    """Save where no file may be larger than `limit` bytes, and return the error."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        save_onnx(load_onnx(source), target, external_data=as_external)
    except SaveError as error:
        return str(error)
    return "saved"


def grown(source: str, target: str, as_external: bool) -> int:
    """By how many bytes a save has made the largest size of this process grow."""
    save_onnx(ir.from_proto(add_model()), target)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    save_onnx(load_onnx(source), target, external_data=as_external)
    return 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


SAVES: dict[str, Callable[..., object]] = {
    save.__name__: save for save in (killed_at, killed_after, limited, grown)
}


def forked(name: str, *arguments: object) -> tuple[int, Any]:
    """Call one of `SAVES` in a fork."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writer, json.dumps(SAVES[name](*arguments)).encode())
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        answer = stream.read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), json.loads(answer or "null")


def requests() -> Iterator[list[Any]]:
    """What is asked for on standard input."""
    for line in sys.stdin:
        yield json.loads(line)


if __name__ == "__main__":
    for request in requests():
        print(json.dumps(forked(*request)), flush=True)
