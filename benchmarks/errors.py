"""How far networks are from the truth before and after the fold: both errors to the float64 oracle.

    python -m benchmarks.errors [FILE ...] [--samples N] [--markdown FILE]

Files are ONNX models or PyTorch files that need no options; without any, the trained networks of models/
are taken. Exits with 1 if a fold is not right.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

import bnfold
from bnfold.files.atomic import replacing
from bnfold.options import Reading
from bnfold.pipeline.read import read_model
from bnfold.system.environment import environment

MODELS = Path(__file__).parent.parent / "models"
TRAINED = {
    "convnet.pt": "1x1x32x32",
    "cnn_with_batchnorm.pt": "1x3x32x32",
    "repvgg.pt2": None,
    "mobileone.pt2": None,
    "preact_resnet.pt2": None,
    "densenet.pt2": None,
}
SAMPLES = 30
HEADER = (
    "model",
    "optimizer",
    "original's error",
    "folded's error",
    "ratio",
    "bound",
    "values proved",
    "worst of them",
)
NOTE = (
    "Errors are the largest relative to the output's scale, to the original evaluated in float64, in the run "
    "in which the folded model is nearest to its bound. The ratio is that of the root-mean-square errors, "
    "folded by original, as the geometric mean over {samples} inputs. Values proved: those that both models "
    "compute and that the fold changes, in float64, by no more than one rounding of the weights explains; "
    "the last column is the largest such change and what was allowed there."
)


def rows(path: Path, input_shape: str | None, samples: int) -> Iterator[tuple[str, ...]]:
    """The lines of one model, one per optimizer setting.

    Raises:
        SystemExit: The fold is not right.
    """
    source = read_model(path, Reading(input_shape=input_shape))
    result = bnfold.validate(source.model, bnfold.fold(source.model).model, samples=samples, oracle="on")
    if not result.passed:
        raise SystemExit("\n".join(result.failures))
    worst = max(result.layers, key=lambda layer: layer.fold_error / layer.bound)
    for check in result.checks:
        yield (
            path.name,
            check.optimizer,
            f"{check.original_error:.1e}",
            f"{check.error:.1e}",
            f"{check.ratio:.3f}",
            f"{check.bound:.1e}",
            f"{sum(layer.agrees for layer in result.layers)} of {len(result.layers)}",
            f"{worst.fold_error:.1e} of {worst.bound:.1e}",
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    chosen = [(path, TRAINED.get(path.name)) for path in options.files]
    chosen = chosen or [(MODELS / name, shape) for name, shape in TRAINED.items()]
    lines = [_line(HEADER), _line(["---"] * len(HEADER))]
    print(lines[0], flush=True)
    for path, shape in chosen:
        for row in rows(path, shape, options.samples):
            lines.append(_line(row))
            print(lines[-1], flush=True)
    if options.markdown:
        with replacing(options.markdown) as stream:
            stream.write(_page(lines, options.samples, [path.name for path, _ in chosen]).encode())


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _page(lines: Sequence[str], samples: int, names: Sequence[str]) -> str:
    machine = environment()
    command = shlex.join(["python", "-m", "benchmarks.errors", *names, "--samples", str(samples)])
    return "\n".join(
        (
            "# Errors to the truth, before and after the fold",
            "",
            f"{date.today():%d %B %Y}, {machine.usable_cpus} CPUs ({machine.cpu}), ONNX Runtime "
            f"{machine.versions['onnxruntime']}, optimizer off and at its default:",
            "",
            f"    {command}",
            "",
            NOTE.format(samples=samples),
            "",
            *lines,
            "",
        )
    )


if __name__ == "__main__":
    main(sys.argv[1:])
