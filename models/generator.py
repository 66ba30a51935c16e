"""A generator of images by transposed convolutions, as in DCGAN."""

from __future__ import annotations

from typing import ClassVar

from torch import nn


class Generator(nn.Sequential):
    """Grows a latent vector into a grey 32×32 image.

    Exercises transposed convolutions, whose weight is `[C_in, C_out / groups, k, k]`: the output channels lie
    along the second axis, and with groups (the third layer has two) each group's inputs hold only its own
    outputs. The three BatchNorms fold. It is not trained: give it statistics with
    [`seeded_statistics`][models.seeded_statistics].

    Shapes: latent `[N, 16, 1, 1]` to images `[N, 1, 32, 32]` within −1 … 1.
    """

    input_shape: ClassVar[tuple[int, ...]] = (16, 1, 1)

    def __init__(self) -> None:
        super().__init__(
            nn.ConvTranspose2d(16, 64, kernel_size=4, bias=False),  # 4×4
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.ConvTranspose2d(64, 32, kernel_size=4, stride=2, padding=1, bias=False),  # 8×8
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 16, kernel_size=4, stride=2, padding=1, groups=2),  # 16×16
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.ConvTranspose2d(16, 1, kernel_size=4, stride=2, padding=1),  # 32×32
            nn.Tanh(),
        )
