"""A model is recognised by its content; a file that cannot be read gets a one-line message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest

from bnfold.errors import InputError, ModelError
from bnfold.options import Reading
from bnfold.pipeline.read import read_model, read_onnx

SMALL = '<ir_version: 9, opset_import: ["" : 20]> g (float[1,2] x) => (float[1,2] y) { y = Identity(x) }'


def onnx_file(path: Path) -> Path:
    path.write_bytes(onnx.parser.parse_model(SMALL).SerializeToString())
    return path


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A PyTorch file with a BatchNorm, saved in train mode."""
    torch = pytest.importorskip("torch")
    path = tmp_path_factory.mktemp("net") / "net.pt"
    torch.save(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)), path)
    return path


@pytest.mark.parametrize("name", ["model.onnx", "model.pt", "model"])
def test_an_onnx_model_is_one_whatever_its_name(tmp_path: Path, name: str) -> None:
    source = read_model(onnx_file(tmp_path / name))
    assert (source.kind, source.was_training) == ("onnx", False)
    assert [node.op_type for node in source.model.graph] == ["Identity"]


@pytest.mark.parametrize("name", ["net.pt", "net.onnx"])
def test_a_module_is_one_whatever_its_name(net: Path, tmp_path: Path, name: str) -> None:
    copy = tmp_path / name
    copy.write_bytes(net.read_bytes())
    stages = []
    reading = Reading(input_shape=(1, 3, 8, 8))
    source = read_model(copy, reading, progress=lambda stage, *_: stages.append(stage))
    assert (source.kind, source.was_training) == ("module", True)
    assert [node.op_type for node in source.model.graph] == ["Conv", "BatchNormalization"]
    assert stages == ["load", "export"]


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), "1x3x8x8", ["1x3x8x8"], ["input=1x3x8x8"]])
def test_a_shape_may_be_written_in_several_ways(net: Path, shape: Any) -> None:
    (value,) = read_model(net, Reading(input_shape=shape)).model.graph.inputs
    assert tuple(value.shape) == (1, 3, 8, 8)


def test_how_it_was_read_is_noted_as_it_can_be_read_again(net: Path, tmp_path: Path) -> None:
    source = read_model(net, Reading(input_shape=(1, 3, 8, 8), dtype="float32", opset=18, dynamic="batch"))
    assert source.options == {
        "input_shape": ["1x3x8x8"], "dtype": "float32", "opset": 18, "dynamic": ["batch"]
    }  # fmt: skip
    again = read_model(net, Reading(**source.options))
    assert again.options == source.options
    assert ir.to_proto(again.model) == ir.to_proto(source.model)
    assert read_model(onnx_file(tmp_path / "model.onnx")).options == {}


def test_the_batch_size_may_be_left_open(net: Path) -> None:
    (value,) = read_model(net, Reading(input_shape="1x3x8x8", dynamic="batch")).model.graph.inputs
    assert not isinstance(value.shape[0], int)


def test_an_exported_program_needs_no_shape(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3)).eval()
    torch.export.save(torch.export.export(module, (torch.randn(2, 4),)), tmp_path / "net.pt2")
    source = read_model(tmp_path / "net.pt2")
    assert source.kind == "exported program"
    assert "BatchNormalization" in [node.op_type for node in source.model.graph]


def test_a_shape_that_is_missing_is_asked_for(net: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_model(net)
    assert "--input-shape 1x3x" in caught.value.fix


@pytest.mark.parametrize(
    "options", [{"input_shape": "1x2"}, {"dtype": "float16"}, {"allow": ["a.B"]}, {"opset": 18}]
)
def test_an_option_for_pytorch_is_refused_on_an_onnx_model(tmp_path: Path, options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(InputError, match=f"--{name.replace('_', '-')} is for PyTorch"):
        read_model(onnx_file(tmp_path / "model.onnx"), Reading(**options))


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    for path in (tmp_path / "none.onnx", tmp_path / "none.pt"):
        with pytest.raises(ModelError, match="is not there"):
            read_model(path)
    with pytest.raises(ModelError, match="is a folder"):
        read_model(tmp_path)


def test_where_onnx_is_needed_a_pytorch_file_is_refused(net: Path) -> None:
    with pytest.raises(ModelError, match="is a PyTorch file"):
        read_onnx(net)
