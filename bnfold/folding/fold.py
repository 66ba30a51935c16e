"""Folding a model: runs over copies of it, until every folded number fits its type."""

from __future__ import annotations

import difflib
import gc
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, overload

import onnx
import onnx_ir as ir

from bnfold import reasons
from bnfold.errors import InputError, ModelError
from bnfold.files.load import blaming, from_proto, load_onnx
from bnfold.files.other_types import to_proto
from bnfold.folding import record
from bnfold.folding.sweep import Pass, Progress
from bnfold.graph.nodes import count_nodes, label, module_name
from bnfold.graph.scopes import nodes
from bnfold.reasons import Reason
from bnfold.result import FoldResult
from bnfold.tensors.precision import OutOfRangeError


@overload
def fold(
    model: onnx.ModelProto,
    *,
    merge: bool = ...,
    inline_functions: bool = ...,
    keep: Collection[str] = ...,
    no_batchnorm: bool = ...,
    on_progress: Progress | None = ...,
) -> FoldResult[onnx.ModelProto]: ...
@overload
def fold(
    model: str | os.PathLike[str] | ir.Model,
    *,
    merge: bool = ...,
    inline_functions: bool = ...,
    keep: Collection[str] = ...,
    no_batchnorm: bool = ...,
    on_progress: Progress | None = ...,
) -> FoldResult[ir.Model]: ...
def fold(
    model: str | os.PathLike[str] | onnx.ModelProto | ir.Model,
    *,
    merge: bool = True,
    inline_functions: bool = False,
    keep: Collection[str] = (),
    no_batchnorm: bool = False,
    on_progress: Progress | None = None,
) -> FoldResult[onnx.ModelProto] | FoldResult[ir.Model]:
    """Fold every eval-mode BatchNorm, and arithmetic that amounts to one, into the weights around it.

    A fold is made only where it is an identity over the reals; what stays has a reason. Numbers are computed
    in float64 and rounded once, and the same input gives the same bytes.

    Args:
        model: A path, an `onnx.ModelProto` or an `onnx_ir.Model`. It is not modified.
        merge: Whether parallel linear branches, and two layers in a row, become one where that does not cost
            more.
        inline_functions: Whether to inline model-local functions first, so that their weights, which callers
            pass in, are constants.
        keep: Names of sites, or of nodes, that stay as they are and take no part.
        no_batchnorm: Whether BatchNorms that cannot be folded become other operators, such as a Mul and an
            Add, for targets that have no BatchNormalization. It makes nothing faster.
        on_progress: Called with the number of BatchNorms looked at and found, in every sweep.

    Returns:
        The folded model, a `ModelProto` for a `ModelProto` and otherwise an `onnx_ir.Model`, with the fate of
        every site.

    Raises:
        ModelError: The file cannot be read as a model.
        InputError: The model has no node of a name in `keep`.
    """
    if isinstance(model, (str, os.PathLike)):
        with blaming(model):
            return fold(
                load_onnx(model),
                merge=merge,
                inline_functions=inline_functions,
                keep=keep,
                no_batchnorm=no_batchnorm,
                on_progress=on_progress,
            )
    opened = from_proto(model) if isinstance(model, onnx.ModelProto) else model
    result: FoldResult[Any] = fold_into(
        None,
        opened,
        merge=merge,
        inline_functions=inline_functions,
        keep=keep,
        no_batchnorm=no_batchnorm,
        on_progress=on_progress,
    )
    return replace(result, model=to_proto(result.model)) if isinstance(model, onnx.ModelProto) else result


def fold_into(
    write: Callable[[ir.Model], None] | None,
    model: ir.Model,
    *,
    merge: bool = True,
    inline_functions: bool = False,
    keep: Collection[str] = (),
    no_batchnorm: bool = False,
    keep_layout: bool = False,
    on_progress: Progress | None = None,
) -> FoldResult[ir.Model]:
    """Fold as [`fold`][bnfold.folding.fold.fold] does, but compute a folded weight only when it is written.

    So folded weights need not fit into memory. `fold` itself keeps what it has computed, since its models are
    run, compared and measured, which reads every weight several times.

    Args:
        write: Called with the folded model; and again, with another, each time that a weight turned out not
            to fit its type. It writes all or nothing, and does not catch what reading a tensor raises. None:
            every weight is computed at once, and nothing is written.
        model: As in `fold`, like what follows.
        merge: Whether to merge parallel linear branches, and layers in a row.
        inline_functions: Whether to inline functions first.
        keep: What stays; a mapping gives the reason with each name.
        no_batchnorm: Whether BatchNorms that stay become other operators.
        keep_layout: Whether Reshapes and Transposes stay even where they undo each other, and layers what is
            next to them: a module's forward makes them.
        on_progress: Called in every sweep.

    Returns:
        The model as it was written last; its folded weights are computed again each time they are read.

    Raises:
        InputError: The model has no node of a name in `keep`.
    """
    origin = (record.digest(model), record.names(model))
    if inline_functions and model.functions:
        from onnx_ir.passes.common import InlinePass  # imports all other passes, so only where it is needed

        model = model.clone()
        InlinePass()(model)
    before = count_nodes(model)
    barred = _kept(model, keep)
    while True:
        attempt = Pass(
            model.clone(),
            barred,
            merging=merge,
            no_batchnorm=no_batchnorm,
            keep_layout=keep_layout,
            on_progress=on_progress,
        )
        try:
            sites = attempt.run(write, *origin)
        except OutOfRangeError as late:
            errors = attempt.misfits() or [late]
            # start again without the folds that led to numbers that do not fit their type
            blamed = attempt.blame(errors)
            if blamed.keys() <= barred.keys():
                if not merge:
                    raise ModelError(
                        f"Folded constants of {label(errors[0].node)} do not fit {errors[0].dtype}.",
                        "Please report this with the model; a wider type avoids it.",
                    ) from late
                merge = False
            barred |= blamed
        else:
            after, apart = count_nodes(attempt.model), tuple(attempt.apart.values())
            merges, joins = tuple(attempt.merges), tuple(attempt.joins)
            return FoldResult(attempt.model, sites, before, after, merges, apart, joins)
        del attempt
        gc.collect()  # a model that is given up refers to itself, so only the collector frees its memory


def _kept(model: ir.Model, keep: Collection[str]) -> dict[int, Reason]:
    """The nodes that stay on request, by their position in the model."""
    if not keep:
        return {}
    given = keep if isinstance(keep, Mapping) else {}
    missing = set(keep)
    barred: dict[int, Reason] = {}
    for position, node in enumerate(nodes(model)):
        names = {label(node), module_name(node)}.intersection(keep)
        if names:
            own = next((given[name] for name in names if given.get(name)), None)
            barred[position] = own or reasons.ON_REQUEST(node=label(node))
            missing -= names
    if missing:
        raise InputError(
            f"The model has no node named {', '.join(sorted(missing))}, which was to be kept.",
            f"{_question(model, missing)}`bnfold inspect` lists the names of all BatchNorms.",
        )
    return barred


def _question(model: ir.Model, missing: Collection[str]) -> str:
    """A question for the first name that is not there, if one of the model's is much like it."""
    names = {module_name(node) for node in nodes(model)}
    near = difflib.get_close_matches(min(missing), sorted(names), n=2)
    return f"Did you mean {' or '.join(near)}? " if near else ""
