"""`bnfold.torch.fold` compared with `torch.fx.experimental.optimization.fuse`: what is left, and is it right.

    python -m benchmarks.torch_fold [--page FILE]

Six networks built as well-known libraries build them, and five small ones that need care. Everything is in
float64, so that an error is a mistake and not rounding. The table replaces the one between the two marks in
the page, docs/torch.md. Exits with 1 if bnfold's copy of any is off by more than 1e-12.
"""

from __future__ import annotations

import argparse
import copy
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.page import markdown_table, replaced, today
from bnfold.torch import fold
from bnfold.torch.write_back.trace_run import tensors
from bnfold.torch.write_back.verify_eager import relative_error
from models.batchnorms import seeded_statistics
from tests.torch.networks import example, trained

PAGE = Path(__file__).parent.parent / "docs" / "torch.md"
USUAL = ("resnet", "mobilenet", "repvgg", "dcgan", "pointnet", "levit")
LIMIT = 1e-12  # relative; above it a copy is called wrong
HEADER = ("network", "BatchNorms", "bnfold leaves", "error", "fx fuse leaves", "error")

Fold = Callable[[nn.Module, torch.Tensor], nn.Module]


class SharedConv(nn.Module):
    """One convolution on two paths, with a BatchNorm on one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shapes: `[N, 3, H, W]` to `[N, 4, H − 2, W − 2]`."""
        return torch.relu(self.bn(self.conv(x))) + self.conv(x.flip(0))


class BatchNormReLU(nn.BatchNorm2d):
    """A BatchNorm that activates as well, as timm's BatchNormAct2d."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.act = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shapes: `[N, C, H, W]` to the same."""
        activated: torch.Tensor = self.act(super().forward(x))
        return activated


def shared_conv() -> tuple[nn.Module, torch.Tensor]:
    """A convolution on two paths, a BatchNorm on one: the folded weights would be wrong on the other."""
    return SharedConv(), torch.randn(2, 3, 8, 8)


def linear_over_channels() -> tuple[nn.Module, torch.Tensor]:
    """`Linear(5)` over `[N, 5, 5]`: it maps the last axis, the BatchNorm scales the middle one."""
    return nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5)), torch.randn(4, 5, 5)


def activating_subclass() -> tuple[nn.Module, torch.Tensor]:
    """A subclass of BatchNorm2d with an activation, which has to stay when the BatchNorm goes."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), BatchNormReLU(4)), torch.randn(2, 3, 8, 8)


def forward_hook() -> tuple[nn.Module, torch.Tensor]:
    """A hook that changes what the convolution gives, before the BatchNorm gets it."""
    conv = nn.Conv2d(3, 4, 3)
    conv.register_forward_hook(_clamped)
    return nn.Sequential(conv, nn.BatchNorm2d(4)), torch.randn(2, 3, 8, 8)


def _clamped(module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
    del module, args
    return output.clamp(max=0.5)


def grouped_transposed() -> tuple[nn.Module, torch.Tensor]:
    """A ConvTranspose with groups, whose output channels stand on the weight's second axis, by group."""
    conv = nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(6)), torch.randn(2, 4, 5, 5)


AWKWARD: dict[str, Callable[[], tuple[nn.Module, torch.Tensor]]] = {
    "shared conv, BN on one path": shared_conv,
    "Linear → BN1d on (N, C, L)": linear_over_channels,
    "BN subclass with activation": activating_subclass,
    "forward hook on the conv": forward_hook,
    "grouped ConvTranspose → BN": grouped_transposed,
}


@dataclass(frozen=True)
class Outcome:
    """What one tool made of a network.

    Attributes:
        left: How many times a BatchNorm runs in its copy; None where there is none.
        error: Largest relative error against the original in float64.
        problem: Why there is no copy.
    """

    left: int | None = None
    error: float = 0.0
    problem: str = ""

    @property
    def cells(self) -> tuple[str, str]:
        """What is left, and the error."""
        if self.left is None:
            return "–", self.problem
        wrong = self.error > LIMIT
        error = f"{self.error:.0e}" if self.error else "0"
        return str(self.left), f"**wrong: {error}**" if wrong else error


@dataclass(frozen=True)
class Row:
    """One network: how many times a BatchNorm runs in it, and what both tools made of it."""

    name: str
    batchnorms: int
    ours: Outcome
    theirs: Outcome

    @property
    def cells(self) -> tuple[str, ...]:
        """The row in the order of the header."""
        return (self.name, str(self.batchnorms), *self.ours.cells, *self.theirs.cells)


class _Counter(TorchDispatchMode):
    """Counts the BatchNorms that run."""

    count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        self.count += "batch_norm" in func.__name__
        return func(*args, **(kwargs or {}))


def batchnorms_run(module: nn.Module, x: torch.Tensor) -> int:
    """How many times a BatchNorm runs when the module does, as a layer or as a function."""
    with torch.no_grad(), _Counter() as counter:
        module(x)
    return counter.count


def measure(name: str, module: nn.Module, x: torch.Tensor) -> Row:
    """Let both tools fold a network in float64 and compare."""
    module, x = copy.deepcopy(module).double().eval(), x.double()
    ours = outcome(lambda network, example: fold(network, example).module, module, x)
    theirs = outcome(fused, module, x)
    return Row(name, batchnorms_run(module, x), ours, theirs)


def fused(module: nn.Module, example: torch.Tensor) -> nn.Module:
    """PyTorch's own tool."""
    del example
    with warnings.catch_warnings():  # its module uses what torch itself advises against
        warnings.simplefilter("ignore", DeprecationWarning)
        from torch.fx.experimental.optimization import fuse
    return fuse(module)


def outcome(tool: Fold, module: nn.Module, x: torch.Tensor) -> Outcome:
    """Run one tool and judge its copy, on the example and on random inputs."""
    try:
        copied = tool(module, x)
    except Exception as error:  # each tool gives up in its own way
        return Outcome(problem=f"{type(error).__name__}")
    errors = [0.0]
    generator = torch.Generator().manual_seed(1)
    others = (torch.randn(x.shape, generator=generator, dtype=x.dtype) for _ in range(4))
    with torch.no_grad():
        for some in (x, *others):
            pairs = zip(tensors(module(some)), tensors(copied(some)), strict=True)
            errors += [relative_error(one, other) for one, other in pairs]
    return Outcome(batchnorms_run(copied, x), max(errors))


def rows() -> list[Row]:
    """All networks, seeded."""
    measured = [measure(name, trained(name), example(name)) for name in USUAL]
    for name, make in AWKWARD.items():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            module, x = make()
        measured.append(measure(name, seeded_statistics(module), x))
    return measured


def table(measured: Sequence[Row]) -> str:
    """The rows in Markdown, with when and by what they were measured."""
    version = torch.__version__.partition("+")[0]
    lines = [
        f"Measured on {today()} with torch {version}:",
        "",
        "```console\n$ python -m benchmarks.torch_fold\n```",
        "",
        *markdown_table(HEADER, (row.cells for row in measured)),
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.torch_fold", description=__doc__)
    parser.add_argument("--page", type=Path, default=PAGE, metavar="FILE", help="where the table stands")
    options = parser.parse_args(arguments)
    measured = rows()
    text = table(measured)
    print(text)
    page = options.page.read_text(encoding="utf-8")
    options.page.write_text(replaced(page, text), encoding="utf-8")
    return int(any(row.ours.left is None or row.ours.error > LIMIT for row in measured))


if __name__ == "__main__":
    sys.exit(main())
