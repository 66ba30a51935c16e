"""The count of faults caught and of folds accused, on two small networks and a few random graphs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

import bnfold
from benchmarks import faults
from benchmarks.faults import Acquittal, Trial
from bnfold.validation.layers import Layer
from tests.small_networks import pointnet, siamese

KINDS = ("ε omitted", "shared weight written over", "one weight is NaN", "output renamed")


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "NETWORKS", {"pointnet": pointnet, "siamese": siamese})
    monkeypatch.setattr(faults, "FAULTS", {kind: faults.FAULTS[kind] for kind in KINDS})


def test_the_command_plants_folds_and_writes_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx.save(siamese(5), tmp_path / "mine.onnx")
    page = tmp_path / "page.md"
    arguments = [str(tmp_path / "mine.onnx"), "--seeds", "1", "--random", "3", "--markdown", str(page)]
    assert faults.main(arguments) == 0
    text = page.read_text()
    assert text in capsys.readouterr().out
    assert "$ python -m benchmarks.faults --seeds 1 --random 3 mine.onnx" in text
    assert "| shared weight written over | 1 | 1 | 1 |" in text
    assert "| output renamed | 2 | 2 | 2 | – | – |" in text
    assert "| all | 8 | 8 | 8 |" in text, "seven in the small networks and one in the given one"
    assert "| small networks | 2 | 0 |" in text
    assert "| given models | 1 | 0 |" in text
    assert len([line for line in text.splitlines() if line.startswith("| mine | ")]) == 1


def test_a_fault_that_is_not_named_and_a_fold_that_is_accused_are_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def turned(*models: onnx.ModelProto, **options: object) -> bnfold.Validation:
        outcome = validate(*models, **options)
        return replace(
            outcome, problems=() if not outcome.passed else ("It is wrong.",), checks=outcome.checks[:1]
        )

    validate = bnfold.validate
    monkeypatch.setattr(faults, "FAULTS", {"output renamed": faults.FAULTS["output renamed"]})
    monkeypatch.setattr(bnfold, "validate", turned)
    assert faults.main(["--seeds", "1", "--random", "0"]) == 1
    errors = capsys.readouterr().err
    assert "pointnet: output renamed: not named" in errors
    assert "siamese: accused: It is wrong." in errors


def test_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        faults.main(["nonesuch.onnx"])
    assert stop.value.code == 2
    assert "there is no file nonesuch.onnx" in capsys.readouterr().err


def test_a_kind_without_margin_and_one_with_two() -> None:
    trials = [
        Trial("ε omitted", "a", True, True, 2.0),
        Trial("ε omitted", "b", True, False, 4.0),
        Trial("output renamed", "a", True, True, None),
    ]
    assert list(faults.fault_rows(trials)) == [
        ("ε omitted", "2", "2", "1", "2", "3"),
        ("output renamed", "1", "1", "1", "–", "–"),
        ("all", "3", "3", "2", "–", "–"),
    ]


def test_the_figures_of_right_folds() -> None:
    outcome = bnfold.validate(pointnet(0), bnfold.fold(pointnet(0)).model, threads=1)
    layers = tuple(Layer(f"v{number}", number, number / 100, 1.0) for number in range(101))
    one = Acquittal("some", "pointnet", replace(outcome, layers=layers))
    largest = max(check.error / check.bound for check in outcome.checks)
    assert list(faults.fold_rows([one, one])) == [
        ("some", "2", "0", "200", "0.50", "0.99", "1.00", f"{largest:.2f}")
    ]
    assert faults.margin(Layer("v", 0, 0.5, 0.0)) == math.inf


def test_where_a_given_model_is_nearest_to_its_bound() -> None:
    outcome = bnfold.validate(pointnet(0), bnfold.fold(pointnet(0)).model, threads=1)
    layers = (Layer("v", 0, 0.1, 1.0), Layer("w", 1, 0.5, 1.0, site="a, b, c"))
    one = Acquittal("given models", "pointnet", replace(outcome, layers=layers))
    (row,) = faults.model_rows([one])
    assert len(row) == len(faults.MODEL_HEADER)
    assert row[0] == "pointnet"
    assert [len(cell.split(" / ")) for cell in row[1:5]] == [2, 2, 2, 2]
    assert row[5:] == ("2", "0.50", "a and 2 more")
    assert faults.worst(replace(outcome, layers=layers[:1])) == ("0.10", "v")
    assert faults.worst(replace(outcome, layers=())) == ("–", "–")
