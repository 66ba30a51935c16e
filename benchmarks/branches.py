"""Networks of parallel branches: as trained, as their author merges them, and as bnfold does.

    python -m benchmarks.branches [NAME ...] [--seconds NUMBER] [--markdown FILE]

Names are timm's; the extra `benchmarks` brings timm. Every network is made with seeded weights and statistics
and exported twice, as it is and after timm's `reparameterize_model`, which calls the author's own method;
bnfold sees the first file alone. Exits with 1 if what bnfold makes of it computes anything else.
"""

from __future__ import annotations

import argparse
import importlib
import platform
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch import nn

import bnfold
from benchmarks.page import markdown_table
from bnfold.graph.nodes import count_nodes
from bnfold.latency import benchmark
from bnfold.torch import Loaded, to_onnx
from models.batchnorms import seeded_statistics

DEFAULT = ("mobileone_s0", "repvgg_a0", "fastvit_t8", "ghostnetv3_100", "repvit_m0_9")
SHAPE = (1, 3, 224, 224)
SEED = 0
SECONDS = 40.0
HEADER = (
    "model",
    "Convs",
    "BatchNorms",
    "nodes",
    "error",
    "as trained",
    "author",
    "bnfold",
    "bnfold / author",
    "as trained / bnfold",
)
NOTE = (
    "Convs, BatchNorms and nodes are those of the network as trained, of the author's and of bnfold's; "
    "Constant nodes do not count. The error is max|a − b| / max|a| of bnfold's outputs against those of the "
    "network as trained, in ONNX Runtime with its optimizer off. Latencies are medians in milliseconds in "
    "ONNX Runtime's default session on one thread, at {shape}. Each of the two ratios, with its 95 % "
    "interval, comes from one run in which two models take turns in random order, as in `bnfold bench`: "
    "below 1, bnfold's model is faster than the author's; above 1, it is faster than the network as trained."
)

Reparameterise = Callable[[nn.Module], nn.Module]
_DECLARED: list[torch.library.Library] = []  # a library takes its schemas with it when it goes


@dataclass(frozen=True)
class Count:
    """What is in a model: convolutions, BatchNorms, and all nodes but constants."""

    convs: int
    batchnorms: int
    nodes: int


@dataclass(frozen=True)
class Row:
    """One network.

    Attributes:
        name: Its name.
        counts: Of the network as trained, the author's and bnfold's.
        error: Relative error of bnfold's against the network as trained, the optimizer off.
        failures: Sentences on where the two disagree.
        author: Latency of the author's against bnfold's.
        gain: Latency of the network as trained against bnfold's.
    """

    name: str
    counts: tuple[Count, Count, Count]
    error: float
    failures: tuple[str, ...]
    author: benchmark.Row
    gain: benchmark.Row

    @property
    def cells(self) -> tuple[str, ...]:
        """The row in the order of the header."""
        author, gain = self.author, self.gain
        return (
            self.name,
            *(
                " / ".join(str(getattr(c, of)) for c in self.counts)
                for of in ("convs", "batchnorms", "nodes")
            ),
            f"{self.error:.0e}",
            *(f"{ms:.2f}" for ms in (gain.original_ms, author.original_ms, author.folded_ms)),
            f"{1 / author.ratio:.3f} ({1 / author.high:.3f} to {1 / author.low:.3f})",
            f"{gain.ratio:.2f} ({gain.low:.2f} to {gain.high:.2f})",
        )


def import_timm() -> Any:
    """Import timm, which imports torchvision, also where torchvision's compiled operators do not fit torch.

    No network here runs them; that they are declared is all that torchvision's Python part asks for.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for name in ("nms", "qnms"):
            schema = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            library.define(schema)  # type: ignore[no-untyped-call]
        _DECLARED.append(library)
    return importlib.import_module("timm")


def create(timm: Any, name: str) -> nn.Module:
    """Make one of timm's networks in eval mode, its weights and its statistics seeded."""
    torch.manual_seed(SEED)
    network: nn.Module = timm.create_model(name, pretrained=False)
    return seeded_statistics(network, SEED).eval()


def measure(
    name: str,
    network: nn.Module,
    reparameterise: Reparameterise,
    shape: Sequence[int] = SHAPE,
    seconds: float = SECONDS,
) -> Row:
    """Export a network as it is and as its author merges it, fold the first, compare and time all three.

    Args:
        name: For the table.
        network: In eval mode.
        reparameterise: Gives the author's merged module, and leaves the network as it is.
        shape: Of the input, with the batch.
        seconds: How long to time, in all.
    """
    example = [torch.zeros(*shape)]
    trained, author = (
        to_onnx(Loaded(module, "module", was_training=False), example)
        for module in (network, reparameterise(network).eval())
    )
    ours = bnfold.fold(trained).model
    agreement = bnfold.validate(trained, ours, seed=SEED, threads=1)
    return Row(
        name,
        (count(trained), count(author), count(ours)),
        max((check.max_rel or 0.0 for check in agreement.checks if check.optimizer == "off"), default=0.0),
        agreement.failures,
        _default(author, ours, seconds / 2),
        _default(trained, ours, seconds / 2),
    )


def count(model: ir.Model) -> Count:
    """Count what is in the main graph of a model."""
    operators = Counter(node.op_type for node in model.graph)
    return Count(operators["Conv"], operators["BatchNormalization"], count_nodes(model))


def _default(first: ir.Model, second: ir.Model, seconds: float) -> benchmark.Row:
    timed = bnfold.benchmark(first, second, seconds=seconds, seed=SEED)
    return next(row for row in timed.rows if row.optimizer == "default")


def markdown(rows: Sequence[Row], command: str) -> str:
    """The rows as a page section: the date, the command, the versions and the table."""
    versions = [f"bnfold {bnfold.__version__}"]
    versions += [f"{name} {metadata.version(name)}" for name in ("onnxruntime", "timm", "torch", "onnx")]
    versions.append(f"Python {platform.python_version()}")
    lines = [
        f"Measured on {date.today():%Y-%m-%d} with {', '.join(versions)}:",
        "",
        f"```console\n$ {command}\n```",
        "",
        NOTE.format(shape="×".join(map(str, SHAPE))),
        "",
        *markdown_table(HEADER, (row.cells for row in rows)),
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.branches", description="Compare merged branches with the author's."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"timm's names; {', '.join(DEFAULT)}")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, metavar="NUMBER", help="how long to time each network"
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there, dated")
    options = parser.parse_args(arguments)
    try:
        timm = import_timm()
    except ModuleNotFoundError as error:
        parser.error(f"{error.name} is not installed; type: pip install -e '.[benchmarks]'")
    names = options.names or DEFAULT
    unknown = sorted(set(names) - set(timm.list_models()))
    if unknown:
        parser.error(f"timm has no model called {', '.join(unknown)}")
    rows = []
    for name in names:
        print(f"{name} …", file=sys.stderr, flush=True)
        network = create(timm, name)
        rows.append(measure(name, network, timm.utils.model.reparameterize_model, seconds=options.seconds))
    command = shlex.join(["python", "-m", "benchmarks.branches", *(arguments or sys.argv[1:])])
    page = markdown(rows, command)
    print(page)
    failures = [f"{row.name}: {sentence}" for row in rows for sentence in row.failures]
    for line in failures:
        print(line, file=sys.stderr)
    if options.markdown is not None:
        options.markdown.write_text(page, encoding="utf-8")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
