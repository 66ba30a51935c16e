"""Files that people have: whether each command ends well on it, or says what can be acted on.

    python -m benchmarks.files [--packages NAME …] [--rows FILE] [--page docs/converters.md]

Runs `inspect`, `fold` and `export --no-bench` on the networks of `corpus.py` and on those that converters
make of small models where they are installed (`converted.py`), each command in a process of its own, with
two minutes of processor time and 4 GiB. A command has done well if it ends with 0, or with 1 or 2 and a
message that says what is wrong with this file or names an option; an option that it names is given, and has
to work. Exits with 1 if any command has not, or where there are fewer files or converters than `FEWEST`.
"""

from __future__ import annotations

import argparse
import collections
import json
import re
import resource
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # has no stubs

from benchmarks.converted import converted
from benchmarks.corpus import PACKAGES, Network, fetched, networks
from benchmarks.page import markdown_table, replaced, today
from benchmarks.processes import ROOT

COMMANDS = ("inspect", "fold", "export")
SECONDS, MEMORY = 120, 4 * 2**30  # limits of one command; of processor time, so that others do not count
PATIENCE = 3600.0  # seconds, after which one that waits is ended; others may keep the processor busy
FEWEST = (60, 12)  # files and converters
FOLDER = ROOT / "out" / "packages"  # ignored by git
UNKNOWN = "not said"

_ALIASES = {"OnnxMLTools": "onnxmltools", "onnx-caffe2": "caffe2", "": UNKNOWN}
_UNFORESEEN = re.compile("did not foresee|Traceback|Segmentation|Aborted")
_VAGUE = re.compile(r"(onnx\.)?checker\.check_model says more|Check that the file is a valid ONNX model")
_OPTION = re.compile(r"--[a-z][a-z-]+(?:[ =](?!or\b|and\b|FILE)[^\s,;.]+)?")
_TO_GIVE = frozenset({"--inputs", "--input-shape"})  # options with something that only their user has


@dataclass
class Outcome:
    """How one command ended.

    Attributes:
        code: Its exit status; None where it was ended after its time.
        seconds: Of processor time.
        message: What it said in error, its first two lines.
        followed: The options that it named and that were then given; empty where it named none.
        worked: Whether it ended with 0 when they were.
        problem: Why this is not good; empty where it is.
    """

    code: int | None = None
    seconds: float = 0.0
    message: str = ""
    followed: str = ""
    worked: bool = False
    problem: str = ""


@dataclass
class Row:
    """One file.

    Attributes:
        name: What it is called in the table.
        converter: What wrote it, as it says itself.
        outcomes: By command.
    """

    name: str
    converter: str
    outcomes: dict[str, Outcome] = field(default_factory=dict)


def converter_of(path: Path) -> str:
    """The producer that a file names, without its version; nobody where it cannot be read."""
    try:
        name: str = onnx.load(path, load_external_data=False).producer_name
    except DecodeError:
        return UNKNOWN
    return _ALIASES.get(name, name)


def arguments(command: str, source: Path, target: Path) -> list[str]:
    """The words of a command."""
    options = {"inspect": [], "fold": ["-o", str(target)], "export": ["-o", str(target), "--no-bench"]}[
        command
    ]
    return [command, str(source), *options]


def attempt(words: Sequence[str], source: Path) -> Outcome:
    """Run a command and judge it; follow the options that it names."""
    found = _run(words, source)
    found.problem = judged(found, source)
    options = [one for one in _OPTION.findall(found.message) if one.split()[0] not in _TO_GIVE]
    if found.code == 2 and not found.problem and options:
        found.followed = " ".join(options)
        again = _run([*words, *shlex.split(found.followed)], source)
        found.worked = again.code == 0
        if not found.worked:
            found.problem = f"With {found.followed} it ends with {again.code}: {again.message}"
    return found


def _run(words: Sequence[str], source: Path) -> Outcome:
    before = _processor_time()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "bnfold", *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            check=False,
            preexec_fn=_limit,
        )
    except subprocess.TimeoutExpired:
        return Outcome(None, PATIENCE, f"stopped after {PATIENCE:g} seconds")
    said = [line.strip() for line in done.stderr.strip().splitlines()] if done.returncode else []
    message = " ".join(said[-2:] if _UNFORESEEN.search(done.stderr) else said[:3])
    named = message.replace(str(source), source.name)
    seconds = _processor_time() - before
    if seconds >= SECONDS:
        return Outcome(None, seconds, f"stopped after {SECONDS} seconds")
    return Outcome(done.returncode, seconds, named.removeprefix("bnfold: "))


def _processor_time() -> float:
    """What all commands so far have used, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))


def judged(found: Outcome, source: Path) -> str:
    """Why an outcome is not good; empty where it is.

    A refusal has to name a part of this file, such as an input or a node, or the file itself.
    """
    if found.code == 0:
        return ""
    if found.code is None:
        return "It took too long."
    if _UNFORESEEN.search(found.message) or found.code not in (1, 2):
        return f"It ended with {found.code}: {found.message}"
    if _VAGUE.search(found.message):
        return f"It does not say what is wrong: {found.message}"
    if _OPTION.search(found.message) or any(f"'{name}'" in found.message for name in _names(source)):
        return ""
    named = source.name in found.message or any(f"({name})" in found.message for name in _names(source))
    return "" if named else f"It names neither a part of the file nor an option: {found.message}"


def _names(source: Path) -> set[str]:
    """The names of inputs, outputs and nodes of a file; none where it cannot be read."""
    try:
        graph = onnx.load(source, load_external_data=False).graph
    except Exception:  # what is no model has no names
        return set()
    return {one.name for group in (graph.input, graph.output, graph.node) for one in group}


def measured(network: Network) -> Row:
    """Run all commands on one file."""
    row = Row(str(network), converter_of(network.path))
    with tempfile.TemporaryDirectory(prefix="bnfold-") as folder:
        for command in COMMANDS:
            words = arguments(command, network.path.resolve(), Path(folder) / f"{command}.onnx")
            row.outcomes[command] = attempt(words, network.path)
    return row


def problems(rows: Sequence[Row]) -> list[str]:
    """Every outcome that is not good, and what the corpus lacks."""
    found = [
        f"{row.name}, {command}: {outcome.problem}"
        for row in rows
        for command, outcome in row.outcomes.items()
        if outcome.problem
    ]
    kinds = {row.converter for row in rows} - {UNKNOWN}
    if len(rows) < FEWEST[0] or len(kinds) < FEWEST[1]:
        found.append(
            f"These are {len(rows)} files of {len(kinds)} converters; {FEWEST[0]} of {FEWEST[1]} are needed."
        )
    return found


def section(rows: Sequence[Row], command: str) -> str:
    """The table for the page, with a list of what was refused."""
    by_converter = collections.defaultdict(list)
    for row in rows:
        by_converter[row.converter].append(row)
    table = []
    for name, these in sorted(by_converter.items(), key=lambda pair: (-len(pair[1]), pair[0])):
        done = [sum(row.outcomes[one].code == 0 for row in these) for one in COMMANDS]
        longest = max(outcome.seconds for row in these for outcome in row.outcomes.values())
        table.append([name, str(len(these)), *map(str, done), f"{longest:.0f} s"])
    refused = [
        f"- {row.name}, `{name}`: {' '.join(outcome.message.split())}"
        + (f" Done with `{outcome.followed}`." if outcome.worked else "")
        for row in rows
        for name, outcome in row.outcomes.items()
        if outcome.code != 0
    ]
    head = [
        f"{today()}, `{command}`: {len(rows)} files, each command with {SECONDS} s and 4 GiB.",
        "",
    ]
    lines = markdown_table(
        ["converter", "files", *(f"`{one}` ends with 0" for one in COMMANDS), "longest"], table
    )
    return "\n".join(
        [*head, *lines, "", "What did not end with 0, and what was said:", "", *(refused or ["- nothing"])]
    )


def main(given: Sequence[str] | None = None) -> int:
    """Run the command."""
    words = sys.argv[1:] if given is None else list(given)
    parser = argparse.ArgumentParser(
        "python -m benchmarks.files", description="Run commands on files in use."
    )
    option = parser.add_argument
    option("--packages", nargs="*", default=PACKAGES, metavar="NAME==VERSION")
    option("--folder", type=Path, default=FOLDER, metavar="DIR", help="where those of packages are kept")
    option("--converters", type=Path, metavar="PYTHON", help="the Python that has converters installed")
    option("--rows", type=Path, metavar="FILE", help="keep rows there; those there are not measured again")
    option("--page", type=Path, metavar="FILE", help="write the table there, between its marks")
    options = parser.parse_args(words)
    absent = [line for line in (fetched(one, options.folder) for one in options.packages) if line]
    made, skipped = converted(options.folder / "converted", options.converters or Path(sys.executable))
    print(*absent, *skipped, sep="\n")
    kept = (
        options.rows.read_text(encoding="utf-8").splitlines()
        if options.rows and options.rows.exists()
        else []
    )
    rows = []
    for network in (*networks(options.packages, options.folder), *made):
        old = next((one for one in map(json.loads, kept) if one["name"] == str(network)), None)
        row = _read(old) if old else measured(network)
        rows.append(row)
        codes = " ".join(f"{name} {outcome.code}" for name, outcome in row.outcomes.items())
        print(f"{row.name} ({row.converter}): {codes}", flush=True)
        if options.rows and not old:
            with options.rows.open("a", encoding="utf-8") as stream:
                stream.write(f"{json.dumps(asdict(row))}\n")
    found = problems(rows)
    print("", *found, f"{len(rows)} files, {len(found)} problems", sep="\n")
    if options.page is not None:
        page = options.page.read_text(encoding="utf-8")
        options.page.write_text(replaced(page, section(rows, "python -m benchmarks.files")), encoding="utf-8")
    return int(bool(found))


def _read(row: dict[str, object]) -> Row:
    outcomes = row["outcomes"]
    assert isinstance(outcomes, dict), "written by this program"
    return Row(
        str(row["name"]), str(row["converter"]), {name: Outcome(**one) for name, one in outcomes.items()}
    )


if __name__ == "__main__":
    sys.exit(main())
