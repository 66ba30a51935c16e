"""The whole job in one call: load, export, fold, validate, time, and only then save."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from bnfold.errors import DisagreementError, SaveError
from bnfold.files import atomic
from bnfold.files.storage import save_onnx
from bnfold.fold import fold
from bnfold.result import FoldResult
from bnfold.runtime.sessions import Feeds
from bnfold.sources import Progress, Source, read_model, read_onnx, silent

if TYPE_CHECKING:
    from bnfold.bench import Benchmark
    from bnfold.validate import Validation


@dataclass(frozen=True)
class Export:
    """What [`export`][bnfold.export] did.

    Attributes:
        source: The model as it was read.
        destination: The file that was written; None when nothing was.
        fold: The folded model and the fate of every site.
        validation: How far it agrees with the original; None when that was not asked for.
        benchmarks: Latency, one entry a provider; empty when that was not asked for.
    """

    source: Source
    destination: Path | None
    fold: FoldResult[ir.Model]
    validation: Validation | None = None
    benchmarks: tuple[Benchmark, ...] = ()


class ExportDisagreementError(DisagreementError):
    """The export was given up because the folded model disagrees; nothing was written.

    Args:
        export: What was found until then, with the validation that did not pass.
        destination: The file that was to be written.
    """

    def __init__(self, export: Export, destination: Path) -> None:
        super().__init__(
            f"The folded model does not agree with {export.source.path}; {destination} was not written.",
            "A fold is meant to be exact: please report this with the model."
            " If the difference is one that you accept, a larger --tolerance lets it pass.",
        )
        self.export = export


def export(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    input_shape: Sequence[int] | Sequence[str] | str | None = None,
    dtype: str | None = None,
    allow: Sequence[str] = (),
    opset: int | None = None,
    dynamic_batch: bool = False,
    merge: bool = True,
    inline_functions: bool = False,
    providers: Sequence[str] = ("cpu",),
    inputs: Feeds | None = None,
    samples: int = 3,
    seed: int = 0,
    tolerance: float | None = None,
    threads: int = 1,
    seconds: float = 10.0,
    validate: bool = True,
    bench: bool = True,
    progress: Progress = silent,
) -> Export:
    """Turn a trained model into an ONNX file without its BatchNorms, checked before it is written.

    The file appears whole or not at all: not when validation fails, and not when anything is interrupted.

    Args:
        source: The model, in any form that [`read_model`][bnfold.sources.read_model] reads.
        destination: The ONNX file to write. One that is there is replaced; `source` itself never is.
        input_shape: As in `read_model`, like the four that follow.
        dtype: Type of the inputs of a PyTorch model.
        allow: Classes that a pickle may use.
        opset: ONNX opset of a PyTorch model's export.
        dynamic_batch: Whether to leave the batch size of a PyTorch model open.
        merge: Whether parallel linear branches become one convolution where that does not cost more.
        inline_functions: Whether to inline model-local functions before the fold.
        providers: Where to validate and to time: `"cpu"`, `"cuda"`.
        inputs: Real data by input name, for the validation and the timing; seeded random data when None.
        samples: Number of random inputs that a validation draws.
        seed: Of the random inputs.
        tolerance: Largest relative error that passes; chosen by each output's type when None.
        threads: ONNX Runtime's threads for the timing.
        seconds: How long to time, on each provider.
        validate: Whether to compare the outputs before anything is written.
        bench: Whether to time the original against the folded model.
        progress: Told each stage and how far it is.

    Raises:
        ExportDisagreementError: The outputs disagree; carries the report. Nothing was written.
        BnfoldError: It could not be done; says how to mend it. Nothing was written.
    """
    target = Path(destination)
    check_destination(target, Path(source))
    original = read_model(
        source,
        input_shape=input_shape,
        dtype=dtype,
        allow=allow,
        opset=opset,
        dynamic_batch=dynamic_batch,
        progress=progress,
    )
    progress("fold", 0, 0)
    folded = fold(
        original.model,
        merge=merge,
        inline_functions=inline_functions,
        on_progress=_within("fold", progress),
    )
    validation = None
    if validate:
        from bnfold.validate import validate as compare

        validation = compare(
            original.model,
            folded.model,
            providers=providers,
            inputs=inputs,
            samples=samples,
            seed=seed,
            tolerance=tolerance,
            on_progress=_within("validate", progress),
        )
        if not validation.passed:
            raise ExportDisagreementError(Export(original, None, folded, validation), target)
    benchmarks = (
        compare_latency(
            original.model,
            folded.model,
            providers=providers,
            inputs=inputs,
            threads=threads,
            seconds=seconds,
            seed=seed,
            progress=progress,
        )
        if bench
        else ()
    )
    progress("save", 0, 0)
    save_onnx(folded.model, target)
    return Export(original, target, folded, validation, benchmarks)


def fold_file(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    merge: bool = True,
    inline_functions: bool = False,
    progress: Progress = silent,
) -> Export:
    """Fold an ONNX file into another, the pass alone: nothing is run.

    Args:
        source: The ONNX model.
        destination: The file to write; one that is there is replaced.
        merge: Whether parallel linear branches become one convolution where that does not cost more.
        inline_functions: Whether to inline model-local functions before the fold.
        progress: Told each stage and how far it is.

    Raises:
        BnfoldError: It could not be done; says how to mend it. Nothing was written.
    """
    target = Path(destination)
    check_destination(target, Path(source))
    original = read_onnx(source)
    progress("fold", 0, 0)
    folded = fold(
        original.model,
        merge=merge,
        inline_functions=inline_functions,
        on_progress=_within("fold", progress),
    )
    progress("save", 0, 0)
    save_onnx(folded.model, target)
    return Export(original, target, folded)


def compare_latency(
    original: ir.Model,
    folded: ir.Model,
    *,
    providers: Sequence[str],
    inputs: Feeds | None,
    threads: int,
    seconds: float,
    seed: int,
    progress: Progress,
) -> tuple[Benchmark, ...]:
    """Time two models against each other on every provider; the arguments are those of `export`."""
    from bnfold.bench import benchmark

    return tuple(
        benchmark(
            original,
            folded,
            provider=provider,
            threads=threads,
            seconds=seconds,
            seed=seed,
            inputs=inputs,
            on_progress=_within("time", progress),
        )
        for provider in providers
    )


def check_destination(destination: Path, *sources: Path) -> None:
    """Refuse a file to write before any work is spent on it.

    Raises:
        SaveError: Its folder is missing or read-only, it is no ordinary file, or it is one of `sources`.
    """
    atomic.destination(destination)
    for source in sources:
        if destination.absolute() == source.absolute() or (
            destination.exists() and source.exists() and destination.samefile(source)
        ):
            raise SaveError(
                f"{destination} is an input or an output of this command already.",
                "Name another file to write.",
            )


def _within(stage: str, progress: Progress) -> Callable[[int, int], None]:
    """Give one stage a progress callback of its own."""
    return lambda done, total: progress(stage, done, total)
