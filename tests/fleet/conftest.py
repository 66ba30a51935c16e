"""A small fleet, and an engine that makes its calls in this process, which takes no time to start."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests.gate.models import layers, save

pytest.importorskip("fsspec", reason='needs: pip install "bnfold[fleet]"')

from bnfold.fleet import alone, engines, work
from bnfold.fleet.plan import Model
from bnfold.fleet.process_server import Ended

STAYS = "t = Tanh(a)\n y = BatchNormalization(t, scale, bias, mean, var)"


class Here:
    """Makes each call at once, in this process."""

    def __init__(self) -> None:
        self.models: list[str] = []

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.models += [one.url for one in arguments if isinstance(one, Model)]
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future

    def slots(self) -> int:
        return 1


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    """The engine; what would have a process of its own has none."""

    def run(unit: str, argument: Any, *, seconds: float, memory: int | None = None) -> Ended:
        del seconds, memory
        assert unit in ("bnfold.fleet.work:one", "bnfold.fleet.work_torch:one")
        return Ended(json.loads(json.dumps(work.one(argument), allow_nan=False)), "well")

    monkeypatch.setattr(alone, "run", run)
    return Here()


@pytest.fixture
def opened(here: Here, monkeypatch: pytest.MonkeyPatch) -> Here:
    """Every engine makes its calls here."""
    monkeypatch.setattr(engines, "opened", lambda *_: nullcontext(here))
    return here


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model that folds, one whose BatchNorm stays, one that is broken, and a text."""
    folder = tmp_path_factory.mktemp("zoo")
    whole = save(layers(seed=1), folder / "a" / "folds.onnx").read_bytes()
    save(layers(STAYS, seed=2), folder / "b" / "stays.onnx")
    (folder / "b" / "broken.onnx").write_bytes(whole[: len(whole) // 2])
    (folder / "b" / "notes.txt").write_text("no model")
    return folder


@pytest.fixture
def memory() -> Iterator[Any]:
    """Fsspec's file system in memory, empty."""
    import fsspec

    fs = fsspec.filesystem("memory")
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]
    yield fs
    fs.store.clear()
