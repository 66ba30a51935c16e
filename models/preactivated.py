"""A residual network whose BatchNorms stand before the convolutions, on the stream."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn


class PreActBlock(nn.Module):
    """Two 3×3 convolutions, each after its BatchNorm: `x + conv2(relu(bn2(conv1(relu(bn1(x))))))`.

    Where the shape changes, x is replaced by a 1×1 convolution of `relu(bn1(x))`, as in the authors' code.

    Shapes: `[N, channels_in, H, W]` to `[N, channels_out, H / stride, W / stride]`.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.shortcut: nn.Module | None = None
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the block to `x`."""
        activated = torch.relu(self.bn1(x))
        kept: torch.Tensor = x if self.shortcut is None else self.shortcut(activated)
        y: torch.Tensor = self.conv2(torch.relu(self.bn2(self.conv1(activated))))
        return kept + y


class PreActResNet(nn.Module):
    """A pre-activation ResNet of nine blocks in three stages for grey 32×32 images.

    Exercises BatchNorms of a value that others read as well: ten of the nineteen (the first of every block,
    and the last of all) read the stream, the sum that the blocks add to, and a ReLU follows each of them.
    Where every γ is positive, as training left it in the kept file, the stream can carry their shifts, and
    all nineteen fold.

    Shapes: `[N, 1, 32, 32]` to logits `[N, 10]`.
    """

    input_shape: ClassVar[tuple[int, ...]] = (1, 32, 32)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 12, 3, stride=2, padding=1, bias=False)  # 16×16
        self.blocks = nn.Sequential(
            *self._stage(12, 12),
            *self._stage(12, 24, stride=2),  # 8×8
            *self._stage(24, 32, stride=2),  # 4×4
        )
        self.norm = nn.BatchNorm2d(32)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))

    @staticmethod
    def _stage(channels_in: int, channels_out: int, stride: int = 1) -> list[PreActBlock]:
        first = PreActBlock(channels_in, channels_out, stride)
        return [first, PreActBlock(channels_out, channels_out), PreActBlock(channels_out, channels_out)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Classify a batch `[N, 1, 32, 32]`: logits `[N, 10]`."""
        logits: torch.Tensor = self.head(torch.relu(self.norm(self.blocks(self.stem(x)))))
        return logits
