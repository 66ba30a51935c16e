"""The table of both errors to the oracle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import bnfold
from benchmarks import errors
from bnfold.result import FoldResult
from tests.graphs import build, statistics, weight


@pytest.fixture
def model(tmp_path: Path) -> Path:
    text = (
        "g (float[2,3,8,8] x) => (float[2,4,6,6] y) "
        "{ c = Conv(x, w) y = BatchNormalization(c, scale, bias, mean, var) }"
    )
    path = tmp_path / "small.onnx"
    onnx.save(build(text, {"w": weight(4, 3, 3, 3), **statistics(4)}), path)
    return path


def test_a_row_a_setting_and_a_page(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "errors.md"
    errors.main([str(model), "--samples", "4", "--markdown", str(page)])
    printed = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert [row[:2] for row in printed[1:]] == [["small.onnx", "off"], ["small.onnx", "default"]]
    for row in printed[1:]:
        original, folded, ratio, bound = map(float, row[2:6])
        assert 0 < folded <= bound < 1e-5
        assert original > 0
        assert 0.2 < ratio < 5
        assert row[6] == "1 of 1"
    text = page.read_text()
    assert "python -m benchmarks.errors small.onnx --samples 4" in text
    assert text.count("| small.onnx |") == 2


def test_a_wrong_fold_has_no_row(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = bnfold.fold

    def wrong(source: ir.Model) -> FoldResult[ir.Model]:
        result = right(source)
        [value] = [value for value in result.model.graph.initializers.values() if len(value.shape) == 4]
        value.const_value = ir.Tensor(np.float32(1.01) * value.const_value.numpy())
        return result

    monkeypatch.setattr(bnfold, "fold", wrong)
    with pytest.raises(SystemExit, match="first value that differs is 'y'"):
        list(errors.rows(model, None, 2))
