"""What the public functions take as a model, and how it becomes an ONNX model."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import onnx
import onnx_ir as ir

from bnfold.errors import InputError, MissingShapeError
from bnfold.files.load import from_proto
from bnfold.options import PLAIN, Reading
from bnfold.pipeline.progress import Progress, silent
from bnfold.pipeline.read import Source, export_loaded, is_torch, read_model

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.export import ExportedProgram

    ExampleInputs: TypeAlias = torch.Tensor | Sequence[torch.Tensor] | Mapping[str, torch.Tensor]
    Network: TypeAlias = nn.Module | ExportedProgram
    OnnxModel: TypeAlias = str | os.PathLike[str] | onnx.ModelProto | ir.Model
    AnyModel: TypeAlias = OnnxModel | Network


_LONGEST_NAME = 80  # characters; it stands where the path of a file does, and paths have an end


def is_network(model: object) -> bool:
    """Whether it is an `nn.Module` or an `ExportedProgram`; torch is not imported for it."""
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    return isinstance(model, (torch.nn.Module, torch.export.ExportedProgram))


def name_of(model: object) -> str:
    """What a message calls a model that is not in a file."""
    if isinstance(model, (onnx.ModelProto, ir.Model)):
        return (model.graph.name or "model")[:_LONGEST_NAME]
    return type(model).__name__


def not_a_model(given: object) -> InputError:
    """What to say of something that cannot be a model."""
    return InputError(
        f"This is a {type(given).__name__}, and not a model.",
        "Give a path, an onnx.ModelProto, an onnx_ir.Model or a torch.nn.Module.",
    )


def read(
    model: AnyModel,
    example_inputs: ExampleInputs | None = None,
    *,
    reading: Reading = PLAIN,
    progress: Progress = silent,
) -> Source:
    """Make any model an ONNX model in eval mode.

    Args:
        model: A path, an `onnx.ModelProto`, an `onnx_ir.Model`, an `nn.Module` or an `ExportedProgram`. It
            is not modified.
        example_inputs: What a network is traced with: a tensor, several in the order of `forward`, or
            several by its names. An `ExportedProgram` has its own, and of some networks the shape follows
            from the layers.
        reading: How a PyTorch file is read, and how a network is exported.
        progress: Called with the stages.

    Raises:
        InputError: The example inputs are missing, or not tensors, or are for a model that is ONNX already;
            or the model is of another type.
        ModelError: It cannot be read or exported.
        MissingExtraError: It needs torch or onnxscript, which is not installed.
    """
    if is_network(model):
        return _exported(model, example_inputs, reading, progress)
    if example_inputs is not None:
        raise InputError(
            "example_inputs are for a torch.nn.Module.",
            "Leave them out: a file or an ONNX model specifies its inputs. For weights give input_shape.",
        )
    if isinstance(model, (str, os.PathLike)):
        return read_model(model, reading, progress=progress)
    if isinstance(model, (onnx.ModelProto, ir.Model)):
        opened = from_proto(model) if isinstance(model, onnx.ModelProto) else model
        return Source(Path(name_of(model)), "onnx", False, opened)
    raise not_a_model(model)


def to_compare(
    model: AnyModel, example_inputs: ExampleInputs | None, *, progress: Progress = silent
) -> OnnxModel:
    """Make any model one that runs in ONNX Runtime; an ONNX file stays a file, which nothing has to copy.

    Args:
        model: As in `read`.
        example_inputs: The same; they are for the networks among several models.
        progress: Called with the stages.

    Raises:
        BnfoldError: As for `read`.
    """
    if isinstance(model, (str, os.PathLike)) and not is_torch(model):
        return model
    return read(model, example_inputs if is_network(model) else None, progress=progress).model


def _exported(
    network: Any, example_inputs: ExampleInputs | None, reading: Reading, progress: Progress
) -> Source:
    from torch import nn

    from bnfold.torch.read.load import Loaded

    is_module = isinstance(network, nn.Module)
    was_training = is_module and any(part.training for part in network.modules())
    if is_module and any(tensor.device.type != "cpu" for tensor in network.state_dict().values()):
        network = copy.deepcopy(network).cpu()
    loaded = Loaded(network, "module" if is_module else "exported program", was_training)
    inputs = None if example_inputs is None else _tensors(example_inputs)
    try:
        return export_loaded(Path(name_of(network)), loaded, inputs, reading, progress=progress)
    except MissingShapeError as error:
        raise InputError(
            error.problem.replace("The file", "The network"),
            f"Give example_inputs, such as {_example(error.options)}.",
        ) from None


def _example(options: Sequence[str]) -> str:
    """The words of a missing shape as an expression: `torch.randn(1, 3, 32, 32)`."""
    sizes = [word for word in options if not word.startswith("--") and "=" not in word and "x" in word]
    if len(sizes) != 1:
        return "a tuple of tensors in the order of forward"
    numbers = ", ".join(size.strip("<>.") or "…" for size in sizes[0].split("x"))
    return f"torch.randint(0, 2, ({numbers}))" if "int64" in options else f"torch.randn({numbers})"


def _tensors(inputs: Any) -> Any:
    """Example inputs on the CPU, in order or by name."""
    import torch

    if isinstance(inputs, torch.Tensor):
        return (inputs.detach().cpu(),)
    values = inputs.values() if isinstance(inputs, Mapping) else inputs
    if not isinstance(inputs, (Mapping, Sequence)) or not all(
        isinstance(value, torch.Tensor) for value in values
    ):
        raise InputError(
            "The example inputs are not all tensors.",
            "Give one tensor, a tuple of tensors in the order of forward, or a dictionary by its names.",
        )
    if isinstance(inputs, Mapping):
        return {name: value.detach().cpu() for name, value in inputs.items()}
    return tuple(value.detach().cpu() for value in inputs)
