"""A camera's pictures into a classifier: preprocessing before the model, and in its graph.

    python -m benchmarks.contract [MODEL.onnx ...] [--page FILE]

Two small networks, with and without a border around the first convolution, are trained on digits in red or
blue ink, so that the order of the channels matters. Each is exported twice: as it is, for pictures that NumPy
prepares; and with `Contract`, for bytes `[N, H, W, C]` in the order BGR. Both classify the held-out pictures.
Other models of three channels are only timed. Time is that of the processor, per picture, for one thread of
ONNX Runtime at its default, the least of several rounds; NumPy's preparation counts where there is one.

Exits with 1 if one prediction differs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

import bnfold
from benchmarks.page import markdown_table, replaced, today
from bnfold import Contract, Preprocessing
from bnfold.graph.nodes import count_nodes
from bnfold.runtime.interface import interface
from bnfold.runtime.sessions import session
from bnfold.system.environment import environment
from models.digits import digits

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CAMERA = Preprocessing(MEAN, STD, "1/255", bgr=True, uint8=True, channels_last=True)
EPOCHS, BATCH, ROUNDS = 15, 64, 200
HEADER = (
    *("network", "predictions the same", "accuracy before", "after", "largest difference"),
    *("nodes in the graph, unfolded", "folded", "stay"),
    *("µs: NumPy, then the model", "in the graph, unfolded", "folded"),
)

Pictures = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True)
class Coloured:
    """Digits in red or blue ink on white.

    Attributes:
        pictures: Bytes `[N, 32, 32, 3]` in the order RGB.
        labels: The digit, and 10 more where the ink is blue.
    """

    pictures: Pictures
    labels: np.ndarray[Any, np.dtype[np.int64]]


def coloured() -> tuple[Coloured, Coloured]:
    """What to train on, and what is held out."""
    data, draw = digits((1, 32, 32)), np.random.default_rng(0)
    low, high = data.train_images.min(), data.train_images.max()
    made = []
    for images, labels in (
        (data.train_images, data.train_labels),
        (data.test_images, data.test_labels),
    ):
        ink = ((images - low) / (high - low)).clamp(0, 1).numpy()[:, 0, :, :, None]
        blue = draw.integers(0, 2, len(ink))
        absorbed = np.where(blue[:, None] == 1, [0.9, 0.7, 0.1], [0.1, 0.7, 0.9])[:, None, None, :]
        pixels = 255 * (1 - ink * absorbed) + draw.normal(0, 4, (*ink.shape[:3], 3))
        made.append(Coloured(pixels.clip(0, 255).astype(np.uint8), labels.numpy() + 10 * blue))
    return made[0], made[1]


def prepared(pictures: Pictures) -> np.ndarray[Any, np.dtype[np.float32]]:
    """What the networks are trained on: `[N, 3, H, W]`, normalised, from RGB."""
    values = (pictures.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2))


def trained(border: int, data: Coloured) -> nn.Module:
    """A small network with that much padding in its first convolution."""
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(3, 16, 3, stride=2, padding=border, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 20)),
    )
    images, labels = torch.from_numpy(prepared(data.pictures)), torch.from_numpy(data.labels)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(images)).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images[rows]), labels[rows]).backward()
            optimizer.step()
    return net.eval()


def cpu_microseconds(calls: Sequence[Callable[[], object]]) -> list[float]:
    """The least processor time of each of several calls, which take turns, in microseconds."""
    times: list[list[int]] = [[] for _ in calls]
    for _ in range(ROUNDS):
        for call, own in zip(calls, times, strict=True):
            start = time.process_time_ns()
            call()
            own.append(time.process_time_ns() - start)
    return [min(own) / 1e3 for own in times]


@dataclass(frozen=True)
class Models:
    """One network in three forms: without preprocessing, with it unfolded, with it folded."""

    plain: ir.Model
    unfolded: ir.Model
    folded: ir.Model
    stay: str


def forms(file: Path, folder: Path) -> Models:
    """Export a file without preprocessing and with it."""
    plain = bnfold.export(file, folder / "plain.onnx", bench=False, samples=1)
    done = bnfold.export(
        file, folder / "camera.onnx", contract=Contract(preprocessing=CAMERA), bench=False, samples=2
    )
    left = [name.split()[0] for name in done.contract[-1].details["left"]]
    return Models(plain.fold.model, done.original, done.fold.model, ", ".join(left) or "none")


def times(made: Models, picture: Pictures) -> list[str]:
    """The three times per picture; `picture` is `[1, H, W, 3]` in RGB."""
    plain, unfolded, folded = (
        session(model, optimized="default", threads=1) for model in (made.plain, made.unfolded, made.folded)
    )
    name = interface(made.plain).inputs[0].name
    bgr = np.ascontiguousarray(picture[..., ::-1])
    calls = (
        lambda: plain.run(None, {name: prepared(np.ascontiguousarray(bgr[..., ::-1]))}),
        lambda: unfolded.run(None, {name: bgr}),
        lambda: folded.run(None, {name: bgr}),
    )
    return [f"{least:,.0f}" for least in cpu_microseconds(calls)]


def nodes(made: Models) -> list[str]:
    """How many nodes the two forms with preprocessing have, and which of it stay."""
    return [str(count_nodes(made.unfolded)), str(count_nodes(made.folded)), made.stay]


def classified(made: Models, data: Coloured) -> tuple[list[str], bool]:
    """The predictions of the two forms on all pictures, and whether they are the same."""
    plain, folded = (session(model, optimized="default", threads=1) for model in (made.plain, made.folded))
    name = interface(made.plain).inputs[0].name
    before = plain.run(None, {name: prepared(data.pictures)})[0]
    after = folded.run(None, {name: np.ascontiguousarray(data.pictures[..., ::-1])})[0]
    same = int((before.argmax(1) == after.argmax(1)).sum())
    right = [f"{(found.argmax(1) == data.labels).mean():.2%}" for found in (before, after)]
    off = np.abs(before - after).max() / np.abs(before).max()
    return [f"{same} of {len(before)}", *right, f"{off:.1e}"], same == len(before)


def own_networks(folder: Path) -> tuple[list[list[str]], bool]:
    """A row for each network that is trained here."""
    train, test = coloured()
    rows, good = [], True
    for title, border in (("digits, no border", 0), ("digits, padded by 1", 1)):
        net, file = trained(border, train), folder / f"border{border}.onnx"
        batch = torch.export.Dim("batch")
        example = (torch.from_numpy(prepared(train.pictures[:2])),)
        program = torch.onnx.export(
            net, example, dynamo=True, dynamic_shapes=({0: batch},), optimize=False, verbose=False
        )
        assert program is not None
        program.save(file)
        made = forms(file, folder)
        figures, same = classified(made, test)
        good &= same
        rows.append([title, *figures, *nodes(made), *times(made, test.pictures[:1])])
    return rows, good


def others(files: Sequence[Path], folder: Path) -> list[list[str]]:
    """A row for each of other models, which are only timed."""
    rows = []
    for file in files:
        made = forms(file, folder)
        _, height, width, _ = interface(made.folded).inputs[0].shape or ()
        size = (1, *(one if isinstance(one, int) else 224 for one in (height, width)), 3)
        picture = np.random.default_rng(0).integers(0, 256, size).astype(np.uint8)
        rows.append([file.stem, "–", "–", "–", "–", *nodes(made), *times(made, picture)])
    return rows


def main() -> int:
    """Train, export, classify, time, and print or write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--page", type=Path, help="a page whose table is replaced")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows, good = own_networks(Path(folder))
        rows += others(asked.models, Path(folder))
    table = "\n".join(markdown_table(HEADER, rows))
    print(table)
    if asked.page is not None:
        said = f"Measured on {today()}, on {environment().cpu}."
        asked.page.write_text(replaced(asked.page.read_text(), f"{table}\n\n{said}"))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
