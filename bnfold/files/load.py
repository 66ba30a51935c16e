"""ONNX files, read with one clear line when something is wrong; weights stay on disk until needed."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # has no stubs

from bnfold.errors import ModelError
from bnfold.files import external
from bnfold.files.contents import describe, head_of, reason
from bnfold.scopes import ONNX_DOMAINS

OLDEST_IR = 3
PROTOBUF_LIMIT = 2**31 - 1


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
    if path.stat().st_size > PROTOBUF_LIMIT:
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
