"""Lists of models: every form says the same, and what is wrong is said with its row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bnfold.errors import InputError
from bnfold.fleet import manifest, sources
from bnfold.fleet.ledger import Ledger
from bnfold.fleet.plan import Plan
from bnfold.gate.settings import Settings

ROWS = [
    {"model": "net.onnx", "options": {"opset": 17, "keep": ["bn1", "bn2"], "bench": True}},
    {"model": "s3://zoo/other.onnx", "inputs": {"image": "Nx3x8x8"}, "no-merge": True},
]


def as_csv(path: Path) -> None:
    path.write_text(
        "model,inputs,options,no-merge,seed\n"
        'net.onnx,,"{""opset"": 17, ""keep"": [""bn1"", ""bn2""], ""bench"": true}",false,\n'
        "s3://zoo/other.onnx,image=Nx3x8x8,,yes,\n"
    )


def as_lines(path: Path) -> None:
    path.write_text("\n".join(map(json.dumps, ROWS)) + "\n\n")


def as_parquet(path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    nested = [{key: json.dumps(row[key]) for key in ("options", "inputs") if key in row} for row in ROWS]
    rows = [
        {"inputs": None, "no-merge": None, **row, **texts} for row, texts in zip(ROWS, nested, strict=True)
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)


@pytest.mark.parametrize(
    ("name", "write"), [("zoo.jsonl", as_lines), ("zoo.csv", as_csv), ("zoo.parquet", as_parquet)]
)
def test_every_form_says_the_same(tmp_path: Path, name: str, write) -> None:
    write(tmp_path / name)
    assert manifest.is_manifest(name)
    first, second = manifest.read(str(tmp_path / name), "export")
    assert first.url == (tmp_path / "net.onnx").as_posix()
    assert first.options == {"opset": 17, "keep": ["bn1", "bn2"], "bench": True}
    assert (first.inputs, first.name) == ({}, "net.onnx")
    assert second.url == "s3://zoo/other.onnx"
    assert (second.options, second.inputs) == ({"no-merge": True}, {"image": "Nx3x8x8"})


def test_one_model_with_two_sets_of_options_is_two(tmp_path: Path, zoo: Path) -> None:
    rows = [{"model": str(zoo / "a" / "folds.onnx"), "equalize": flag} for flag in (True, False)]
    (tmp_path / "zoo.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with Ledger(
        Plan("fold", ""), sources.models([str(tmp_path / "zoo.jsonl")], "fold", Settings())
    ) as ledger:
        models = list(ledger)
    assert [model.options for model in models] in ([{"equalize": True}, {}], [{}, {"equalize": True}])
    assert models[0].name != models[1].name
    assert all(model.size and model.identity for model in models)


@pytest.mark.parametrize(
    ("row", "problem", "fix"),
    [
        ("{}", "row 1 names no model", "model"),
        ('{"model": ""}', "row 1 names no model", "model"),
        ("[1]", "row 1 names no model", "model"),
        ('{"model": "a", "kep": "x"}', "'kep' is not an option of bnfold fleet fold", "keep"),
        ('{"model": "a", "equalize": "maybe"}', "has to be true or false", ""),
        ('{"model": "a", "inputs": "8x8"}', "JSON objects", "Nx3x224x224"),
        ("{", "cannot be read", "JSON"),
        ("[" * 100_000, "cannot be read", "JSON"),
        (r'{"model": "a\ud800.onnx"}', "no file can be called", ""),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, row: str, problem: str, fix: str) -> None:
    (tmp_path / "zoo.jsonl").write_text(row + "\n")
    with pytest.raises(InputError, match=problem) as error:
        list(manifest.read(str(tmp_path / "zoo.jsonl"), "fold"))
    assert fix in error.value.fix


def test_a_manifest_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="it is not there"):
        list(manifest.read(str(tmp_path / "zoo.csv"), "check"))
