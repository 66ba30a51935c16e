"""The reference networks: small models, each of which exercises another side of folding.

Six of them are trained and kept here as files: see `README.md`, `train.py` and `accuracy.py`. This folder is
not installed with bnfold; its scripts are run from the project's root, as in `python -m models.train`.
"""

from __future__ import annotations

from models.batchnorms import batchnorms, seeded_statistics
from models.branches import MobileOneNet, RepVGGNet
from models.dense import DenseNet
from models.generator import Generator
from models.inverted_residual import InvertedResidualNet
from models.plain import CNNWithBatchNorm, ConvNet
from models.preactivated import PreActResNet
from models.resnet import SmallResNet
from models.sequence import SequenceNet

__all__ = [
    "CNNWithBatchNorm",
    "ConvNet",
    "DenseNet",
    "Generator",
    "InvertedResidualNet",
    "MobileOneNet",
    "PreActResNet",
    "RepVGGNet",
    "SequenceNet",
    "SmallResNet",
    "batchnorms",
    "seeded_statistics",
]
