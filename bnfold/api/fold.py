"""`bnfold.fold`."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, overload

import onnx
import onnx_ir as ir

from bnfold.api.models import is_network, name_of, not_a_model
from bnfold.api.speaking import speaking_python
from bnfold.api.watching import watching
from bnfold.errors import InputError
from bnfold.folding import fold as folding
from bnfold.pipeline.progress import Progress, Stage, within
from bnfold.pipeline.read import is_torch
from bnfold.result import FoldResult

if TYPE_CHECKING:
    from torch import nn

    from bnfold.api.models import ExampleInputs
    from bnfold.torch.write_back.fold_module import Folded


@overload
def fold(
    model: onnx.ModelProto,
    *,
    merge: bool = ...,
    inline_functions: bool = ...,
    keep: Collection[str] = ...,
    no_batchnorm: bool = ...,
    progress: Progress | bool | None = ...,
) -> FoldResult[onnx.ModelProto]: ...
@overload
def fold(
    model: str | os.PathLike[str] | ir.Model,
    *,
    merge: bool = ...,
    inline_functions: bool = ...,
    keep: Collection[str] = ...,
    no_batchnorm: bool = ...,
    progress: Progress | bool | None = ...,
) -> FoldResult[ir.Model]: ...
@overload
def fold(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    merge: bool = ...,
    keep: Collection[str] = ...,
    progress: Progress | bool | None = ...,
) -> Folded: ...
@speaking_python
def fold(
    model: Any,
    example_inputs: ExampleInputs | None = None,
    *,
    merge: bool = True,
    inline_functions: bool = False,
    keep: Collection[str] = (),
    no_batchnorm: bool = False,
    progress: Progress | bool | None = None,
) -> Any:
    """Fold every eval-mode BatchNorm, and arithmetic that amounts to one, into the weights around it.

    A fold is made only where it is an identity over the reals; what stays has a reason. Numbers are computed
    in float64 and rounded once, and the same input gives the same bytes.

        result = bnfold.fold("model.onnx")
        onnx_ir.save(result.model, "folded.onnx")
        module = bnfold.fold(net, torch.randn(1, 3, 224, 224)).module

    Args:
        model: A path to an ONNX file, an `onnx.ModelProto`, an `onnx_ir.Model`, or an `nn.Module`. It is not
            modified.
        example_inputs: What an `nn.Module` is traced with: a tensor, several in the order of `forward`, or
            several by its names.
        merge: Whether parallel linear branches, and two layers in a row, become one where that does not cost
            more.
        inline_functions: Whether to inline model-local functions first, so that their weights, which callers
            pass in, are constants.
        keep: Names of sites, or of nodes, that stay as they are and take no part.
        no_batchnorm: Whether BatchNorms that cannot be folded become other operators, such as a Mul and an
            Add, for targets that have no BatchNormalization. It makes nothing faster.
        progress: Called as `progress(stage, done, total)`; True or False shows a bar or none; None shows one
            in a terminal and in a notebook.

    Returns:
        The folded model, of the kind that was given (a path gives an `onnx_ir.Model`), with the fate of every
        site; for an `nn.Module` a [`Folded`][bnfold.torch.write_back.fold_module.Folded] copy of it.

    Raises:
        ModelError: The file cannot be read as a model.
        InputError: The model has no node of a name in `keep`; or the example inputs do not fit.
        DisagreementError: A folded module computes something else. That would be a mistake in bnfold.

    Examples:
        >>> bnfold.fold("model.onnx")
        <FoldResult: 1 of 1 BatchNorm folded; 4 → 3 nodes.>
    """
    if is_network(model):
        return _fold_network(model, example_inputs, merge, keep, inline_functions or no_batchnorm)
    if example_inputs is not None:
        raise InputError("example_inputs are for a torch.nn.Module.", "Leave them out for an ONNX model.")
    if not isinstance(model, (str, os.PathLike, onnx.ModelProto, ir.Model)):
        raise not_a_model(model)
    if isinstance(model, (str, os.PathLike)) and is_torch(model):
        raise InputError(
            f"{os.fspath(model)} is a PyTorch file; bnfold.fold takes an ONNX file or a model in memory.",
            "Type bnfold.export(path, 'model.onnx') for a folded ONNX file, or load the module and give it.",
        )
    with watching(progress) as report:
        return folding.fold(
            model,
            merge=merge,
            inline_functions=inline_functions,
            keep=keep,
            no_batchnorm=no_batchnorm,
            on_progress=within(Stage.FOLD, report),
        )


def _fold_network(
    model: Any, example_inputs: ExampleInputs | None, merge: bool, keep: Collection[str], has_more: bool
) -> Folded:
    from torch import nn

    from bnfold.torch.write_back.fold_module import fold as fold_module

    if not isinstance(model, nn.Module):
        raise InputError(
            f"A {name_of(model)} has no parameters to fold into.",
            "Give its module, or write an ONNX file with bnfold.export(program, 'model.onnx').",
        )
    if example_inputs is None:
        raise InputError(
            f"A {name_of(model)} is traced with example inputs, and there are none.",
            "Give them: bnfold.fold(model, torch.randn(1, 3, 224, 224)) with the shape of its input.",
        )
    if has_more:
        raise InputError(
            "inline_functions and no_batchnorm are for ONNX models.", "Leave them out for a torch.nn.Module."
        )
    return fold_module(model, example_inputs, merge=merge, keep=keep)
