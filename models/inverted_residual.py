"""A small network of inverted residuals, as in MobileNetV2."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn


def conv_bn_relu6(
    channels_in: int, channels_out: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Make a convolution that keeps the size (but for its stride), its BatchNorm and a ReLU6."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU6(),
    )


class InvertedResidual(nn.Module):
    """Expand by a 1×1 convolution, filter each channel by itself, project back without an activation.

    The input is added to the output where the two have the same shape.

    Shapes: `[N, channels_in, H, W]` to `[N, channels_out, H / stride, W / stride]`.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1, expansion: int = 4) -> None:
        super().__init__()
        hidden = channels_in * expansion
        self.adds_input = stride == 1 and channels_in == channels_out
        self.expand = conv_bn_relu6(channels_in, hidden)
        self.depthwise = conv_bn_relu6(hidden, hidden, kernel=3, stride=stride, groups=hidden)
        self.project = nn.Sequential(
            nn.Conv2d(hidden, channels_out, 1, bias=False), nn.BatchNorm2d(channels_out)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the block to `x`."""
        y: torch.Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.adds_input else y


class InvertedResidualNet(nn.Module):
    """A MobileNetV2 of three blocks for grey 32×32 images.

    Exercises depthwise convolutions, whose weight `[C, 1, 3, 3]` has one input channel a group (scaling the
    wrong axis would go unnoticed by shapes alone); ReLU6, which no affine may cross (exported as Clip); and
    projections that have no activation, so that their BatchNorm meets an Add or the next block's convolution.
    All eleven BatchNorms fold.

    Shapes: `[N, 1, 32, 32]` to logits `[N, 10]`.
    """

    input_shape: ClassVar[tuple[int, ...]] = (1, 32, 32)

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn_relu6(1, 16, kernel=3, stride=2)  # 16×16
        self.blocks = nn.Sequential(
            InvertedResidual(16, 16),
            InvertedResidual(16, 24, stride=2),  # 8×8
            InvertedResidual(24, 24),
        )
        self.features = conv_bn_relu6(24, 96)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Classify a batch `[N, 1, 32, 32]`: logits `[N, 10]`."""
        logits: torch.Tensor = self.head(self.features(self.blocks(self.stem(x))))
        return logits
