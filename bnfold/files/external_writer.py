"""The file `NAME.HASH.data` next to a model, which holds its larger initializers."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import onnx_ir as ir

from bnfold.files.atomic import hidden_next_to, replacing
from bnfold.files.external_data import initializers
from bnfold.files.file_kind import FileKind
from bnfold.files.serialise import write
from bnfold.tensors.block_tensor import BLOCK

_EXTERNAL_FROM = 1024  # bytes; what is smaller stays in the model, where shape inference can read it
_ALIGNMENT = 64  # bytes; what vector instructions need
_PAGE = 1 << 16  # bytes; what ONNX recommends so that every system, Windows too, can map a tensor into memory
_MAPPED = 1 << 20  # bytes; from here on a tensor begins at a page
_SAMPLE = 4096  # bytes


class _Place(NamedTuple):
    value: ir.Value
    tensor: ir.TensorProtocol
    offset: int


def move_out(model: ir.Model, target: Path, made: list[Path]) -> Path:
    """Move the larger initializers of `model` into a data file next to the file `target`.

    A file that is there already is never written to. One of the same name and content is taken as it is;
    where the content differs, the name gets a number.

    Args:
        model: The model; its initializers are replaced.
        target: Where the model goes.
        made: Gets the data file if it is new, just before that is put in place: the caller removes it where
            no model needs it, after an interrupt in here too.

    Returns:
        The data file, in place.
    """
    places = list(_places(model))
    unnamed = hidden_next_to(target, ".data")
    try:
        with replacing(unnamed) as stream:
            for place in places:
                stream.write(bytes(place.offset - stream.tell()))
                write(place.tensor, stream)
        file = _named(unnamed, f"{target.name}.{_digest(unnamed, places)}", made)
    finally:
        unnamed.unlink(missing_ok=True)
    for value, tensor, offset in places:
        value.const_value = ir.ExternalTensor(
            file.name,
            offset,
            tensor.nbytes,
            tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=value.name or "",
            doc_string=tensor.doc_string,
            metadata_props=dict(tensor.metadata_props),
            base_dir=str(file.parent),
        )
    return file


def _places(model: ir.Model) -> Iterator[_Place]:
    offset = 0
    for value in initializers(model):
        tensor = value.const_value
        if tensor is not None and tensor.dtype != ir.DataType.STRING and tensor.nbytes >= _EXTERNAL_FROM:
            offset += -offset % (_PAGE if tensor.nbytes >= _MAPPED else _ALIGNMENT)
            yield _Place(value, tensor, offset)
            offset += tensor.nbytes


def _digest(file: Path, places: list[_Place]) -> str:
    """Sixteen digits from what the tensors are and from samples of their bytes.

    Not from all bytes: most were copied by the kernel, and reading them would take longer than that did. Two
    files of different content can have the same digest, for which `_named` looks.
    """
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        for _, tensor, offset in places:
            digest.update(f"{tensor.dtype} {tensor.shape} {offset}\n".encode())
            last = max(tensor.nbytes - _SAMPLE, 0)
            for begin in sorted({0, last // 3, 2 * last // 3, last}):
                stream.seek(offset + begin)
                digest.update(stream.read(min(_SAMPLE, tensor.nbytes)))
    return digest.hexdigest()[:16]


def _named(unnamed: Path, stem: str, made: list[Path]) -> Path:
    """Give a data file its name, or find the one that has it and the same content."""
    for count in itertools.count(1):
        place = unnamed.with_name(f"{stem}.data" if count == 1 else f"{stem}-{count}.data")
        if not os.path.lexists(place):
            made.append(place)
            unnamed.replace(place)
            return place
        if _same(unnamed, place):
            return place
    raise AssertionError("counting ends")


def _same(file: Path, other: Path) -> bool:
    """Whether `other` is a regular file with the content of `file`."""
    if other.is_symlink() or not other.is_file() or other.stat().st_nlink > 1:
        return False
    if file.stat().st_size != other.stat().st_size:
        return False
    with file.open("rb") as one, other.open("rb") as two:
        return all(block == two.read(BLOCK) for block in iter(lambda: one.read(BLOCK), b""))


def own_files(path: Path) -> set[str]:
    """The names of the data files that the model at `path` mentions and that `move_out` made for it."""
    pattern = re.compile(re.escape(path.name) + r"\.[0-9a-f]{16}(-[0-9]+)?\.data")
    names = {entry.name for entry in path.parent.iterdir() if pattern.fullmatch(entry.name)}
    return _mentioned(path, names) if names and path.is_file() else set()


def needed_by_others(target: Path, names: Collection[str]) -> set[str]:
    """The `names` that ONNX files next to the one at `target` mention; all, if one cannot be read."""
    needed: set[str] = set()
    for path in target.parent.iterdir():
        if path == target or not path.is_file():
            continue
        try:
            with path.open("rb") as stream:
                kind = FileKind.of(stream.read(_SAMPLE))
            needed |= _mentioned(path, names) if kind is FileKind.ONNX else set()
        except FileNotFoundError:  # removed since it was listed
            continue
        except OSError:
            return set(names)
    return needed


def _mentioned(path: Path, names: Collection[str]) -> set[str]:
    """The `names` that occur in the bytes of a file."""
    wanted = {name: os.fsencode(name) for name in names}
    longest = max(len(name) for name in wanted.values())
    found: set[str] = set()
    end = b""
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(BLOCK), b""):
            text = end + block
            found |= {name for name, written in wanted.items() if written in text}
            end = text[-longest:]
    return found
