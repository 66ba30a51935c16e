"""The benchmark's network and its two command lines; the figure itself is for the benchmark to find."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from benchmarks import export  # noqa: E402
from benchmarks.resnet18 import random_resnet18  # noqa: E402
from bnfold_cli import main  # noqa: E402


def test_the_network_is_resnet18() -> None:
    model = random_resnet18()
    assert sum(parameter.numel() for parameter in model.parameters()) == 11_689_512
    assert sum(isinstance(part, torch.nn.BatchNorm2d) for part in model.modules()) == 20
    with torch.no_grad():
        logits = model(torch.randn(1, 3, 64, 64))
    assert logits.shape == (1, 1000)
    assert logits.isfinite().all()


def test_both_commands_run_and_write_their_file(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(export, "SHAPE", (1, 3, 32, 32))
    torch.save(random_resnet18(), tmp_path / "resnet18.pt")
    bare, ours = export.commands(tmp_path / "resnet18.pt", tmp_path).values()
    # here rather than in separate processes, which take seconds to begin
    result = CliRunner().invoke(main, ours[ours.index("export") :])
    assert result.exit_code == 0, result.stderr
    _, flag, code, *arguments = bare
    assert flag == "-c"
    monkeypatch.setattr(sys, "argv", ["-c", *arguments])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(code, {})
    assert {path.name for path in tmp_path.iterdir()} >= {"bare.onnx", "folded.onnx"}


def test_a_process_that_fails_is_no_time() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        export._seconds(["false"])


@pytest.mark.parametrize(("limit", "code"), [(2.5, 0), (1.5, 1)])
def test_the_limit_decides(monkeypatch, capsys, limit: float, code: int) -> None:
    monkeypatch.setattr(export, "measure", lambda _: {"bare": [1.0, 3.0, 2.0], "bnfold": [2.5, 2.0, 9.0]})
    assert export.main(["--limit", str(limit)]) == code
    assert "2.00 times as long" in " ".join(capsys.readouterr().out.split())
