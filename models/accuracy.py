"""Compares a trained file with the ONNX model made from it, on the held-out digits.

    python -m models.accuracy models/convnet.pt out/convnet.onnx
    python -m models.accuracy models/repvgg.pt2 out/repvgg.onnx

PyTorch runs the first and ONNX Runtime the second. Exits with 0 if every prediction is the same, with 1 if
any differs, with 2 if the two could not be compared.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch
from torch import nn

from models import files
from models.digits import Digits, digits

Labels = npt.NDArray[np.int64]


def onnx_predictions(session: ort.InferenceSession, images: npt.NDArray[np.float32]) -> Labels:
    """Classify images `[N, …]` by a model whose batch is free or fixed at any size: labels `[N]`."""
    model_input = session.get_inputs()[0]
    size = model_input.shape[0] if isinstance(model_input.shape[0], int) else len(images)
    logits = []
    for start in range(0, len(images), size):
        # The last batch is filled up with the first images; what they give is cut off below.
        indices = np.arange(start, start + size) % len(images)
        logits.append(session.run(None, {model_input.name: images[indices]})[0])
    labels: Labels = np.concatenate(logits)[: len(images)].argmax(axis=1)
    return labels


def torch_predictions(network: nn.Module, images: torch.Tensor) -> Labels:
    """Classify images `[N, …]` by a module in eval mode: labels `[N]`."""
    with torch.no_grad():
        labels: Labels = network(images).argmax(dim=1).numpy()
    return labels


def compare(trained: Path, exported: Path) -> tuple[Digits, Labels, Labels]:
    """Run both models on the held-out digits, in the shape that the ONNX model's input has.

    Returns:
        The digits, PyTorch's predictions `[N]` and ONNX Runtime's `[N]`.

    Raises:
        ValueError: If a file cannot be read, or the two do not both take the digits.
    """
    network = files.load(trained)
    try:
        session = ort.InferenceSession(exported, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no narrower base
        raise ValueError(f"{exported} is not an ONNX model that ONNX Runtime can run.") from error
    shape = tuple(session.get_inputs()[0].shape[1:])
    data = digits(shape)
    try:
        before = torch_predictions(network, data.test_images)
    except (RuntimeError, AssertionError) as error:  # a program checks its sizes by assertions
        raise ValueError(f"{trained} does not take {shape}, as {exported} does.") from error
    return data, before, onnx_predictions(session, data.test_images.numpy())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script."""
    parser = argparse.ArgumentParser(
        prog="python -m models.accuracy", description="Compare a trained model with its ONNX export."
    )
    parser.add_argument("trained", type=Path, metavar="MODEL.pt")
    parser.add_argument("exported", type=Path, metavar="MODEL.onnx")
    options = parser.parse_args(arguments)
    for path in (options.trained, options.exported):
        if not path.is_file():
            parser.error(f"{path} is not there; make it first")
    try:
        data, before, after = compare(options.trained, options.exported)
    except ValueError as error:
        parser.error(str(error))
    labels = data.test_labels.numpy()
    differing = int((before != after).sum())
    print(f"Held-out digits: {len(labels)}, of shape {tuple(data.test_images.shape[1:])}")
    print(f"PyTorch, {options.trained}: {(before == labels).mean():.2%} right")
    print(f"ONNX Runtime, {options.exported}: {(after == labels).mean():.2%} right")
    print(f"Predictions that differ: {differing}")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
