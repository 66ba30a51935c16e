"""The files that torch.onnx's two exporters write of one network of models/, in several ways.

    python -m benchmarks.exporters NETWORK FOLDER

writes `0.onnx`, `1.onnx`, … in the order of `NAMES`. Statistics are random, so that no BatchNorm is nearly
the identity. The trace-based exporter gives the input and the output other names and leaves the batch open as
well, as its own documentation shows.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

NAMES = ("dynamo", "dynamo, optimize=False", "trace", "trace, constant folding off")
WAYS: tuple[Mapping[str, Any], ...] = (
    {"dynamo": True},
    {"dynamo": True, "optimize": False},
    {"dynamo": False, "input_names": ["input"], "output_names": ["logits"]},
    {
        "dynamo": False,
        "do_constant_folding": False,
        "input_names": ["input"],
        "output_names": ["logits"],
        "opset_version": 13,
    },
)
# Networks, and the shape of their input without the batch.
NETWORKS: Mapping[str, tuple[int, ...]] = {
    "ConvNet": (1, 32, 32),
    "CNNWithBatchNorm": (3, 32, 32),
    "SmallResNet": (1, 32, 32),
    "InvertedResidualNet": (1, 32, 32),
    "SequenceNet": (32, 32),
    "RepVGGNet": (1, 32, 32),
    "MobileOneNet": (1, 32, 32),
    "PreActResNet": (1, 32, 32),
    "DenseNet": (1, 32, 32),
    "Generator": (16, 1, 1),
}


def main(arguments: Sequence[str]) -> None:
    """Export one network in every way."""
    import torch

    import models

    name, folder = arguments
    torch.manual_seed(0)
    network = models.seeded_statistics(getattr(models, name)().eval())
    example = torch.randn(2, *NETWORKS[name])
    for number, way in enumerate(WAYS):
        path = str(Path(folder) / f"{number}.onnx")
        batch = {0: torch.export.Dim("batch", min=1)}
        sizes: Mapping[str, Any] = (
            {"dynamic_shapes": (batch,)}
            if way["dynamo"]
            else {"dynamic_axes": {"input": {0: "batch"}, "logits": {0: "batch"}}}
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporters, about themselves
            torch.onnx.export(network, (example,), path, external_data=False, **way, **sizes)


if __name__ == "__main__":
    main(sys.argv[1:])
