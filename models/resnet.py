"""A small residual network."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut: `relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x))`.

    The shortcut is the identity, or a 1×1 convolution with its own BatchNorm where the shape changes.

    Shapes: `[N, channels_in, H, W]` to `[N, channels_out, H / stride, W / stride]`.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False),
                nn.BatchNorm2d(channels_out),
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the block to `x`."""
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class SmallResNet(nn.Module):
    """A ResNet of three blocks for grey 32×32 images.

    Exercises convolutions without a bias (folding must create one) and values with two readers: a block's
    input feeds both its branches, and a fold may not disturb the branch it does not belong to. Each of the
    nine BatchNorms stands before its Add, in its own branch, and folds there.

    Shapes: `[N, 1, 32, 32]` to logits `[N, 10]`.
    """

    input_shape: ClassVar[tuple[int, ...]] = (1, 32, 32)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, padding=1, bias=False),  # 16×16
            nn.BatchNorm2d(16),
            nn.ReLU(),
        )
        self.blocks = nn.Sequential(
            ResidualBlock(16, 16),
            ResidualBlock(16, 32, stride=2),  # 8×8
            ResidualBlock(32, 64, stride=2),  # 4×4
        )
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Classify a batch `[N, 1, 32, 32]`: logits `[N, 10]`."""
        logits: torch.Tensor = self.head(self.blocks(self.stem(x)))
        return logits
