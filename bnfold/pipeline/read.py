"""Reading a model from any kind of file as an ONNX model in eval mode."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from bnfold.errors import InputError, ModelError
from bnfold.files.file_kind import TORCH_KINDS, FileKind, ModelKind, kind_of
from bnfold.files.load import NOTES, load_onnx
from bnfold.files.weight_index import file_of, is_index
from bnfold.graph.float_attributes import round_float_attributes
from bnfold.options import PLAIN, Reading
from bnfold.pipeline.progress import Progress, Stage, silent

if TYPE_CHECKING:
    from bnfold.torch.export.signature import Inputs as TorchInputs
    from bnfold.torch.read.load import Loaded

_TORCH_SUFFIXES = frozenset({".pt", ".pth", ".pt2", ".pkl", ".bin", ".ckpt", ".safetensors"})


@dataclass(frozen=True)
class Source:
    """A model as it was read, in ONNX form.

    Attributes:
        path: The file.
        kind: What the file holds: `"onnx"`, a pickled `"module"`, an `"exported program"`, `"torchscript"`,
            or weights: a `"state_dict"`, alone or in a checkpoint, or `"safetensors"`.
        was_training: Whether the file holds a module in train mode; `model` is always in eval mode.
        model: The model with all its BatchNorms.
        options: The options that it was read with, as the given fields of a `Reading`.
        notes: What a user should know about how it was read and exported, as sentences.
    """

    path: Path
    kind: ModelKind
    was_training: bool
    model: ir.Model
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_model(
    path: str | os.PathLike[str], reading: Reading = PLAIN, *, progress: Progress = silent
) -> Source:
    """Read an ONNX or a PyTorch file as an ONNX model in eval mode; its content decides which it is.

    Args:
        path: `.onnx`, `.pt2` from `torch.export.save`, TorchScript, a whole `nn.Module`, or weights: a
            state_dict, a checkpoint that contains one, safetensors, the index of several such files, or a
            folder that holds weights under one of Hugging Face's names.
        reading: How to read a PyTorch file.
        progress: Called with the stages `"load"` and `"export"`.

    Raises:
        ModelError: The file cannot be read, or is not a model.
        InputError: A shape is missing or does not fit, or an option has no meaning for this kind of file.
        MissingExtraError: The file needs torch, which is not installed.
    """
    path = file_of(path)
    progress(Stage.LOAD, 0, 0)
    if not is_torch(path):
        _refuse_torch_options(path, reading.given)
        return _source(path)
    from bnfold.torch.read.load import load_as

    return export_loaded(path, load_as(path, reading), None, reading, progress=progress)


def export_loaded(
    path: Path,
    loaded: Loaded,
    inputs: TorchInputs | None,
    reading: Reading = PLAIN,
    *,
    progress: Progress = silent,
) -> Source:
    """Export what PyTorch has loaded to ONNX.

    Args:
        path: What reports call it.
        loaded: The module or program.
        inputs: What it is traced with; None makes them of the shapes in `reading`, or of what is known.
        reading: How to export it.
        progress: Called with the stage `"export"`.

    Raises:
        MissingShapeError: There are no inputs, and their shapes are not known.
        InputError: The inputs or shapes do not fit.
        ModelError: It cannot be exported.
    """
    from bnfold.torch.export.example_inputs import example_inputs, parse_shapes
    from bnfold.torch.export.to_onnx import to_onnx

    notes = list(loaded.notes)
    if inputs is None:
        specs = parse_shapes(reading.shapes, dtype=reading.dtype)
        inputs = example_inputs(loaded, specs, note=notes.append)
    progress(Stage.EXPORT, 0, 0)
    model = to_onnx(
        loaded,
        inputs,
        opset=reading.opset,
        ir_version=reading.ir_version,
        dynamic=reading.open_sizes,
        note=notes.append,
    )
    round_float_attributes(model)
    return Source(path, loaded.kind, loaded.was_training, model, reading.given, tuple(notes))


def read_onnx(path: str | os.PathLike[str]) -> Source:
    """Read an ONNX file, for a command that takes no PyTorch files.

    Raises:
        ModelError: The file cannot be read, or is not an ONNX model.
    """
    path = Path(path)
    if is_torch(path):
        raise ModelError(
            f"{path} is a PyTorch file; an ONNX model is needed here.",
            "Make an ONNX file of it first, then give that: "
            + shlex.join(("bnfold", "export", str(path), "-o", str(path.with_suffix(".folded.onnx")))),
        )
    return _source(path)


def _source(path: Path) -> Source:
    model = load_onnx(path)
    return Source(path, "onnx", False, model, notes=model.meta[NOTES])


def is_torch(path: str | os.PathLike[str]) -> bool:
    """Recognise PyTorch's files by their first bytes; only the suffix of an unknown file counts."""
    path = file_of(Path(path))
    kind = kind_of(path)
    if kind is FileKind.TEXT and is_index(path):
        return True
    return kind in TORCH_KINDS or (kind is not FileKind.ONNX and path.suffix.lower() in _TORCH_SUFFIXES)


def _refuse_torch_options(path: Path, options: Iterable[str]) -> None:
    names = tuple(options)
    given = ", ".join(f"--{name.replace('_', '-')}" for name in names)
    if given:
        raise InputError(
            f"{path} is an ONNX model: {given} is for PyTorch files.",
            "Leave it out: an ONNX file already specifies its inputs and its opset."
            + (" --set-shape and --set-batch of bnfold export fix sizes." if "input_shape" in names else ""),
        )
