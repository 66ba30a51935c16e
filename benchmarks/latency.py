"""How long files of bnfold and similar tools run, as multiples of their original's time.

    python -m benchmarks.latency MODELS_DIR [NAME ...] [--loads N] [--rounds N] [--markdown FILE]

Needs the extra `benchmarks`; a tool that is not installed is left out. All files of a model are loaded into
one process, in ONNX Runtime's default session with one thread, and take turns. What counts is the
processor's time, so that other programs matter little; the original takes part twice, which shows what
chance does. Exits with 1 if bnfold's file is more than 3 % slower than its original, is missing, or if ONNX
Runtime's graph of it has more nodes, bytes or multiply-adds.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from math import ceil
from pathlib import Path

import numpy as np
import onnx_ir as ir

from benchmarks.neighbours import SIZES, TIME_LIMIT, convert
from benchmarks.page import markdown_table, today
from benchmarks.tools import TOOLS
from bnfold.inputs import sizes
from bnfold.latency.optimized_graph import OptimizedGraph, optimized_graph, what_grew
from bnfold.runtime import sessions
from bnfold.runtime.interface import interface
from bnfold.system.environment import environment

ORIGINAL, CONTROL = "original", "original again"
TOOL_NAMES = ("bnfold", "onnxslim", "onnxsim")
LOADS, ROUNDS = 6, 30
SHORTEST = 2e-3  # seconds of one timing
SLOWER = 1.03
NOTE = (
    "The processor's time of one run as a multiple of the original's, in ONNX Runtime's default session with "
    "one thread: the median of {loads} loads of all files into one process, each of {rounds} rounds in which "
    "all take turns in random order, on one seeded standard normal input. In brackets, the nodes of the "
    "graph that ONNX Runtime makes of the file at its default level. The original takes part twice."
)


@dataclass(frozen=True)
class Row:
    """One model.

    Attributes:
        name: The file's, without its suffix.
        milliseconds: The processor's time for one run of the original.
        ratios: The time of every contestant but the original, as a multiple of it; one for each load.
        graphs: What ONNX Runtime makes of every file.
        problems: Why a tool wrote nothing.
    """

    name: str
    milliseconds: float
    ratios: Mapping[str, Sequence[float]]
    graphs: Mapping[str, OptimizedGraph]
    problems: Mapping[str, str]

    def ratio(self, name: str) -> float | None:
        """The middle of a contestant's ratios; None where it has no file."""
        return float(np.median(self.ratios[name])) if name in self.ratios else None

    @property
    def is_worse(self) -> bool:
        """Whether bnfold's file is missing, slower than its original, or more to do for the runtime."""
        ratio = self.ratio("bnfold")
        return (
            ratio is None or ratio > SLOWER or bool(what_grew(self.graphs[ORIGINAL], self.graphs["bnfold"]))
        )

    def cells(self, names: Sequence[str]) -> tuple[str, ...]:
        """The row in the order of the header."""
        figures = (
            f"{self.ratio(name):.3f} ({self.graphs[name].nodes})" if name in self.ratios else "error"
            for name in names
        )
        first = f"{self.milliseconds:.2f} ms ({self.graphs[ORIGINAL].nodes})"
        return (self.name, first, f"{self.ratio(CONTROL):.3f}", *figures)


def processor_ratios(
    files: Mapping[str, Path], feeds: sessions.Feeds, loads: int = LOADS, rounds: int = ROUNDS
) -> tuple[float, dict[str, list[float]]]:
    """Let files take turns, and compare the processor's time of each with the first's.

    Every session has its own speed for as long as it exists, because of where its weights happen to be in
    memory; so all are loaded several times.

    Args:
        files: What takes part, by name.
        feeds: The inputs of all.
        loads: How often all files are loaded.
        rounds: In how many rounds all take turns after each loading.

    Returns:
        Milliseconds of one run of the first, and for every other its ratio in each load.
    """
    draw = np.random.default_rng(0)
    times = np.array([_one_load(list(files.values()), feeds, rounds, draw) for _ in range(loads)])
    relative = times / times[:, :1]
    others = {name: relative[:, place].tolist() for place, name in enumerate(files) if place}
    return 1e3 * float(np.median(times[:, 0])), others


def _one_load(
    files: Sequence[Path], feeds: sessions.Feeds, rounds: int, draw: np.random.Generator
) -> list[float]:
    """Load all files in random order, and return the median seconds of one run of each."""
    runs: dict[int, Callable[[], object]] = {}
    for place in draw.permutation(len(files)).tolist():
        session = sessions.session(files[place], optimized="default", threads=1)
        runs[place] = sessions.on_host(session, feeds)
    for run in runs.values():
        _seconds(run, 3)
    repeats = ceil(SHORTEST / max(min(_seconds(run, 1) for run in runs.values()), 1e-6))
    times = np.empty((rounds, len(files)))
    for turn in times:
        for place in draw.permutation(len(files)).tolist():
            turn[place] = _seconds(runs[place], repeats)
    return [float(median) for median in np.median(times, axis=0)]


def _seconds(run: Callable[[], object], repeats: int) -> float:
    """The processor's seconds for one run."""
    start = time.process_time()
    for _ in range(repeats):
        run()
    return (time.process_time() - start) / repeats


def measure(path: Path, names: Sequence[str], loads: int, rounds: int) -> Row:
    """Let every tool write its file of one model, and time them all.

    Raises:
        BnfoldError: ONNX Runtime cannot run the original.
    """
    feeds = sizes.draw(interface(ir.load(path)).inputs, SIZES, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        files, problems = {ORIGINAL: path, CONTROL: path}, {}
        for name in names:
            target = Path(folder) / f"{name}.onnx"
            problem = convert(TOOLS[name], path, target, TIME_LIMIT)
            if problem is None:
                files[name] = target
            else:
                problems[name] = problem
        milliseconds, ratios = processor_ratios(files, feeds, loads, rounds)
        graphs = {name: optimized_graph(file) for name, file in files.items()}
    return Row(path.stem, milliseconds, ratios, graphs, problems)


def header(names: Sequence[str]) -> tuple[str, ...]:
    """The first line of the table."""
    return ("model", ORIGINAL, CONTROL, *names)


def geometric_means(rows: Sequence[Row], names: Sequence[str]) -> tuple[str, ...]:
    """The last line of the table; over the models of which every tool has a file."""
    whole = [row for row in rows if not row.problems]

    def mean(name: str) -> str:
        ratios = [np.median(row.ratios[name]) for row in whole]
        return f"{np.exp(np.mean(np.log(ratios))):.3f}" if whole else ""

    return ("geometric mean", "", *(mean(name) for name in (CONTROL, *names)))


def markdown(rows: Sequence[Row], names: Sequence[str], command: str, loads: int, rounds: int) -> str:
    """The rows as a section of a page: the date, the command, the versions and the table."""
    packages = ("onnxruntime", *(TOOLS[name].package for name in names if name != "bnfold"))
    versions = ", ".join(f"{package} {metadata.version(package)}" for package in packages)
    lines = [
        f"Measured on {today()} on {environment().cpu} with {versions}:",
        "",
        f"```console\n$ {command}\n```",
        "",
        NOTE.format(loads=loads, rounds=rounds),
        "",
        *markdown_table(header(names), [*(row.cells(names) for row in rows), geometric_means(rows, names)]),
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.latency", description="Time bnfold's files beside those of its neighbours."
    )
    parser.add_argument("folder", type=Path, metavar="MODELS_DIR", help="where the ONNX files are")
    parser.add_argument("names", nargs="*", metavar="NAME", help="files without their suffix; all by default")
    parser.add_argument("--loads", type=int, default=LOADS, metavar="N", help="loads of all files")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help="rounds after each loading")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there, dated")
    options = parser.parse_args(arguments)
    stems = options.names or sorted(path.stem for path in options.folder.glob("*.onnx"))
    paths = [options.folder / f"{stem}.onnx" for stem in stems]
    missing = [str(path) for path in paths if not path.is_file()]
    if missing or not paths:
        parser.error(f"not there: {', '.join(missing) or f'any .onnx file in {options.folder}'}")
    names = [name for name in TOOL_NAMES if TOOLS[name].version]
    rows = []
    print(" | ".join(header(names)))
    for path in paths:
        rows.append(measure(path, names, options.loads, options.rounds))
        print(" | ".join(rows[-1].cells(names)), flush=True)
        for name, problem in rows[-1].problems.items():
            print(f"{path.stem}, {name}: {problem}", flush=True)
    print(" | ".join(geometric_means(rows, names)))
    if options.markdown is not None:
        command = shlex.join(["python", "-m", "benchmarks.latency", *(arguments or sys.argv[1:])])
        text = markdown(rows, names, command, options.loads, options.rounds)
        options.markdown.write_text(text, encoding="utf-8")
    return int(any(row.is_worse for row in rows))


if __name__ == "__main__":
    sys.exit(main())
