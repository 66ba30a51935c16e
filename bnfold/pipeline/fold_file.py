"""Folding a file into another: nothing is run, and weights need not fit into memory."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from bnfold.contract.contract import AS_IT_IS, Contract
from bnfold.errors import InputError
from bnfold.files.atomic import check_destination
from bnfold.files.external_data import data_files
from bnfold.files.load import blaming
from bnfold.files.save import save_onnx
from bnfold.folding.fold import fold_into
from bnfold.pipeline.contract import contracted
from bnfold.pipeline.exported import Export
from bnfold.pipeline.progress import Progress, Stage, silent, within
from bnfold.pipeline.read import Source, read_onnx
from bnfold.pipeline.statistics import of_folded
from bnfold.pipeline.statistics import read as read_statistics
from bnfold.pipeline.statistics import write as write_statistics
from bnfold.pipeline.steps import Done, apply, asked_for

_NO_GRAPHS = "a fold alone runs nothing; bnfold export compares it"


def fold_file(
    source: str | os.PathLike[str] | Source,
    destination: str | os.PathLike[str],
    *,
    in_place: bool = False,
    merge: bool = True,
    inline_functions: bool = False,
    keep: Collection[str] = (),
    no_batchnorm: bool = False,
    equalize: bool = False,
    record: bool = False,
    record_in_model: bool = False,
    contract: Contract = AS_IT_IS,
    progress: Progress = silent,
) -> Export:
    """Fold an ONNX file into another without running either model.

    Args:
        source: The ONNX file, or what `read_onnx` returned for it.
        destination: The file to write; an existing one is replaced.
        in_place: Whether `destination` may be the file of `source`.
        merge: Whether parallel linear branches become one convolution where that does not cost more.
        inline_functions: Whether to inline model-local functions before the fold.
        keep: Names of sites or nodes that must stay as they are.
        no_batchnorm: Whether BatchNorms that cannot be folded become other operators.
        equalize: Whether the channels of weights are balanced by powers of two.
        record: Whether `statistics` of the result has the numbers of every BatchNorm that was folded.
        record_in_model: Whether the file has them too, in its metadata.
        contract: What is changed in the model before the fold; the file is an ONNX file.
        progress: Called with each stage and how far it is.

    Raises:
        BnfoldError: Something went wrong; it says what to do. Nothing was written.
    """
    target = Path(destination)
    if contract.format_of(target) == "ort":
        raise InputError(
            f"{target}: ONNX Runtime writes its own format, and a fold runs nothing.",
            "Type bnfold export instead.",
        )
    path = source.path if isinstance(source, Source) else Path(source)
    check_destination(target, *(() if in_place else (path,)))
    original = source if isinstance(source, Source) else read_onnx(path)
    check_destination(target, *data_files(original.model))

    with blaming(path):
        agreed = contracted(original.model, contract, None, runs=False)
    known = read_statistics(agreed.model) if record or record_in_model else ()
    steps = asked_for(equalize=equalize, in_memory=False)
    made: list[tuple[ir.Model, tuple[Done, ...]]] = []

    def write(model: ir.Model) -> None:
        made[:] = [apply(steps, model)]
        if record_in_model:
            write_statistics(made[0][0], known)
        progress(Stage.SAVE, 0, 0)
        save_onnx(made[0][0], target, exclusive=True)

    progress(Stage.FOLD, 0, 0)
    with blaming(path):
        folded = fold_into(
            write,
            agreed.model,
            merge=merge,
            inline_functions=inline_functions,
            keep=keep,
            no_batchnorm=no_batchnorm,
            on_progress=within(Stage.FOLD, progress),
        )
    model, done = made[0]
    folded = replace(folded, model=model)
    export = Export(original, target, folded, no_graphs=_NO_GRAPHS, steps=done)
    export = replace(export, statistics=of_folded(known, model), base=agreed.model)
    return replace(export, asked=contract, contract=agreed.with_left(model))
