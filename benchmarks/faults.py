"""How sharp the proof is: planted faults that must be caught, right folds that must not be accused.

    python -m benchmarks.faults [MODEL.onnx ...] [--seeds NUMBER] [--random NUMBER] [--markdown FILE]

Every kind of fault of `tests/planted_faults.py` is planted into every small network that can have it, for
each seed with other statistics and at another layer. Folds of the small networks, of random graphs and of the
given models are the right ones. A given model gets one fault as well, another kind in each. Exits with 1 if a
fault is missed or not named at its layer, or a right fold accused.
"""

from __future__ import annotations

import argparse
import itertools
import math
import platform
import random
import shlex
import statistics
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import onnx

import bnfold
from benchmarks.page import markdown_table, today
from bnfold.validation.layers import Layer
from bnfold.validation.results import Validation
from tests.planted_faults import FAULTS, Case, Planted
from tests.random_graphs import random_feeds, random_model
from tests.small_networks import NETWORKS

SEEDS = 3
RANDOM = 1000
FAULT_HEADER = ("fault", "planted", "caught", "named", "least margin", "median margin")
FOLD_HEADER = ("right folds", "folds", "reported wrong", "values", "median", "99 %", "largest", "outputs")
MODEL_HEADER = (
    "model",
    "original's error",
    "folded error",
    "ratio",
    "bound",
    "values",
    "largest",
    "at",
)
FAULT_NOTE = (
    "The margin is the error of the blamed value divided by its bound. A fault with margin 1 is just missed. "
    "Faults of the interface are found before anything is computed and have no margin."
)
FOLD_NOTE = (
    "Every value that both models compute has an error and a bound. Figures are error ÷ bound, for values "
    "with a nonzero error; the last column is the largest of the graphs' outputs in ONNX Runtime. Above 1, "
    "the fold would be reported as wrong."
)
MODEL_NOTE = (
    "Of two figures in a cell, the first is with the optimizer off, the second at its default. An error is "
    "the largest of an output, relative to its scale and against the float64 oracle, in the run closest to "
    "its bound; the ratio is that of the root-mean-square errors of all runs. The bound is infinite where "
    "the network itself amplifies rounding a thousand times: there only intermediate values are judged. The "
    "last three columns are how many values were proved, the largest error ÷ bound among them, and where it "
    "is."
)


@dataclass(frozen=True)
class Trial:
    """One planted fault and what became of it.

    Attributes:
        kind: Of the fault.
        network: It was planted there.
        caught: Whether the validation failed.
        named: Whether it named the tampered node and its BatchNorm, or the interface.
        margin: Error of the blamed value divided by its bound; None where no value is blamed.
    """

    kind: str
    network: str
    caught: bool
    named: bool
    margin: float | None


@dataclass(frozen=True)
class Acquittal:
    """The validation of one right fold.

    Attributes:
        group: What the model is, for the table.
        name: Of the model.
        validation: Its outcome.
    """

    group: str
    name: str
    validation: Validation

    @property
    def accused(self) -> bool:
        """Whether anything is held against the fold."""
        return not self.validation.passed

    @property
    def margins(self) -> list[float]:
        """Error ÷ bound of every value with a nonzero error."""
        return [margin(layer) for layer in self.validation.layers if layer.fold_error > 0]

    @property
    def outputs(self) -> list[float]:
        """The same of the graph's outputs in ONNX Runtime."""
        checks = [check for check in self.validation.checks if not check.excused]
        return [check.error / check.bound for check in checks if check.error is not None and check.bound]


def margin(layer: Layer) -> float:
    """The error of a value divided by what rounding explains of it."""
    return layer.fold_error / layer.bound if layer.bound else math.inf


def attempt(kind: str, case: Case, planted: Planted) -> Trial:
    """Validate a faulty fold."""
    validation = bnfold.validate(case.original, planted.model, strict=True)
    seen = margin(validation.blame.layer) if validation.blame else None
    return Trial(kind, case.name, not validation.passed, planted.is_named(validation), seen)


def planted_everywhere(seeds: int) -> Iterator[Trial]:
    """One fault of every kind in every small network that can have it, for every seed."""
    for seed, (name, network) in itertools.product(range(seeds), NETWORKS.items()):
        case = Case.of(name, network(seed), seed)
        for kind, fault in FAULTS.items():
            for planted in itertools.islice(fault(case), 1):
                yield attempt(kind, case, planted)


def right_folds(seeds: int, graphs: int) -> Iterator[Acquittal]:
    """The folds of the small networks for every seed, and of random graphs."""
    for name, network in NETWORKS.items():
        for seed in range(seeds):
            model = network(seed)
            folded = bnfold.fold(model).model
            yield Acquittal("small networks", name, bnfold.validate(model, folded, seed=seed))
    for seed in range(graphs):
        model = random_model(random.Random(seed).randrange)
        if model.graph.output:
            inputs = [random_feeds(model, number) for number in range(2)]
            folded = bnfold.fold(model).model
            outcome = bnfold.validate(model, folded, inputs=inputs)
            yield Acquittal("random graphs", f"random graph {seed}", outcome)


def given(paths: Iterable[Path]) -> Iterator[tuple[Acquittal, Trial | None]]:
    """The fold of every given model, and one fault in it, of another kind in each."""
    for number, path in enumerate(paths):
        print(f"{path.name} …", file=sys.stderr, flush=True)
        case = Case.of(path.stem, onnx.load(path), seed=number)
        outcome = bnfold.validate(case.original, case.result.model)
        kinds = list(FAULTS)[number % len(FAULTS) :] + list(FAULTS)
        found = ((kind, planted) for kind in kinds for planted in itertools.islice(FAULTS[kind](case), 1))
        trial = next((attempt(kind, case, planted) for kind, planted in found), None)
        yield Acquittal("given models", path.stem, outcome), trial


def fault_rows(trials: Sequence[Trial]) -> Iterator[tuple[str, ...]]:
    """One row per kind of fault, and one for all."""
    for kind in (*FAULTS, "all"):
        these = [trial for trial in trials if kind in ("all", trial.kind)]
        margins = [trial.margin for trial in these if trial.margin is not None]
        figures = (min(margins), statistics.median(margins)) if margins and kind != "all" else ()
        counts = (len(these), sum(t.caught for t in these), sum(t.named for t in these))
        if these:
            yield (
                kind,
                *map(str, counts),
                *(f"{figure:.2g}" for figure in figures),
                *["–"] * (2 - len(figures)),
            )


def fold_rows(acquittals: Sequence[Acquittal]) -> Iterator[tuple[str, ...]]:
    """One row per group of right folds."""
    for group in dict.fromkeys(acquittal.group for acquittal in acquittals):
        these = [acquittal for acquittal in acquittals if acquittal.group == group]
        margins = sorted(figure for one in these for figure in one.margins) or [0.0]
        outputs = [figure for one in these for figure in one.outputs]
        yield (
            group,
            str(len(these)),
            str(sum(one.accused for one in these)),
            str(len(margins)),
            *(f"{margins[int(share * (len(margins) - 1))]:.2f}" for share in (0.5, 0.99, 1.0)),
            f"{max(outputs, default=0.0):.2f}",
        )


def model_rows(acquittals: Sequence[Acquittal]) -> Iterator[tuple[str, ...]]:
    """One row per given model and output: figures with the optimizer off, and at its default."""
    for one in acquittals:
        checks = [check for check in one.validation.checks if check.error is not None]
        for output in dict.fromkeys(check.output for check in checks):
            these = [check for check in checks if check.output == output]
            columns = zip(*((c.original_error, c.error, c.ratio, c.bound) for c in these), strict=True)
            figures = (" / ".join("–" if f is None else f"{f:.2g}" for f in column) for column in columns)
            yield one.name, *figures, str(len(one.validation.layers)), *worst(one.validation)


def worst(validation: Validation) -> tuple[str, str]:
    """The largest error ÷ bound of any value, and where it is."""
    if not validation.layers:
        return "–", "–"
    layer = max(validation.layers, key=margin)
    first, *others = (layer.site or layer.name).split(", ")
    return f"{margin(layer):.2f}", f"{first} and {len(others)} more" if others else first


def markdown(trials: Sequence[Trial], acquittals: Sequence[Acquittal], command: str) -> str:
    """The outcome as a page section: the date, the command, the versions and the tables."""
    versions = [f"bnfold {bnfold.__version__}"]
    versions += [f"{name} {metadata.version(name)}" for name in ("onnxruntime", "torch", "onnx")]
    versions.append(f"Python {platform.python_version()}")
    lines = [f"Measured on {today()} with {', '.join(versions)}:"]
    lines += [
        "",
        f"```console\n$ {command}\n```",
        "",
        FAULT_NOTE,
        "",
        *markdown_table(FAULT_HEADER, fault_rows(trials)),
    ]
    lines += ["", FOLD_NOTE, "", *markdown_table(FOLD_HEADER, fold_rows(acquittals))]
    models = [acquittal for acquittal in acquittals if acquittal.group == "given models"]
    if models:
        lines += ["", MODEL_NOTE, "", *markdown_table(MODEL_HEADER, model_rows(models))]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults", description="Plant faults into folds, and count what is caught."
    )
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL.onnx", help="models to fold as well")
    parser.add_argument("--seeds", type=int, default=SEEDS, metavar="NUMBER", help="statistics to go through")
    parser.add_argument("--random", type=int, default=RANDOM, metavar="NUMBER", help="random graphs to fold")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there, dated")
    options = parser.parse_args(arguments)
    missing = [str(path) for path in options.models if not path.is_file()]
    if missing:
        parser.error(f"there is no file {', '.join(missing)}")
    trials = list(planted_everywhere(options.seeds))
    acquittals = list(right_folds(options.seeds, options.random))
    for acquittal, trial in given(options.models):
        acquittals.append(acquittal)
        trials += [trial] if trial else []
    names = [path.name if isinstance(path, Path) else path for path in options.models]
    shown = [
        "python",
        "-m",
        "benchmarks.faults",
        "--seeds",
        str(options.seeds),
        "--random",
        str(options.random),
    ]
    page = markdown(trials, acquittals, shlex.join([*shown, *names]))
    print(page)
    wrong = [f"{t.network}: {t.kind}: {'not named' if t.caught else 'missed'}" for t in trials if not t.named]
    wrong += [f"{a.name}: accused: {a.validation.failures[0]}" for a in acquittals if a.accused]
    for line in wrong:
        print(line, file=sys.stderr)
    if options.markdown is not None:
        options.markdown.write_text(page, encoding="utf-8")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
