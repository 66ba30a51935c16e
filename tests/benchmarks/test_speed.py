"""The speed benchmark: processes measured as they are, networks of the right size, and the page it writes."""

from __future__ import annotations

import math
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("onnxruntime")

from benchmarks import neighbours, networks, page, processes, speed, turns
from benchmarks.processes import Middle, ProcessFailedError, Usage

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="measures with wait4")


def python(program: str) -> list[str]:
    return [sys.executable, "-S", "-c", program]


def test_a_process_is_measured_and_its_parent_is_not() -> None:
    held = np.ones(2**24)  # 128 MiB, which a forked child would have as its own peak
    small = processes.run(python("pass"))
    large = processes.run(python("import time; kept = bytes(b'x' * 10**8); time.sleep(2)"))
    assert held.nbytes == 2**27
    assert small.bytes < 40e6
    assert 100e6 < large.bytes < 140e6
    assert large.seconds > 2
    assert small.seconds < large.seconds


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        (python("import sys; sys.exit('no such model')"), "ended with exit code 1: no such model"),
        (python("import os; os.kill(os.getpid(), 9)"), "ended with exit code -9: no message"),
        (["no-such-program"], "could not be started: .*no-such-program"),
        (python("import time; time.sleep(60)"), "was stopped after 0.5 seconds"),
    ],
)
def test_a_process_that_fails_is_no_measurement(command: list[str], problem: str) -> None:
    with pytest.raises(ProcessFailedError, match=problem):
        processes.run(command, time_limit=0.5 if "60" in command[-1] else 60)


def test_a_middle_tells_its_range() -> None:
    assert f"{Middle.of([3.0, 1.0, 2.0]):.1f}" == "2.0 (1.0 to 3.0)"
    assert f"{Middle.of([2.01, 2.02]):.1f}" == "2.0"


def layers(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def numbers(model: onnx.ModelProto) -> int:
    return sum(math.prod(tensor.dims) for tensor in model.graph.initializer if tensor.data_type == 1)


def statistics(model: onnx.ModelProto) -> int:
    """How many means and variances a model has: PyTorch does not count them among its parameters."""
    sizes = {tensor.name: math.prod(tensor.dims) for tensor in model.graph.initializer}
    batchnorms = (node for node in model.graph.node if node.op_type == "BatchNormalization")
    return sum(sizes[name] for node in batchnorms for name in node.input[3:])


@pytest.fixture
def zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that cost no time."""
    monkeypatch.setattr(networks.Network, "drawn", lambda _, count, __: np.zeros(count, np.float32))


@pytest.mark.usefixtures("zeros")
@pytest.mark.parametrize(
    ("name", "parameters", "batchnorms"),
    [("resnet50", 25_557_032, 53), ("nasnetalarge", 88_753_150, 264)],
)
def test_networks_have_their_real_size(name: str, parameters: int, batchnorms: int) -> None:
    model = speed.NETWORKS[name]()
    padding = layers(model)["Pad"]  # each has a value to pad with
    assert numbers(model) - statistics(model) - padding == parameters
    assert layers(model)["BatchNormalization"] == batchnorms
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    assert [one.dim_value for one in inferred.graph.output[0].type.tensor_type.shape.dim] == [1, 1000]


@pytest.mark.usefixtures("zeros")
def test_vgg_keeps_its_weights_in_its_linear_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []

    def weight(_: networks.Network, *shape: int) -> str:
        shapes.append(shape)
        return "w"

    monkeypatch.setattr(networks.Network, "weight", weight)
    model = networks.vgg11_bn()
    assert shapes[-3:] == [(4096, 25088), (4096, 4096), (1000, 4096)]
    assert layers(model)["BatchNormalization"] == layers(model)["Conv"] == 8
    assert sum(map(math.prod, shapes)) + numbers(model) - statistics(model) == 132_868_840


def test_the_large_model_is_valid_and_folds(tmp_path: Path) -> None:
    shapes = networks.large(tmp_path / "large.onnx", 0.004)
    assert len(shapes) == 8
    assert 4 * sum(map(math.prod, shapes)) == pytest.approx(4e6, rel=0.1)
    assert (tmp_path / "large.onnx.data").stat().st_size == 4 * sum(map(math.prod, shapes))
    onnx.checker.check_model(tmp_path / "large.onnx", full_check=True)
    target = tmp_path / "out.onnx"
    processes.run(speed.ours(tmp_path / "large.onnx").command(target))
    outcome = speed.judged(tmp_path / "large.onnx", target)
    assert outcome.problem is None
    assert outcome.count == neighbours.Count(batchnorms=0, disguised=0, nodes=17)


@pytest.mark.parametrize("nodes", [10, 11, 12])
def test_a_chain_has_as_many_nodes_as_it_says(nodes: int) -> None:
    model = networks.chain(nodes)
    onnx.checker.check_model(model, full_check=True)
    assert len(model.graph.node) == nodes


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Small networks, in this process; processes take what this says by what they are called."""
    seconds = {"bnfold": 1.0, "ONNX Runtime": 2.0, "cp": 0.5}

    def run(command: list[str]) -> Usage:
        took = next((took for word, took in seconds.items() if word in command), 3.0)
        if command[0] in ("cp", "sh"):
            processes.run(command)
        else:
            Path(command[-1]).write_bytes(b"")
        return Usage(took, int(took * 1e8))

    monkeypatch.setattr(turns, "run", run)
    monkeypatch.setattr(speed, "apart", lambda work, *arguments: work(*arguments))
    monkeypatch.setattr(speed, "judged", lambda *_: neighbours.Outcome())
    monkeypatch.setattr(speed, "batchnorms", lambda path: path.stat().st_size and 7)
    monkeypatch.setitem(speed.NETWORKS, "resnet50", lambda: networks.chain(9))
    monkeypatch.setattr(speed, "versions", lambda _: {"onnxruntime": "1", "onnxslim": "2"})
    return seconds


SMALL = ["resnet50", "--rounds", "2", "--large", "0.001", "--chain", "9"]


@pytest.mark.usefixtures("measured")
def test_the_page_tells_of_all(tmp_path: Path, capsys) -> None:
    written = tmp_path / "page.md"
    written.write_text(f"before\n{page.MARKS[0]} old {page.MARKS[1]}\nafter\n")
    arguments = [*SMALL, "--folder", str(tmp_path), "--page", str(written)]
    assert speed.main(arguments) == 0
    text = written.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text.partition("Measured")[0]
    assert capsys.readouterr().out.strip() in text
    assert "### resnet50: 0 MB, 9 nodes, 7 BatchNorms" in text
    assert "| bnfold fold | 1.00 | 0.50 | 100 | 0.50 | 0 |" in text
    assert "| ONNX Runtime | 2.00 | – | 200 | – | 0 |" in text
    assert "| onnxslim | 3.00 | 1.50 | 300 | 1.50 | 0 |" in text
    assert "| cp | 0.50 | 0.25 | 50 | 0.25 | 7 |" in text
    assert "| bnfold fold | cold | 1.00 | 2.00 | 100 |" in text
    assert "| 18 | 1.00 | 1.00 | 100 | 0 |" in text
    assert "left out: onnxscript, onnxsim, onnxoptimizer." in text
    assert "Limits: all met." in text
    assert [path.name for path in tmp_path.iterdir()] == [written.name]


@pytest.mark.parametrize(("took", "missed"), [({"bnfold": 2.5}, "resnet50"), ({"cp": 0.4}, "large, cold")])
def test_a_limit_that_is_missed_is_told(measured, took, missed: str, tmp_path: Path, capsys) -> None:
    measured |= took
    assert speed.main([*SMALL, "--folder", str(tmp_path)]) == 1
    assert f"Limits: {missed}" in capsys.readouterr().out


@pytest.mark.usefixtures("measured")
def test_a_wrong_file_is_told(monkeypatch, tmp_path: Path, capsys) -> None:
    monkeypatch.setattr(speed, "judged", lambda *_: neighbours.Outcome(problem="They differ."))
    assert speed.main([*SMALL, "--folder", str(tmp_path)]) == 1
    assert "resnet50, bnfold fold: They differ." in capsys.readouterr().out


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "out.onnx").write_bytes(b"no model")
    rival = turns.Contestant("rival", tmp_path / "m.onnx", lambda _: [])
    left, problem = speed.checked(rival, tmp_path / "out.onnx")
    assert left is None
    assert problem.startswith("What it wrote could not be checked: DecodeError: ")


def test_a_rival_that_fails_is_told_and_runs_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = []

    def run(command: list[str]) -> Usage:
        starts.append(command[0])
        if command[0] == "bad":
            raise ProcessFailedError("ended with exit code 1: out of memory")
        return Usage(1.0, 1)

    monkeypatch.setattr(turns, "run", run)
    source = tmp_path / "m.onnx"
    source.write_bytes(b"m")
    both = [
        turns.Contestant(name, source, lambda _, name=name: [name], cold=True) for name in ("good", "bad")
    ]
    good, bad = turns.contest(both, 3, tmp_path, lambda *_: (4, ""))
    assert (good.problem, good.left, len(good.usages)) == ("", 4, 3)
    assert (bad.problem, bad.usages) == ("It ended with exit code 1: out of memory.", [])
    assert sorted(starts) == ["bad", "good", "good", "good"]
    assert not (tmp_path / "written").exists()


def test_forgotten_and_remembered_files_are_as_they_were(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 10**6)
    processes.forget(file)
    processes.remember(file)
    assert file.read_bytes() == b"x" * 10**6


def test_a_network_that_there_is_not(capsys) -> None:
    with pytest.raises(SystemExit):
        speed.main(["resnet51"])
    assert "no network called resnet51" in capsys.readouterr().err


def test_other_tools_start_without_bnfold() -> None:
    """Else its imports would be in their times."""
    check = "import sys, benchmarks.tools; sys.exit(str({'bnfold', 'onnx_ir', 'numpy'} & set(sys.modules)))"
    with pytest.raises(ProcessFailedError, match=r"1: set\(\)"):
        processes.run([sys.executable, "-c", check])


def test_versions_are_those_of_the_interpreter() -> None:
    assert speed.versions(Path(sys.executable))["numpy"] == np.__version__
