"""The comparison with the neighbours, on one small model and with the tools that every test run has."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from benchmarks import neighbours, tools
from benchmarks.neighbours import Count, Outcome, Row
from tests.graphs import build, statistics, weight

GRAPH = """g (float[N, 3, 6, 6] x) => (float[N, 4, 4, 4] y) {
    a = Conv(x, w)
    b = BatchNormalization(a, scale, bias, mean, var)
    c = Relu(b)
    d = Mul(c, factor)
    y = Sigmoid(d)
}"""
OURS = (tools.TOOLS["bnfold"], tools.TOOLS["ONNX Runtime"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One model: a BatchNorm after a convolution, and a scale per channel that nothing before it takes."""
    constants = {"w": weight(4, 3, 3, 3), "factor": weight(4, 1, 1, seed=2), **statistics(4)}
    onnx.save(build(GRAPH, constants), tmp_path / "small.onnx")
    return tmp_path


def only(monkeypatch: pytest.MonkeyPatch, *chosen: tools.Tool) -> None:
    monkeypatch.setattr(neighbours, "TOOLS", {tool.name: tool for tool in chosen})
    monkeypatch.setattr(neighbours, "HEADER", ("model", "BatchNorms", *(t.name for t in chosen), "nodes"))


def test_a_row_counts_and_compares(folder: Path) -> None:
    row = neighbours.measure(folder / "small.onnx", OURS)
    assert row.original == Count(batchnorms=1, disguised=1, nodes=5)
    for outcome in row.outcomes.values():
        assert outcome.problem is None
        assert outcome.count is not None
        assert outcome.count.batchnorms == 0
        assert outcome.count.disguised == 1, "half of the factors are negative, so Relu lets none pass"
        assert outcome.error is not None
        assert outcome.error < 1e-5


@pytest.mark.parametrize("tool", tools.TOOLS.values(), ids=lambda tool: tool.name)
def test_every_tool_folds_what_stands_behind_a_convolution(tool: tools.Tool, folder: Path) -> None:
    if tool.version is None:
        pytest.skip(f"{tool.package} is not installed; the extra `benchmarks` brings it")
    row = neighbours.measure(folder / "small.onnx", [tool])
    outcome = row.outcomes[tool.name]
    assert outcome.problem is None
    assert outcome.count is not None
    assert outcome.count.batchnorms == 0


def test_a_tool_that_fails_is_an_error(folder: Path) -> None:
    absent = tools.Tool("nonesuch", "nonesuch", OURS[0].convert)
    outcome = neighbours.measure(folder / "small.onnx", [absent]).outcomes["nonesuch"]
    assert str(outcome) == "error"
    assert outcome.problem is not None
    assert "exit code 1" in outcome.problem


def test_a_tool_that_never_ends_is_stopped(folder: Path) -> None:
    row = neighbours.measure(folder / "small.onnx", OURS[:1], time_limit=0.01)
    assert row.outcomes["bnfold"].problem == "It was stopped after 0.01 seconds."


def test_a_changed_output_is_called_wrong(folder: Path, tmp_path: Path) -> None:
    changed = onnx.load(folder / "small.onnx")
    changed.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight(4, 3, 3, 3, seed=9), "w"))
    onnx.save(changed, tmp_path / "changed.onnx")
    truth = neighbours.reference(folder / "small.onnx")
    outcome = neighbours.judge(tmp_path / "changed.onnx", truth)
    assert "wrong" in str(outcome)
    assert outcome.problem is not None
    twice = neighbours.Reference(truth.feeds, [*truth.outputs, *truth.outputs])
    fewer = neighbours.judge(folder / "small.onnx", twice)
    assert fewer.problem == "It has 1 outputs instead of 2."


def test_the_command_prints_and_writes_the_table(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    only(monkeypatch, *OURS)
    page = tmp_path / "page.md"
    assert neighbours.main([str(folder), "small", "--markdown", str(page)]) == 0
    assert "1 + 1" in capsys.readouterr().out
    written = page.read_text()
    assert "| small | 1 + 1 | 0 + 1 (" in written
    assert "bnfold" in written
    assert "--markdown" in written


def test_the_command_fails_where_bnfold_does(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, OURS[0])
    assert neighbours.main([str(folder), "--time-limit", "0.01"]) == 1


def test_a_missing_model_is_a_mistake(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        neighbours.main([str(folder), "nonesuch"])
    assert "nonesuch.onnx" in capsys.readouterr().err


def test_a_tool_that_is_not_installed_has_an_empty_column() -> None:
    done = Outcome(Count(0, 0, 4), 0.0)
    row = Row("model", Count(1, 0, 5), {"bnfold": done})
    assert row.cells[2:4] == ("0 (0)", "not installed")
    assert row.cells[-1] == "5 → 4"
