"""The exporter based on TorchScript: BatchNorms stay, module paths are noted, branches are refused."""

from __future__ import annotations

import ast

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.jit._trace import TracerWarning  # noqa: E402

from bnfold.torch.export import torchscript_exporter  # noqa: E402
from tests.torch.networks import seeded_statistics  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.jit says that it is one
X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    """A convolution and two BatchNorms, of which one runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.bn2 = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.bn2(self.bn1(self.conv1(self.bn1(x)))) * 2


def network() -> nn.Module:
    torch.manual_seed(0)
    layer = nn.Sequential(Block(), nn.ModuleDict({"b": Block()})["b"])
    return seeded_statistics(nn.Sequential(layer, nn.ReLU()), 0).eval()


FORMS = {
    "module": lambda module: module,
    "script": torch.jit.script,
    "trace": lambda module: torch.jit.trace(module, X),
}


@pytest.mark.parametrize("form", FORMS)
def test_batchnorms_stay_and_know_their_module(form: str) -> None:
    model = torchscript_exporter.export(FORMS[form](network()), (X,), {}, names=["x"], opset=17, sizes={})
    assert model.graph.opset_imports == {"": 17}
    assert [value.name for value in model.graph.inputs] == ["x"]
    norms = [node for node in model.graph if node.op_type == "BatchNormalization"]
    paths = [ast.literal_eval(node.metadata_props[torchscript_exporter.SCOPES])[-2] for node in norms]
    assert paths == ["0.0.bn1", "0.0.bn1", "0.0.bn2", "0.1.bn1", "0.1.bn1", "0.1.bn2"]
    assert ast.literal_eval(norms[0].metadata_props[torchscript_exporter.SCOPES])[:3] == ["", "0", "0.0"]


def test_nodes_without_weights_know_it_from_their_name() -> None:
    model = torchscript_exporter.export(network(), (X,), {}, names=["x"], opset=None, sizes={})
    (relu,) = (node for node in model.graph if node.op_type == "Relu")
    assert ast.literal_eval(relu.metadata_props[torchscript_exporter.SCOPES])[-2] == "1"
    mul = next(node for node in model.graph if node.op_type == "Mul")
    assert ast.literal_eval(mul.metadata_props[torchscript_exporter.SCOPES])[-2] == "0.0"


def test_open_sizes() -> None:
    model = torchscript_exporter.export(
        network(), (X,), {}, names=["x"], opset=None, sizes={"x": {0: "batch", 2: "height"}}
    )
    assert [str(size) for size in model.graph.inputs[0].shape] == ["batch", "3", "height", "8"]


def test_one_path_among_several_is_refused(capfd) -> None:
    class Branch(nn.Module):
        def forward(self, x):
            return x + 1 if x.sum() > 0 else x - 1

    with pytest.raises(TracerWarning, match="Python boolean"):
        torchscript_exporter.export(Branch(), (X,), {}, names=["x"], opset=None, sizes={})
    # torch's own code asks for sizes, which is not such a path
    torchscript_exporter.export(nn.GroupNorm(3, 3).eval(), (X,), {}, names=["x"], opset=None, sizes={})
    assert capfd.readouterr() == ("", "")


def test_what_fails_prints_nothing(capfd) -> None:
    class Unknown(nn.Module):
        def forward(self, x):
            return torch.vdot(x.flatten(), x.flatten())

    with pytest.raises(torch.onnx.errors.UnsupportedOperatorError, match="vdot"):
        torchscript_exporter.export(Unknown(), (X,), {}, names=["x"], opset=17, sizes={})
    assert capfd.readouterr() == ("", "")
