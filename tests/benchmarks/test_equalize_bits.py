"""`benchmarks.equalize_bits` runs each model once, and says so where a bit differs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")

from benchmarks import equalize_bits
from bnfold.pipeline.steps import Trial
from tests.docs.workplace import prepare


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    models = prepare(tmp_path) / "models"
    for path in models.iterdir():
        if path.name not in ("small.onnx", "truncated.onnx"):
            path.unlink()
    shutil.copy(models / "small.onnx", models / "again.onnx")
    return models


def test_each_content_is_run_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert equalize_bits.main([str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "1 equal, 0 different, 1 not read, 0 not run, 0 too large" in printed
    assert "Channels moved in 1 of those that ran, a second time in 0." in printed


def test_a_bit_that_differs_fails(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trial, "different_bits", lambda *_: (1, "the output 'logits' differs"))
    assert equalize_bits.main([str(folder)]) == 1


def test_large_files_are_counted_and_left_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert equalize_bits.main([str(folder), "--largest", "0"]) == 0
    assert "0 equal, 0 different, 0 not read, 0 not run, 3 too large" in capsys.readouterr().out
