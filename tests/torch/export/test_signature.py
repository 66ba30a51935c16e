"""What a module says about its inputs."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from bnfold.torch.export.signature import Signature, channels, dimensions  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.jit says that it is one


class Three(nn.Module):
    """Two inputs that are needed, and one that is not."""

    def forward(self, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
        return a + b if c is None else a + b + c


class Any(nn.Module):
    """Any number of inputs."""

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0]


def test_parameters() -> None:
    def parameters(module: nn.Module) -> tuple[list[str] | None, list[str]]:
        signature = Signature.of(module)
        return signature.names, signature.required

    assert parameters(Three()) == (["a", "b", "c"], ["a", "b"])
    assert parameters(torch.jit.script(nn.ReLU())) == (["input"], ["input"])
    assert parameters(Any()) == (None, [])


def test_layers() -> None:
    module = nn.Sequential(nn.ReLU(), nn.Sequential(nn.Conv1d(5, 4, 3), nn.Linear(3, 3)))
    path, layer = Signature.of(module).first_layer
    assert path == "1.0"
    assert channels(layer) == ("input channels", 5)
    assert dimensions(layer) == 1
    assert Signature.of(nn.ReLU()).first_layer is None
    assert channels(nn.LayerNorm(3)) is None
    assert dimensions(nn.Linear(3, 3)) == 0
