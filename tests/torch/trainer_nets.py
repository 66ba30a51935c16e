"""Small networks of a user's own, for files that trainers write; `--arch` and `--allow` import them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from models.batchnorms import seeded_statistics

ARCH = "tests.torch.trainer_nets"


class Block(nn.Module):
    """Conv, BatchNorm and an activation."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(out)
        self.act = nn.SiLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.bn(self.conv(x)))


class Net(nn.Module):
    """A classifier with a shortcut."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.stem, self.body = Block(3, 8), Block(8, 8)
        self.fc = nn.Linear(8, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.body(x)
        return self.fc(x.mean((2, 3)))


class Detector(nn.Module):
    """A module that keeps its configuration, and lists of tensors that are no buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(Block(3, 8), nn.Upsample(scale_factor=2), Block(8, 6))
        self.stride = torch.tensor([8.0, 16.0])
        self.yaml = {"nc": 2, "backbone": [[-1, 1, "Conv", [64, 6, 2, 2]]]}
        self.names = {0: "cat", 1: "dog"}
        self.grid = [torch.empty(0), torch.empty(0)]
        self.hyp = {"lr0": 0.01, "anchors": 3}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


class WeightNormed(nn.Module):
    """Layers whose weights are made of others when they run."""

    def __init__(self) -> None:
        super().__init__()
        made = nn.utils.parametrizations
        self.first = made.weight_norm(nn.Conv2d(3, 8, 3))
        self.bn = nn.BatchNorm2d(8)
        self.second = made.spectral_norm(nn.Conv2d(8, 4, 1))
        self.last = nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.second(torch.relu(self.bn(self.first(x)))))


class Quantised(nn.Module):
    """A network that is later prepared for quantisation-aware training."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.relu(self.bn(self.conv(x))))


def trained(network: nn.Module | None = None) -> Any:
    """A network in eval mode, its statistics and weights as after some training."""
    torch.manual_seed(11)
    return seeded_statistics(Net() if network is None else network).eval()
