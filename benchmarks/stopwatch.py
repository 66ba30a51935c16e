"""The stopwatch put to the test: a model against itself, and against one with a tenth more to do.

    python -m benchmarks.stopwatch [MODEL.onnx …] [--runs N] [--seconds NUMBER] [--markdown FILE]
        [--recorded FILE.npz … --replays N]

All pairs are timed again and again with `bnfold.benchmark`, each time with another seed, whatever else the
machine does meanwhile. Exits with 1 if a difference is claimed more than once in twenty runs of a model
against itself, or the known one is missed more than twice in twenty. Timings that `benchmarks.replay`
recorded show what it costs to end early.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import bnfold
from benchmarks import replay
from benchmarks.page import markdown_table, today
from bnfold.latency.prepare import OPTIMIZERS
from bnfold.system.environment import environment

RUNS = 20
REPLAYS = 1000
BLOCKS = 10
VERDICTS = ("faster", "slower", "no measurable difference", "too noisy to say")
HEADER = (
    *("pair", "optimizer", "median", *VERDICTS),
    *("ratio, middle of the runs", "width of the interval", "ended early"),
)
_CHANNELS, _SIZE = 32, 20


@dataclass(frozen=True)
class Pair:
    """Two models with a known difference.

    Attributes:
        name: For the table.
        original: The first model.
        folded: What takes the folded model's place.
        expected: The verdict that is right.
    """

    name: str
    original: onnx.ModelProto | Path
    folded: onnx.ModelProto | Path
    expected: str

    def failed(self, verdicts: Counter[str]) -> bool:
        """Whether one verdict in twenty is too much to be wrong, or two in twenty to miss the difference."""
        runs = verdicts.total()
        claimed = sum(verdicts[verdict] for verdict in ("faster", "slower") if verdict != self.expected)
        missed = runs - verdicts[self.expected] if self.expected == "faster" else 0
        return claimed * 20 > runs or missed * 20 > 2 * runs


def blocks(count: int) -> onnx.ModelProto:
    """A chain of `count` equal convolutions with a Relu after each: work in exact proportion."""
    rng = np.random.default_rng(0)
    shape = [1, _CHANNELS, _SIZE, _SIZE]
    weight = rng.standard_normal((_CHANNELS, _CHANNELS, 3, 3)) / (3 * _CHANNELS**0.5)
    nodes = []
    for number in range(count):
        last = "y" if number == count - 1 else f"x{number + 1}"
        nodes.append(helper.make_node("Conv", [f"x{number}", "w"], [f"c{number}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{number}"], [last]))
    graph = helper.make_graph(
        nodes,
        "blocks",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(weight.astype(np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def pairs(models: Sequence[Path] = ()) -> tuple[Pair, ...]:
    """The same model twice, and one with a tenth more blocks against it; then each given model twice."""
    fewer, more = blocks(BLOCKS), blocks(BLOCKS + BLOCKS // 10)
    return (
        Pair(f"{BLOCKS} blocks against themselves", fewer, fewer, "no measurable difference"),
        Pair(f"{BLOCKS + BLOCKS // 10} blocks against {BLOCKS}", more, fewer, "faster"),
        *(Pair(f"{model.stem} against itself", model, model, "no measurable difference") for model in models),
    )


def measure(pair: Pair, runs: int, seconds: float | None) -> list[bnfold.Benchmark]:
    """Time a pair again and again, and check that its work differs by what is said."""
    results = []
    for seed in range(runs):
        results.append(bnfold.benchmark(pair.original, pair.folded, seconds=seconds, seed=seed))
        verdicts = ", ".join(f"{row.optimizer}: {row.verdict} {row.ratio:.3f}" for row in results[-1].rows)
        print(f"{pair.name} {seed + 1}/{runs}: {verdicts}", file=sys.stderr, flush=True)
    return results


def table(pair: Pair, results: Sequence[bnfold.Benchmark]) -> tuple[list[tuple[str, ...]], bool]:
    """The lines for a pair, one an optimizer setting, and whether it failed."""
    lines, failed = [], False
    for optimizer in OPTIMIZERS:
        rows = [row for result in results for row in result.rows if row.optimizer == optimizer]
        verdicts = Counter(str(row.verdict) for row in rows)
        failed |= pair.failed(verdicts)
        ratio, width, milliseconds = (
            statistics.median(values)
            for values in (
                [row.ratio for row in rows],
                [row.high - row.low for row in rows],
                [row.original_ms for row in rows],
            )
        )
        counts = (str(verdicts[verdict]) for verdict in VERDICTS)
        early = f"{sum(row.stopped_early for row in rows) / len(rows):.0%}"
        figures = (f"{ratio:.3f}", f"{width:.3f}", early)
        lines.append((pair.name, optimizer, f"{milliseconds:.2f} ms", *counts, *figures))
    return lines, failed


def conditions(results: Sequence[bnfold.Benchmark], load: float, note: str) -> str:
    """What the pairs are, and where they were timed; `note` is what only a person knows about that."""
    sizes = [(result.original, result.folded) for result in results if result.original and result.folded]
    more, fewer = max(sizes, key=lambda both: (both[0].multiply_adds or 0) - (both[1].multiply_adds or 0))
    rows = [row for result in results for row in result.rows]
    own = sum(row.pinned for row in rows) / sum(row.loads for row in rows)
    here = environment()
    return (
        f"A block is a 3×3 convolution of {_CHANNELS} channels on {_SIZE}×{_SIZE} and a Relu. The model with "
        f"more of them takes {more.multiply_adds:,} multiply-adds, the other "
        f"{fewer.multiply_adds:,}. On {here.cpu}, {here.usable_cpus} CPUs usable, one thread; in "
        f"{own:.0%} of the loads a CPU was free for it. The system's load average was {load:.1f} in the end, "
        f"the stopwatch's own thread included{f'; {note}' if note else ''}."
    )


def markdown(
    lines: Sequence[Sequence[str]],
    where: str,
    runs: int,
    command: str,
    early: Sequence[str],
) -> str:
    """The page; `where` are the conditions, and `early` the lines on what it costs to end early."""
    versions = [f"bnfold {bnfold.__version__}", f"onnxruntime {metadata.version('onnxruntime')}"]
    versions += [f"NumPy {np.__version__}", f"Python {platform.python_version()}"]
    return "\n".join(
        [
            "# The stopwatch against itself",
            "",
            "How often `bnfold bench` claims a difference where there is none, and how often it finds one of",
            "10 %. What the verdicts mean stands in [latency](latency.md).",
            "",
            f"Measured on {today()} with {', '.join(versions)}:",
            "",
            f"```console\n$ {command}\n```",
            "",
            f"{runs} runs of each pair. {where}",
            "",
            *markdown_table(HEADER, lines),
            "",
            *early,
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.stopwatch", description="Put the stopwatch to the test."
    )
    option = parser.add_argument
    option("models", nargs="*", type=Path, metavar="MODEL.onnx", help="further models, against themselves")
    option("--runs", type=int, default=RUNS, metavar="N", help="runs of each pair")
    option("--seconds", type=float, metavar="NUMBER", help="for each run; without it, runs may end early")
    option("--recorded", nargs="*", type=Path, default=[], metavar="FILE.npz", help="from benchmarks.replay")
    option("--replays", type=int, default=REPLAYS, metavar="N", help="replays of each recorded series")
    option("--conditions", default="", metavar="TEXT", help="what else to say about the machine")
    option("--markdown", type=Path, metavar="FILE", help="write the table there, dated")
    options = parser.parse_args(arguments)
    lines: list[tuple[str, ...]] = []
    results: list[bnfold.Benchmark] = []
    failed = False
    for pair in pairs(options.models):
        found = measure(pair, options.runs, options.seconds)
        more, wrong = table(pair, found)
        lines, results, failed = lines + more, results + found, failed or wrong
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    early, wrong = replay.section([replay.Recording.load(file) for file in options.recorded], options.replays)
    failed = failed or wrong
    given = sys.argv[1:] if arguments is None else arguments
    command = shlex.join(["python", "-m", "benchmarks.stopwatch", *given])
    where = conditions(results, load, options.conditions)
    page = markdown(lines, where, options.runs, command, early)
    print(page)
    if options.markdown is not None:
        options.markdown.write_text(page, encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
