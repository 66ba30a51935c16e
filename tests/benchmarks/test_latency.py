"""The comparison of running times, on one small model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks import latency, tools
from benchmarks.latency import CONTROL, ORIGINAL, Row
from bnfold.latency.optimized_graph import OptimizedGraph
from tests.graphs import build, statistics, weight

GRAPH = """g (float[1, 3, 6, 6] x) => (float[1, 4, 4, 4] y) {
    a = Relu(x)
    b = BatchNormalization(a, scale, bias, mean, var)
    y = Conv(b, w)
}"""
LARGE = """g (float[1, 64, 64] x) => (float[1, 64, 64] y) {
    a = MatMul(x, w) b = MatMul(a, w) c = MatMul(b, w) y = MatMul(c, w)
}"""
SMALL = "g (float[1, 64, 64] x) => (float[1, 64, 64] y) { y = MatMul(x, w) }"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One model whose BatchNorm goes into what follows, which no runtime does by itself."""
    constants = {"w": weight(4, 3, 3, 3), **statistics(3)}
    onnx.save(build(GRAPH, constants), tmp_path / "small.onnx")
    return tmp_path


def row(
    name: str, ratios: dict[str, list[float]], problems: dict[str, str] | None = None, nodes: int = 5
) -> Row:
    graphs = dict.fromkeys((ORIGINAL, CONTROL), OptimizedGraph(5, 6, 100, 10))
    graphs["bnfold"] = OptimizedGraph(nodes, 6, 100, 10)
    return Row(name, 1.5, ratios, graphs, problems or {})


def test_a_row_has_times_and_nodes_of_every_file(folder: Path) -> None:
    measured = latency.measure(folder / "small.onnx", ["bnfold"], loads=2, rounds=3)
    assert measured.milliseconds > 0
    assert {name: len(ratios) for name, ratios in measured.ratios.items()} == {CONTROL: 2, "bnfold": 2}
    assert measured.graphs["bnfold"].extended_nodes < measured.graphs[ORIGINAL].extended_nodes
    assert measured.graphs[CONTROL] == measured.graphs[ORIGINAL]
    assert not measured.problems


def test_a_file_with_more_to_do_takes_longer(tmp_path: Path) -> None:
    files = {"small": tmp_path / "small.onnx", "large": tmp_path / "large.onnx"}
    for name, text in (("small", SMALL), ("large", LARGE)):
        onnx.save(build(text, {"w": weight(64, 64)}), files[name])
    feeds = {"x": np.ones((1, 64, 64), np.float32)}
    milliseconds, ratios = latency.processor_ratios(files, feeds, loads=3, rounds=5)
    assert milliseconds > 0
    assert np.median(ratios["large"]) > 1.5


def test_the_ratio_is_the_middle_of_the_loads() -> None:
    one = row("a", {CONTROL: [1.0, 0.9, 1.2], "bnfold": [0.5, 2.0, 0.7]})
    assert one.ratio("bnfold") == 0.7
    assert one.ratio("onnxslim") is None
    assert one.cells(["bnfold"]) == ("a", "1.50 ms (5)", "1.000", "0.700 (5)")


def test_a_tool_that_fails_has_no_time_and_its_model_no_part_in_the_means(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = tools.Tool("nonesuch", "nonesuch", tools.TOOLS["bnfold"].convert)
    monkeypatch.setitem(tools.TOOLS, "nonesuch", absent)
    measured = latency.measure(folder / "small.onnx", ["nonesuch"], loads=1, rounds=1)
    assert "exit code 1" in measured.problems["nonesuch"]
    assert measured.cells(["nonesuch"])[-1] == "error"
    monkeypatch.undo()

    rows = [
        row("a", {CONTROL: [1.0], "bnfold": [0.5]}),
        row("b", {CONTROL: [1.0], "bnfold": [2.0]}),
        row("c", {CONTROL: [1.0], "bnfold": [9.0]}, {"onnxslim": "It failed."}),
    ]
    assert latency.geometric_means(rows, ["bnfold"]) == ("geometric mean", "", "1.000", "1.000")


@pytest.mark.parametrize(("ratio", "nodes", "status"), [(1.02, 5, 0), (1.04, 5, 1), (0.9, 6, 1)])
def test_a_slower_file_and_a_larger_graph_fail_the_command(
    ratio: float, nodes: int, status: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "TOOL_NAMES", ("bnfold",))
    one = row("small", {CONTROL: [1.0], "bnfold": [ratio]}, nodes=nodes)
    monkeypatch.setattr(latency, "measure", lambda *_: one)
    page = folder / "page.md"
    assert latency.main([str(folder), "--markdown", str(page)]) == status
    text = page.read_text(encoding="utf-8")
    assert f"| small | 1.50 ms (5) | 1.000 | {ratio:.3f} ({nodes}) |" in text
    assert "python -m benchmarks.latency" in text


def test_a_model_that_is_not_there_is_an_error_of_use(folder: Path) -> None:
    with pytest.raises(SystemExit):
        latency.main([str(folder), "nonesuch"])
