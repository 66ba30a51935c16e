"""A program that kills checks and mendings at random moments, and looks at what they leave behind.

Arguments: a folder to work in, how many checks to kill, and how many mendings. It forks, which a process with
the threads of a test runner should not.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx

from bnfold.gate import cache as caching
from bnfold.gate.cache import Cache
from bnfold.gate.fix import _mend
from bnfold.gate.settings import Settings
from bnfold.gate.work import Answer, Job, ask
from tests.gate.models import layers, save


def killed(prepare: Callable[[], object], work: Callable[[], object], count: int) -> Iterator[None]:
    """Let processes work, and kill each at a moment of its own, up to a little after it would be done."""
    for _ in range(2):  # the first time loads what is needed
        prepare()
        started = time.monotonic()
        work()
        longest = 1.3 * (time.monotonic() - started)
    for turn in range(count):
        prepare()
        if (child := os.fork()) == 0:
            work()
            os._exit(0)
        time.sleep(random.Random(turn).uniform(0, longest))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        yield


def checks(folder: Path, count: int) -> str:
    """Whatever the cache holds after a kill is what a check without it finds."""
    caching._RACY = -(10**12)  # files count as settled at once
    paths = [save(layers(seed=seed), folder / f"{seed}.onnx") for seed in range(8)]
    paths.append(save(layers("y = Relu(a)"), folder / "fine.onnx"))
    store, codes = Cache(folder / "cache"), ("M101", "M302")
    jobs = [Job(path, path.name, codes, Settings()) for path in paths]
    expected = [ask(job) for job in jobs]
    known = 0

    def empty() -> None:
        shutil.rmtree(folder / "cache", ignore_errors=True)

    for _ in killed(empty, lambda: [ask(job, store) for job in jobs], count):
        for job, right in zip(jobs, expected, strict=True):
            found = ask(job, store)
            assert isinstance(found, Answer)
            assert isinstance(right, Answer)
            assert found.findings == right.findings
            known += found.remembered
    return f"{count} checks, {known} of {count * len(jobs)} answers remembered"


def mendings(folder: Path, count: int) -> str:
    """The old or the new model is there, whole."""
    original = folder / "original"
    save(layers(), original / "apart.onnx", data="apart.bin")
    place = folder / "models"

    def fresh() -> None:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(original, place)

    def content() -> bytes:
        return onnx.load(place / "apart.onnx").SerializeToString(deterministic=True)

    fresh()
    before = content()
    _mend(place / "apart.onnx")
    states = {before: 0, content(): 0}
    assert len(states) == 2
    for _ in killed(fresh, lambda: _mend(place / "apart.onnx"), count):
        states[content()] += 1  # KeyError: it is neither
    return f"{count} mendings, {states.pop(before)} before, {sum(states.values())} after"


if __name__ == "__main__":
    where, checked, mended = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    print(checks(where / "checks", checked))
    print(mendings(where / "mendings", mended))
