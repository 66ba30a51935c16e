"""`bnfold.export`."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypedDict

from bnfold.api.models import read
from bnfold.api.speaking import only_known, speaking_python
from bnfold.api.watching import watching
from bnfold.files.load import guarded
from bnfold.options import OracleMode, Reading
from bnfold.pipeline import export as pipeline
from bnfold.pipeline.progress import Progress

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from bnfold.api.models import AnyModel, ExampleInputs
    from bnfold.contract.contract import Contract
    from bnfold.inputs.given import Inputs
    from bnfold.pipeline.exported import Export
    from bnfold.pipeline.steps import Step


class ExportOptions(TypedDict, total=False):
    """The options of [`pipeline.export`][bnfold.pipeline.export.export], which explains each."""

    input_shape: Sequence[int] | Sequence[str] | str | None
    dtype: str | None
    arch: str | None
    arch_args: Mapping[str, Any] | str | None
    key: str | None
    allow: Sequence[str]
    trust: bool
    opset: int | None
    ir_version: int | None
    dynamic: Sequence[str] | str
    ignore_unexpected: bool
    merge: bool
    inline_functions: bool
    keep: Collection[str]
    no_batchnorm: bool
    equalize: bool
    narrow: Step | None
    record: bool
    record_in_model: bool
    rollback: bool
    providers: Sequence[str]
    inputs: Inputs | None
    samples: int
    seed: int
    tolerance: float | None
    oracle: OracleMode
    per_layer: bool
    threads: int | Sequence[int]
    seconds: float | None
    validate: bool
    bench: bool
    only_if_faster: bool
    in_place: bool
    contract: Contract
    target: str | None


@only_known(ExportOptions.__annotations__)
@speaking_python
@guarded
def export(
    model: AnyModel,
    destination: str | os.PathLike[str],
    example_inputs: ExampleInputs | None = None,
    *,
    progress: Progress | bool | None = None,
    **options: Unpack[ExportOptions],
) -> Export:
    """Turn a trained model into an ONNX file without its BatchNorms, checked before it is written.

    The file is written completely or not at all: not if validation fails or the job is interrupted. Folds
    after which ONNX Runtime's own graph of the model is worse are taken back, if it is installed.

        bnfold.export(net, "net.onnx", torch.randn(1, 3, 224, 224), dynamic="batch")
        bnfold.export("model.pt", "model.onnx", input_shape=(1, 3, 224, 224), seconds=5)
        bnfold.export("model.onnx", "folded.onnx", inputs={"x": images}, providers=("cpu", "cuda"))

    Args:
        model: A path to an ONNX or a PyTorch file, an `onnx.ModelProto`, an `onnx_ir.Model`, an `nn.Module`
            or an `ExportedProgram`. It is not modified.
        destination: The ONNX file to write. An existing one is replaced.
        example_inputs: What a network is traced with: a tensor, several in the order of `forward`, or
            several by its names.
        progress: Called as `progress(stage, done, total)`; True or False shows a bar or none; None shows one
            in a terminal and in a notebook.
        options: How the model is read, folded, compared and timed, as in
            [`pipeline.export`][bnfold.pipeline.export.export]: `input_shape`, `dynamic`, `opset`, `keep`,
            `equalize`, `providers`, `inputs`, `samples`, `bench`, `only_if_faster`, `contract` and others.

    Returns:
        What was done. It is true if a file was written.

    Raises:
        ExportDisagreementError: The outputs disagree; it carries the report. Nothing was written.
        NotFasterError: The model is not faster, with `only_if_faster`; it carries the report. Nothing was
            written.
        BnfoldError: Something else went wrong; it says what to do. Nothing was written.

    Examples:
        >>> bnfold.export("model.onnx", "folded.onnx", bench=False, samples=3)
        <Export: 1 of 1 BatchNorm folded; 4 → 3 nodes. ... Written: folded.onnx.>
    """
    with watching(progress) as report:
        if isinstance(model, (str, os.PathLike)) and example_inputs is None:
            return pipeline.export(model, destination, progress=report, **options)
        known = {field.name for field in fields(Reading)}
        reading = Reading(**{name: value for name, value in options.items() if name in known})  # type: ignore[arg-type]
        source = read(model, example_inputs, reading=reading, progress=report)
        versions = ("opset", "ir_version")  # which are the model's already, and come before a target's
        reads = known.difference(versions)
        others: Any = {name: value for name, value in options.items() if name not in reads}
        return pipeline.export(source, destination, progress=report, **others)
