"""Scikit-learn's handwritten digits as the reference networks take them: real data that needs no download."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn.functional import interpolate

SPLIT_SEED = 0
HELD_OUT = 0.25


@dataclass(frozen=True)
class Digits:
    """1797 handwritten digits, a quarter of them held out.

    Attributes:
        train_images: Float32 `[1347, *shape]`, normalised.
        train_labels: Int64 `[1347]`, 0 to 9.
        test_images: Float32 `[450, *shape]`, normalised as the training images are; never trained on.
        test_labels: Int64 `[450]`.
    """

    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor


def digits(shape: tuple[int, ...]) -> Digits:
    """Load the digits for a network whose input, without the batch, has this shape.

    The 8×8 images are resized to 32×32 (bilinear) and shifted and scaled so that the training images' pixels
    have mean 0 and standard deviation 1. The held-out split is the same at every call: stratified by label,
    with a fixed seed.

    Args:
        shape: `(1, 32, 32)` for grey images, `(3, 32, 32)` for the same grey in each of three channels,
            `(32, 32)` for sequences whose features are the rows and whose steps are the columns.

    Raises:
        ValueError: For any other shape.
    """
    if shape not in {(1, 32, 32), (3, 32, 32), (32, 32)}:
        raise ValueError(f"The digits come as (1, 32, 32), (3, 32, 32) or (32, 32), not as {shape}.")
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8)
    images = interpolate(images, size=(32, 32), mode="bilinear", align_corners=False)
    images = images.expand(-1, 3, -1, -1) if shape[0] == 3 else images.reshape(-1, *shape)
    targets = torch.tensor(labels, dtype=torch.int64)

    train, test = train_test_split(
        torch.arange(len(targets)).numpy(), test_size=HELD_OUT, stratify=labels, random_state=SPLIT_SEED
    )
    std, mean = torch.std_mean(images[train])
    images = (images - mean) / std
    return Digits(images[train], targets[train], images[test], targets[test])
