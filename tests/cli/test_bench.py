"""`bnfold bench` shows medians, an interval and a verdict."""

from __future__ import annotations

import json

import onnx


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


def test_a_missing_model_is_one_clear_line(run, model, tmp_path) -> None:
    result = run("bench", model, tmp_path / "none.onnx")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "none.onnx is not there." in result.stderr


def model_copy(model, folder):
    copy = folder / "copy.onnx"
    copy.write_bytes(model.read_bytes())
    return copy
