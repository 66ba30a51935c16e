"""Every kind of model goes into every public function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn

import bnfold
from bnfold.api.models import read, to_compare
from bnfold.errors import InputError
from bnfold.runtime import sessions
from tests.graphs import build, statistics, weight

TEXT = """g (float[1,2,6,6] x) => (float[1,4,4,4] y) {
    c = Conv (x, w) b = BatchNormalization (c, scale, bias, mean, var) y = Relu (b)
}"""


@pytest.fixture(scope="module")
def proto() -> onnx.ModelProto:
    return build(TEXT, {"w": weight(4, 2, 3, 3), **statistics(4)})


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    with torch.no_grad():
        for value in (net[1].weight, net[1].bias, net[1].running_mean, net[1].running_var):
            value.uniform_(0.5, 1.5)
    return net.train()


EXAMPLE = torch.randn(1, 2, 6, 6, generator=torch.Generator().manual_seed(0))


def test_a_module_is_folded_as_a_module(network: nn.Module) -> None:
    done = bnfold.fold(network, EXAMPLE)
    assert network.training
    assert not any(isinstance(part, nn.BatchNorm2d) for part in done.module.modules())
    with torch.no_grad():
        torch.testing.assert_close(done.module.eval()(EXAMPLE), _eval(network)(EXAMPLE))
    network.train()
    assert done
    assert "1 of 1 BatchNorm folded" in repr(done)


def _eval(network: nn.Module) -> nn.Module:
    return network.eval()


def test_a_module_is_exported_and_agrees_with_its_file(network: nn.Module, tmp_path: Path) -> None:
    file = tmp_path / "net.onnx"
    done = bnfold.export(network, file, EXAMPLE, bench=False, samples=2)
    assert done
    assert done.fold
    assert network.training
    assert not any(node.op_type == "BatchNormalization" for node in onnx.load(file).graph.node)
    (computed,) = sessions.run(
        sessions.session(file, optimized="off"), {sessions_input(file): EXAMPLE.numpy()}
    )
    with torch.no_grad():
        expected = _eval(network)(EXAMPLE).numpy()
    network.train()
    np.testing.assert_allclose(computed, expected, rtol=1e-5, atol=1e-6)
    assert bnfold.validate(network, file, EXAMPLE, samples=2)


def sessions_input(file: Path) -> str:
    return str(onnx.load(file).graph.input[0].name)


def test_models_in_memory_are_exported_and_differences_are_false(
    proto: onnx.ModelProto, tmp_path: Path
) -> None:
    file = tmp_path / "folded.onnx"
    assert bnfold.export(ir.from_proto(proto), file, bench=False, samples=2)
    other = onnx.ModelProto()
    other.CopyFrom(proto)
    changed = next(one for one in other.graph.initializer if one.name == "bias")
    changed.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(changed) + 0.1, "bias"))
    outcome = bnfold.validate(other, file, samples=2)
    assert not outcome
    assert "y" in repr(outcome)


def test_an_inspection_says_what_it_is(proto: onnx.ModelProto, network: nn.Module) -> None:
    for found in (bnfold.inspect(proto), bnfold.inspect(network, EXAMPLE)):
        assert found
        assert found.records()[0]["operator"] == "BatchNormalization"
        assert "1 of 1 BatchNorm folded" in repr(found)
        assert found.about.bytes >= 4 * found.about.parameters


def test_a_network_without_example_inputs_says_what_to_give(network: nn.Module) -> None:
    with pytest.raises(InputError, match=r"such as torch\.randn\(1, 2, "):
        read(nn.Sequential(*network, nn.Flatten()))
    with pytest.raises(InputError, match="not all tensors"):
        read(network, [1, 2])  # type: ignore[list-item]
    with pytest.raises(InputError, match="traced with example inputs"):
        bnfold.fold(network)  # type: ignore[call-overload]


def test_what_cannot_be_a_model_is_refused(proto: onnx.ModelProto) -> None:
    with pytest.raises(InputError, match="This is a int, and not a model"):
        read(3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="are for a torch"):
        read(proto, EXAMPLE)


def test_progress_goes_to_the_caller(proto: onnx.ModelProto, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[tuple[Any, ...]] = []
    bnfold.fold(proto, progress=lambda *report: seen.append(report))
    assert {stage for stage, *_ in seen} == {"fold"}
    bnfold.fold(proto)
    assert capsys.readouterr() == ("", "")
    bnfold.fold(proto, progress=True)
    assert not capsys.readouterr().out


def test_a_file_is_compared_where_it_is(proto: onnx.ModelProto, tmp_path: Path) -> None:
    """A model of gigabytes is not copied for it."""
    file = tmp_path / "model.onnx"
    onnx.save(proto, file)
    assert to_compare(file, None) is file
    assert isinstance(to_compare(proto, None), ir.Model)


def test_a_graph_may_have_a_long_name(proto: onnx.ModelProto, tmp_path: Path) -> None:
    other = onnx.ModelProto()
    other.CopyFrom(proto)
    other.graph.name = "g" * 5000
    assert bnfold.inspect(other)
    assert bnfold.export(other, tmp_path / "out.onnx", bench=False, samples=1)


def test_a_module_of_float64_is_as_exact_as_its_type(tmp_path: Path) -> None:
    """The default epsilon is a float32 there, too; the exporter leaves it out."""
    torch.manual_seed(2)
    net = nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3))
    with torch.no_grad():
        for value in net[1].state_dict().values():
            if value.is_floating_point():
                value.uniform_(0.5, 1.5)
    done = bnfold.export(net.double().eval(), tmp_path / "net.onnx", EXAMPLE.double(), bench=False, samples=2)
    assert done.validation
    assert done.fold
