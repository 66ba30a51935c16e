"""External data: tensors that an ONNX model keeps in files beside it, checked, taken in, and moved out."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # has no stubs

from bnfold.errors import ModelError
from bnfold.files.atomic import replacing

_SMALLEST = 1024  # bytes; what is smaller stays in the model, where shape inference can read it
_ALIGNMENT = 64  # bytes; what vector instructions and memory maps like


def tensors(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """Every constant of the model: initializers and attributes, in subgraphs and functions too."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value.const_value
    for _, attribute in _tensor_attributes(model):
        if attribute.type == ir.AttributeType.TENSORS:
            yield from attribute.as_tensors()
        else:
            yield attribute.as_tensor()


def _tensor_attributes(model: ir.Model) -> Iterator[tuple[ir.Node, ir.Attr]]:
    owners: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for owner in owners:
        for node in owner.all_nodes():
            for attribute in list(node.attributes.values()):
                is_tensor = attribute.type in (ir.AttributeType.TENSOR, ir.AttributeType.TENSORS)
                if is_tensor and not attribute.is_ref():
                    yield node, attribute


def locate(model: ir.Model, path: Path) -> None:
    """Tell every external tensor of `model` which folder it is in, and check that it is there in full.

    Raises:
        ModelError: One is missing, too short, or outside the folder of `path` (an absolute location, `..`,
            or a symbolic link that leads out, through which a model could read any file).
    """
    folder = path.absolute().parent
    for tensor in tensors(model):
        if isinstance(tensor, ir.ExternalTensor):
            tensor.base_dir = str(folder)
            _check_place(tensor, folder, path)
            _check_extent(tensor, folder / tensor.location)


def _check_place(tensor: ir.ExternalTensor, folder: Path, model: Path) -> None:
    location = os.fspath(tensor.location)
    if not location or "\0" in location or not _inside(folder, location):
        raise ModelError(
            f"{model} keeps {tensor.name} in {location!r}, which is outside the model's folder.",
            "Refused, since it could be any file. If you trust it, copy it beside the model and save again.",
        )
    target = folder / location
    if not target.is_file():
        raise ModelError(
            f"{model} keeps {tensor.name} in {location!r}, which is not there.",
            f"Put that file into {folder}.",
        )
    if target.stat().st_nlink > 1:  # onnx_ir refuses to read it, but only later and with less to go by
        raise ModelError(
            f"{target} is a hard link, which could stand for any file.",
            "Replace it with a copy of its own.",
        )


def _inside(folder: Path, location: str) -> bool:
    """Whether `location` is relative and, with `..` and links resolved, below `folder`."""
    place = Path(os.path.realpath(folder / location))
    return not Path(location).is_absolute() and place.is_relative_to(os.path.realpath(folder))


def _check_extent(tensor: ir.ExternalTensor, target: Path) -> None:
    begin, size = tensor.offset or 0, target.stat().st_size
    told = tensor.nbytes if tensor.length is None else tensor.length
    if begin < 0 or told < tensor.nbytes or size < begin + tensor.nbytes:
        raise ModelError(
            f"{target} is too short: {tensor.name} needs {tensor.nbytes} bytes from byte {begin} on, "
            f"the file has {size}, the model tells of {told}.",
            "It is truncated, or belongs to another model. Save or download both files again.",
        )


def self_contained(model: ir.Model) -> ir.Model:
    """Clone `model` so that no tensor refers to another file (by memory maps, without copying)."""
    clone = model.clone()
    for graph in clone.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                value.const_value = _in_memory(value.const_value)
    for node, attribute in _tensor_attributes(clone):
        name, doc = attribute.name, attribute.doc_string
        if attribute.type == ir.AttributeType.TENSORS:
            taken = [_in_memory(tensor) for tensor in attribute.as_tensors()]
            node.attributes[name] = ir.AttrTensors(name, taken, doc)
        else:
            node.attributes[name] = ir.AttrTensor(name, _in_memory(attribute.as_tensor()), doc)
    return clone


def _in_memory(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    if not isinstance(tensor, ir.ExternalTensor):
        return tensor
    return ir.Tensor(
        tensor.numpy(),
        dtype=tensor.dtype,
        shape=tensor.shape,
        name=tensor.name,
        doc_string=tensor.doc_string,
        metadata_props=tensor.metadata_props,
    )


def move_out(model: ir.Model, beside: Path) -> Path:
    """Move the larger initializers of `model` into `NAME.HASH.data` beside the file `beside`.

    The name comes from the content, so no older model on disk refers to this file, unless with the same
    content. The caller removes it when the model that needs it could not be written.

    Returns:
        The data file, in place.
    """
    moved: list[tuple[ir.Value, ir.TensorProtocol, int, int]] = []
    digest = hashlib.sha256()
    unnamed = beside.with_name(f".{beside.name[:200]}.{secrets.token_hex(6)}.data")
    try:
        with replacing(unnamed) as stream:
            for value, tensor in _large_initializers(model):
                data = tensor.tobytes()
                padding = bytes(-stream.tell() % _ALIGNMENT)
                moved.append((value, tensor, stream.tell() + len(padding), len(data)))
                for piece in (padding, data):
                    stream.write(piece)
                    digest.update(piece)
        place = beside.with_name(f"{beside.name}.{digest.hexdigest()[:16]}.data")
        unnamed.replace(place)
    finally:
        unnamed.unlink(missing_ok=True)
    for value, tensor, offset, length in moved:
        value.const_value = ir.ExternalTensor(
            place.name,
            offset,
            length,
            tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=value.name or "",
            doc_string=tensor.doc_string,
            metadata_props=dict(tensor.metadata_props),
            base_dir=str(place.parent),
        )
    return place


def _large_initializers(model: ir.Model) -> Iterator[tuple[ir.Value, ir.TensorProtocol]]:
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and tensor.dtype != ir.DataType.STRING and tensor.nbytes >= _SMALLEST:
                yield value, tensor


def own_files(path: Path) -> set[str]:
    """The names of the data files that the model at `path` refers to and that `move_out` made for it."""
    pattern = re.compile(re.escape(path.name) + r"\.[0-9a-f]{16}\.data")
    if not any(pattern.fullmatch(entry.name) for entry in path.parent.iterdir()):
        return set()
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(path.read_bytes())
    except (FileNotFoundError, DecodeError):
        return set()
    told = (entry.value for tensor in proto.graph.initializer for entry in tensor.external_data)
    return {value for value in told if pattern.fullmatch(value)}
