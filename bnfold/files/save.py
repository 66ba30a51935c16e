"""ONNX files are written whole or not at all.

The order of a save that has external data is what keeps the pair from being torn. The data file is named by
its own content, so no model on disk refers to it yet when it is put in place; then the model file is replaced
in one step; only then is the data file that the old model used removed. A process that is killed in between
leaves the old pair or the new one (and perhaps a file that nothing refers to).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import onnx_ir as ir
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]  # has no stubs

from bnfold.errors import SaveError
from bnfold.files import external
from bnfold.files.atomic import destination, replacing, save_errors
from bnfold.files.contents import reason
from bnfold.files.load import PROTOBUF_LIMIT

_HEADROOM = 2**24  # what a large model's graph may take beside its tensors


def save_onnx(model: ir.Model, path: str | os.PathLike[str], *, external_data: bool | None = None) -> None:
    """Write `model` to `path`, which holds what it held before until the new file is there in full.

    The same model gives the same bytes. `model` is not changed, and its tensors may be read lazily from the
    very files that are replaced.

    Args:
        model: The model.
        path: Where to write it; the folder must exist.
        external_data: Put initializers of a kilobyte and more into `NAME.HASH.data` beside the model. None
            does so only where the model would pass protobuf's limit of 2 GB.

    Raises:
        SaveError: Nothing was written; the error says why.
    """
    target = destination(path)
    if external_data is None:
        size = sum(tensor.nbytes for tensor in external.tensors(model))
        external_data = size + _HEADROOM > PROTOBUF_LIMIT
    with save_errors(path):
        clone = external.self_contained(model)
        before = external.own_files(target)
        if external_data:
            _save_pair(clone, target)
        else:
            _save_file(clone, target)
        for name in before - external.own_files(target):
            with contextlib.suppress(OSError):  # Windows keeps a file that someone still reads
                target.with_name(name).unlink()


def _save_pair(model: ir.Model, target: Path) -> None:
    data = external.move_out(model, target)
    try:
        _save_file(model, target)
    finally:
        # An interrupt can come just after the rename: what counts is which data the model on disk needs.
        if data.name not in external.own_files(target):
            data.unlink(missing_ok=True)


def _save_file(model: ir.Model, target: Path) -> None:
    try:
        data = ir.to_proto(model).SerializeToString(deterministic=True)
    except (EncodeError, ValueError) as error:
        raise SaveError(
            f"{target} could not be saved: {reason(error)}.",
            "One ONNX file holds at most 2 GB: beyond, let external_data be True or unset.",
        ) from error
    with replacing(target) as stream:
        stream.write(data)
