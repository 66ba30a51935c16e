"""The judge on files of others: the machinery, on tiny networks and without any download."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks import exporters, independent, judged, judged_rows
from benchmarks.corpus import Network
from benchmarks.judged_rows import ABSENT, AGREES, DIFFERS, UNDECIDED, Cell, Row
from benchmarks.page import MARKS
from benchmarks.processes import ProcessFailedError
from benchmarks.tools import OFFLINE, TOOLS
from tests.graphs import build, statistics, weight

GRAPH = """g (float[N, 3, 6, 6] x) => (float[N, 4, 4, 4] y) {
    a = Conv(x, w)
    b = BatchNormalization(a, scale, bias, mean, var)
    y = Sigmoid(b)
}"""


def network(path: Path, kernel: np.ndarray) -> Path:
    onnx.save(build(GRAPH, {"w": kernel, **statistics(4)}), path)
    return path


@pytest.fixture
def original(tmp_path: Path) -> Path:
    return network(tmp_path / "original.onnx", weight(4, 3, 3, 3))


@pytest.fixture
def feeds(tmp_path: Path, original: Path) -> Path:
    judged._inputs(original, "toy/original.onnx", tmp_path / "inputs.npz")
    return tmp_path / "inputs.npz"


def one_channel_off(path: Path, original: Path, by: float) -> Path:
    kernel = onnx.numpy_helper.to_array(onnx.load(original).graph.initializer[0]).copy()
    kernel[2] *= 1 + by
    return network(path, kernel)


def test_a_right_file_agrees_and_a_wrong_one_differs_by_both_ways(
    original: Path, feeds: Path, tmp_path: Path
) -> None:
    files = {
        "rounded": one_channel_off(tmp_path / "rounded.onnx", original, 1e-7),
        "wrong": one_channel_off(tmp_path / "wrong.onnx", original, 1e-2),
        "again": one_channel_off(tmp_path / "again.onnx", original, 1e-2),
        "damaged": tmp_path / "damaged.onnx",
    }
    files["damaged"].write_bytes(b"not a network")
    row = judged.judge("toy", original, files, feeds, "name", samples=2)
    assert row.same == {"again": "wrong"}, "the same graph is judged once"
    rounded, wrong, damaged = (row.cells[name] for name in ("rounded", "wrong", "damaged"))
    assert (rounded.verdict, rounded.is_right, rounded.is_mistaken) == (AGREES, True, False)
    assert (wrong.verdict, wrong.is_right, wrong.is_mistaken) == (DIFFERS, False, False)
    assert wrong.where.startswith("y, axis ")
    assert 10 * wrong.noise < wrong.error < 0.1
    assert wrong.why.startswith("Output 'y' (cpu, optimizer off): ")
    assert damaged.verdict in (DIFFERS, UNDECIDED)
    assert damaged.problem
    assert not damaged.is_right
    assert all(cell.seconds > 0 for cell in row.cells.values())
    assert judged_rows.mistakes([row]) == []
    assert Row.of_json(json.dumps(asdict(row))) == row


def test_zeros_are_among_the_inputs_and_a_file_that_drops_an_epsilon_is_wrong(tmp_path: Path) -> None:
    text = "g (float[4] x) => (float[4] y) {{ s = Mul(x, x) {} y = Log(e) }}"
    constants = {"epsilon": np.array(1e-10, np.float32)}
    paths = [tmp_path / "original.onnx", tmp_path / "without.onnx"]
    onnx.save(build(text.format("e = Add(s, epsilon)"), constants), paths[0])
    onnx.save(build(text.format("e = Identity(s)"), {}), paths[1])
    judged._inputs(paths[0], "toy/log", tmp_path / "inputs.npz")
    row = judged.judge("log", paths[0], {"without": paths[1]}, tmp_path / "inputs.npz", "name", samples=3)
    assert (row.cells["without"].verdict, row.cells["without"].is_right) == (DIFFERS, False)


@pytest.mark.parametrize("missing", ["output", "input"])
def test_a_file_with_another_interface_is_wrong(tmp_path: Path, missing: str) -> None:
    text = "g (float[4] x, float[4] unused) => (float[4] y, float[4] z) { y = Relu(x) z = Neg(x) }"
    other = build(text, {})
    onnx.save(other, tmp_path / "original.onnx")
    del (other.graph.output if missing == "output" else other.graph.input)[1]
    onnx.save(other, tmp_path / "other.onnx")
    path = tmp_path / "inputs.npz"
    judged._inputs(tmp_path / "original.onnx", "toy/two", path)
    row = judged.judge("two", tmp_path / "original.onnx", {"other": tmp_path / "other.onnx"}, path, "name", 1)
    assert row.cells["other"].verdict == DIFFERS
    assert f"1 {missing}s" in row.cells["other"].problem


def test_the_check_is_not_made_of_what_it_checks() -> None:
    text = Path(independent.__file__).read_text(encoding="utf-8")
    assert not [line for line in text.splitlines() if "import" in line and "bnfold" in line]


@pytest.mark.parametrize(
    ("truth", "other", "excess"),
    [
        ([[1.0, 0.0]], [[1.0, 1e-7]], np.inf),  # roundings do not explain a channel that was zero
        ([[1.0, np.nan]], [[1.0, np.nan]], 0.0),
        ([[1.0, np.nan]], [[1.0, 2.0]], np.inf),
        ([[np.inf, 2.0]], [[np.inf, 2.0]], 0.0),
        ([[1e6, 1e-3]], [[1e6, 1.01e-3]], 200),  # a small channel beside a large one
    ],
)
def test_channels_are_compared_by_their_own_size(truth, other, excess: float) -> None:
    arrays = [[[np.array(value)]] for value in (truth, truth, other)]
    found = independent.compared(["y"], arrays[:2], arrays[2])
    assert found.excess == pytest.approx(excess, rel=0.1)


def test_integers_are_counted() -> None:
    arrays = [[[np.array(value)]] for value in ([[1, 2, 3]], [[1, 2, 3]], [[1, 2, 4]])]
    assert independent.compared(["y"], arrays[:2], arrays[2]).excess > 1


def test_what_is_judged_wrongly_is_a_mistake_and_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def mistaken(one: Network, _samples: int) -> Row:
        right, wrong = (
            Cell(DIFFERS, "It says so."),
            Cell(AGREES, excess=7.0, error=0.1, noise=1e-7, where="y"),
        )
        return Row(
            str(one), cells={"onnxslim": right, "onnxsim": wrong, OFFLINE.name: Cell(UNDECIDED, "Late.")}
        )

    page, rows = tmp_path / "page.md", tmp_path / "rows.jsonl"
    page.write_text("\n".join(["# Title", *MARKS]), encoding="utf-8")
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    network(zoo / "toy.onnx", weight(4, 3, 3, 3))
    monkeypatch.setattr(judged, "optimized", mistaken)
    options = ["--packages", "--zoo", str(zoo), "--rows", str(rows), "--page", str(page)]
    assert judged.main(options) == 1
    shown, written = capsys.readouterr().out, page.read_text(encoding="utf-8")
    for line in (
        "zoo toy, onnxslim: differs, and the check finds 0 in every channel where roundings make 0",
        "zoo toy, onnxsim: agrees, and the check finds 1e-01 in y where roundings make 1e-07",
    ):
        assert line in shown
    assert "| onnxslim | 1 | 0 | 0 | 1 | 0 | 0 | 0 | 0 |" in written
    assert "| onnxsim | 1 | 0 | 0 | 0 | 1 | 0 | 0 | 0 |" in written
    assert f"| {OFFLINE.name} | 1 | 0 | 0 | 0 | 0 | 0 | 1 | 0 |" in written
    assert "| onnxscript | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 1 |" in written
    monkeypatch.setattr(judged, "optimized", lambda *_: pytest.fail("its row is kept"))
    assert judged.main(options) == 1


def test_every_installed_tool_writes_a_file_and_one_that_fails_is_a_cell(
    original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def only(command: list[str], *limits: float) -> object:
        if "benchmarks.tools" in command and "onnxsim" in command:
            raise ProcessFailedError("was stopped after 120 seconds")
        return honest(command, *limits)

    honest = judged.run
    monkeypatch.setattr(judged, "run", only)
    row = judged.optimized(Network("zoo", "original.onnx", original), 1)
    installed = {name for name in judged.PEERS if TOOLS[name].version} | {OFFLINE.name}
    assert row.cells.keys() | row.same.keys() == installed
    assert {row.cell(name).verdict for name in installed - {"onnxsim"}} == {AGREES}
    if "onnxsim" in installed:
        assert row.cell("onnxsim") == Cell(ABSENT, "It was stopped after 120 seconds")


def test_a_file_of_an_operator_that_nobody_runs_is_unchecked(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["": 18, "no.such": 1]>
    g (float[4] x) => (float[4] y) { a = no.such.Mystery(x) y = Relu(x) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "original.onnx")
    original, path = tmp_path / "original.onnx", tmp_path / "inputs.npz"
    judged._inputs(original, "toy/mystery", path)
    cell = judged.judge("toy", original, {"other": original}, path, "name", 1).cells["other"]
    assert not cell.checked
    assert not cell.is_right
    assert not cell.is_mistaken
    assert "(unchecked)" in str(cell)


def test_an_original_that_cannot_be_read_is_a_row(tmp_path: Path) -> None:
    path = tmp_path / "damaged.onnx"
    path.write_bytes(b"not a network")
    row = judged.optimized(Network("zoo", "damaged.onnx", path), 1)
    assert row.problem.startswith("The original cannot be read: ")
    assert judged_rows.notes([row]) == [f"zoo damaged: {row.problem}"]


def test_two_exporters_files_agree() -> None:
    pytest.importorskip("onnxscript")
    row = judged.exported("CNNWithBatchNorm", 1)
    assert row.cells.keys() | row.same.keys() == set(exporters.NAMES[1:])
    assert {cell.verdict for cell in row.cells.values()} == {AGREES}
    assert all(cell.is_right for cell in row.cells.values())


def test_every_network_of_models_takes_part() -> None:
    models = pytest.importorskip("models")
    networks = {name for name in models.__all__ if name[0].isupper()}
    assert set(exporters.NETWORKS) == networks


def test_the_check_takes_outputs_whose_length_depends_on_the_input():
    rng = np.random.default_rng(0)
    truth = [rng.normal(0, 1, (1, steps, 8)) for steps in (5, 12)]
    moved = [value + 1e-7 for value in truth]
    assert independent.compared(["y"], [[truth], [moved]], [moved]).excess < 1
    wrong = [truth[0], truth[1].copy()]
    wrong[1][0, 7, 3] += 0.1
    found = independent.compared(["y"], [[truth], [moved]], [wrong])
    assert found.excess > 1
    assert found.where == "y, axis 2, channel 3"
