"""Three contestants on several loads, end to end and through IO binding."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from bnfold.latency import interleave as module
from bnfold.latency.interleave import MAX_LOADS, MIN_LOADS, Budget, Setting, contest
from bnfold.latency.stopping import LOOKS, MOST_LOADS
from tests.graphs import build

HAS_CUDA = "CUDAExecutionProvider" in ort.get_available_providers()
SETTING = Setting("basic", "end to end", "cpu", 1)
FEEDS = {"x": np.ones((2, 3), np.float32)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(build("g (float[N, 3] x) => (float[N, 3] y) { y = Relu(x) }").SerializeToString())
    return path


def hold(file: Path, setting: Setting = SETTING, rounds: int | None = 4, on_load=None, **budget):
    given = Budget(rounds, **{"seconds": 1.0, **budget})
    return contest(file, file, setting, FEEDS, given, np.random.default_rng(0), on_load)


@pytest.mark.parametrize("measures", ["end to end", "on the device"])
def test_all_three_are_timed_on_every_load(file: Path, measures) -> None:
    seen: list[tuple[int, int]] = []
    setting = dataclasses.replace(SETTING, measures=measures)
    held = hold(file, setting, rounds=9, on_load=lambda *step: seen.append(step))
    assert held.times.shape == (MAX_LOADS, 2, 3)  # nine rounds are two on each of eight loads
    assert (held.times > 0).all()
    assert len(held.repeats) == len(held.load_ms) == 3
    assert min(held.load_ms) > 0
    assert 0 <= held.pinned <= MAX_LOADS
    assert seen == [(done, MAX_LOADS) for done in range(1, MAX_LOADS + 1)]


def test_the_control_is_a_session_of_its_own_and_the_optimizer_is_what_was_asked_for(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.onnx"
    other.write_bytes(file.read_bytes())
    made: list[tuple[str, str]] = []
    real = module.sessions.session

    def session(model, *, optimized, **rest):
        made.append((Path(model).name, optimized))
        return real(model, optimized=optimized, **rest)

    monkeypatch.setattr(module.sessions, "session", session)
    contest(file, other, SETTING, FEEDS, Budget(rounds=2, seconds=1.0), np.random.default_rng(0))
    loads = [made[start : start + 3] for start in range(0, len(made), 3)]
    assert len(loads) == 2
    for load in loads:
        assert sorted(load) == [("model.onnx", "basic"), ("model.onnx", "basic"), ("other.onnx", "basic")]


def test_sessions_are_made_in_an_order_that_changes(file: Path, tmp_path: Path, monkeypatch) -> None:
    other = tmp_path / "other.onnx"
    other.write_bytes(file.read_bytes())
    places: set[int] = set()
    made: list[str] = []
    real = module.sessions.session
    monkeypatch.setattr(
        module.sessions,
        "session",
        lambda model, **rest: (made.append(Path(model).name), real(model, **rest))[1],
    )
    contest(file, other, SETTING, FEEDS, Budget(rounds=8, seconds=1.0), np.random.default_rng(0))
    places = {made[start : start + 3].index("other.onnx") for start in range(0, len(made), 3)}
    assert len(places) > 1


@pytest.mark.parametrize(
    ("taken", "budget", "loads", "left"),
    [
        (0.01, Budget(None, 4.0), MAX_LOADS, 4.0 - 0.08),
        (0.01, Budget(None, 4.0, may_stop=True), MOST_LOADS, 4.0 - 0.32),
        (0.32, Budget(None, 4.0), 5, 4.0 - 5 * 0.32),  # loading takes 40 % of the time at most,
        (0.1, Budget(None, 4.0, may_stop=True), 16, 2.4),
        (1.0, Budget(None, 4.0), MIN_LOADS, 2.0),  # but four loads have to be, and half of it is for rounds
        (0.01, Budget(3, 4.0), 3, 4.0),  # no load without a round
        (0.01, Budget(99, 4.0), MAX_LOADS, 4.0),
    ],
)
def test_loads_and_rounds_share_the_time(taken: float, budget: Budget, loads: int, left: float) -> None:
    assert budget.share(taken) == (loads, pytest.approx(left))


@pytest.mark.parametrize("may_stop", [True, False])
def test_only_a_contest_that_may_stop_looks_and_ends(file: Path, may_stop: bool, monkeypatch) -> None:
    looks: list[int] = []
    monkeypatch.setattr(module, "may_end", lambda times, _: (looks.append(len(times)), len(times) == 9)[1])
    monkeypatch.setattr(Budget, "share", lambda *_: (12, 0.01))
    seen: list[tuple[int, int]] = []
    held = hold(file, rounds=None, seconds=0.5, may_stop=may_stop, on_load=lambda *step: seen.append(step))
    assert seen[-1][0] == seen[-1][1], "progress ends where it should"
    assert held.stopped_early == may_stop
    assert looks == (list(range(1, 10)) if may_stop else [])
    assert len(held.times) == (9 if may_stop else 12)


def test_the_last_load_is_no_look(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A contest whose time allows eight loads has had its time then."""
    monkeypatch.setattr(Budget, "share", lambda *_: (min(LOOKS), 0.01))
    monkeypatch.setattr(module, "may_end", lambda times, _: len(times) == min(LOOKS))
    assert not hold(file, rounds=None, may_stop=True).stopped_early


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_CUDA, reason="needs onnxruntime-gpu and a GPU")
@pytest.mark.parametrize("measures", ["end to end", "on the device"])
def test_cuda(file: Path, measures) -> None:
    held = hold(file, Setting("default", measures, "cuda", 1))
    assert held.times.shape == (4, 1, 3)
