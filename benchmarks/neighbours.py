"""BatchNorms that bnfold and similar tools leave, and whether what they write computes the same.

    python -m benchmarks.neighbours MODELS_DIR [NAME ...] [--markdown FILE]

Needs the extra `benchmarks`; a tool that is not installed is left out and listed. Exits with 1 if bnfold's
file fails or disagrees with the original; what the other tools do is only reported.
"""

from __future__ import annotations

import argparse
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from rich.console import Console
from rich.table import Table

from benchmarks.page import markdown_table
from benchmarks.tools import TOOLS, Tool
from bnfold.errors import BnfoldError
from bnfold.folding.recognise import chains, is_batchnorm
from bnfold.graph.facts import Facts
from bnfold.graph.nodes import count_nodes
from bnfold.graph.scopes import scopes
from bnfold.inputs import samples
from bnfold.runtime import agreement, sessions
from bnfold.runtime.interface import interface

ROOT = Path(__file__).parent.parent
SIZES = samples.Sizing(batch=2, channels=2, length=2)
TIME_LIMIT = 600.0  # seconds a tool may take for one model
HEADER = ("model", "BatchNorms", *TOOLS, "nodes")
NOTE = (
    "Each tool's column is what it leaves, then the relative error max|a − b| / max|a| of its file against "
    "the original, both in ONNX Runtime with its optimizer off, on one seeded standard normal input with "
    "symbolic dimensions at 2; more than {tolerance:.0e} is called wrong. BatchNormalization nodes are "
    "counted in all graphs and functions; the number after a plus sign counts scales per channel that are "
    "written as Mul or Div. The last column is the number of nodes before and after bnfold, Constant nodes "
    "left out."
)


@dataclass(frozen=True)
class Count:
    """What is in a model.

    Attributes:
        batchnorms: BatchNormalization nodes, in all graphs and functions.
        disguised: Chains of Mul, Div, Add and Sub with constants that scale channels differently.
        nodes: All nodes but constants.
    """

    batchnorms: int
    disguised: int
    nodes: int

    def __str__(self) -> str:
        return f"{self.batchnorms} + {self.disguised}" if self.disguised else str(self.batchnorms)


@dataclass(frozen=True)
class Outcome:
    """What a tool did to one model.

    Attributes:
        count: What it left; None where it wrote nothing that can be read.
        error: Relative error against the original; None where nothing was compared.
        problem: What is wrong with the file, as a sentence; None where it is good.
    """

    count: Count | None = None
    error: float | None = None
    problem: str | None = None

    def __str__(self) -> str:
        if self.count is None:
            return "error"
        wrong = "wrong " if self.problem is not None else ""
        error = "other shapes" if self.error is None else f"{self.error:.0e}" if self.error else "0"
        return f"{self.count} ({wrong}{error})"


@dataclass(frozen=True)
class Reference:
    """What the original computes: its inputs by name, and its outputs."""

    feeds: sessions.Feeds
    outputs: Sequence[object]


@dataclass(frozen=True)
class Row:
    """One model: what it holds, and what every installed tool made of it."""

    name: str
    original: Count
    outcomes: dict[str, Outcome]

    @property
    def cells(self) -> tuple[str, ...]:
        """The row in the order of the header."""
        tools = (str(self.outcomes[name]) if name in self.outcomes else "not installed" for name in TOOLS)
        folded = self.outcomes["bnfold"].count
        after = "error" if folded is None else str(folded.nodes)
        return (self.name, str(self.original), *tools, f"{self.original.nodes} → {after}")


def count(model: ir.Model) -> Count:
    """Count the nodes of a model, its BatchNorms, and those written as other operators."""
    facts = Facts(model)
    everywhere = tuple(scopes(model))
    found = (chain for scope in everywhere for chain in chains(scope, facts, ()))
    return Count(
        batchnorms=sum(is_batchnorm(node) for scope in everywhere for node in scope.graph),
        disguised=sum(chain.normalises and not chain.batchnorms for chain in found),
        nodes=count_nodes(model),
    )


def measure(path: Path, tools: Sequence[Tool], time_limit: float = TIME_LIMIT) -> Row:
    """Run every tool on one file, each in its own process, and judge what it wrote.

    Raises:
        BnfoldError: ONNX Runtime cannot run the original.
    """
    truth = reference(path)
    outcomes = {}
    with tempfile.TemporaryDirectory() as folder:
        for tool in tools:
            target = Path(folder) / f"{tool.package}.onnx"
            problem = convert(tool, path, target, time_limit)
            outcomes[tool.name] = Outcome(problem=problem) if problem else judge(target, truth)
            target.unlink(missing_ok=True)
    return Row(path.stem, count(ir.load(path)), outcomes)


def reference(path: Path) -> Reference:
    """Run a model on one seeded input, the optimizer off.

    Raises:
        BnfoldError: ONNX Runtime cannot run it.
    """
    feeds = samples.draw(interface(ir.load(path)).inputs, SIZES, seed=0)
    return Reference(feeds, sessions.run(sessions.session(path, optimized="off"), feeds))


def convert(tool: Tool, source: Path, target: Path, time_limit: float) -> str | None:
    """Run one tool; the sentence says what went wrong."""
    command = [sys.executable, "-m", "benchmarks.tools", tool.name, str(source.resolve()), str(target)]
    try:
        done = subprocess.run(
            command, cwd=ROOT, timeout=time_limit, capture_output=True, text=True, check=False
        )
    except subprocess.TimeoutExpired:
        return f"It was stopped after {time_limit:g} seconds."
    if done.returncode == 0 and target.is_file():
        return None
    last = done.stderr.strip().splitlines()[-1:] or ["no message"]
    return f"It ended with exit code {done.returncode}: {last[0]}"


def judge(target: Path, truth: Reference) -> Outcome:
    """Count what is left in a file and compare what it computes with what the original did."""
    try:
        left = count(ir.load(target))
        actual = sessions.run(sessions.session(target, optimized="off"), truth.feeds)
    except (BnfoldError, onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        return Outcome(problem=f"What it wrote cannot be read or run: {error}")
    if len(actual) != len(truth.outputs):
        return Outcome(left, problem=f"It has {len(actual)} outputs instead of {len(truth.outputs)}.")
    outcome = agreement.Agreement()
    for one, other in zip(truth.outputs, actual, strict=True):
        kind = str(np.asarray(one).dtype)
        outcome = outcome.worst(agreement.compare(one, other, agreement.TOLERANCES.get(kind, 0.0)))
    return Outcome(left, outcome.max_rel, outcome.problem)


def table(rows: Sequence[Row]) -> Table:
    """The rows for a terminal."""
    made = Table(*HEADER, box=None, pad_edge=False)
    for row in rows:
        made.add_row(*row.cells)
    return made


def markdown(rows: Sequence[Row], tools: Sequence[Tool], command: str) -> str:
    """The rows as a page section: the date, the command, the versions, the table, and what went wrong."""
    versions = [f"{tool.package} {tool.version}" for tool in tools]
    versions += [f"onnx {metadata.version('onnx')}", f"Python {platform.python_version()}"]
    lines = [
        f"Measured on {date.today():%Y-%m-%d} with {', '.join(versions)}:",
        "",
        f"```console\n$ {command}\n```",
        "",
        NOTE.format(tolerance=agreement.TOLERANCES["float32"]),
        "",
        *markdown_table(HEADER, (row.cells for row in rows)),
    ]
    found = problems(rows)
    return "\n".join([*lines, *([""] if found else []), *(f"- {line}" for line in found)]) + "\n"


def problems(rows: Sequence[Row]) -> list[str]:
    """One line for every file that is wrong."""
    return [
        f"{row.name}, {name}: {outcome.problem}"
        for row in rows
        for name, outcome in row.outcomes.items()
        if outcome.problem is not None
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.neighbours", description="Compare bnfold with its neighbours."
    )
    parser.add_argument("folder", type=Path, metavar="MODELS_DIR", help="where the ONNX files are")
    parser.add_argument("names", nargs="*", metavar="NAME", help="files without their suffix; all by default")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there, dated")
    parser.add_argument(
        "--time-limit", type=float, default=TIME_LIMIT, metavar="SECONDS", help="for each tool"
    )
    options = parser.parse_args(arguments)
    paths = [options.folder / f"{name}.onnx" for name in options.names] or sorted(
        options.folder.glob("*.onnx")
    )
    missing = [str(path) for path in paths if not path.is_file()]
    if missing or not paths:
        parser.error(f"not there: {', '.join(missing) or f'any .onnx file in {options.folder}'}")
    console = Console()
    tools = [tool for tool in TOOLS.values() if tool.version]
    absent = [tool.name for tool in TOOLS.values() if not tool.version]
    if absent:
        console.print(
            f"Not installed: {', '.join(absent)}. Type: pip install -e '.[benchmarks]'", markup=False
        )
    rows = []
    for path in paths:
        print(f"{path.stem} …", file=sys.stderr, flush=True)
        rows.append(measure(path, tools, options.time_limit))
    console.print(table(rows))
    for line in problems(rows):
        console.print(line, markup=False)
    if options.markdown is not None:
        command = shlex.join(["python", "-m", "benchmarks.neighbours", *(arguments or sys.argv[1:])])
        options.markdown.write_text(markdown(rows, tools, command), encoding="utf-8")
    return int(any(row.outcomes["bnfold"].problem is not None for row in rows))


if __name__ == "__main__":
    sys.exit(main())
