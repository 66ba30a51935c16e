"""Trains the reference classifiers on the digits.

python -m models.train            the networks whose files are kept in models/
python -m models.train --all      every classifier
python -m models.train ConvNet    the networks named
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

import torch
from torch import nn

import models
from models import files
from models.digits import Digits, digits

SEED = 0
EPOCHS = 12
BATCH = 64
PEAK_LEARNING_RATE = 0.003  # chosen on splits within the training digits
TARGET = 0.97

Classifier = (
    models.ConvNet
    | models.CNNWithBatchNorm
    | models.SmallResNet
    | models.InvertedResidualNet
    | models.SequenceNet
    | models.RepVGGNet
    | models.MobileOneNet
    | models.PreActResNet
    | models.DenseNet
)
CLASSIFIERS: dict[str, type[Classifier]] = {network.__name__: network for network in get_args(Classifier)}
KEPT = {
    "ConvNet": "convnet.pt",
    "CNNWithBatchNorm": "cnn_with_batchnorm.pt",
    "RepVGGNet": "repvgg.pt2",
    "MobileOneNet": "mobileone.pt2",
    "PreActResNet": "preact_resnet.pt2",
    "DenseNet": "densenet.pt2",
}


def train(
    network_class: type[Classifier],
    data: Digits,
    *,
    seed: int = SEED,
    epochs: int = EPOCHS,
    on_epoch: Callable[[int, float], None] | None = None,
) -> Classifier:
    """Make a network and train it: Adam, cross entropy, one cycle of the learning rate.

    The held-out digits are not looked at, neither to stop nor to choose.

    Args:
        network_class: One of `CLASSIFIERS`.
        data: Digits in the shape that the network takes.
        seed: Fixes the initial weights and the order of the digits. Leaves torch's global seed set.
        epochs: Passes over the training digits.
        on_epoch: Called after every pass with its number, from 1, and its mean loss.

    Returns:
        The trained network, in eval mode.
    """
    torch.manual_seed(seed)
    network = network_class().train()
    optimizer = torch.optim.Adam(network.parameters(), lr=PEAK_LEARNING_RATE)
    steps = len(data.train_labels) // BATCH  # the digits left over differ from one epoch to the next
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=epochs * steps)
    for epoch in range(1, epochs + 1):
        total = 0.0
        for batch in torch.randperm(len(data.train_labels))[: steps * BATCH].view(steps, BATCH):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(network(data.train_images[batch]), data.train_labels[batch])
            loss.backward()  # type: ignore[no-untyped-call]  # torch left it so
            optimizer.step()
            schedule.step()
            total += loss.item()
        if on_epoch is not None:
            on_epoch(epoch, total / steps)
    return network.eval()


def held_out_accuracy(network: nn.Module, data: Digits) -> float:
    """Return the share, 0 to 1, of the held-out digits that `network` (in eval mode) gets right."""
    with torch.no_grad():
        predictions = network(data.test_images).argmax(dim=1)
    right = int((predictions == data.test_labels).sum())
    return right / len(data.test_labels)


def train_and_keep(name: str, folder: Path = files.FOLDER) -> float:
    """Train one classifier, print how it goes, and save it if its file is kept and it reached the target.

    Returns:
        Its accuracy on the held-out digits, 0 to 1.
    """
    network_class = CLASSIFIERS[name]
    data = digits(network_class.input_shape)
    start = time.perf_counter()
    network = train(
        network_class,
        data,
        on_epoch=lambda epoch, loss: print(f"{name}: epoch {epoch}/{EPOCHS}, loss {loss:.4f}", flush=True),
    )
    accuracy = held_out_accuracy(network, data)
    seconds = time.perf_counter() - start
    print(
        f"{name}: {accuracy:.2%} of {len(data.test_labels)} held-out digits, in {seconds:.0f} s", flush=True
    )
    if name in KEPT and accuracy >= TARGET:
        path = folder / KEPT[name]
        if isinstance(network, nn.Sequential):
            files.save(network, path)
        else:
            files.save_program(network, network.input_shape, path)
        print(f"{name}: saved to {path} ({path.stat().st_size:,} bytes)", flush=True)
    return accuracy


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; 1 if a network missed the target, which leaves its file as it was."""
    parser = argparse.ArgumentParser(prog="python -m models.train", description="Train the classifiers.")
    parser.add_argument("names", nargs="*", metavar="NETWORK", help=", ".join(CLASSIFIERS))
    parser.add_argument("--all", action="store_true", help="train every classifier")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.names) - set(CLASSIFIERS))
    if unknown:
        parser.error(f"no classifier is called {', '.join(unknown)}; choose from {', '.join(CLASSIFIERS)}")
    names = list(CLASSIFIERS) if options.all else options.names or list(KEPT)
    reached = {name: train_and_keep(name) for name in names}
    print()
    for name, accuracy in reached.items():
        verdict = "" if accuracy >= TARGET else f"  below {TARGET:.0%}"
        print(f"{name:<20} {accuracy:7.2%}{verdict}")
    return 0 if min(reached.values()) >= TARGET else 1


if __name__ == "__main__":
    # A fixed number of threads: sums are split among them, so another number gives other last bits.
    torch.set_num_threads(2)
    raise SystemExit(main())
