"""`--runtime` of `bnfold validate` and `bnfold bench`."""

from __future__ import annotations

import json

import pytest

from bnfold.engines import known
from tests.engines.fake import Fake


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    made = Fake()
    monkeypatch.setitem(known.ENGINES, "fake", made)
    return made


def test_the_runtime_stands_where_a_provider_would(run, model, fake) -> None:
    result = run("validate", model, model, "--runtime", "fake", "--samples", 1, "--json", "-")
    report = json.loads(result.stdout)["validation"]
    assert result.exit_code == 0, result.stderr
    assert [(check["provider"], check["optimizer"]) for check in report["checks"]] == [("Fake", "default")]
    assert report["request"]["runtimes"] == ["fake"]
    assert report["request"]["providers"] == []
    assert report["provider_options"]["Fake"]["ROUNDING"] == "float32"
    assert set(fake.threads) == {report["threads"]}


def test_the_table_has_no_optimizer_for_it(run, model) -> None:
    result = run("validate", model, model, "--runtime", "fake", "--runtime", "onnxruntime", "--samples", 1)
    assert result.exit_code == 0, result.stderr
    lines = [line.split() for line in result.stdout.splitlines()]
    places = [line[2:4] for line in lines if line[1:2] == ["agrees"]]
    assert places == [["cpu", "off"], ["cpu", "default"], ["Fake", "–"]]
    assert "set to ROUNDING=float32" in result.stdout


@pytest.mark.parametrize("command", ["validate", "bench"])
def test_a_provider_beside_another_runtime_is_an_error_that_teaches(run, model, command) -> None:
    result = run(command, model, model, "--runtime", "fake", "--provider", "cpu")
    assert result.exit_code == 2
    assert "--runtime fake does not run it" in result.stderr
    assert "add --runtime onnxruntime" in result.stderr


def test_a_provider_beside_both_is_onnx_runtimes(run, model) -> None:
    both = ("--runtime", "fake", "--runtime", "onnxruntime", "--provider", "cpu")
    assert run("validate", model, model, *both, "--samples", 1).exit_code == 0


@pytest.mark.parametrize("command", ["validate", "bench"])
def test_an_unknown_runtime_is_an_error_before_any_work(run, model, command) -> None:
    result = run(command, model, model, "--runtime", "openvin")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Did you mean openvino?" in result.stderr


def test_an_operator_that_the_runtime_does_not_have_is_named(run, model, fake) -> None:
    fake.lacks = "Conv"
    result = run("validate", model, model, "--runtime", "fake")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Fake does not have the operator Conv." in " ".join(result.stderr.split())
    result = run("bench", model, model, "--runtime", "fake")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Fake does not have the operator Conv." in " ".join(result.stderr.split())


def test_another_precision_is_the_cause_in_one_line(run, model, fake) -> None:
    fake.computes_in = "bfloat16"
    result = run("validate", model, model, "--runtime", "fake", "--quiet")
    assert result.exit_code == 1
    assert "Fake computes as coarsely as bfloat16 here, and was asked for float32" in result.stderr


def test_a_report_can_be_repeated(run, model, tmp_path, fake) -> None:
    report = tmp_path / "report.json"
    assert run("validate", model, model, "--runtime", "fake", "--samples", 1, "--json", report).exit_code == 0
    fake.threads.clear()
    assert run("validate", "--replay", report).exit_code == 0
    assert fake.threads, "it ran again"


def test_bench_times_it_at_its_one_setting(run, model) -> None:
    result = run("bench", model, model, "--runtime", "fake", "--seconds", 0.2, "--json", "-")
    assert result.exit_code == 0, result.stderr
    [found] = json.loads(result.stdout)["benchmarks"]
    assert found["provider"] == "Fake"
    assert [row["optimizer"] for row in found["rows"]] == ["default"]
