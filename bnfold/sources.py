"""Reading a model, whatever file it comes in, as an ONNX model in eval mode."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx_ir as ir

from bnfold.errors import InputError, ModelError
from bnfold.files.contents import describe, head_of
from bnfold.files.storage import load_onnx

Kind = Literal["onnx", "module", "exported program"]
Progress = Callable[[str, int, int], None]
"""Called as `progress(stage, done, total)`; a stage of unknown length has the total 0."""


def silent(stage: str, done: int, total: int) -> None:
    """Report progress to nobody."""
    del stage, done, total


_TORCH_SUFFIXES = frozenset({".pt", ".pth", ".pt2", ".pkl", ".bin", ".ckpt"})
_TORCH_MAGIC = (b"PK\x03\x04", b"\x80")  # a zip archive, and the pickle protocol 2 and upwards


@dataclass(frozen=True)
class Source:
    """A model as it was read, in ONNX form.

    Attributes:
        path: The file.
        kind: What the file holds: `"onnx"`, a pickled `"module"` or an `"exported program"`.
        was_training: Whether the file holds a module in train mode; `model` is in eval mode all the same.
        model: The model with every BatchNorm in place.
    """

    path: Path
    kind: Kind
    was_training: bool
    model: ir.Model


def read_model(
    path: str | os.PathLike[str],
    *,
    input_shape: Sequence[int] | Sequence[str] | str | None = None,
    dtype: str | None = None,
    allow: Sequence[str] = (),
    opset: int | None = None,
    dynamic_batch: bool = False,
    progress: Progress = silent,
) -> Source:
    """Read an ONNX or a PyTorch file, by what it holds, as an ONNX model in eval mode.

    Args:
        path: `.onnx`, `.pt2` from `torch.export.save`, or `.pt`/`.pth` holding a whole `nn.Module`.
        input_shape: For a `nn.Module`: `(1, 3, 224, 224)`, `"1x3x224x224"`, or for several inputs a list as
            `["image=1x3x8x8", "mask=1x8"]`.
        dtype: Type of the inputs, as `"float16"`, or types by name, as `"ids=int64,mask=bool"`.
        allow: Classes beyond torch.nn's own that the pickle may use, as `"package.module.Class"`.
        opset: ONNX opset to export a PyTorch model to; the exporter's own choice when None.
        dynamic_batch: Whether to leave the first size of a `nn.Module`'s inputs open.
        progress: Told the stages `"load"` and `"export"`.

    Raises:
        ModelError: The file cannot be read, or is not a model.
        InputError: A shape is missing or does not fit, or an option has no meaning for this kind of file.
        MissingExtraError: The file needs torch, which is not installed.
    """
    path = Path(path)
    progress("load", 0, 0)
    if not _is_torch(path):
        _refuse_torch_options(
            path,
            input_shape=input_shape,
            dtype=dtype,
            allow=allow,
            opset=opset,
            dynamic_batch=dynamic_batch,
        )
        return Source(path, "onnx", False, load_onnx(path))
    from bnfold.torch.export import to_onnx
    from bnfold.torch.inputs import example_inputs, parse_shapes
    from bnfold.torch.load import load

    loaded = load(path, allow=allow)
    inputs = example_inputs(loaded, parse_shapes(_shape_texts(input_shape), dtype=dtype))
    progress("export", 0, 0)
    return Source(
        path,
        loaded.kind,
        loaded.was_training,
        to_onnx(loaded, inputs, opset=opset, dynamic_batch=dynamic_batch),
    )


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
    return head.startswith(_TORCH_MAGIC) or path.suffix.lower() in _TORCH_SUFFIXES


def _refuse_torch_options(path: Path, **options: object) -> None:
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value]
    if given:
        raise InputError(
            f"{path} is an ONNX model: {', '.join(given)} is for PyTorch files.",
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
