"""Reading a model, whatever file it comes in, as an ONNX model in eval mode."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import onnx_ir as ir

from bnfold.errors import InputError, ModelError
from bnfold.files.file_kind import describe, head_of
from bnfold.files.load import load_onnx
from bnfold.pipeline.progress import Progress, silent

Kind = Literal["onnx", "module", "exported program", "torchscript", "state_dict", "safetensors"]


_TORCH_SUFFIXES = frozenset({".pt", ".pth", ".pt2", ".pkl", ".bin", ".ckpt", ".safetensors"})
_TORCH_MAGIC = (b"PK\x03\x04", b"\x80")  # a zip archive, and the pickle protocol 2 and upwards


@dataclass(frozen=True)
class Source:
    """A model as it was read, in ONNX form.

    Attributes:
        path: The file.
        kind: What the file holds: `"onnx"`, a pickled `"module"`, an `"exported program"`, `"torchscript"`,
            or weights: a `"state_dict"`, alone or in a checkpoint, or `"safetensors"`.
        was_training: Whether the file holds a module in train mode; `model` is in eval mode all the same.
        model: The model with every BatchNorm in place.
        options: What was said about how to read it: those arguments of `read_model` that were given.
        notes: What a user should know about how it was read and exported, as sentences.
    """

    path: Path
    kind: Kind
    was_training: bool
    model: ir.Model
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_model(
    path: str | os.PathLike[str],
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
    progress: Progress = silent,
) -> Source:
    """Read an ONNX or a PyTorch file, by what it holds, as an ONNX model in eval mode.

    Args:
        path: `.onnx`, `.pt2` from `torch.export.save`, TorchScript, a whole `nn.Module`, or weights: a
            state_dict, a checkpoint around one, safetensors.
        input_shape: For a `nn.Module`: `(1, 3, 224, 224)`, `"1x3x224x224"`, or for several inputs a list as
            `["image=1x3x8x8", "mask=1x8"]`.
        dtype: Type of the inputs, as `"float16"`, or types by name, as `"ids=int64,mask=bool"`.
        arch: What makes the network for weights, as `"package.module:factory"`. It is imported and runs.
        arch_args: Its keyword arguments, or a JSON object that holds them.
        key: Where in a checkpoint the model is, with dots.
        allow: Classes beyond torch.nn's own that the pickle may use, as `"package.module.Class"`.
        trust: Whether a pickle may run any code while it is read.
        opset: ONNX opset to export a PyTorch model to; the exporter's own choice when None.
        ir_version: IR version of a PyTorch model's export; the exporter's own choice when None.
        dynamic: Sizes of a `nn.Module`'s inputs to leave open: `"batch"` is the first of every input,
            `"2=height"` that axis of every input, `"x:2=height"` of the input x.
        progress: Told the stages `"load"` and `"export"`.

    Raises:
        ModelError: The file cannot be read, or is not a model.
        InputError: A shape is missing or does not fit, or an option has no meaning for this kind of file.
        MissingExtraError: The file needs torch, which is not installed.
    """
    path = Path(path)
    progress("load", 0, 0)
    open_sizes = [dynamic] if isinstance(dynamic, str) else list(dynamic)
    options = {
        "input_shape": list(_shape_texts(input_shape)),
        "dtype": dtype,
        "arch": arch,
        "arch_args": arch_args,
        "key": key,
        "allow": list(allow),
        "trust": trust,
        "opset": opset,
        "ir_version": ir_version,
        "dynamic": open_sizes,
    }
    given = {name: value for name, value in options.items() if value}
    if not _is_torch(path):
        _refuse_torch_options(path, given)
        return Source(path, "onnx", False, load_onnx(path))
    from bnfold.torch.export.example_inputs import example_inputs, parse_shapes
    from bnfold.torch.export.to_onnx import to_onnx
    from bnfold.torch.read.load import load

    loaded = load(path, arch=arch, arch_args=arch_args, key=key, trust=trust, allow=allow)
    notes = list(loaded.notes)
    specs = parse_shapes(_shape_texts(input_shape), dtype=dtype)
    inputs = example_inputs(loaded, specs, note=notes.append)
    progress("export", 0, 0)
    model = to_onnx(loaded, inputs, opset=opset, ir_version=ir_version, dynamic=open_sizes, note=notes.append)
    return Source(path, loaded.kind, loaded.was_training, model, given, tuple(notes))


def read_onnx(path: str | os.PathLike[str]) -> Source:
    """Read an ONNX file, for what does not need PyTorch.

    Raises:
        ModelError: The file cannot be read, or is not an ONNX model.
    """
    path = Path(path)
    if _is_torch(path):
        raise ModelError(
            f"{path} is a PyTorch file; an ONNX model is needed here.", f"Type: bnfold export {path}"
        )
    return Source(path, "onnx", False, load_onnx(path))


def _is_torch(path: Path) -> bool:
    """Tell PyTorch's files by their first bytes; what is unlike any model goes by its suffix."""
    head = head_of(path)
    if describe(head) == "an ONNX model":
        return False
    return (
        head.startswith(_TORCH_MAGIC)
        or describe(head).startswith("a safetensors file")
        or path.suffix.lower() in _TORCH_SUFFIXES
    )


def _refuse_torch_options(path: Path, options: Iterable[str]) -> None:
    given = ", ".join(f"--{name.replace('_', '-')}" for name in options)
    if given:
        raise InputError(
            f"{path} is an ONNX model: {given} is for PyTorch files.",
            "Leave it out: an ONNX file already tells its inputs and opset.",
        )


def _shape_texts(shape: Sequence[int] | Sequence[str] | str | None) -> tuple[str, ...]:
    """Write any accepted form of `input_shape` as the texts of the command line."""
    if shape is None:
        return ()
    if isinstance(shape, str):
        return (shape,)
    if all(isinstance(part, int) for part in shape):
        return ("x".join(str(part) for part in shape),) if shape else ()
    return tuple(str(part) for part in shape)
