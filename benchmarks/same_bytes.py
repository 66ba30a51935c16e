"""Whether two versions of bnfold write the same files, byte for byte: what a refactoring has to show.

    python -m benchmarks.same_bytes OLD_PYTHON [MODEL.onnx or FOLDER ...] [--random NUMBER]

This interpreter and OLD_PYTHON, each with its own bnfold installed, run `bnfold fold` on every model, on
those in the folders, and on as many random graphs. The exit codes and the SHA-256 of all files written are
compared. Prints one line per difference and a last line with the counts. Exits with 1 on a difference.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import onnx

from tests.random_graphs import random_model

# Run by either interpreter, so it uses only what every version has: folds each model into a folder, which is
# emptied again. Prints {model: {what: exit code or hash}}.
FOLD = """
import hashlib, json, pathlib, shutil, sys
from click.testing import CliRunner
from bnfold_cli import main

outcomes = {}
folder = pathlib.Path(sys.argv[1])
for model in sys.stdin.read().splitlines():
    folder.mkdir()
    done = CliRunner().invoke(main, ["fold", model, "-o", str(folder / "folded.onnx"), "--quiet"])
    outcomes[model] = {"exit code": str(done.exit_code)}
    for file in sorted(folder.iterdir()):
        with file.open("rb") as stream:
            digest = hashlib.sha256()
            while block := stream.read(2**20):
                digest.update(block)
        outcomes[model][file.name] = digest.hexdigest()
    shutil.rmtree(folder)
print(json.dumps(outcomes))
"""
Outcomes = dict[str, dict[str, str]]


def fold_all(python: str, models: Sequence[Path]) -> Outcomes:
    """What one interpreter's bnfold makes of every model: its exit code, and the hash of each file.

    Raises:
        subprocess.CalledProcessError: The interpreter ended before all were folded.
    """
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [python, "-I", "-c", FOLD, str(Path(folder, "out"))],
            input="\n".join(map(str, models)),
            cwd=folder,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    outcomes: Outcomes = json.loads(done.stdout)
    return outcomes


def differences(old: Outcomes, new: Outcomes) -> Iterator[str]:
    """One line for every file or exit code that is not the same."""
    for model in old:
        for what in sorted({*old[model], *new[model]}):
            before, after = (outcomes[model].get(what, "missing") for outcomes in (old, new))
            if before != after:
                yield f"{model}: {what}: {before[:16]} before, {after[:16]} now"


def found(paths: Iterable[Path]) -> Iterator[Path]:
    """The models, and every .onnx file in the folders."""
    for path in paths:
        yield from sorted(path.resolve().rglob("*.onnx")) if path.is_dir() else [path.resolve()]


def random_models(folder: Path, count: int) -> Iterator[Path]:
    """Save random graphs, the same every time."""
    for seed in range(count):
        path = folder / f"random{seed}.onnx"
        onnx.save(random_model(random.Random(seed).randrange), path)
        yield path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.same_bytes", description="Compare what two versions of bnfold write."
    )
    parser.add_argument("old", metavar="OLD_PYTHON", help="an interpreter with the other bnfold installed")
    parser.add_argument(
        "models", nargs="*", type=Path, metavar="MODEL", help=".onnx files, and folders of them"
    )
    parser.add_argument(
        "--random", type=int, default=0, metavar="NUMBER", help="random graphs to fold as well"
    )
    options = parser.parse_args(arguments)
    missing = [str(path) for path in options.models if not path.exists()]
    if missing:
        parser.error(f"not found: {', '.join(missing)}")
    with tempfile.TemporaryDirectory() as folder:
        models = [*found(options.models), *random_models(Path(folder), options.random)]
        old, new = (fold_all(python, models) for python in (options.old, sys.executable))
    lines = list(differences(old, new))
    files = sum(len(outcome) - 1 for outcome in new.values())
    print(*lines, f"{len(models)} models, {files} files written, {len(lines)} differences.", sep="\n")
    return int(bool(lines) or not models)


if __name__ == "__main__":
    sys.exit(main())
