"""A network over sequences."""

from __future__ import annotations

from typing import ClassVar

from torch import nn


class SequenceNet(nn.Sequential):
    """Reads an image as a sequence: 32 features (its rows) over 32 steps (its columns).

    Exercises one-dimensional convolutions (plain, grouped with a stride, dilated), and BatchNorm1d in both
    its meanings: over `[N, C, L]` after a convolution (three of them) and over `[N, C]` after a Linear (one).
    All four fold.

    Shapes: `[N, 32, 32]`, features before steps, to logits `[N, 10]`.
    """

    input_shape: ClassVar[tuple[int, ...]] = (32, 32)

    def __init__(self) -> None:
        super().__init__(
            nn.Conv1d(32, 48, kernel_size=3, padding=1, bias=False),  # 32 steps
            nn.BatchNorm1d(48),
            nn.ReLU(),
            nn.Conv1d(48, 64, kernel_size=3, stride=2, padding=1, groups=2),  # 16 steps
            nn.BatchNorm1d(64),
            nn.ReLU(),
            nn.Conv1d(64, 64, kernel_size=3, padding=2, dilation=2),
            nn.BatchNorm1d(64),
            nn.ReLU(),
            nn.AdaptiveAvgPool1d(4),
            nn.Flatten(),
            nn.Linear(64 * 4, 64),
            nn.BatchNorm1d(64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )
