"""Shapes that were not given: derived if only one is possible, otherwise only proposed."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from bnfold.torch.export import guess_shape  # noqa: E402
from bnfold.torch.export.signature import Signature  # noqa: E402


class Attention(nn.Module):
    """Rows that depend on each other: a stack of them is not just a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix = nn.Linear(8, 8), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mix(self.embed(x))


class Over(nn.Module):
    """Rows that see each other even in one batch."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.first(x) / x.sum()


def flat(conv: nn.Module, features: int) -> nn.Sequential:
    return nn.Sequential(conv, nn.Flatten(), nn.Linear(features, 2))


def configured(size: object) -> nn.Module:
    module = nn.Conv2d(3, 4, 3)
    module.default_cfg = {"input_size": size}
    return module


def kept_example() -> nn.Module:
    module = nn.Conv2d(3, 4, 3)
    module.example_input_array = torch.zeros(2, 3, 9, 9)
    return module


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2)), (1, 16)),
        (nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)), (1, 16)),
        (flat(nn.Conv1d(3, 4, 3), 4 * 30), (1, 3, 32)),
        (flat(nn.Conv2d(3, 4, 3), 4 * 11 * 11), (1, 3, 13, 13)),
        (configured((3, 24, 24)), (1, 3, 24, 24)),
        (kept_example(), (2, 3, 9, 9)),
    ],
    ids=["linear", "linear-bn", "conv1d", "conv2d", "timm", "lightning"],
)
def test_one_answer(module: nn.Module, shape: tuple[int, ...]) -> None:
    module.train()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    found = guess_shape.shape(Signature.of(module))
    assert found is not None
    assert found.shape == shape
    assert found.why
    assert all(part.training for part in module.modules())
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize(
    ("module", "likely"),
    [
        (Attention(), (1, 16, 8)),
        (Over(), (1, 16, 4)),
        (flat(nn.Conv2d(3, 4, 3, padding=1), 4 * 64), (1, 3, 8, 8)),  # 4×16 would do as well
        (flat(nn.Conv2d(3, 4, 3, 2, 1), 4 * 64), (1, 3, 16, 16)),  # as would 15×15
        (nn.Conv2d(3, 4, 3), (1, 3, 224, 224)),
        (nn.GRU(4, 5), (16, 1, 4)),
        (nn.GRU(4, 5, batch_first=True), (1, 16, 4)),
        (nn.Embedding(10, 4), (1, 16)),
        (nn.BatchNorm1d(7), (1, 7, 224)),
        (nn.LayerNorm(3), None),
        (nn.ReLU(), None),
        (nn.Bilinear(3, 3, 3), None),  # two inputs
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_more_than_one_or_none(module: nn.Module, likely: tuple[int, ...] | None, capfd) -> None:
    assert guess_shape.shape(Signature.of(module)) is None
    assert guess_shape.plausible(Signature.of(module)) == likely
    assert capfd.readouterr() == ("", "")
