"""Models that ONNX Runtime cannot run are exported all the same, and the report says what was not run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from bnfold.errors import ModelError
from bnfold.pipeline.export import export
from bnfold_cli import main
from tests.graphs import build, statistics, weight


@pytest.fixture
def model(tmp_path: Path) -> Path:
    text = """g (float[N,4,8,8] x) => (float[M,4] y) {
      [conv] c = Conv (x, w)
      [bn] b = BatchNormalization (c, scale, bias, mean, var)
      [nms] y = mmdeploy.TRTBatchedNMS <topk = 5> (b) }"""
    made = build(text, {"w": weight(6, 4, 3, 3), **statistics(6)})
    made.opset_import.append(onnx.helper.make_opsetid("mmdeploy", 1))
    path = tmp_path / "detector.onnx"
    onnx.save(made, path)
    return path


def test_what_stands_before_a_custom_operator_is_proved_and_nothing_is_timed(
    model: Path, tmp_path: Path
) -> None:
    done = export(model, tmp_path / "out.onnx")
    assert done.destination == tmp_path / "out.onnx"
    assert [site.status for site in done.fold.sites] == ["folded"]
    assert done.validation is not None
    assert done.validation.passed
    assert [layer.name for layer in done.validation.layers if layer.site == "bn"] == ["b"]
    assert (done.benchmarks, done.graphs) == ((), None)
    assert (done.not_timed or "").startswith("Latency was not measured. ONNX Runtime cannot load the model")
    assert [node.op_type for node in onnx.load(tmp_path / "out.onnx").graph.node] == ["Conv", "TRTBatchedNMS"]


def test_the_reports_say_what_was_not_run(model: Path, tmp_path: Path) -> None:
    out, report, page = (tmp_path / name for name in ("out.onnx", "report.json", "report.html"))
    ran = CliRunner().invoke(
        main, ["export", str(model), "-o", str(out), "--json", str(report), "--html", str(page)]
    )
    assert ran.exit_code == 0, ran.output
    shown = " ".join(ran.output.split())
    assert "So mmdeploy.TRTBatchedNMS (nms) was not run." in shown
    assert "Latency was not measured." in shown
    assert json.loads(report.read_text())["not_timed"].startswith("Latency was not measured.")
    assert "Latency was not measured." in page.read_text()
    checked = CliRunner().invoke(main, ["validate", str(model), str(out)])
    assert checked.exit_code == 0, checked.output


def test_only_if_faster_needs_a_latency(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="TRTBatchedNMS"):
        export(model, tmp_path / "out.onnx", only_if_faster=True, validate=False)
    assert not (tmp_path / "out.onnx").exists()


def test_a_wrong_fold_before_a_custom_operator_is_not_written(model: Path, tmp_path: Path) -> None:
    done = export(model, tmp_path / "out.onnx", validate=False, bench=False)
    assert done.not_timed is None
    wrong = onnx.load(tmp_path / "out.onnx")
    for tensor in wrong.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.ndim == 4:
            tensor.CopyFrom(onnx.numpy_helper.from_array(array * np.float32(1.01), tensor.name))
    onnx.save(wrong, tmp_path / "wrong.onnx")
    result = CliRunner().invoke(main, ["validate", str(model), str(tmp_path / "wrong.onnx")])
    assert result.exit_code == 1
