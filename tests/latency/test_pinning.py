"""Threads are kept on free CPUs, on cores of their own, and given back what they had."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from bnfold.latency import pinning
from bnfold.latency.pinning import choose, pinned

linux = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin threads")


def always(_: int) -> bool:
    return True


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every CPU is a core of its own."""
    monkeypatch.setattr(pinning, "_core", str)


@pytest.mark.usefixtures("alone")
def test_every_turn_gets_other_cpus() -> None:
    assert [choose([0, 1, 2, 3], 1, turn, always) for turn in range(5)] == [{0}, {1}, {2}, {3}, {0}]
    assert [choose([0, 1, 2, 3], 2, turn, always) for turn in range(3)] == [{0, 1}, {2, 3}, {0, 1}]


@pytest.mark.usefixtures("alone")
def test_a_busy_cpu_is_passed_over() -> None:
    assert choose([0, 1, 2, 3], 2, 0, lambda cpu: cpu % 2 == 1) == {1, 3}
    assert choose([0, 1, 2, 3], 3, 0, lambda cpu: cpu % 2 == 1) is None
    assert choose([0, 1], 3, 0, always) is None


@pytest.mark.usefixtures("alone")
def test_a_large_machine_is_not_searched_to_the_end() -> None:
    looked: list[int] = []
    assert choose(list(range(256)), 2, 0, lambda cpu: bool(looked.append(cpu))) is None
    assert len(looked) == 18


def test_two_threads_of_one_core_are_not_both_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for cpu in range(4):
        (tmp_path / f"cpu{cpu}" / "topology").mkdir(parents=True)
        siblings = f"{cpu // 2 * 2}-{cpu // 2 * 2 + 1}\n"
        (tmp_path / f"cpu{cpu}" / "topology" / "thread_siblings_list").write_text(siblings)
    monkeypatch.setattr(pinning, "_TOPOLOGY", tmp_path)
    assert choose([0, 1, 2, 3], 2, 0, always) == {0, 2}
    assert choose([0, 1, 2, 3], 3, 0, always) is None


@linux
def test_the_thread_is_pinned_and_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pinning, "_is_free", always)
    before = os.sched_getaffinity(0)
    inherited: list[set[int]] = []
    with pinned(1) as pin:
        assert pin
        assert len(os.sched_getaffinity(0)) == 1
        child = threading.Thread(target=lambda: inherited.append(os.sched_getaffinity(0)))
        child.start()
        child.join()
        assert inherited == [os.sched_getaffinity(0)]
    assert os.sched_getaffinity(0) == before
    with pytest.raises(KeyError), pinned(1):
        raise KeyError
    assert os.sched_getaffinity(0) == before


@linux
def test_where_nothing_is_free_the_system_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pinning, "_FREE", 2.0)  # no CPU gives twice its time
    before = os.sched_getaffinity(0)
    with pinned(1) as pin:
        assert not pin
        assert os.sched_getaffinity(0) == before


@linux
def test_where_it_is_forbidden_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setaffinity", forbidden)
    with pinned(1) as pin:
        assert not pin


def test_a_system_that_cannot_pin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    with pinned(1) as pin:
        assert not pin
