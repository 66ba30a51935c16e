"""What ONNX's own checker says of a model, at the cost of its graph: its weights stay on disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

_UNSORTED = "Nodes in a graph must be topologically sorted"  # there is a rule for that
_LEFT_OUT = 64  # bytes of a weight from which on they stay in the file


def complaint(path: Path, model: ir.Model) -> str | None:
    """Why `onnx.checker` refuses a model.

    Args:
        path: Of the file.
        model: What was read from it: whether weights are there in full has been asked already.

    Returns:
        The checker's cause, without a full stop; None where it accepts the model, where nodes are only not
        sorted, or where the model is newer than the installed checker.
    """
    import onnx

    from bnfold.graph.scopes import ONNX_DOMAINS

    newest = onnx.defs.onnx_opset_version()
    opset = max((model.opset_imports.get(domain, 0) for domain in ONNX_DOMAINS), default=0)
    if opset > newest or model.ir_version > onnx.IR_VERSION:
        return None
    try:
        onnx.checker.check_model(_without_weights(path))
    except onnx.checker.ValidationError as error:
        cause = str(error).split("==> Context:")[0]
        return None if cause.startswith(_UNSORTED) else " ".join(cause.split()).rstrip(".")
    return None


def _without_weights(path: Path) -> onnx.ModelProto:
    """The model with weights of no elements, which the checker looks at one by one and in no other way."""
    import onnx
    from onnx.external_data_helper import _get_all_tensors

    from bnfold.files.protobuf_scan import WireError, field, raw_data, replaced
    from bnfold.tensors.file_tensor import File

    file = File(path)
    empty = field(9, b"")  # raw_data
    try:
        pieces = replaced(file, [(found, empty, 0) for found in raw_data(file, _LEFT_OUT)])
        content = b"".join(piece for piece in pieces if isinstance(piece, bytes))
    except WireError:  # the scan is stricter than protobuf
        content = file[:]
    proto = onnx.ModelProto()
    proto.ParseFromString(content)
    for tensor in _get_all_tensors(proto):
        is_external = tensor.data_location == onnx.TensorProto.EXTERNAL
        if is_external or (tensor.HasField("raw_data") and not tensor.raw_data):
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
            tensor.raw_data = b""
            tensor.dims[:] = [0]
    return proto
