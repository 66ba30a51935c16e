"""External data: tensors that an ONNX model keeps in other files, found, checked, and taken in."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx_ir as ir

from bnfold.errors import ExternalDataError
from bnfold.graph.scopes import scopes
from bnfold.tensors.file_tensor import File, FileTensor

_NAME = re.compile("[^\\0\ud800-\udfff]+")  # text: no bytes that are not UTF-8, and no NUL


def tensors(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """Every constant of the model: initializers and attributes, in subgraphs and functions too."""
    for value in initializers(model):
        if value.const_value is not None:
            yield value.const_value
    for _, attribute in _tensor_attributes(model):
        if attribute.type == ir.AttributeType.TENSORS:
            yield from attribute.value
        else:
            yield attribute.value


def data_files(model: ir.Model) -> set[Path]:
    """The files that hold tensors of `model`, but for the model's own."""
    files = set()
    for tensor in tensors(model):
        if _is_parsed(tensor):
            continue
        if isinstance(tensor, FileTensor) and tensor.external:
            files.add(tensor.file.path)
        elif isinstance(tensor, ir.ExternalTensor):
            files.add(Path(tensor.path))
    return files


def exchange(model: ir.Model, new: Callable[[ir.TensorProtocol], ir.TensorProtocol]) -> None:
    """Replace every constant of `model` by `new(tensor)`."""
    for value in initializers(model):
        old = value.const_value
        if old is not None and (tensor := new(old)) is not old:
            value.const_value = tensor
            if value.shape is old.shape:  # as onnx_ir has it: a value's shape is its tensor's, and frozen
                value.shape = ir.Shape(tensor.shape.numpy(), frozen=True)
    for node, attribute in _tensor_attributes(model):
        name, doc = attribute.name, attribute.doc_string
        if attribute.type == ir.AttributeType.TENSORS:
            exchanged = [new(tensor) for tensor in attribute.value]
            node.attributes[name] = ir.AttrTensors(name, exchanged, doc)
        elif (tensor := new(attribute.value)) is not attribute.value:
            node.attributes[name] = ir.AttrTensor(name, tensor, doc)


@contextlib.contextmanager
def restoring(model: ir.Model) -> Iterator[None]:
    """Put every constant of `model` back at the end of the block."""
    values = [(value, value.const_value, value.shape) for value in initializers(model)]
    attributes = list(_tensor_attributes(model))
    try:
        yield
    finally:
        for value, tensor, shape in values:
            if value.const_value is not tensor or value.shape is not shape:
                value.const_value, value.shape = tensor, shape
        for node, attribute in attributes:
            node.attributes[attribute.name] = attribute


def _is_parsed(tensor: ir.TensorProtocol) -> bool:
    """Whether a tensor is in a message of protobuf, as most are; to ask for other classes takes long."""
    return isinstance(tensor, ir.TensorProtoTensor)


def initializers(model: ir.Model) -> Iterator[ir.Value]:
    """The values of the initializers, in subgraphs and functions too."""
    for scope in scopes(model):
        yield from scope.graph.initializers.data.values()


def _tensor_attributes(model: ir.Model) -> Iterator[tuple[ir.Node, ir.Attr]]:
    """Attributes that are tensors; `as_tensor` would ask each for its size, which some do not have."""
    for scope in scopes(model):
        for node in scope.graph:
            for attribute in list(node.attributes.data.values()):  # its own views take five times as long
                is_tensor = attribute.type in (ir.AttributeType.TENSOR, ir.AttributeType.TENSORS)
                if is_tensor and not attribute.is_ref():
                    yield node, attribute


def locate(model: ir.Model, path: Path) -> None:
    """Open the files next to `path` that hold tensors of `model`, and check that they are there in full.

    Raises:
        ModelError: One is missing, too short, or outside the folder of `path` (an absolute location, `..`,
            or a symbolic link that leads out, through which a model could read any file).
    """
    folder = path.absolute().parent
    files: dict[str, File] = {}

    def opened(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        if _is_parsed(tensor) or not isinstance(tensor, ir.ExternalTensor):
            return tensor
        location = os.fsdecode(tensor.location)  # bytes, where it is not text
        if location not in files:
            _check_place(tensor, location, folder, path)
            files[location] = File(folder / location)
        return _within(tensor, files[location])

    exchange(model, opened)


def _check_place(tensor: ir.ExternalTensor, location: str, folder: Path, model: Path) -> None:
    if not _NAME.fullmatch(location) or not _inside(folder, location):
        raise ExternalDataError(
            f"{model} keeps {tensor.name} in {location!r}, which is outside the model's folder.",
            "Refused, since it could be any file. If you trust it, copy it next to the model and save again.",
            is_outside=True,
        )
    target = folder / location
    try:
        is_there = target.is_file()
    except OSError:  # a name longer than a file's can be, for instance
        is_there = False
    if not is_there:
        raise ExternalDataError(
            f"{model} keeps {tensor.name} in {location!r}, which is not there.",
            f"Put that file into {folder}.",
        )
    if target.stat().st_nlink > 1:  # onnx_ir refuses it too, but later and with a worse message
        raise ExternalDataError(
            f"{target} is a hard link, which could stand for any file.",
            "Replace it with a copy.",
            is_outside=True,
        )


def _inside(folder: Path, location: str) -> bool:
    """Whether `location` is relative and, with `..` and links resolved, below `folder`."""
    place = Path(os.path.realpath(folder / location))
    return not Path(location).is_absolute() and place.is_relative_to(os.path.realpath(folder))


def _within(tensor: ir.ExternalTensor, file: File) -> FileTensor:
    sizes, begin = tensor.shape.numpy(), tensor.offset or 0
    if tensor.dtype in (ir.DataType.STRING, ir.DataType.UNDEFINED) or min(sizes, default=0) < 0:
        raise ExternalDataError(
            f"{tensor.name} cannot be read from {file.path}: it is of type {tensor.dtype.name} and has the "
            f"sizes {list(sizes)}.",
            "Save the model again, with another exporter if need be.",
        )
    length = tensor.nbytes if tensor.length is None else tensor.length
    if length < tensor.nbytes or len(file) < begin + tensor.nbytes:
        raise ExternalDataError(
            f"{file.path} is too short: {tensor.name} needs {tensor.nbytes} bytes from byte {begin} on, "
            f"the file has {len(file)}, the model says {length}.",
            "It is truncated, or belongs to another model. Save or download both files again.",
        )
    return file_tensor(tensor, file, external=True)


def file_tensor(tensor: ir.ExternalTensor, file: File, *, external: bool) -> FileTensor:
    """The tensor that `tensor` describes, in `file`, which is known to hold all of it."""
    return FileTensor(
        file,
        tensor.offset or 0,
        tensor.dtype,
        tensor.shape,
        external=external,
        name=tensor.name,
        doc_string=tensor.doc_string,
        metadata_props=tensor.metadata_props,
    )


def self_contained(model: ir.Model) -> ir.Model:
    """A clone of `model` without tensors that refer to another file."""
    clone = model.clone()
    take_in(clone)
    return clone


def take_in(model: ir.Model) -> None:
    """Replace tensors that refer to another file by tensors in memory."""
    exchange(model, _in_memory)


def _in_memory(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    if _is_parsed(tensor) or not isinstance(tensor, ir.ExternalTensor):
        return tensor
    return ir.Tensor(
        tensor.numpy(),
        dtype=tensor.dtype,
        shape=tensor.shape,
        name=tensor.name,
        doc_string=tensor.doc_string,
        metadata_props=tensor.metadata_props,
    )
