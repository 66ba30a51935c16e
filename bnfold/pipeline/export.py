"""The whole job in one call: load, export, fold, validate, time, and only then save."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from bnfold.errors import DisagreementError
from bnfold.files.atomic import check_destination
from bnfold.files.external_data import data_files
from bnfold.files.load import blaming
from bnfold.files.save import save_onnx
from bnfold.folding.fold import fold_into
from bnfold.pipeline.progress import Progress, silent, within
from bnfold.pipeline.read import Source, read_model, read_onnx
from bnfold.pipeline.rollback import Attempt
from bnfold.result import FoldResult

if TYPE_CHECKING:
    from bnfold.inputs.given import Inputs
    from bnfold.latency.results import Benchmark
    from bnfold.validation.choose_reference import OracleMode
    from bnfold.validation.validate import Validation


@dataclass(frozen=True)
class Export:
    """What [`export`][bnfold.export] did.

    Attributes:
        source: The model as it was read.
        destination: The file that was written; None when nothing was.
        fold: The folded model and the fate of every site.
        validation: How far it agrees with the original; None when that was not asked for.
        benchmarks: Latency, one entry a provider; empty when that was not asked for.
        rolled_back: Names of the nodes that were left alone because a fold of them turned out wrong.
    """

    source: Source
    destination: Path | None
    fold: FoldResult[ir.Model]
    validation: Validation | None = None
    benchmarks: tuple[Benchmark, ...] = ()
    rolled_back: tuple[str, ...] = ()


class ExportDisagreementError(DisagreementError):
    """The export was given up because the folded model disagrees; nothing was written.

    Args:
        export: What was found until then, with the validation that did not pass.
        destination: The file that was to be written.
        rollback: Whether it was tried to undo the wrong folds alone.
    """

    def __init__(self, export: Export, destination: Path, *, rollback: bool = False) -> None:
        undo = " --rollback undoes only the folds that are wrong and keeps the rest."
        super().__init__(
            f"The folded model does not agree with {export.source.path}; {destination} was not written.",
            f"A fold is meant to be exact: please report this with the model.{'' if rollback else undo}"
            " If the difference is one that you accept, a larger --tolerance lets it pass.",
        )
        self.export = export


def export(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    input_shape: Sequence[int] | Sequence[str] | str | None = None,
    dtype: str | None = None,
    arch: str | None = None,
    arch_args: Mapping[str, Any] | str | None = None,
    key: str | None = None,
    allow: Sequence[str] = (),
    trust: bool = False,
    opset: int | None = None,
    ir_version: int | None = None,
    dynamic: Sequence[str] | str = (),
    merge: bool = True,
    inline_functions: bool = False,
    keep: Collection[str] = (),
    rollback: bool = False,
    providers: Sequence[str] = ("cpu",),
    inputs: Inputs | None = None,
    samples: int = 6,
    seed: int = 0,
    tolerance: float | None = None,
    oracle: OracleMode = "auto",
    per_layer: bool = False,
    threads: int = 1,
    seconds: float = 10.0,
    validate: bool = True,
    bench: bool = True,
    progress: Progress = silent,
) -> Export:
    """Turn a trained model into an ONNX file without its BatchNorms, checked before it is written.

    The file appears whole or not at all: not when validation fails, and not when anything is interrupted.

    Args:
        source: The model, in any form that [`read_model`][bnfold.pipeline.read.read_model] reads.
        destination: The ONNX file to write. One that is there is replaced; `source` itself never is.
        input_shape: As in `read_model`, like the nine that follow.
        dtype: Type of the inputs of a PyTorch model.
        arch: What makes the network for a file of weights, as `"package.module:factory"`.
        arch_args: Its keyword arguments.
        key: Where in a checkpoint the model is.
        allow: Classes that a pickle may use.
        trust: Whether a pickle may run any code while it is read.
        opset: ONNX opset of a PyTorch model's export.
        ir_version: IR version of a PyTorch model's export.
        dynamic: Sizes of a PyTorch model to leave open, as `"batch"` or `"x:2=height"`.
        merge: Whether parallel linear branches become one convolution where that does not cost more.
        inline_functions: Whether to inline model-local functions before the fold.
        keep: Names of sites, or of nodes, that shall stay as they are.
        rollback: Whether a fold that turns out wrong is undone alone, and the rest kept and validated again.
        providers: Where to validate and to time: `"cpu"`, `"cuda"`.
        inputs: Real data for the validation and the timing: arrays by input name, several such mappings, or
            files as a [`Given`][bnfold.inputs.given.Given]; seeded random data when None.
        samples: Number of random inputs that a validation draws.
        seed: Of the random inputs.
        tolerance: Largest relative error that passes; None takes what the oracle allows.
        oracle: As in [`validate`][bnfold.validation.validate.validate], like the next.
        per_layer: Whether ONNX Runtime's numbers of every layer are measured too.
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
        arch=arch,
        arch_args=arch_args,
        key=key,
        allow=allow,
        trust=trust,
        opset=opset,
        ir_version=ir_version,
        dynamic=dynamic,
        progress=progress,
    )
    check_destination(target, *data_files(original.model))
    attempt = Attempt(original, merge, inline_functions, progress)
    folded = attempt.fold(keep)
    validation: Validation | None = None
    rolled_back: tuple[str, ...] = ()
    if validate:
        from bnfold.validation.validate import validate as compare

        def check(result: FoldResult[ir.Model]) -> Validation:
            return compare(
                original.model,
                result.model,
                providers=providers,
                inputs=inputs,
                samples=samples,
                seed=seed,
                tolerance=tolerance,
                oracle=oracle,
                per_layer=per_layer,
                on_progress=within("validate", progress),
            )

        validation = check(folded)
        if rollback:
            folded, validation, rolled_back = attempt.without_bad_folds(folded, validation, keep, check)
        if not validation.passed:
            failed = Export(original, None, folded, validation, (), rolled_back)
            raise ExportDisagreementError(failed, target, rollback=rollback)
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
    save_onnx(folded.model, target, exclusive=True)
    return Export(original, target, folded, validation, benchmarks, rolled_back)


def fold_file(
    source: str | os.PathLike[str] | Source,
    destination: str | os.PathLike[str],
    *,
    in_place: bool = False,
    merge: bool = True,
    inline_functions: bool = False,
    keep: Collection[str] = (),
    progress: Progress = silent,
) -> Export:
    """Fold an ONNX file into another, the pass alone: nothing is run.

    Args:
        source: The ONNX model, or what `read_onnx` made of it.
        destination: The file to write; one that is there is replaced.
        in_place: Whether `destination` may be the file of `source`.
        merge: Whether parallel linear branches become one convolution where that does not cost more.
        inline_functions: Whether to inline model-local functions before the fold.
        keep: Names of sites, or of nodes, that shall stay as they are.
        progress: Told each stage and how far it is.

    Raises:
        BnfoldError: It could not be done; says how to mend it. Nothing was written.
    """
    target = Path(destination)
    path = source.path if isinstance(source, Source) else Path(source)
    check_destination(target, *([] if in_place else [path]))
    original = source if isinstance(source, Source) else read_onnx(path)
    check_destination(target, *data_files(original.model))

    def write(model: ir.Model) -> None:
        progress("save", 0, 0)
        save_onnx(model, target, exclusive=True)

    progress("fold", 0, 0)
    with blaming(path):
        folded = fold_into(
            write,
            original.model,
            merge=merge,
            inline_functions=inline_functions,
            keep=keep,
            on_progress=within("fold", progress),
        )
    return Export(original, target, folded)


def compare_latency(
    original: ir.Model,
    folded: ir.Model,
    *,
    providers: Sequence[str],
    inputs: Inputs | None,
    threads: int,
    seconds: float,
    seed: int,
    progress: Progress,
) -> tuple[Benchmark, ...]:
    """Time two models against each other on every provider; the arguments are those of `export`."""
    from bnfold.latency.benchmark import benchmark

    return tuple(
        benchmark(
            original,
            folded,
            provider=provider,
            threads=threads,
            seconds=seconds,
            seed=seed,
            inputs=inputs,
            on_progress=within("time", progress),
        )
        for provider in providers
    )
