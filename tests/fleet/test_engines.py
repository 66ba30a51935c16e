"""Engines that somebody has; each gives what this machine's own gives."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bnfold.fleet import alone, sources
from bnfold.fleet.engines import dask, opened
from bnfold.fleet.ledger import Ledger
from bnfold.fleet.plan import Plan
from bnfold.fleet.run import Outcome, run
from bnfold.gate.settings import Settings

UNIT = "tests.fleet.dying:one"
NAMES = ("exits", "fine", "killed", "other")


@pytest.fixture
def models(tmp_path: Path) -> list[sources.Model]:
    for name in NAMES:
        (tmp_path / "zoo" / f"{name}.onnx").parent.mkdir(exist_ok=True)
        (tmp_path / "zoo" / f"{name}.onnx").touch()
    return list(sources.models([str(tmp_path / "zoo")], "check", Settings()))


def ran(
    models: list[sources.Model], out: Path, engine: str, **others: Any
) -> tuple[Outcome, list[tuple[str, str]]]:
    plan = Plan("check", str(out), unit=UNIT)
    with Ledger(plan, models) as ledger, opened(engine, 2) as workers:
        done = run(ledger, workers, **others)
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    return done, [(line["state"], line["why"]) for line in lines]


ANSWERS = [
    ("killed", "Its process ended with exit code 7."),
    ("done", ""),
    ("killed", "Its process was ended by SIGKILL."),
    ("done", ""),
]


def test_this_machine(models: list[sources.Model], tmp_path: Path) -> None:
    done, answers = ran(models, tmp_path / "out", "local")
    assert (answers, done.bad) == (ANSWERS, 2)
    assert not alone._all, "no process is left"


@pytest.mark.usefixtures("models")
def test_a_worker_that_is_killed_costs_no_model(tmp_path: Path) -> None:
    (tmp_path / "zoo" / "kills its server once.onnx").touch()
    models = list(sources.models([str(tmp_path / "zoo")], "check", Settings()))
    _, answers = ran(models, tmp_path / "out", "local")
    assert (tmp_path / "zoo" / "kills its server once.killed").exists()
    assert answers == [*ANSWERS[:3], ("done", ""), *ANSWERS[3:]]


def test_workers_of_dask_that_stay_away_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a cluster of our own, after a while; the workers of others are theirs to start."""
    now, scaled, there = [0.0], [], {"one": 1, "other": 1}
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    client = SimpleNamespace(nthreads=lambda: there, get_executor=lambda **_: None)
    cluster = SimpleNamespace(worker_spec={0: {}, 1: {}}, scale=scaled.append)
    ours, theirs = dask.Dask(client, cluster, 2), dask.Dask(client)
    del there["other"]
    for now[0] in (1.0, 29.0, 31.0, 32.0):
        assert (ours.slots(), theirs.slots()) == (1, 1)
    assert scaled == [3], "one more, once"


@pytest.mark.fleet
@pytest.mark.parametrize(("engine", "package"), [("dask", "distributed"), ("ray", "ray")])
@pytest.mark.filterwarnings("default")  # what they say of themselves
def test_another_engine_gives_the_same(models, tmp_path: Path, engine: str, package: str) -> None:
    pytest.importorskip(package, reason=f'needs: pip install "bnfold[{engine}]"')
    done, answers = ran(models, tmp_path / "out", engine)
    assert (answers, done.bad) == (ANSWERS, 2)
