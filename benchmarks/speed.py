"""How fast, and how small in memory, `bnfold fold` is next to other tools and to `cp`: whole processes.

    python -m benchmarks.speed [NETWORK ...] [--python PATH] [--rounds N] [--large GB] [--page FILE]

In every round each tool folds the same file once, in a new random order, each as its own process: the
start of the interpreter counts, and so does every byte that is resident. A large generated model with
external data is compared with `cp`, and two long chains of nodes with each other. Exits with 1 if a limit is
missed, or if bnfold's file does not compute what the original computes.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import onnx
import onnx_ir as ir

import bnfold
from benchmarks import neighbours, networks
from benchmarks.page import markdown_table, replaced, today
from benchmarks.processes import Middle, Usage
from benchmarks.tools import TOOLS
from benchmarks.turns import Contestant, Score, contest, files
from bnfold.system.environment import environment

ResultT = TypeVar("ResultT")

NETWORKS = {make.__name__: make for make in (networks.resnet50, networks.vgg11_bn, networks.nasnetalarge)}
ROUNDS = 3
GIGABYTES = 6.0
NODES = 50_000
OURS, RIVAL, COPY, FLUSHED = "bnfold fold", "ONNX Runtime", "cp", "cp, then sync"
LIMITS = {"resnet50": (1.2, 0.5), "vgg11_bn": (0.4, 0.25), "nasnetalarge": (0.8, 0.35)}
"""Multiples of ONNX Runtime's seconds and peak memory that bnfold may take."""
LARGE_LIMIT = 2.0  # times cp's seconds
LARGE_MEMORY = 400.0  # MB in addition to the largest weight
CHAIN_LIMIT = 2.3  # times the seconds, for twice the nodes
HEADER = ("tool", "seconds", f"{RIVAL}'s ×", "peak memory, MB", f"{RIVAL}'s ×", "BatchNorms left")
LARGE_HEADER = ("process", "source", "seconds", "cp's ×", "peak memory, MB")
CHAIN_HEADER = ("nodes", "seconds", "×", "peak memory, MB", "BatchNorms left")
NOTE = (
    "Seconds are those of the whole process, from its start to its end; peak memory is the most that was "
    "resident, mapped files included. Figures are medians of {rounds} rounds, with the least and the most "
    "in brackets; ratios are taken within a round. In a round every tool runs once, in random order; before "
    "each run the previous output is removed and the disk is idle. The file to read is in the page cache, "
    "unless it says cold. bnfold flushes its file to the disk before renaming it into place; the other "
    "tools do not. ONNX Runtime means its offline optimizer at the basic level. The networks have their real "
    "layers and random numbers. BatchNorms left are BatchNormalization nodes. What bnfold wrote was compared "
    "with the original in ONNX Runtime, with the optimizer off."
)
LARGE_NOTE = (
    "{count} weights of {megabytes:.0f} MB each in one file, each in a Conv or a Gemm that a "
    "BatchNormalization follows, so that every one of them is recomputed. Cold: the pages of what is read "
    "were dropped from the system's cache just before (`posix_fadvise`); a cache of the virtual machine's "
    "host cannot be dropped."
)
_VERSIONS = """
import json, sys
from importlib import metadata
found = {one.metadata["Name"]: one.version for one in metadata.distributions()}
print(json.dumps({name: found[name] for name in sys.argv[1:] if name in found}))
"""
CHAIN_NOTE = "Chains of small Convs, each with a BatchNormalization and a Relu; one run each."


@dataclass(frozen=True)
class Section:
    """A part of the page, and what in it is not as it has to be."""

    lines: list[str]
    failures: list[str]


def ours(source: Path, *, cold: bool = False) -> Contestant:
    """What a user types."""
    words = [sys.executable, "-m", "bnfold", "fold", str(source), "-o"]
    return Contestant(OURS, source, lambda target: [*words, str(target)], cold)


def rivals(source: Path, python: Path, installed: dict[str, str]) -> list[Contestant]:
    """The other tools that are installed for an interpreter."""

    def converts(name: str) -> Contestant:
        words = [str(python), "-m", "benchmarks.tools", name, str(source)]
        return Contestant(name, source, lambda target: [*words, str(target)])

    return [converts(tool.name) for tool in TOOLS.values() if tool.package in installed]


def copy(source: Path, *, cold: bool = False) -> Contestant:
    """`cp` of a model and its data."""
    return Contestant(COPY, source, lambda target: _copying(source, target), cold)


def flushed_copy(source: Path) -> Contestant:
    """The same, on the disk and not on its way there when it ends."""

    def words(target: Path) -> list[str]:
        made = [str(target.parent / path.name) for path in files(source)]
        return ["sh", "-c", f"{shlex.join(_copying(source, target))} && {shlex.join(['sync', *made])}"]

    return Contestant(FLUSHED, source, words)


def _copying(source: Path, target: Path) -> list[str]:
    return ["cp", *map(str, files(source)), str(target.parent)]


def checked(contestant: Contestant, target: Path) -> tuple[int | None, str]:
    """Count BatchNorms; what bnfold made is run and compared with the original as well."""
    try:
        outcome = apart(judged, contestant.source, target) if contestant.name == OURS else None
        return batchnorms(target), (outcome.problem or "") if outcome else ""
    except Exception as error:  # whatever a tool wrote, the others go on
        return None, f"What it wrote could not be checked: {type(error).__name__}: {error}"


def judged(source: Path, target: Path) -> neighbours.Outcome:
    """Run the original and what was made of it in ONNX Runtime."""
    return neighbours.judge(target, neighbours.reference(source))


def counted(contestant: Contestant, target: Path) -> tuple[int | None, str]:
    """Count BatchNorms alone, where nothing is to be run."""
    del contestant
    return batchnorms(target), ""


def apart(work: Callable[..., ResultT], *arguments: object) -> ResultT:
    """Do some work in its own process, which gives its memory back."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def make(name: str, path: Path) -> None:
    """Save a network."""
    onnx.save(NETWORKS[name](), path)


def batchnorms(path: Path) -> int:
    """BatchNormalization nodes in the main graph of a file."""
    return sum(node.op_type == "BatchNormalization" for node in ir.load(path).graph)


def versions(python: Path) -> dict[str, str]:
    """The compared packages that an interpreter has, and what they stand on, with their versions."""
    asked = [
        *(tool.package for tool in TOOLS.values() if tool.package != "bnfold"),
        "onnx",
        "onnx-ir",
        "numpy",
    ]
    done = subprocess.run([str(python), "-c", _VERSIONS, *asked], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def network_section(name: str, python: Path, rounds: int, folder: Path) -> Section:
    """Time all tools on one network."""
    source = folder / f"{name}.onnx"
    _say(f"Making {name} …")
    apart(make, name, source)
    nodes, before, size = len(ir.load(source).graph), batchnorms(source), source.stat().st_size
    contestants = [ours(source), *rivals(source, python, versions(python)), copy(source)]
    first, *others = scores = contest(contestants, rounds, folder, checked)
    source.unlink()
    rival = next((score for score in others if score.contestant.name == RIVAL), None)
    failures = problems(scores)
    if rival:
        seconds, memory = LIMITS[name]
        failures += missed(f"{name}: {RIVAL}'s seconds", first.of(rival, _seconds), seconds)
        failures += missed(f"{name}: {RIVAL}'s peak memory", first.of(rival, _bytes), memory)
    rows = (
        (
            score.contestant.name,
            *_seconds_and_memory(score, rival),
            _ratio(score, rival, _bytes),
            "–" if score.left is None else str(score.left),
        )
        for score in scores
    )
    title = f"### {name}: {size / 1e6:.0f} MB, {nodes:,} nodes, {before} BatchNorms"
    return Section([title, "", *markdown_table(HEADER, rows)], failures)


def large_section(gigabytes: float, rounds: int, folder: Path) -> Section:
    """Time bnfold and `cp` on a large model, cold and warm."""
    source = folder / "large.onnx"
    _say(f"Making a model of {gigabytes:g} GB …")
    sizes = [math.prod(dims) * 4e-6 for dims in apart(networks.large, source, gigabytes)]
    cold, warm = ([copy(source, cold=cold), ours(source, cold=cold)] for cold in (True, False))
    scores = contest([*cold, *warm, flushed_copy(source)], rounds, folder, checked)
    for path in files(source):
        path.unlink()
    rows, failures = [], problems(scores)
    for score in scores:
        state, baseline = ("cold", scores[0]) if score.contestant.cold else ("warm", scores[2])
        rest = score.megabytes.median - max(sizes) if score.usages else math.nan
        rows.append((score.contestant.name, state, *_seconds_and_memory(score, baseline)))
        if score.contestant.name == OURS:
            failures += missed(f"large, {state}: cp's seconds", score.of(baseline, _seconds), LARGE_LIMIT)
            if rest > LARGE_MEMORY:
                failures.append(f"large, {state}: {rest:.0f} MB in addition to the largest weight.")
    note = LARGE_NOTE.format(count=len(sizes), megabytes=max(sizes))
    title = f"### {sum(sizes) / 1e3:.1f} GB with external data"
    return Section([title, "", note, "", *markdown_table(LARGE_HEADER, rows)], failures)


def chain_section(nodes: int, folder: Path) -> Section:
    """Time bnfold on two chains, one twice as long as the other, once: that takes minutes."""
    counts = (nodes, 2 * nodes)
    sources = [folder / f"chain_{count}.onnx" for count in counts]
    for count, source in zip(counts, sources, strict=True):
        _say(f"Making a chain of {count:,} nodes …")
        onnx.save(networks.chain(count), source)
    short, long = scores = contest([ours(source) for source in sources], 1, folder, counted)
    for source in sources:
        source.unlink()
    failures = problems(scores) + missed("chains: seconds", long.of(short, _seconds), CHAIN_LIMIT)
    rows = (
        (f"{count:,}", *_seconds_and_memory(score, short), "–" if score.left is None else str(score.left))
        for count, score in zip(counts, scores, strict=True)
    )
    return Section(["### Chains", "", CHAIN_NOTE, "", *markdown_table(CHAIN_HEADER, rows)], failures)


def problems(scores: Sequence[Score]) -> list[str]:
    """What is wrong with bnfold's runs; a copy that fails makes every ratio void, so it counts as well."""
    return [
        f"{score.contestant.source.stem}, {score.contestant.name}: {score.problem}"
        for score in scores
        if score.problem and score.contestant.name in (OURS, COPY)
    ]


def missed(what: str, ratio: Middle | None, limit: float) -> list[str]:
    """A sentence, if the median is above the limit."""
    if ratio is None or ratio.median <= limit:
        return []
    return [f"{what}: {ratio:.2f} times, where {limit:g} is the limit."]


def _seconds_and_memory(score: Score, baseline: Score | None) -> tuple[str, str, str]:
    if not score.usages:
        return score.problem, "–", "–"
    return f"{score.seconds:.2f}", _ratio(score, baseline, _seconds), f"{score.megabytes:.0f}"


def _ratio(score: Score, baseline: Score | None, figure: Callable[[Usage], float]) -> str:
    ratio = score.of(baseline, figure) if baseline and baseline is not score else None
    return f"{ratio:.2f}" if ratio else "–"


def _seconds(usage: Usage) -> float:
    return usage.seconds


def _bytes(usage: Usage) -> float:
    return usage.bytes


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def page(sections: Sequence[Section], python: Path, rounds: int, command: str) -> str:
    """What stands between the marks of the page."""
    here, found = environment(), versions(python)
    named = [f"bnfold {bnfold.__version__}", *(f"{name} {version}" for name, version in found.items())]
    absent = [tool.name for tool in TOOLS.values() if tool.package not in {"bnfold", *found}]
    memory = f", {here.memory / 2**30:.0f} GiB of memory" if here.memory else ""
    lines = [
        f"Measured on {today()} with {', '.join(named)}, Python {here.python}, on {here.usable_cpus} CPUs "
        f"({here.cpu}){memory}:",
        "",
        f"```console\n$ {command}\n```",
        "",
        NOTE.format(rounds=rounds),
    ]
    if absent:
        lines += ["", f"Not installed, and so left out: {', '.join(absent)}."]
    for section in sections:
        lines += ["", *section.lines]
    failures = [line for section in sections for line in section.failures]
    lines += ["", "Limits: " + (" ".join(failures) if failures else "all met.")]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed", description="Time whole processes: bnfold, other tools, and cp."
    )
    parser.add_argument("names", nargs="*", metavar="NETWORK", help=f"{', '.join(NETWORKS)}; all by default")
    parser.add_argument(
        "--python",
        type=Path,
        default=sys.executable,
        metavar="PATH",
        help="interpreter that has the other tools",
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help="runs of each")
    parser.add_argument(
        "--large",
        type=float,
        default=GIGABYTES,
        metavar="GB",
        help="size of the large model; 0 leaves it out",
    )
    parser.add_argument(
        "--chain", type=int, default=NODES, metavar="NODES", help="of the shorter chain; 0 leaves chains out"
    )
    parser.add_argument("--folder", type=Path, metavar="FOLDER", help="where there is room for the files")
    parser.add_argument("--page", type=Path, metavar="FILE", help="replace the tables there")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in NETWORKS]
    if unknown:
        parser.error(f"there is no network called {', '.join(unknown)}")
    with tempfile.TemporaryDirectory(prefix="bnfold-speed-", dir=options.folder) as name:
        folder = Path(name)
        names = options.names or list(NETWORKS)
        sections = [network_section(name, options.python, options.rounds, folder) for name in names]
        if options.large:
            sections.append(large_section(options.large, options.rounds, folder))
        if options.chain:
            sections.append(chain_section(options.chain, folder))
    given = sys.argv[1:] if arguments is None else arguments
    text = page(
        sections, options.python, options.rounds, shlex.join(["python", "-m", "benchmarks.speed", *given])
    )
    print(text)
    if options.page is not None:
        written = replaced(options.page.read_text(encoding="utf-8"), text)
        options.page.write_text(written, encoding="utf-8")
    return int(any(section.failures for section in sections))


if __name__ == "__main__":
    sys.exit(main())
