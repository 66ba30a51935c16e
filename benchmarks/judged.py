"""The judge, judged: `bnfold validate` on files that other tools and exporters wrote.

    python -m benchmarks.judged [--packages NAME …] [--zoo DIR] [--exporters] [--page docs/judged.md]

Every network of the corpus and of the zoo's folder is written by onnxslim, onnxsim, onnxoptimizer, onnxscript
and ONNX Runtime (its basic and its extended level), and each file is held against its original; with
`--exporters` also the files of torch.onnx's two exporters of every network in models/. Whether a verdict is
right is established by `independent.py`, which uses nothing of bnfold. Every tool, every comparison and every
check runs in a process of its own with limits on time and memory. Needs the extra `benchmarks`. Exits with 1
if a right file is accused or a wrong one passes.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import shlex
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from benchmarks import exporters
from benchmarks.corpus import PACKAGES, Network, fetched, networks, plausible
from benchmarks.independent import read_inputs
from benchmarks.judged_rows import (
    ABSENT,
    AGREES,
    DIFFERS,
    UNDECIDED,
    Cell,
    Row,
    costs,
    counts,
    mistakes,
    notes,
    table,
)
from benchmarks.packages import FOLDER
from benchmarks.page import replaced, today
from benchmarks.processes import ProcessFailedError, run
from benchmarks.tools import OFFLINE, TOOLS
from bnfold.errors import BnfoldError, InputError, reason
from bnfold.options import Match
from bnfold.runtime.interface import interface
from bnfold.validation.validate import validate

SECONDS, BYTES = 120.0, 4 * 2**30  # for each comparison; tools and checks may take twice the memory
SAMPLES = 3
PEERS = ("onnxslim", "onnxsim", "onnxoptimizer", "onnxscript", "ONNX Runtime")
NAMES = (*PEERS, OFFLINE.name)
WORDS = 300  # of a sentence that is kept, in characters


def written(source: Path, folder: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """The files of all installed tools by their names, and why the others are not there."""
    files, problems = {}, {}
    for place, name in enumerate(NAMES):
        target = folder / f"{place}.onnx"
        if not ({OFFLINE.name: OFFLINE} | TOOLS)[name].version:
            continue
        try:
            command = [sys.executable, "-m", "benchmarks.tools", name, str(source), str(target)]
            run(command, SECONDS, 2 * BYTES)
            files[name] = target
        except ProcessFailedError as error:
            problems[name] = f"It {error}"[:WORDS]
    return files, problems


def judge(
    name: str, original: Path, files: Mapping[str, Path], feeds: Path, match: Match, samples: int
) -> Row:
    """Hold files against their original, those with the same graph as one.

    Args:
        name: Of the row.
        original: The original.
        files: The others, by the names of their cells.
        feeds: Inputs for the independent check.
        match: How inputs and outputs are paired.
        samples: That the judge draws.
    """
    row = Row(name)
    first: dict[bytes, str] = {}
    for key, path in files.items():
        graph = _graph(path)
        if graph in first:
            row.same[key] = first[graph]
            continue
        first[graph] = key
        row.cells[key] = _judged(original, path, feeds, match, samples)
    _check(row, original, files, feeds)
    return row


def _graph(path: Path) -> bytes:
    """A hash of the model without who wrote it; of the path where it cannot be read."""
    try:
        model = onnx.load(path)
    except Exception:  # whatever is wrong with it is the judge's to say
        return str(path).encode()
    for field in ("producer_name", "producer_version", "doc_string", "metadata_props"):
        model.ClearField(field)
    return hashlib.sha256(model.SerializeToString(deterministic=True)).digest()


def _judged(original: Path, other: Path, feeds: Path, match: Match, samples: int) -> Cell:
    answer = other.with_suffix(".json")
    words = [str(original), str(other), str(feeds), str(answer), match, str(samples)]
    try:
        usage = run([sys.executable, "-m", "benchmarks.judged", "--cell", *words], SECONDS, BYTES)
    except ProcessFailedError as error:
        return Cell(UNDECIDED, f"Its process {error}"[:WORDS])
    cell = Cell(**json.loads(answer.read_text(encoding="utf-8")))
    cell.seconds, cell.megabytes = round(usage.seconds, 1), round(usage.bytes / 1e6)
    return cell


def _cell(original: str, other: str, feeds: str, answer: str, match: Match, samples: str) -> int:
    """What the process does that `_judged` starts; plausible inputs serve where random ones do not."""
    try:
        try:
            result = validate(original, other, match=match, samples=int(samples))
        except InputError:
            result = validate(original, other, match=match, inputs=read_inputs(Path(feeds))[:-1])
        verdict = AGREES if result.passed else UNDECIDED if result.undecided else DIFFERS
        verdict = DIFFERS if result.failures else verdict
        why = " ".join(result.failures[:2]) or result.undecided or ""
    except BnfoldError as error:
        verdict, why = UNDECIDED, f"{type(error).__name__}: {error.problem}"
    why = " ".join(why.replace(other, "the file").replace(original, "the original").split())
    cell = {"verdict": verdict, "why": why[:WORDS]}
    Path(answer).write_text(json.dumps(cell), encoding="utf-8")
    return 0


def _check(row: Row, original: Path, files: Mapping[str, Path], feeds: Path) -> None:
    """Add what the independent check finds to every cell."""
    if not row.cells:
        return
    answer = feeds.with_suffix(".json")
    words = [str(original), str(feeds), str(answer), *(str(files[name]) for name in row.cells)]
    try:
        run([sys.executable, "-m", "benchmarks.independent", *words], 2 * SECONDS, 2 * BYTES)
        found = json.loads(answer.read_text(encoding="utf-8"))
    except ProcessFailedError as error:
        failed = {"problem": f"Its process {error}"[:WORDS], "checked": False}
        found = {files[name].name: failed for name in row.cells}
    for name, cell in row.cells.items():
        vars(cell).update(found[files[name].name])


def _inputs(path: Path, key: str, target: Path) -> None:
    """Write plausible inputs of a network, and zeros: silence, or a black image.

    Raises:
        KeyError, TypeError, BnfoldError: The file cannot be read, or takes something else than tensors.
    """
    feeds = plausible(interface(ir.load(path)).inputs, key)
    silence = {
        name: np.zeros_like(value) if value.dtype.kind == "f" else value for name, value in feeds[0].items()
    }
    feeds.append(silence)
    arrays = {f"{place}/{name}": value for place, one in enumerate(feeds) for name, value in one.items()}
    np.savez(target, **arrays)  # type: ignore[arg-type]


def optimized(network: Network, samples: int) -> Row:
    """Judge what every tool makes of one network."""
    with tempfile.TemporaryDirectory(prefix="bnfold-") as place:
        folder, source = Path(place), network.path.resolve()
        try:
            _inputs(source, network.key, folder / "inputs.npz")
        except Exception as error:  # whatever is wrong with the original is its row of the table
            return Row(str(network), f"The original cannot be read: {reason(error)[:WORDS]}")
        files, problems = written(source, folder)
        row = judge(str(network), source, files, folder / "inputs.npz", "name", samples)
        row.cells |= {name: Cell(ABSENT, problem) for name, problem in problems.items()}
    return row


def exported(network: str, samples: int) -> Row:
    """Judge the files of torch.onnx's exporters of one network of models/."""
    with tempfile.TemporaryDirectory(prefix="bnfold-") as place:
        folder = Path(place)
        try:
            run([sys.executable, "-m", "benchmarks.exporters", network, str(folder)], SECONDS, 2 * BYTES)
        except ProcessFailedError as error:
            return Row(network, f"It was not exported: the process {error}"[:WORDS])
        original, *others = (folder / f"{number}.onnx" for number in range(len(exporters.WAYS)))
        _inputs(original, f"zoo/{network}", folder / "inputs.npz")
        files = dict(zip(exporters.NAMES[1:], others, strict=True))
        return judge(network, original, files, folder / "inputs.npz", "order", samples)


def _page(rows: Sequence[Row], networks: Sequence[Row], command: str) -> str:
    """What the page has between its marks."""
    tools = (*(TOOLS[name] for name in PEERS), TOOLS["bnfold"])
    versions = [f"{tool.package} {tool.version or 'not installed'}" for tool in tools]
    parts = [f"Measured on {today()} with {', '.join(versions)}:", f"```console\n$ {command}\n```"]
    for title, names, these in (
        ("Files of optimizers", NAMES, rows),
        (f"Two exporters' files, against {exporters.NAMES[0]}", exporters.NAMES[1:], networks),
    ):
        if these:
            parts += [f"### {title}", "\n".join(counts(these, names)), costs(these)]
            parts += ["\n".join(table(these, names))]
            parts += ["\n".join(f"- {line}" for line in notes(these)) or "No file differs."]
    return "\n\n".join(parts)


def _kept(path: Path | None) -> dict[str, Row]:
    """The rows of earlier runs by name."""
    lines = path.read_text(encoding="utf-8").splitlines() if path and path.exists() else []
    return {row.name: row for row in map(Row.of_json, lines)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] == ["--cell"]:
        return _cell(*given[1:])  # type: ignore[arg-type]  # they are texts
    parser = argparse.ArgumentParser("python -m benchmarks.judged", description="Judge the judge.")
    option = parser.add_argument
    option("--packages", nargs="*", default=PACKAGES, metavar="NAME==VERSION", help="from the list, or none")
    option("--folder", type=Path, default=FOLDER, metavar="DIR", help="where those of packages are kept")
    option("--zoo", type=Path, metavar="DIR", help="a folder whose networks take part as well")
    option("--exporters", action="store_true", help="judge two exporters' files of the networks in models/")
    option("--samples", type=int, default=SAMPLES, metavar="N", help="inputs that the judge draws")
    option("--rows", type=Path, metavar="FILE", help="keep rows there; those there are not judged again")
    option("--page", type=Path, metavar="FILE", help="write the tables there, between its marks")
    options = parser.parse_args(given)
    absent = [Row(one, said) for one in options.packages if (said := fetched(one, options.folder))]
    kept = _kept(options.rows)

    def done(name: str, make: Callable[[], Row]) -> Row:
        row = kept.get(name) or make()
        if name not in kept and options.rows:
            with options.rows.open("a", encoding="utf-8") as stream:
                stream.write(f"{json.dumps(asdict(row))}\n")
        print(
            f"{name}: {row.problem or ', '.join(f'{one} {cell}' for one, cell in row.cells.items())}",
            flush=True,
        )
        return row

    found = networks(options.packages, options.folder, options.zoo)
    rows = [done(str(one), functools.partial(optimized, one, options.samples)) for one in found] + absent
    ours = [
        done(name, functools.partial(exported, name, options.samples))
        for name in (exporters.NETWORKS if options.exporters else ())
    ]
    lines = mistakes([*rows, *ours])
    print("", *notes([*rows, *ours]), "", *(lines or ["Every verdict is right."]), sep="\n")
    if options.page is not None:
        command = shlex.join(["python", "-m", "benchmarks.judged", *given])
        text = replaced(options.page.read_text(encoding="utf-8"), _page(rows, ours, command))
        options.page.write_text(text, encoding="utf-8")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
