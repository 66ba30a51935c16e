"""`bnfold validate` compares two models and says so by its exit code."""

from __future__ import annotations

import json

import numpy as np
import pytest


@pytest.fixture
def folded(run, model, tmp_path):
    path = tmp_path / "folded.onnx"
    assert run("fold", model, "-o", path).exit_code == 0
    return path


def test_models_that_agree_exit_0(run, model, folded) -> None:
    result = run("validate", model, folded)
    assert result.exit_code == 0, result.stderr
    assert "agrees with the original" in result.stdout


def test_models_that_disagree_exit_1_and_are_reported(run, model, tmp_path, make_model) -> None:
    other = make_model("other.onnx", ["Conv", "BatchNormalization"], seed=1)
    result = run("validate", model, other, "--json", tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    assert result.exit_code == 1
    assert result.stderr.startswith(f"bnfold: {other} does not agree with {model}.")
    assert "disagrees" in result.stdout
    assert report["validation"]["passed"] is False
    assert report["original"]["sha256"] != report["folded"]["sha256"]


def test_a_tolerance_decides(run, model, make_model) -> None:
    other = make_model("other.onnx", ["Conv", "BatchNormalization"], seed=1)
    assert run("validate", model, other, "--tolerance", "1e6", "--quiet").exit_code == 0


def test_given_data_are_used(run, model, folded, tmp_path) -> None:
    np.savez(tmp_path / "data.npz", x=np.ones((1, 3, 8, 8), np.float32))
    result = run("validate", model, folded, "--inputs", tmp_path / "data.npz")
    assert result.exit_code == 0, result.stderr
    assert "on given inputs" in result.stdout


def test_data_that_are_missing_are_one_clear_line(run, model, folded, tmp_path) -> None:
    result = run("validate", model, folded, "--inputs", tmp_path / "none.npz")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "none.npz" in result.stderr.splitlines()[0]


def test_a_provider_that_is_absent_is_an_error(run, model, folded) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    result = run("validate", model, folded, "--provider", "cuda")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "bnfold[gpu]" in result.stderr
