"""`--threads` can be repeated, for `bench` and for `export`."""

from __future__ import annotations

import json

import pytest


@pytest.mark.parametrize("command", ["bench", "export"])
def test_every_number_of_threads_is_timed_once(run, model, tmp_path, command: str) -> None:
    report = tmp_path / "report.json"
    other = {"bench": [model], "export": ["-o", tmp_path / "out.onnx", "--no-validate"]}[command]
    arguments = ("--threads", "2", "--threads", "1", "--threads", "2", "--seconds", "0.05", "--json", report)
    result = run(command, model, *other, *arguments)
    assert result.exit_code == 0, result.stderr
    (benchmark,) = json.loads(report.read_text())["benchmarks"]
    assert benchmark["threads"] == 2
    assert [row["threads"] for row in benchmark["rows"]] == [2] * 3 + [1] * 3
    assert not any(row["stopped_early"] for row in benchmark["rows"]), "the time was given"
    assert "threads  optimizer" in result.stdout
    assert "1 thread: " not in result.stdout.partition("\n\n")[0].replace("Slower", "")


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5"])
def test_other_numbers_are_refused(run, model, value: str) -> None:
    result = run("bench", model, model, "--threads", "1", "--threads", value)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--threads" in result.stderr
