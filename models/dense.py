"""A densely connected network, each of whose layers reads the outputs of all layers before it."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn


def bn_relu_conv(channels_in: int, channels_out: int, kernel: int = 1) -> nn.Sequential:
    """Make a BatchNorm, a ReLU and a convolution that keeps the size."""
    return nn.Sequential(
        nn.BatchNorm2d(channels_in),
        nn.ReLU(),
        nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, bias=False),
    )


class DenseLayer(nn.Module):
    """A 1×1 convolution to few channels, a 3×3 one to fewer, and the input beside its output.

    Shapes: `[N, channels_in, H, W]` to `[N, channels_in + growth, H, W]`.
    """

    def __init__(self, channels_in: int, growth: int) -> None:
        super().__init__()
        self.bottleneck = bn_relu_conv(channels_in, 4 * growth)
        self.grow = bn_relu_conv(4 * growth, growth, kernel=3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the layer to `x`."""
        return torch.cat([x, self.grow(self.bottleneck(x))], dim=1)


class DenseNet(nn.Module):
    """A DenseNet of two blocks of four layers for grey 32×32 images.

    Exercises BatchNorms of concatenations: ten of the eighteen (one of every layer, of the transition between
    the blocks, and the last of all) read the outputs of all layers of their block so far, each with another
    scale and shift for the same channels. A value can carry one shift, so that one of them folds in each
    block, and eight stay; the other eight stand between two convolutions, and fold.

    Shapes: `[N, 1, 32, 32]` to logits `[N, 10]`.
    """

    input_shape: ClassVar[tuple[int, ...]] = (1, 32, 32)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, stride=2, padding=1, bias=False)  # 16×16
        self.first = self._block(16)
        self.transition = nn.Sequential(bn_relu_conv(64, 32), nn.AvgPool2d(2))  # 8×8
        self.second = self._block(32)
        self.norm = nn.BatchNorm2d(80)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(80, 10))

    @staticmethod
    def _block(channels: int, layers: int = 4, growth: int = 12) -> nn.Sequential:
        return nn.Sequential(*(DenseLayer(channels + number * growth, growth) for number in range(layers)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Classify a batch `[N, 1, 32, 32]`: logits `[N, 10]`."""
        features = self.second(self.transition(self.first(self.stem(x))))
        logits: torch.Tensor = self.head(torch.relu(self.norm(features)))
        return logits
