"""`bnfold bench` shows medians, an interval and a verdict."""

from __future__ import annotations

import json


def test_it_shows_medians_an_interval_and_a_verdict(run, model, tmp_path) -> None:
    result = run(
        "bench", model, model_copy(model, tmp_path), "--json", tmp_path / "report.json", "--seconds", "0.1"
    )
    assert result.exit_code == 0, result.stderr
    assert "95 % interval" in result.stdout
    assert "1 thread" in result.stdout
    (benchmark,) = json.loads((tmp_path / "report.json").read_text())["benchmarks"]
    assert {row["optimizer"] for row in benchmark["rows"]} == {"off", "default"}
    for row in benchmark["rows"]:
        assert 0 < row["low"] <= row["ratio"] <= row["high"]
        assert row["verdict"] in result.stdout


def test_a_missing_model_is_one_clear_line(run, model, tmp_path) -> None:
    result = run("bench", model, tmp_path / "none.onnx")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "none.onnx is not there." in result.stderr


def model_copy(model, folder):
    copy = folder / "copy.onnx"
    copy.write_bytes(model.read_bytes())
    return copy
