"""`bnfold bench` shows medians, an interval and a verdict."""

from __future__ import annotations

import json

import onnx
import pytest

from bnfold.runtime.providers import OPTIONS
from bnfold_cli.bench import command


def test_it_shows_medians_an_interval_and_a_verdict(run, model, tmp_path) -> None:
    result = run(
        "bench", model, model_copy(model, tmp_path), "--json", tmp_path / "report.json", "--seconds", "0.1"
    )
    assert result.exit_code == 0, result.stderr
    assert "95 % interval" in result.stdout
    assert "1 thread" in result.stdout
    (benchmark,) = json.loads((tmp_path / "report.json").read_text())["benchmarks"]
    assert [row["optimizer"] for row in benchmark["rows"]] == ["default", "basic", "off"]
    for words in ("original / itself", "p99", "multiply-adds", "peak memory"):
        assert words in result.stdout
    for row in benchmark["rows"]:
        assert 0 < row["low"] <= row["ratio"] <= row["high"]
        assert row["verdict"] in result.stdout


def test_a_batch_size_is_timed_where_it_is_free(run, model, tmp_path) -> None:
    free = onnx.load(model)
    for value in (*free.graph.input, *free.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    onnx.save(free, tmp_path / "free.onnx")
    report = tmp_path / "report.json"
    arguments = ("--batch", "2", "--batch", "4", "--seconds", "0.1", "--json", report)
    result = run("bench", tmp_path / "free.onnx", tmp_path / "free.onnx", *arguments)
    assert result.exit_code == 0, result.stderr
    assert "default, batch 4" in result.stdout
    (benchmark,) = json.loads(report.read_text())["benchmarks"]
    assert [row["batch"] for row in benchmark["rows"]] == [2] * 3 + [4] * 3


def test_a_batch_size_that_is_fixed_is_said(run, model) -> None:
    result = run("bench", model, model, "--batch", "2")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "The model's batch size is fixed" in result.stderr


def test_what_the_provider_is_set_to_is_a_choice(run, model, tmp_path) -> None:
    report = tmp_path / "report.json"
    arguments = ("--provider-options", "defaults", "--provider-options", "graph", "--seconds", "0.1")
    result = run("bench", model, model, *arguments, "--json", report)
    assert result.exit_code == 0, result.stderr
    assert "default, options defaults" in result.stdout
    (benchmark,) = json.loads(report.read_text())["benchmarks"]
    assert {row["provider_options"] for row in benchmark["rows"]} == {"defaults"}
    result = run("bench", model, model, "--provider-options", "graph")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "cannot be timed with the options graph" in result.stderr


def test_the_choices_are_the_sets_of_options() -> None:
    (option,) = (one for one in command.params if one.name == "provider_options")
    assert set(option.type.choices) == OPTIONS.keys()


@pytest.mark.parametrize("name", ["CPU", "CPUExecutionProvider"])
def test_a_provider_has_several_names(run, model, name: str) -> None:
    result = run("bench", model, model, "--provider", name, "--provider", "cpu", "--seconds", "0.1")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count("Latency on cpu") == 1


def test_an_unknown_provider_is_an_error_before_anything_is_read(run, tmp_path) -> None:
    result = run("bench", tmp_path / "none.onnx", tmp_path / "none.onnx", "--provider", "opnvino")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "'opnvino' is not a provider" in result.stderr
    assert "Did you mean openvino? The installed one has: " in result.stderr


def test_a_missing_model_is_one_clear_line(run, model, tmp_path) -> None:
    result = run("bench", model, tmp_path / "none.onnx")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "none.onnx is not there." in result.stderr


def model_copy(model, folder):
    copy = folder / "copy.onnx"
    copy.write_bytes(model.read_bytes())
    return copy
