"""A process for each call: what happens to it is an answer, and costs no other anything."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bnfold.errors import BnfoldError
from bnfold.fleet import alone
from bnfold.fleet.process_server import Ended

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
UNIT = "tests.fleet.dying:one"

Call = Callable[..., Ended]


@pytest.fixture(scope="module")
def call() -> Iterator[Call]:
    """Call the unit; all tests share a server."""

    def made(word: Any, seconds: float = 60.0, memory: int | None = None) -> Ended:
        return alone.run(UNIT, word, seconds=seconds, memory=memory)

    yield made
    alone.close()


def test_each_call_has_its_own_process(call: Call) -> None:
    processes = {call("well").answer["process"] for _ in range(3)}
    assert len(processes) == 3
    assert os.getpid() not in processes


@pytest.mark.parametrize(
    ("word", "how", "why"),
    [
        ("killed", "killed", "was ended by SIGKILL"),
        ("exits", "killed", "ended with exit code 7"),
        ("raises", "killed", "ended with exit code 70"),
        ("slow", "slow", "took more than 0.2 s"),
    ],
)
def test_what_happens_to_it_is_an_answer(call: Call, word: str, how: str, why: str) -> None:
    ended = call(word, 0.2 if word == "slow" else 60.0)
    assert (ended.answer, ended.how, ended.why) == (None, how, why)
    assert call("well").how == "well"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux limits what is written to")
def test_memory_is_limited(call: Call) -> None:
    assert call("large", memory=1 << 30).how == "memory"
    assert call("well", memory=1 << 30).how == "well"


def test_what_libraries_print_is_not_an_answer(call: Call) -> None:
    assert call("prints").how == "well"
    assert call("reads").answer == {"state": "done", "read": ""}


def test_what_a_process_started_ends_with_it(call: Call) -> None:
    """A child that sleeps holds the pipe of the answer too: its parent's answer counts once it is whole."""
    group = call("has a child").answer["group"]
    latest = time.monotonic() + 60
    while _is_there(group) and time.monotonic() < latest:  # the system collects what nobody waits for
        time.sleep(0.01)
    assert not _is_there(group)


def _is_there(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_server_that_is_killed_says_nothing_of_the_model(call: Call) -> None:
    with pytest.raises(alone.WorkerLostError):
        call("kills its server")
    assert call("well").how == "well", "the next call has another server"


def test_a_system_that_does_not_fork(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    alone.close()
    with pytest.raises(alone.WorkerLostError):
        call("well")  # this thread's server has been closed
    monkeypatch.delattr(os, "fork")
    with pytest.raises(BnfoldError, match="which this system does not") as error:
        call("well")
    assert "WSL" in error.value.fix


def test_a_closed_server_ends(call: Call) -> None:
    call("well")
    [server] = alone._all
    alone.close()
    assert server.process.returncode is not None
    assert not alone._all
    with pytest.raises(alone.WorkerLostError):
        call("well")
    assert call("well").how == "well"
