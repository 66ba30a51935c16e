"""Networks of parallel branches, which are trained apart and can be one convolution each when deployed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn


class Branches(nn.Module):
    """Convolutions side by side, each with its BatchNorm, added up before one ReLU.

    Where input and output have the same shape, a BatchNorm of the input as it is joins them. There is
    no method here that merges them, as the authors' classes have: that it can be done is seen from the graph.

    Shapes: `[N, channels_in, H, W]` to `[N, channels_out, H / stride, W / stride]`.
    """

    def __init__(
        self, channels_in: int, channels_out: int, kernels: Sequence[int], stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(
                    channels_in, channels_out, size, stride, padding=size // 2, groups=groups, bias=False
                ),
                nn.BatchNorm2d(channels_out),
            )
            for size in kernels
        )
        if stride == 1 and channels_in == channels_out:
            self.branches.append(nn.BatchNorm2d(channels_in))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the block to `x`."""
        first, *others = self.branches
        total: torch.Tensor = first(x)
        for branch in others:
            total = total + branch(x)
        return torch.relu(total)


class RepVGGNet(nn.Module):
    """A RepVGG of six blocks for grey 32×32 images: 3×3 next to 1×1, and the identity where it fits.

    Exercises what RepVGG's paper merges: a 1×1 kernel without padding is the middle of a padded 3×3 one, with
    stride 2 too, and an identity is a kernel with ones on its diagonal. All fifteen BatchNorms and six of
    the twelve convolutions go. The identities' BatchNorms can go in no other way: their source is read by the
    other branches.

    Shapes: `[N, 1, 32, 32]` to logits `[N, 10]`.
    """

    input_shape: ClassVar[tuple[int, ...]] = (1, 32, 32)

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            Branches(1, 16, (3, 1), stride=2),  # 16×16
            Branches(16, 16, (3, 1)),
            Branches(16, 32, (3, 1), stride=2),  # 8×8
            Branches(32, 32, (3, 1)),
            Branches(32, 32, (3, 1)),
            Branches(32, 64, (3, 1), stride=2),  # 4×4
        )
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Classify a batch `[N, 1, 32, 32]`: logits `[N, 10]`."""
        logits: torch.Tensor = self.head(self.blocks(x))
        return logits


class MobileOneNet(nn.Module):
    """A MobileOne of four pairs of depthwise and pointwise blocks for grey 32×32 images.

    Exercises many branches of one shape (four 3×3 depthwise ones, four 1×1 dense ones), a depthwise 1×1
    next to them, and identities that keep the groups of the convolutions that they join: a depthwise block
    has to become one depthwise convolution, since a dense one would cost more. All 41 BatchNorms and 29 of
    the 38 convolutions go.

    Shapes: `[N, 1, 32, 32]` to logits `[N, 10]`.
    """

    input_shape: ClassVar[tuple[int, ...]] = (1, 32, 32)

    def __init__(self) -> None:
        super().__init__()
        self.stem = Branches(1, 16, (3, 1), stride=2)  # 16×16
        self.blocks = nn.Sequential(
            *self._pair(16, 32),
            *self._pair(32, 48, stride=2),  # 8×8
            *self._pair(48, 48),
            *self._pair(48, 64, stride=2),  # 4×4
        )
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))

    @staticmethod
    def _pair(channels_in: int, channels_out: int, stride: int = 1) -> tuple[Branches, Branches]:
        depthwise = Branches(channels_in, channels_in, (3, 3, 3, 3, 1), stride, groups=channels_in)
        return depthwise, Branches(channels_in, channels_out, (1, 1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Classify a batch `[N, 1, 32, 32]`: logits `[N, 10]`."""
        logits: torch.Tensor = self.head(self.blocks(self.stem(x)))
        return logits
