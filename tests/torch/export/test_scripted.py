"""TorchScript with inputs that may be missing or are no tensors, and what its operators say of its input."""

from __future__ import annotations

from pathlib import Path
from typing import List, Optional  # noqa: UP035  (TorchScript reads these)

import numpy as np
import pytest

torch = pytest.importorskip("torch")
ort = pytest.importorskip("onnxruntime")
from torch import nn  # noqa: E402

import bnfold  # noqa: E402
import bnfold.torch as bt  # noqa: E402
from bnfold.errors import ModelError  # noqa: E402
from bnfold.torch.export.scripted import first_layer  # noqa: E402
from models.batchnorms import seeded_statistics  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


class Layers(nn.Module):
    """A convolution and a BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)


class MaybeMask(Layers):
    """With a second input that may be missing."""

    def forward(self, x: torch.Tensor, mask: Optional[torch.Tensor] = None) -> torch.Tensor:  # noqa: UP045
        y = self.bn(self.conv(x))
        return y if mask is None else y * mask


class Scaled(Layers):
    """With inputs that are no tensors, and have a default."""

    def forward(self, x: torch.Tensor, scale: int = 2, flag: bool = True, name: str = "a") -> torch.Tensor:
        y = self.bn(self.conv(x))
        return y * scale if flag and name == "a" else y


class NeedsNumber(Layers):
    """With a number that has no default."""

    def forward(self, x: torch.Tensor, scale: int) -> torch.Tensor:
        return self.bn(self.conv(x)) * scale


class NeedsList(Layers):
    """With a list of tensors."""

    def forward(self, x: List[torch.Tensor]) -> torch.Tensor:  # noqa: UP006
        return self.bn(self.conv(x[0]))


def script(path: Path, network: nn.Module, *, frozen: bool = False) -> nn.Module:
    torch.manual_seed(5)
    made = torch.jit.script(seeded_statistics(network).eval())
    torch.jit.save(torch.jit.freeze(made) if frozen else made, path)
    return network


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(
    ("network", "shapes"),
    [
        (MaybeMask, {"x": (1, 3, 8, 8)}),
        (MaybeMask, {"x": (1, 3, 8, 8), "mask": (1, 4, 6, 6)}),
        (Scaled, {"x": (1, 3, 8, 8)}),
    ],
)
def test_what_is_not_given_stays_at_its_default(tmp_path, network, shapes, frozen) -> None:
    module = script(tmp_path / "m.pt", network(), frozen=frozen)
    texts = [f"{name}={'x'.join(map(str, shape))}" for name, shape in shapes.items()]
    done = bnfold.export(tmp_path / "m.pt", tmp_path / "o.onnx", input_shape=texts, bench=False)
    session = ort.InferenceSession((tmp_path / "o.onnx").read_bytes(), providers=["CPUExecutionProvider"])
    assert [port.name for port in session.get_inputs()] == list(shapes)
    given = {name: np.random.default_rng(1).normal(size=s).astype(np.float32) for name, s in shapes.items()}
    (found,) = session.run(None, given)
    with torch.no_grad():
        expected = module(**{name: torch.from_numpy(value) for name, value in given.items()}).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert not any("bnfold_inner" in str(value.name) for value in done.fold.model.graph.initializers.values())
    assert all("bnfold_inner" not in (node.name or "") for node in done.fold.model.graph)
    if network is Scaled:
        assert any("scale is 2" in note for note in done.source.notes)
    if not frozen:
        assert done.fold.sites[0].into == ("conv",)
        assert done.fold.sites[0].name == "bn"


@pytest.mark.parametrize(("network", "named"), [(NeedsNumber, "scale"), (NeedsList, "x")])
def test_what_must_be_given_and_is_no_tensor_is_refused(tmp_path, network, named) -> None:
    script(tmp_path / "m.pt", network())
    with pytest.raises(ModelError, match=rf"not a tensor: {named} \("):
        bt.load(tmp_path / "m.pt")


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Conv1d(6, 4, 3, groups=2), "Conv1d(6, 4"),
        (nn.Conv2d(3, 4, 3), "Conv2d(3, 4"),
        (nn.Conv3d(2, 4, 1), "Conv3d(2, 4"),
        (nn.Linear(7, 2), "Linear(in_features=7, out_features=2"),
        (nn.Embedding(9, 3), "Embedding(9, 3)"),
    ],
)
def test_the_first_layer_is_read_from_the_operators(layer, expected, frozen) -> None:
    made = torch.jit.script(nn.Sequential(nn.Identity(), nn.Sequential(layer)).eval())
    found = first_layer(torch.jit.freeze(made) if frozen else made)
    assert found is not None
    path, stand_in = found
    assert str(stand_in).startswith(expected)
    assert path == ("" if frozen else "1.0")


def test_without_layers_there_is_none() -> None:
    assert first_layer(torch.jit.script(nn.Sequential(nn.ReLU(), nn.Flatten()).eval())) is None


def test_a_trace_needs_no_shape(tmp_path) -> None:
    network = seeded_statistics(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))).eval()
    torch.jit.save(torch.jit.trace(network, torch.randn(2, 3, 9, 7)), tmp_path / "m.pt")
    assert bt.load(tmp_path / "m.pt").traced_with == (((2, 3, 9, 7), "float32"),)
    done = bnfold.export(tmp_path / "m.pt", tmp_path / "o.onnx", bench=False)
    assert list(done.fold.model.graph.inputs[0].shape.numpy()) == [2, 3, 9, 7]
    assert any("traced with: 2x3x9x7" in note for note in done.source.notes)


def test_a_trace_of_integers_keeps_their_type(tmp_path) -> None:
    torch.jit.save(
        torch.jit.trace(nn.Embedding(5, 3).eval(), torch.ones(2, 4, dtype=torch.long)), tmp_path / "m.pt"
    )
    assert bt.load(tmp_path / "m.pt").traced_with == (((2, 4), "int64"),)
