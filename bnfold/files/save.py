"""ONNX files are written whole or not at all, and never held in memory as a whole.

The order of a save that has external data keeps model and data consistent. The data file has a new
name, so no model on disk refers to it yet when it is put in place; then the model file is replaced in one
step; only then is the data file that the old model used removed. A process that is killed in between leaves
the old pair or the new one (and perhaps a file that nothing refers to).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from pathlib import Path

import onnx_ir as ir
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]  # has no stubs

from bnfold.errors import SaveError, reason
from bnfold.files import external_data as external
from bnfold.files.atomic import destination, replacing, save_errors
from bnfold.files.external_writer import move_out, needed_by_others, own_files
from bnfold.files.load import PROTOBUF_LIMIT
from bnfold.files.serialise import pieces, size, write
from bnfold.tensors.sizes import nbytes

_HEADROOM = 2**24  # what a large model's graph may take in addition to its tensors


def save_onnx(
    model: ir.Model,
    path: str | os.PathLike[str],
    *,
    external_data: bool | None = None,
    exclusive: bool = False,
) -> None:
    """Write `model` to `path`, which holds what it held before until the new file is there in full.

    The same model gives the same bytes. `model` is not changed, and its tensors may be read lazily from the
    very files that are replaced.

    Args:
        model: The model.
        path: Where to write it; the folder must exist.
        external_data: Put initializers of a kilobyte and more into `NAME.HASH.data` next to the model. None
            does so only where the model would pass protobuf's limit of 2 GB.
        exclusive: Whether no one else uses `model` meanwhile, which saves cloning it.

    Raises:
        SaveError: Nothing was written; the error says why.
    """
    target = destination(path)
    if external_data is None:
        in_tensors = sum(map(nbytes, external.tensors(model)))
        external_data = in_tensors + _HEADROOM > PROTOBUF_LIMIT
    own = model if exclusive else model.clone()
    with save_errors(path), external.restoring(own):
        external.take_in(own)
        needed_before = own_files(target)
        made: list[Path] = []
        try:
            if external_data:
                move_out(own, target, made)
            _save_file(own, target)
        finally:
            data = {*needed_before, *(place.name for place in made)}
            try:
                _remove_unneeded(data, target)
            except KeyboardInterrupt:  # finish tidying up before it is passed on
                _remove_unneeded(data, target)
                raise


def _remove_unneeded(data: Collection[str], target: Path) -> None:
    """Remove the data files that no model next to them mentions, the one at `target` included.

    Whether the save has finished does not decide this: an interrupt can come just after a rename.
    """
    left = set(data) - own_files(target)
    if left:
        left -= needed_by_others(target, left)
    for name in left:
        with contextlib.suppress(OSError):  # Windows keeps a file that someone still reads
            target.with_name(name).unlink()


def _save_file(model: ir.Model, target: Path) -> None:
    too_large = "One ONNX file holds at most 2 GB: set external_data to True, or leave it out."
    try:
        row = pieces(model)
    except (EncodeError, ValueError) as error:
        raise SaveError(f"{target} could not be saved: {reason(error)}.", too_large) from error
    if size(row) > PROTOBUF_LIMIT:
        raise SaveError(f"{target} could not be saved: it would be larger than 2 GB.", too_large)
    with replacing(target) as stream:
        for piece in row:
            write(piece, stream)
