"""The list of models: in order, each once, and in no memory."""

from __future__ import annotations

import sqlite3
import tracemalloc
from collections.abc import Iterator

import pytest

from bnfold.errors import BnfoldError
from bnfold.fleet import side_by_side
from bnfold.fleet.ledger import Ledger
from bnfold.fleet.plan import Model, Plan
from bnfold.fleet.results import AGAIN, DONE, FILES

PLAN = Plan("check", "out")


def made(count: int) -> Iterator[Model]:
    for at in range(count):
        yield Model(f"s3://zoo/{at:06}.onnx", f"{at:06}.onnx", at, f"{at:016x}", {"select": ["ALL"]})


def test_memory_does_not_grow_with_the_models() -> None:
    """Of 2,000 models Python holds nothing, before, during and after a run; SQLite has two megabytes."""
    made_before = list(made(1))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        with Ledger(PLAN, made(2000)) as ledger:
            ledger.note((PLAN.name_of(model), DONE) for model in ledger)
            assert sum(1 for _ in ledger.results()) == len(ledger) == 2000
            most = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert most < 100 * 2000, f"{most / 2000:.0f} bytes a model"
    assert made_before


def test_what_is_left() -> None:
    models = list(made(4))
    names = [PLAN.name_of(model) for model in models]
    with Ledger(PLAN, models) as ledger:
        assert ledger.limit(lambda name: name != names[3]) == 3
        assert [model.size for model in ledger.left()] == [2, 1, 0]
        ledger.note([(names[0], AGAIN), (names[1], FILES), (names[1], AGAIN), ("another's", DONE)])
        assert [model.size for model in ledger.left()] == [2, 0], "of two ends, the better one counts"
        assert ledger.amount_left() == (2, 2)
        assert [model.size for model in ledger.on_files()] == [1]
        assert (ledger.missing(), list(ledger.results())) == (2, [(names[0], AGAIN), (names[1], FILES)])
        ledger.forget(names[1])
        assert ledger.amount_left() == (3, 3)


def test_a_model_comes_back_as_it_was() -> None:
    """Also one whose file has a name that is no Unicode, as Linux allows."""
    model = Model("/zoo/caf\udce9.onnx", "caf\udce9.onnx", 7, "id", {"keep": ["b"], "seed": 3}, {"x": "1x3"})
    with Ledger(Plan("fold", "out"), [model, model]) as ledger:
        assert list(ledger) == [model]


def test_no_two_models_are_written_to_one_file() -> None:
    """Also where one is called what another is renamed to."""
    two = [Model(f"/{folder}/m.onnx", "m.onnx") for folder in "ab"]
    with Ledger(Plan("fold", "out"), two) as ledger:
        names = [model.name for model in ledger]
    with Ledger(Plan("fold", "out"), [*two, Model("/c/x.onnx", names[0])]) as ledger:
        assert len({model.name for model in ledger}) == 3


def test_no_model_is_written_to_what_has_to_be_a_folder() -> None:
    """An object store may have a file and a folder of one name; a folder of results may not."""
    given = ("net.onnx", "net.onnx/part.onnx", "net.onnx/part.onnx/c.pt", "other.onnx", "x.onnx.d/a.onnx")
    models = [Model(f"s3://zoo/{name}", name, 1) for name in (*given, "x.onnx")]
    with Ledger(Plan("fold", "out"), models) as ledger:
        names = {model.url.removeprefix("s3://zoo/"): model.name for model in ledger}
    assert {key: name for key, name in names.items() if key == name} == {
        name: name for name in ("other.onnx", "x.onnx.d/a.onnx", "x.onnx")
    }
    assert names["net.onnx/part.onnx/c.pt"] == "net.onnx/part.onnx/c.onnx"
    assert names["net.onnx"].startswith("net-")
    assert names["net.onnx/part.onnx"].startswith("net.onnx/part-")
    assert not [one for one in names.values() for other in names.values() if other.startswith(f"{one}/")]


def test_only_the_last_part_of_a_name_has_a_suffix() -> None:
    with Ledger(Plan("export", "out"), [Model("/d.v2/model", "d.v2/model")]) as ledger:
        assert [model.name for model in ledger] == ["d.v2/model.onnx"]


def test_no_space_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(sqlite3, "connect", full)
    with pytest.raises(BnfoldError, match="disk is full") as error:
        Ledger(PLAN, ())
    assert "TMPDIR" in error.value.fix


def test_answers_come_in_order_and_few_are_held() -> None:
    asked: list[int] = []

    def given() -> Iterator[int]:
        for one in range(1000):
            asked.append(one)
            yield one

    answers = side_by_side.mapped(lambda one: 2 * one, given())
    assert next(answers) == 0
    assert len(asked) < 200
    assert list(answers) == [2 * one for one in range(1, 1000)]
    with pytest.raises(ZeroDivisionError):
        list(side_by_side.mapped(lambda one: 1 // one, [1, 0]))
