"""Networks without branches: every BatchNorm has one linear layer before it and nothing in between."""

from __future__ import annotations

from collections import OrderedDict
from typing import ClassVar

from torch import nn


class ConvNet(nn.Sequential):
    """LeNet for grey 32×32 images, with a BatchNorm after every hidden linear layer.

    Exercises the two plainest folds, each with a bias that is already there: BatchNorm2d into Conv2d (two of
    them) and BatchNorm1d into Linear (two of them, which ONNX calls Gemm). All four fold.

    Shapes: `[N, 1, 32, 32]` to logits `[N, 10]`.
    """

    input_shape: ClassVar[tuple[int, ...]] = (1, 32, 32)

    def __init__(self) -> None:
        super().__init__(
            OrderedDict[str, nn.Module](
                conv1=nn.Conv2d(1, 6, kernel_size=5),  # 28×28
                bn1=nn.BatchNorm2d(6),
                relu1=nn.ReLU(),
                pool1=nn.MaxPool2d(2),  # 14×14
                conv2=nn.Conv2d(6, 16, kernel_size=5),  # 10×10
                bn2=nn.BatchNorm2d(16),
                relu2=nn.ReLU(),
                pool2=nn.MaxPool2d(2),  # 5×5
                flatten=nn.Flatten(),
                fc1=nn.Linear(400, 120),
                bn3=nn.BatchNorm1d(120),
                relu3=nn.ReLU(),
                fc2=nn.Linear(120, 84),
                bn4=nn.BatchNorm1d(84),
                relu4=nn.ReLU(),
                fc3=nn.Linear(84, 10),
            )
        )


class CNNWithBatchNorm(nn.Sequential):
    """The smallest useful network for colour 32×32 images: one convolution, one BatchNorm, one classifier.

    Exercises a single fold into a padded convolution. Folding towards the producer is exact in spite of the
    padding, because the affine acts on the convolution's output, which the padding does not touch.

    Shapes: `[N, 3, 32, 32]` to logits `[N, 10]`.
    """

    input_shape: ClassVar[tuple[int, ...]] = (3, 32, 32)

    def __init__(self) -> None:
        super().__init__(
            OrderedDict[str, nn.Module](
                conv=nn.Conv2d(3, 16, kernel_size=3, padding=1),  # 32×32
                bn=nn.BatchNorm2d(16),
                relu=nn.ReLU(),
                pool=nn.MaxPool2d(2),  # 16×16
                flatten=nn.Flatten(),
                fc=nn.Linear(16 * 16 * 16, 10),
            )
        )
