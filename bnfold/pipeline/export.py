"""The whole job in one call: load, export, fold, validate, time, and save as the last step."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from bnfold.contract.contract import AS_IT_IS, Contract
from bnfold.errors import InputError, ModelError, UndecidedError
from bnfold.files.atomic import check_destination
from bnfold.files.external_data import data_files
from bnfold.files.load import guarded
from bnfold.files.save import save_onnx
from bnfold.options import Checking, OracleMode, Reading, Timing
from bnfold.pipeline.contract import as_given, contracted
from bnfold.pipeline.exported import Export, ExportDisagreementError, NarrowedTooFarError, NotFasterError
from bnfold.pipeline.harm import counted_again, without_harm
from bnfold.pipeline.progress import Progress, Stage, silent
from bnfold.pipeline.read import Source, is_torch, read_model
from bnfold.pipeline.rollback import Attempt
from bnfold.pipeline.statistics import of_folded
from bnfold.pipeline.statistics import read as read_statistics
from bnfold.pipeline.statistics import write as write_statistics
from bnfold.pipeline.steps import Step, Trial, apply, asked_for
from bnfold.pipeline.targeting import contract_for, reached, reading_for
from bnfold.pipeline.timing import compare_latency
from bnfold.result import FoldResult
from bnfold.targets.profile import load as load_target

if TYPE_CHECKING:
    from bnfold.inputs.given import Inputs


@guarded
def export(
    source: str | os.PathLike[str] | Source,
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
    ignore_unexpected: bool = False,
    merge: bool = True,
    inline_functions: bool = False,
    keep: Collection[str] = (),
    no_batchnorm: bool = False,
    equalize: bool = False,
    narrow: Step | None = None,
    record: bool = False,
    record_in_model: bool = False,
    rollback: bool = False,
    providers: Sequence[str] = ("cpu",),
    inputs: Inputs | None = None,
    samples: int = 6,
    seed: int = 0,
    tolerance: float | None = None,
    oracle: OracleMode = "auto",
    per_layer: bool = False,
    threads: int | Sequence[int] = 1,
    seconds: float | None = None,
    validate: bool = True,
    bench: bool = True,
    only_if_faster: bool = False,
    in_place: bool = False,
    contract: Contract = AS_IT_IS,
    target: str | None = None,
    progress: Progress = silent,
) -> Export:
    """Turn a trained model into an ONNX file without its BatchNorms, checked before it is written.

    The file is written completely or not at all: not if validation fails or the job is interrupted. Folds
    after which ONNX Runtime's own graph of the model is worse are taken back, if it is installed.

    Args:
        source: The model, in any form that [`read_model`][bnfold.pipeline.read.read_model] reads, or as it
            was read.
        destination: The ONNX file to write. An existing one is replaced; `source` only with `in_place`.
        input_shape: Shape of a PyTorch model's inputs, like all options up to `ignore_unexpected` a field of
            [`Reading`][bnfold.options.Reading].
        dtype: Type of the inputs of a PyTorch model.
        arch: What makes the network for a file of weights, as `"package.module:factory"`.
        arch_args: Its keyword arguments.
        key: Where the model is in a checkpoint.
        allow: Classes that a pickle may use.
        trust: Whether a pickle may run any code while it is read.
        opset: ONNX opset of a PyTorch model's export; an ONNX file is converted to it.
        ir_version: IR version of the file, likewise.
        dynamic: Sizes of a PyTorch model to leave open, as `"batch"` or `"x:2=height"`.
        ignore_unexpected: Whether weights that `arch` does not have are left out.
        merge: Whether parallel linear branches become one convolution where that does not cost more.
        inline_functions: Whether to inline model-local functions before the fold.
        keep: Names of sites or nodes that must stay as they are.
        no_batchnorm: Whether BatchNorms that cannot be folded become other operators, for targets that do
            not have this one. ONNX Runtime's graph may be larger for it.
        equalize: Whether the channels of weights are balanced by powers of two, for quantisation with one
            step a tensor; the outputs stay equal bit for bit.
        narrow: The last step, after the validation: [`Convert`][bnfold.pipeline.narrow.Convert] to half
            precision or [`Quantize`][bnfold.pipeline.narrow.Quantize] to eight bits. The latency is that of
            its result.
        record: Whether `statistics` of the result has the numbers of every BatchNorm that was folded.
        record_in_model: Whether the file has them too, in its metadata.
        rollback: Whether only the folds that turn out wrong are undone, and the result validated again.
        providers: Where to validate and to time: `"cpu"`, `"cuda"`, or the short name of another provider of
            the installed ONNX Runtime.
        inputs: Real data for the validation and the timing: arrays by input name, several such mappings, or
            files as a [`Given`][bnfold.inputs.given.Given]; seeded random data when None.
        samples: Number of random inputs to validate on.
        seed: Seed of the random inputs.
        tolerance: Largest relative error that passes; None uses what the oracle allows.
        oracle: As in [`validate`][bnfold.validation.validate.validate].
        per_layer: As in `validate`.
        threads: ONNX Runtime's threads for the timing: a number, or several, each of which is timed.
        seconds: How long to time on each provider; None takes up to 10 seconds, and less where the answer is
            clear before.
        validate: Whether to compare the outputs before anything is written.
        bench: Whether to time the original against the folded model.
        only_if_faster: Whether to write the file only if the verdict at ONNX Runtime's default is "faster" on
            every provider. It needs `bench`.
        in_place: Whether `destination` may be the file of `source`, if that is an ONNX file.
        contract: What is changed in the model before the fold, each change proved by running it: its inputs
            and outputs, sizes and versions; and the format of the file. Given `inputs` are those of the new
            model.
        target: What the file is for, as `bnfold targets` lists it, or a TOML file that describes it: what it
            demands of the contract is done, and `target` of the result has what still stands in the way.
        progress: Called with each stage and how far it is.

    Raises:
        ContractNotMetError: A change of the contract does not compute the same. Nothing was written.
        ExportDisagreementError: The outputs disagree; it carries the report. Nothing was written.
        NotFasterError: The model is not faster, with `only_if_faster`; it carries the report. Nothing was
            written.
        NarrowedTooFarError: The model in fewer bits is not good enough; it carries the report. Nothing was
            written.
        BnfoldError: Something else went wrong; it says what to do. Nothing was written.
    """
    if only_if_faster and not bench:
        raise InputError(
            "--only-if-faster needs the latency, which --no-bench leaves out.", "Leave out one of the two."
        )
    reading = Reading(
        *(input_shape, dtype, arch, arch_args, key, allow, trust, opset, ir_version, dynamic),
        ignore_unexpected=ignore_unexpected,
    )
    # a fold that changes what callers see is wrong
    checking = Checking(
        tuple(providers), samples, seed, tolerance, oracle=oracle, per_layer=per_layer, strict=True
    )
    output, profile = Path(destination), None if target is None else load_target(target)
    path = source.path if isinstance(source, Source) else Path(source)
    check_destination(output, *(() if in_place else (path,)))
    reading, contract = _versions(source, reading_for(profile, source, reading), contract)
    original = source if isinstance(source, Source) else read_model(source, reading, progress=progress)
    if not in_place:
        check_destination(output, *data_files(original.model))
    contract, without = contract_for(profile, original.model, contract, reading)
    inputs = as_given(inputs, contract)
    trial = Trial(checking, inputs)
    agreed = contracted(original.model, contract, trial if validate else None)
    base = replace(original, model=agreed.model)
    known = read_statistics(base.model) if record or record_in_model else ()
    attempt = Attempt(base, keep, merge, inline_functions, checking, inputs, progress)
    attempt, folded, graphs, no_graphs = without_harm(attempt, attempt.fold())
    if no_batchnorm or without:
        attempt = replace(attempt, no_batchnorm=True)
        folded = attempt.fold()
        graphs = graphs and counted_again(graphs, folded.model)
    steps = _Steps(asked_for(equalize=equalize), trial)
    done = Export(original, None, folded, asked=contract, contract=agreed.done, base=base.model)
    done = steps.applied(replace(done, graphs=graphs, no_graphs=no_graphs))
    if validate:
        done = _validated(done, attempt, output, folded, steps if rollback else None)
    floats = done.fold.model
    done = replace(done, contract=agreed.with_left(floats))
    if narrow is not None:
        done = _narrowed(done, narrow, trial, folded.model if equalize else None, output)
    if bench:
        timing = Timing(threads, seconds, seed=seed)
        done = _timed(done, providers, timing, inputs, progress, demanded=only_if_faster)
    if only_if_faster and any(row.verdict != "faster" for one in done.benchmarks for row in one.defaults):
        raise NotFasterError(done, output)
    done = replace(done, statistics=of_folded(known, floats), target=reached(profile, done.fold.model))
    if record_in_model:
        write_statistics(done.fold.model, known)
    progress(Stage.SAVE, 0, 0)
    return _saved(done, output, trial if validate else None)


def _versions(
    source: str | os.PathLike[str] | Source, reading: Reading, contract: Contract
) -> tuple[Reading, Contract]:
    """Where the versions that were asked for are met: by the export of a PyTorch file, or by the contract."""
    opset = reading.opset or contract.opset
    version = reading.ir_version or contract.ir_version
    if not isinstance(source, Source) and is_torch(source):
        reading = replace(reading, opset=opset, ir_version=version)
        return reading, replace(contract, opset=None, ir_version=None)
    reading = replace(reading, opset=None, ir_version=None)
    return reading, replace(contract, opset=opset, ir_version=version)


def _saved(done: Export, target: Path, trial: Trial | None) -> Export:
    """Write the file in the format that was asked for, or that its suffix says."""
    if done.asked.format_of(target) == "onnx":
        save_onnx(done.fold.model, target, exclusive=True)
        return replace(done, destination=target)
    from bnfold.pipeline.ort_format import save_ort  # it runs models

    last = save_ort(done.fold.model, target, trial)
    return replace(done, destination=target, steps=(*done.steps, last))


def _timed(
    done: Export,
    providers: Sequence[str],
    timing: Timing,
    inputs: Inputs | None,
    progress: Progress,
    *,
    demanded: bool,
) -> Export:
    """Add the latency, or unless it is demanded, why ONNX Runtime cannot run the original at all."""
    from bnfold.runtime.sessions import loads

    original = done.original
    try:
        latencies = compare_latency(original, done.fold.model, providers, timing, inputs, progress)
    except ModelError as error:
        if demanded or (loads(original) and loads(done.fold.model)):  # none has every operator in bfloat16
            raise
        return replace(done, not_timed=f"Latency was not measured. {error.problem}")
    return replace(done, benchmarks=latencies)


def _narrowed(done: Export, step: Step, trial: Trial, unequalized: ir.Model | None, target: Path) -> Export:
    """Add the last step, which compares itself with the model before equalisation where there was one."""
    from bnfold.pipeline.narrow import Quantize

    if isinstance(step, Quantize):
        calibration = as_given(step.calibration, done.asked)
        step = replace(
            step, before=unequalized, calibration=step.calibration if calibration is None else calibration
        )
    model, last = step(done.fold.model, trial)
    done = replace(done, fold=replace(done.fold, model=model), steps=(*done.steps, last))
    if not last.passed:
        raise NarrowedTooFarError(done, target)
    return done


@dataclass(frozen=True)
class _Steps:
    """The steps after the fold, and how they are proved."""

    steps: Sequence[Step]
    trial: Trial

    def applied(self, done: Export) -> Export:
        """The same with the model that the steps make of the folded one."""
        model, steps = apply(self.steps, done.fold.model, self.trial)
        return replace(done, fold=replace(done.fold, model=model), steps=steps)


def _validated(
    done: Export, attempt: Attempt, target: Path, folded: FoldResult[ir.Model], steps: _Steps | None
) -> Export:
    """Add the validation, and undo what it finds wrong if that was asked for.

    Args:
        done: What was done so far.
        attempt: How the model was folded.
        target: The file to write.
        folded: The fold before the steps.
        steps: Applies them again after folds were undone; None undoes none.
    """
    validation = attempt.validate(done.fold)
    if steps is not None:
        folded, validation, rolled_back = attempt.without_bad_folds(folded, validation)
        if rolled_back:
            graphs = done.graphs and counted_again(done.graphs, folded.model)
            done = steps.applied(replace(done, fold=folded, rolled_back=rolled_back, graphs=graphs))
            validation = attempt.validate(done.fold) if steps.steps else validation
    done = replace(done, validation=validation)
    if validation.undecided and not validation.failures:
        raise UndecidedError(
            validation.undecided, "Give inputs with --inputs, or skip this with --no-validate."
        )
    if not validation.passed:
        raise ExportDisagreementError(done, target, rollback=steps is not None)
    return done
