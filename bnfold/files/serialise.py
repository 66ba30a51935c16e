"""A model as the sequence of pieces in its file: what protobuf writes, and large tensors in between.

Protobuf would hold every tensor in memory, twice. So it gets short markers instead of the large ones, and
its output is cut at the markers.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple, TypeAlias

import onnx
import onnx_ir as ir

from bnfold.files.external_data import exchange
from bnfold.files.other_types import to_proto
from bnfold.files.protobuf_scan import WireError, raw_data, replaced, varint
from bnfold.tensors.block_tensor import BlockTensor
from bnfold.tensors.sizes import nbytes

_SPLIT_FROM = 4096  # bytes; what is smaller goes through protobuf
_MARKER = 512  # bytes: larger than most nodes, so that the search for markers can skip those

Piece: TypeAlias = "bytes | ir.TensorProtocol"


def pieces(model: ir.Model) -> list[Piece]:
    """Serialize `model` deterministically, as onnx_ir and protobuf would, without its large tensors.

    Args:
        model: The caller's own, whose tensors may be markers afterwards. `ExternalTensor`s stay
            references to their files.

    Returns:
        The file from front to back. A tensor stands for its `nbytes` bytes.

    Raises:
        EncodeError: What protobuf had to write exceeds 2 GB.
        Exception: What reading a small tensor raises.
    """
    large: dict[bytes, _Marked] = {}
    exchange(model, lambda tensor: _marked(tensor, large))
    data = _serialized(model)
    if not large:
        return [data]
    try:
        return _cut(data, large)
    except WireError:  # a tensor holds what nobody writes, so that its marker cannot be identified
        former = {id(marked.marker): marked.tensor for marked in large.values()}
        exchange(model, lambda tensor: _read(former.get(id(tensor), tensor)))
        return [_serialized(model)]


def size(row: Iterable[Piece]) -> int:
    """The bytes of all pieces."""
    return sum(len(piece) if isinstance(piece, bytes) else piece.nbytes for piece in row)


def write(piece: Piece, stream: BinaryIO) -> None:
    """Write one piece, a tensor block by block where it comes in blocks."""
    if isinstance(piece, BlockTensor):
        piece.tofile(stream)
    else:
        stream.write(piece if isinstance(piece, bytes) else _whole(piece))


def _whole(tensor: ir.TensorProtocol) -> bytes:
    data = tensor.tobytes()
    if len(data) != tensor.nbytes:
        raise ValueError(f"{tensor.name} consists of {tensor.nbytes} bytes but gave {len(data)}")
    return data


def _serialized(model: ir.Model) -> bytes:
    data: bytes = to_proto(model).SerializeToString(deterministic=True)
    return data


class _Marked(NamedTuple):
    tensor: ir.TensorProtocol
    marker: ir.TensorProtocol


def _cut(data: bytes, large: dict[bytes, _Marked]) -> list[Piece]:
    """Replace the markers in a serialized model by the tensors of `large`."""
    changes, tensors = [], []
    for raw in raw_data(data, _MARKER):
        marked = large.get(data[raw.begin : raw.stop])
        if marked is not None:
            tensor = marked.tensor
            tag = data[raw.start : raw.start + 1]
            changes.append((raw, tag + varint(tensor.nbytes), tensor.nbytes))
            tensors.append(tensor)
    if len(tensors) != len(large):
        raise WireError("a marker is not found")
    return [tensors[piece] if isinstance(piece, int) else piece for piece in replaced(data, changes)]


class _Known(BlockTensor):
    """Stands for a tensor while protobuf writes the rest: the same description, and bytes that are there."""

    def __init__(self, tensor: ir.TensorProtocol, content: bytes) -> None:
        super().__init__(
            tensor.dtype,
            tensor.shape.numpy(),
            name=tensor.name,
            doc_string=tensor.doc_string,
            metadata_props=tensor.metadata_props,
        )
        self._content = content

    def blocks(self) -> Iterator[bytes]:
        """The content."""
        yield self._content

    def tobytes(self) -> bytes:
        """The content, which for a marker is shorter than the tensor that it stands for."""
        return self._content


def _marked(tensor: ir.TensorProtocol, large: dict[bytes, _Marked]) -> ir.TensorProtocol:
    """A marker for `tensor`, noted in `large`; what is small, or not plain bytes, is returned itself."""
    is_parsed = isinstance(tensor, ir.TensorProtoTensor)  # as most are; to ask for other classes takes long
    if is_parsed and nbytes(tensor) < _SPLIT_FROM:
        return tensor
    if isinstance(tensor, ir.ExternalTensor | ir.StringTensor) or nbytes(tensor) < _SPLIT_FROM:
        return _read(tensor)
    content = secrets.token_bytes(16) * (_MARKER // 16)
    if not isinstance(tensor, ir.TensorProtoTensor):
        marker: ir.TensorProtocol = _Known(tensor, content)
    elif tensor.raw.HasField("raw_data"):
        marker = _lightened(tensor, content)
    else:
        return tensor
    large[content] = _Marked(tensor, marker)
    return marker


def _read(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """Read what is made of blocks: onnx_ir would hide an error in that behind another one."""
    return _Known(tensor, tensor.tobytes()) if isinstance(tensor, BlockTensor) else tensor


def _lightened(tensor: ir.TensorProtoTensor, marker: bytes) -> ir.TensorProtoTensor:
    """Copy a tensor of protobuf with all that it holds, except for its bytes."""
    proto = onnx.TensorProto()
    proto.CopyFrom(tensor.raw)
    proto.raw_data = marker
    # By way of bytes: protobuf frees the former content of a message only with the message.
    light = ir.TensorProtoTensor(onnx.TensorProto.FromString(proto.SerializeToString()))
    light.metadata_props.clear()
    light.metadata_props.update(tensor.metadata_props)
    return light
