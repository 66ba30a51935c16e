"""ONNX files: read with one clear line when something is wrong, written whole or not at all.

The order of a save that has external data is what keeps the pair from being torn. The data file is named by
its own content, so no model on disk refers to it yet when it is put in place; then the model file is replaced
in one step; only then is the data file that the old model used removed. A process that is killed in between
leaves the old pair or the new one (and perhaps a file that nothing refers to).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]  # has no stubs

from bnfold.errors import ModelError, SaveError
from bnfold.files import external
from bnfold.files.atomic import destination, replacing, save_errors
from bnfold.files.contents import describe, head_of, reason
from bnfold.scopes import ONNX_DOMAINS

OLDEST_IR = 3
_PROTOBUF_LIMIT = 2**31 - 1
_HEADROOM = 2**24  # what a large model's graph may take beside its tensors


def load_onnx(path: str | os.PathLike[str]) -> ir.Model:
    """Read the ONNX model at `path`; external data stays on disk until a tensor is read.

    Returns:
        The model, whose external tensors have been checked to lie in the model's own folder and to be there
        in full.

    Raises:
        ModelError: Not there, a folder, empty, truncated, not ONNX, without a graph, older than IR 3, or with
            external data that is missing, too short, or outside the model's folder.
    """
    head = head_of(path)
    proto = _parse(Path(path), head)
    model = from_proto(proto, str(path))
    external.locate(model, Path(path))
    return model


def from_proto(proto: onnx.ModelProto, name: str = "The model") -> ir.Model:
    """Convert a `ModelProto`; its weights stay where they are until they are read.

    Args:
        proto: Of any origin.
        name: What a message calls it.

    Raises:
        ModelError: It is inconsistent, or holds what onnx_ir does not keep: types such as maps, and sparse
            initializers, which it would drop without a word.
    """
    if proto.graph.sparse_initializer:
        raise ModelError(
            f"{name} has sparse initializers, which bnfold does not read.",
            "Store them as dense initializers, or as Constant nodes.",
        )
    if any(function.domain in ONNX_DOMAINS for function in proto.functions):
        raise ModelError(
            f"{name} redefines operators of ONNX in functions of its own.",
            "Give its functions a domain of their own.",
        )
    try:
        return ir.from_proto(proto)
    except Exception as error:  # onnx_ir raises whatever the malformed part leads it to
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise ModelError(
            f"{name} cannot be read as an ONNX graph: {reason(cause)}.",
            "onnx.checker.check_model says more about what is wrong with it.",
        ) from error


def _parse(path: Path, head: bytes) -> onnx.ModelProto:
    """The protobuf at `path`, known to be a model of at least IR 3 with a graph."""
    if path.stat().st_size > _PROTOBUF_LIMIT:
        raise ModelError(
            f"{path} is larger than 2 GB, which no ONNX file can be.",
            "Save its weights as external data, as in onnx.save(..., save_as_external_data=True).",
        )
    kind = describe(head)
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(path.read_bytes())
    except DecodeError:
        raise _not_onnx(path, kind) from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {reason(error)}.", "Check the disk.") from error
    if not proto.ir_version and kind != "an ONNX model":
        raise _not_onnx(path, kind)
    if not proto.HasField("graph"):
        raise ModelError(
            f"{path} has no graph: it is truncated, or no ONNX model.", "Save or download it again."
        )
    if proto.ir_version < OLDEST_IR:
        raise ModelError(
            f"{path} has IR version {proto.ir_version}; bnfold reads {OLDEST_IR} and newer.",
            "Export the model again with an exporter that is newer than 2017.",
        )
    if not proto.opset_import:  # the field that follows the graph, required since IR 3
        raise ModelError(f"{path} is truncated: its opset is missing.", "Save or download it again.")
    return proto


def _not_onnx(path: Path, kind: str) -> ModelError:
    if kind == "an ONNX model":
        return ModelError(f"{path} is truncated or damaged.", "Save or download it again.")
    fix = {
        "a Git LFS pointer, not the file itself": "Fetch the file itself with: git lfs pull",
        "a zip archive (as PyTorch writes)": "For a PyTorch file, type: bnfold export MODEL -o OUT.onnx",
    }.get(kind, "Give an ONNX model in the binary format that onnx.save writes.")
    return ModelError(f"{path} is {kind or 'some other kind of file'}, not an ONNX model.", fix)


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
        external_data = size + _HEADROOM > _PROTOBUF_LIMIT
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
