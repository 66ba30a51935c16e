"""`bnfold.equalize`."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, overload

import onnx
import onnx_ir as ir

from bnfold.api.models import read
from bnfold.api.speaking import only_known, speaking_python
from bnfold.api.watching import watching
from bnfold.edge import equalize as balancing
from bnfold.files.load import guarded
from bnfold.files.other_types import to_proto
from bnfold.options import Reading
from bnfold.pipeline.progress import Progress, Stage

if TYPE_CHECKING:
    from bnfold.api.models import ExampleInputs, Network
    from bnfold.edge.balance import Equalized


@overload
def equalize(
    model: onnx.ModelProto, *, progress: Progress | bool | None = ...
) -> Equalized[onnx.ModelProto]: ...
@overload
def equalize(
    model: str | os.PathLike[str] | ir.Model | Network,
    example_inputs: ExampleInputs | None = ...,
    *,
    progress: Progress | bool | None = ...,
    **reading: Any,
) -> Equalized[ir.Model]: ...
@only_known(field.name for field in fields(Reading))
@speaking_python
@guarded
def equalize(
    model: Any,
    example_inputs: ExampleInputs | None = None,
    *,
    progress: Progress | bool | None = None,
    **reading: Any,
) -> Any:
    """Balance the channels of weights by powers of two, which changes no bit of any output.

    Weights with one step for all of their channels then lose less when they are quantised. Fold BatchNorms
    first: they keep channels apart.

        done = bnfold.equalize("folded.onnx")
        onnx_ir.save(done.model, "balanced.onnx")
        bnfold.equalize(bnfold.fold(net, x).module, x).records()

    Args:
        model: A path to an ONNX or a PyTorch file, an `onnx.ModelProto`, an `onnx_ir.Model`, an `nn.Module`
            or an `ExportedProgram`. It is not modified. Weights of float32 and float64 take part.
        example_inputs: What a network is traced with: a tensor, several in the order of `forward`, or
            several by its names.
        progress: Called as `progress(stage, done, total)`; True or False shows a bar or none; None shows one
            in a terminal and in a notebook.
        reading: How a PyTorch file is read, by the fields of [`Reading`][bnfold.options.Reading]:
            `input_shape`, `dtype`, `arch`, `key`, `dynamic` and others.

    Returns:
        A model whose outputs are the same, bit for bit, unless values inside it overflow or are too small for
        the digits of their type; and the ranges of its weights before and after. A `ModelProto` gives a
        `ModelProto`. Anything else gives an `onnx_ir.Model`, also an `nn.Module`: its
        outputs are those of the ONNX model that it is exported to.

    Raises:
        ModelError: The model cannot be read or exported.
        InputError: The example inputs or a shape are missing or do not fit.

    Examples:
        >>> done = bnfold.equalize("folded.onnx")
        >>> [(row["layer"], row["moved"], row["channels"]) for row in done.records()]
        [('conv1', 3, 4), ('conv2', 0, 3)]
    """
    with watching(progress) as report:
        source = read(model, example_inputs, reading=Reading(**reading), progress=report)
        report(Stage.EQUALIZE, 0, 0)
        done = balancing.equalized(source.model)
        return replace(done, model=to_proto(done.model)) if isinstance(model, onnx.ModelProto) else done
