"""Comparing a trained file with an ONNX model: same, different, and not comparable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from models import files
from models.accuracy import main


@pytest.fixture(scope="module")
def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))


def write_onnx(network: nn.Sequential, path: Path, *, batch: int | str, channels: int = 3) -> None:
    """Write the network as ONNX by hand: quicker than the exporter, and independent of it."""
    weight, bias = (parameter.detach().numpy() for parameter in network.parameters())
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["flat"]),
            helper.make_node("Gemm", ["flat", "weight", "bias"], ["logits"], transB=1),
        ],
        "linear",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, channels, 32, 32])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 10])],
        [
            numpy_helper.from_array(np.ascontiguousarray(weight[:, : channels * 1024]), "weight"),
            numpy_helper.from_array(bias, "bias"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.mark.parametrize("batch", [1, 32, "batch"])
def test_same_predictions(
    network: nn.Sequential, batch: int | str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files.save(network, tmp_path / "a.pt")
    write_onnx(network, tmp_path / "a.onnx", batch=batch)
    assert main([str(tmp_path / "a.pt"), str(tmp_path / "a.onnx")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Held-out digits: 450, of shape (3, 32, 32)"
    assert lines[1].rsplit(": ")[1] == lines[2].rsplit(": ")[1]
    assert lines[3] == "Predictions that differ: 0"


def test_a_program_is_compared_as_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    grey = nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, 10))
    files.save_program(grey, (1, 32, 32), tmp_path / "a.pt2")
    write_onnx(grey, tmp_path / "a.onnx", batch="batch", channels=1)
    assert main([str(tmp_path / "a.pt2"), str(tmp_path / "a.onnx")]) == 0
    assert "Predictions that differ: 0" in capsys.readouterr().out
    sequence = nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, 10))
    files.save_program(sequence, (32, 32), tmp_path / "a.pt2")
    assert "a.pt2 does not take (1, 32, 32)" in refused([tmp_path / "a.pt2", tmp_path / "a.onnx"], capsys)


def test_different_predictions_exit_with_one(
    network: nn.Sequential, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files.save(network, tmp_path / "a.pt")
    other = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    write_onnx(other, tmp_path / "a.onnx", batch="batch")
    assert main([str(tmp_path / "a.pt"), str(tmp_path / "a.onnx")]) == 1
    assert int(capsys.readouterr().out.rsplit(": ")[-1]) > 0


def refused(arguments: list[Path], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    assert stop.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_what_cannot_be_compared_exits_with_two(
    network: nn.Sequential, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained, text, grey = tmp_path / "a.pt", tmp_path / "text", tmp_path / "grey.onnx"
    files.save(network, trained)
    text.write_text("no model")
    write_onnx(network, grey, batch=1, channels=1)
    assert "absent.onnx is not there" in refused([trained, tmp_path / "absent.onnx"], capsys)
    assert "text is not an ONNX model" in refused([trained, text], capsys)
    assert "text is not a whole torch.save file" in refused([text, grey], capsys)
    assert "a.pt does not take (1, 32, 32)" in refused([trained, grey], capsys)
    write_onnx(network, grey, batch=1, channels=2)
    assert "not as (2, 32, 32)" in refused([trained, grey], capsys)
