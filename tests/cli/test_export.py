"""`bnfold export`, from whatever file to a checked ONNX model, and what it refuses."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")
nn = torch.nn

SHAPE = "1x3x8x8"
QUICK = ("--seconds", "0.1")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A trained-like Conv → BatchNorm → ReLU, saved whole and in train mode."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    for _ in range(3):
        net(torch.randn(16, 3, 8, 8) * 2 + 1)  # moves the running statistics
    path = tmp_path_factory.mktemp("saved") / "net.pt"
    torch.save(net, path)
    return path


def operators(path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def test_a_module_becomes_a_checked_onnx_file(run, saved, tmp_path) -> None:
    out, report_path = tmp_path / "out.onnx", tmp_path / "report.json"
    result = run("export", saved, "-o", out, "--input-shape", SHAPE, "--json", report_path, *QUICK)
    assert result.exit_code == 0, result.stderr
    assert operators(out) == ["Conv", "Relu"]
    words = " ".join(result.stdout.split())
    for part in ("saved in train mode", "1 of 1 site folded", "agrees with the original", "Latency", "Wrote"):
        assert part in words
    report = json.loads(report_path.read_text())
    assert report["source"]["was_training"] is True
    assert report["fold"]["summary"] == {"sites": 1, "folded": 1, "merged": 0, "kept": 0}
    assert report["validation"]["passed"] is True
    assert len(report["benchmarks"]) == 1
    assert torch.load(saved, weights_only=False).training, "the file was changed"


def test_the_default_output_stands_beside_the_model_and_clobbers_nothing(run, model) -> None:
    result = run("export", model, "--no-bench")
    assert result.exit_code == 0, result.stderr
    assert operators(model.with_name("model.folded.onnx")) == ["Conv"]
    assert operators(model) == ["Conv", "BatchNormalization"]


def test_without_validation_and_bench_it_says_so(run, model, tmp_path) -> None:
    result = run("export", model, "-o", tmp_path / "out.onnx", "--no-validate", "--no-bench")
    assert result.exit_code == 0, result.stderr
    assert "not compared" in result.stdout
    assert "Latency" not in result.stdout


def test_a_missing_shape_is_asked_for(run, saved, tmp_path) -> None:
    result = run("export", saved, "-o", tmp_path / "out.onnx")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--input-shape" in result.stderr
    assert not (tmp_path / "out.onnx").exists()


class Bomb:
    """A pickle that writes a file when it is loaded blindly."""

    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


def hostile(tmp_path):
    torch.save(Bomb(str(tmp_path / "harm")), tmp_path / "bad.pt")


def plain_pickle(tmp_path):
    (tmp_path / "bad.pt").write_bytes(pickle.dumps(Bomb(str(tmp_path / "harm"))))


def text_file(tmp_path):
    (tmp_path / "bad.pt").write_text("not a model\n")


def state_dict(tmp_path):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "bad.pt")


def truncated(tmp_path):
    torch.save(nn.Linear(50, 50), tmp_path / "bad.pt")
    whole = (tmp_path / "bad.pt").read_bytes()
    (tmp_path / "bad.pt").write_bytes(whole[: len(whole) // 2])


@pytest.mark.parametrize("make", [hostile, plain_pickle, text_file, state_dict, truncated])
def test_a_bad_file_is_one_clear_line_and_leaves_nothing(run, tmp_path, make) -> None:
    make(tmp_path)
    out, report = tmp_path / "out.onnx", tmp_path / "report.json"
    result = run("export", tmp_path / "bad.pt", "-o", out, "--input-shape", "1x2", "--json", report)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("bnfold: ")
    assert "bad.pt" in result.stderr.splitlines()[0]
    assert "Traceback" not in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.pt"]


def external(tmp_path, location: str):
    """An ONNX model whose weight lies in another file, as its protobuf says."""
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 20]> g (float[1,2] x) => (float[1,2] y) { y = MatMul(x, w) }'
    )
    weight = onnx.numpy_helper.from_array(np.ones((2, 2), np.float32), "w")
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    model.graph.initializer.append(weight)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("location", ["missing.bin", "../outside.bin"])
def test_external_data_that_is_missing_or_elsewhere_is_refused(run, tmp_path, location: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "outside.bin").write_bytes(bytes(16))
    result = run("export", external(folder, location), "-o", tmp_path / "out.onnx")
    assert (result.exit_code, result.stdout) == (2, "")
    assert location in result.stderr
    assert not (tmp_path / "out.onnx").exists()


def test_a_disagreement_exits_1_writes_the_report_and_no_model(run, model, tmp_path, monkeypatch) -> None:
    import onnx_ir as ir

    from bnfold import pipeline

    honest = pipeline.fold

    def wrong(given, **options):
        result = honest(given, **options)
        for value in result.model.graph.initializers.values():
            value.const_value = ir.tensor(value.const_value.numpy() * np.float32(1.5), name=value.name)
        return result

    monkeypatch.setattr(pipeline, "fold", wrong)
    out, report = tmp_path / "out.onnx", tmp_path / "report.json"
    out.write_text("what was there before")
    result = run("export", model, "-o", out, "--json", report)
    assert result.exit_code == 1
    assert "was not written" in result.stderr
    assert out.read_text() == "what was there before"
    written = json.loads(report.read_text())
    assert (written["output"], written["validation"]["passed"]) == (None, False)


def test_an_interrupt_leaves_nothing_half_written(tmp_path, model) -> None:
    """A real process is interrupted wherever it happens to be."""
    out = tmp_path / "out" / "out.onnx"
    out.parent.mkdir()
    command = [sys.executable, "-m", "bnfold_cli", "export", str(model), "-o", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode in (0, 130)
    assert "Traceback" not in stderr
    if process.returncode == 130:
        assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize("name", [".", "..", "/", ""])
def test_a_folder_is_no_model(run, name: str) -> None:
    result = run("export", name)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"bnfold: {name or '.'} is a folder.\n  Give the model file that is in it.\n"


def test_a_report_that_fails_leaves_the_model_as_the_help_says(run, model, tmp_path, monkeypatch) -> None:
    from bnfold.errors import SaveError
    from bnfold.report import json as report

    def full(*_) -> None:
        raise SaveError("The disk is full.")

    monkeypatch.setattr(report, "write", full)
    for command in ("export", "fold"):
        assert "where that fails" in " ".join(run(command, "--help").stdout.split())
        out = tmp_path / f"{command}.onnx"
        given = ("--no-validate", "--no-bench") if command == "export" else ()
        assert run(command, model, "-o", out, "--json", tmp_path / "r.json", *given).exit_code == 2
        assert operators(out) == ["Conv"]
