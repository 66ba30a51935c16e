"""Whether `--equalize` changes one bit of an output, on every model of some folders.

    python -m benchmarks.equalize_bits FOLDER... [--shape NAME=SHAPE] [--largest MEGABYTES]

Every network is read, folded and equalised as `bnfold export --equalize` does it. Both models run on the
samples of the validation, with ONNX Runtime's optimizer off and at its default, and all outputs are compared
bit by bit. Where channels moved, the equalised model is equalised again, which should move none. A file that
is there twice is run once. Exits with 1 if a bit differs, or a second run moves a channel.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx_ir as ir

import bnfold
from bnfold.edge.equalize import equalized
from bnfold.options import Checking, Reading
from bnfold.pipeline.read import read_model
from bnfold.pipeline.steps import Trial

SUFFIXES = {".onnx", ".pt", ".pt2"}
STATES = ("equal", "different", "not read", "not run", "too large")


def found(folders: Sequence[Path], counts: Counter[str], most: float) -> Iterator[Path]:
    """The models of some folders by size, each content once; those above `most` bytes are counted only."""
    seen = set()
    for folder in folders:
        files = [path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_file()]
        for path in sorted(files, key=lambda path: (path.stat().st_size, path)):
            if path.stat().st_size > most:
                counts["too large"] += 1
                continue
            content = hashlib.sha256(path.read_bytes()).digest()
            if content not in seen:
                seen.add(content)
                yield path


def compared(model: ir.Model) -> tuple[str, int, int, str]:
    """Equalise a folded model and run both.

    Returns:
        One of `STATES`, how many channels moved, how many a second time, and what was found.
    """
    done = equalized(model)
    again = equalized(done.model).moved if done.moved else 0
    try:
        samples, difference = Trial(Checking(threads=1)).different_bits(model, done.model)
    except bnfold.BnfoldError as error:
        return "not run", done.moved, again, error.problem
    state = "equal" if difference is None else "different"
    return state, done.moved, again, difference or f"{samples} samples"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all models, and print a line for each and the totals."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.equalize_bits")
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--shape", action="append", default=[], metavar="NAME=SHAPE", help="of a .pt file")
    parser.add_argument(
        "--largest", type=float, default=150, metavar="MEGABYTES", help="leave out larger files"
    )
    options = parser.parse_args(arguments)
    logging.disable(logging.WARNING)
    shapes = dict(one.split("=", 1) for one in options.shape)
    counts: Counter[str] = Counter()
    for path in found(options.folders, counts, options.largest * 1e6):
        reading = Reading(input_shape=shapes[path.name]) if path.name in shapes else Reading()
        try:
            model = bnfold.fold(read_model(path, reading).model).model
        except bnfold.BnfoldError as error:
            state, moved, again, what = "not read", 0, 0, error.problem
        else:
            state, moved, again, what = compared(model)
        counts[state] += 1
        counts["moved"] += moved > 0 and state in ("equal", "different")
        counts["moved again"] += again > 0
        print(f"{path.name}: {state}, {moved} channels moved, {again} again; {what}", flush=True)
    print(", ".join(f"{counts[one]} {one}" for one in STATES))
    print(f"Channels moved in {counts['moved']} of those that ran, a second time in {counts['moved again']}.")
    return int(bool(counts["different"] or counts["moved again"]))


if __name__ == "__main__":
    sys.exit(main())
