"""Small modules to fold back into PyTorch, each with one difficulty, and how to make them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from models.batchnorms import seeded_statistics


class Free(nn.Module):
    """A module of these parts and this forward.

    Args:
        forward: Called with the module and its inputs.
        **parts: Modules, parameters.
    """

    def __init__(self, forward: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.rule = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.rule(self, *inputs)


class SideBySide(nn.Module):
    """Modules that read the same input, so that they are exported together."""

    def __init__(self, parts: dict[str, nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(parts)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [part(x) for part in self.parts.values()]


class Branches(nn.Module):
    """A 3×3 and a 1×1 convolution side by side, with their BatchNorms, added up."""

    def __init__(self) -> None:
        super().__init__()
        self.three, self.bn3 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.one, self.bn1 = nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn3(self.three(x)) + self.bn1(self.one(x))


class FrozenBatchNorm(nn.Module):
    """torchvision's way: arithmetic with buffers."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.rand(channels) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1)


class Leaky(nn.BatchNorm2d):
    """A BatchNorm with an activation that is not a module."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.leaky_relu(super().forward(x))


class WithPReLU(nn.BatchNorm2d):
    """A BatchNorm with an activation that has parameters."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.act = nn.PReLU(channels, init=0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(super().forward(x))


def conv(**more: Any) -> nn.Conv2d:
    """A 3×3 convolution of 3 channels into 4."""
    return nn.Conv2d(3, 4, 3, **more)


def norm() -> nn.BatchNorm2d:
    """A BatchNorm over 4 channels."""
    return nn.BatchNorm2d(4)


def hook(change: Callable[[Any], Any]) -> Callable[..., Any]:
    """A hook that gives `change` of the last that it sees: the output, or before the forward the inputs."""
    return lambda *seen: change(seen[-1])


def made(forward: Callable[..., Any], **parts: Any) -> nn.Module:
    """A `Free` module in eval mode with random statistics."""
    return seeded_statistics(Free(forward, **parts)).eval()


def image(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal numbers."""
    return torch.randn(shape or (2, 3, 8, 8), generator=torch.Generator().manual_seed(seed))
