"""A plain pickle with NumPy arrays, shown as an archive by `torch.save`: then both are read alike.

Detectron2 and its like keep weights that way, as `{"model": {name: array}, "__author__": text}`. Each array
becomes a tensor of the same numbers, and the rest stays what it is: nothing has been made yet.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
import torch

from bnfold.torch.read.safety import before_1_6, sketch
from bnfold.torch.read.safety.sketch import Call, Name, Node, Sequence

TENSORS = "torch.storage._load_from_bytes"
"""What a pickle calls that was not written by `torch.save` and holds tensors."""

_STORAGES = {
    "f2": "Half",
    "f4": "Float",
    "f8": "Double",
    "c8": "ComplexFloat",
    "c16": "ComplexDouble",
    "b1": "Bool",
    "u1": "Byte",
    "i1": "Char",
    "i2": "Short",
    "i4": "Int",
    "i8": "Long",
}
_RECONSTRUCT = {f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")}
_FROM_BUFFER = {f"numpy.{core}.numeric._frombuffer" for core in ("core", "_core")}
_BYTES = {"builtins.bytearray", "builtins.bytes", "_codecs.encode"}
_DEPTH = 3  # of dictionaries


def as_archive(stream: BinaryIO) -> tuple[BinaryIO, sketch.Sketch]:
    """The same content as an archive in memory, of which nothing has been made.

    Args:
        stream: The file.

    Returns:
        The archive with the arrays' numbers, and what its pickle would make.

    Raises:
        pickle.UnpicklingError: It is not as picklers write.
        ValueError: It is truncated.
    """
    with before_1_6.bounded(stream) as whole:
        drawn = sketch.read(whole)
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w") as archive:
        archive.writestr(before_1_6.ENTRY, b"")
        archive.writestr("archive/version", "3\n")
        for key, node in enumerate(sketch.reachable([drawn.root])):
            found = _array(node) if isinstance(node, Call) else None
            if found is not None:
                kind, shape, is_fortran, content = found
                archive.writestr(f"archive/data/{key}", content)
                _become_tensor(node, kind, shape, is_fortran, str(key))
    into.seek(0)
    return into, drawn


def with_tensors(found: Any, depth: int = _DEPTH) -> Any:
    """What was unpickled, with tensors in place of the arrays in its dictionaries."""
    if isinstance(found, np.ndarray) and f"{found.dtype.kind}{found.dtype.itemsize}" in _STORAGES:
        return torch.from_numpy(found.astype(found.dtype.newbyteorder("="), copy=True))
    if isinstance(found, Mapping) and depth:
        changed = {key: with_tensors(value, depth - 1) for key, value in found.items()}
        return changed if any(changed[key] is not found[key] for key in changed) else found
    return found


def _array(node: Call) -> tuple[str, list[int], bool, bytes] | None:
    """The code of an array's type, its sizes, whether it is in Fortran's order, and its bytes.

    None for what is not an array of numbers that torch has.
    """
    name, arguments = str(node.function), node.arguments.members
    state = node.states[0] if len(node.states) == 1 else None
    if name in _RECONSTRUCT and isinstance(state, Sequence) and len(state.members) == 5:
        _, shape, dtype, is_fortran, data = state.members
    elif name in _FROM_BUFFER and len(arguments) == 4 and not node.states:
        data, dtype, shape, order = arguments
        is_fortran = order == "F"
    else:
        return None
    kind, content, sizes = _type(dtype), _bytes(data), getattr(shape, "members", None)
    if kind is None or content is None or not isinstance(sizes, list):
        return None
    if not all(type(size) is int and size >= 0 for size in sizes):
        return None
    is_whole = math.prod(sizes) * int(kind[1:]) == len(content)
    return (kind, sizes, bool(is_fortran), content) if is_whole else None


def _type(node: Node) -> str | None:
    """The code of a NumPy type, as `f4`, if torch has it and a file of a small machine holds it."""
    if not isinstance(node, Call) or str(node.function) != "numpy.dtype" or not node.arguments.members:
        return None
    code = node.arguments.members[0]
    state = node.states[0] if len(node.states) == 1 else None
    order = state.members[1] if isinstance(state, Sequence) and len(state.members) > 1 else None
    return code if code in _STORAGES and order in ("<", "|", b"<", b"|") else None


def _bytes(node: Node) -> bytes | None:
    """Bytes however a pickle has them; Python 2 and protocol 2 write them as text of the same numbers."""
    if isinstance(node, Call) and str(node.function) in _BYTES and node.arguments.members:
        node = node.arguments.members[0]
    if isinstance(node, str):
        try:
            return node.encode("latin-1")
        except UnicodeEncodeError:
            return None
    return node if isinstance(node, bytes) else None


def _become_tensor(node: Call, kind: str, shape: list[int], is_fortran: bool, key: str) -> None:
    """Let a call make a tensor of the storage `key` instead."""
    steps = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    if is_fortran:
        steps = [math.prod(shape[:axis]) for axis in range(len(shape))]
    storage = Name("torch", f"{_STORAGES[kind]}Storage")
    identity = Sequence("tuple", ["storage", storage, key, "cpu", math.prod(shape)])
    hooks = Call(Name("collections", "OrderedDict"), Sequence("tuple"))
    node.function, node.new, node.states = Name("torch._utils", "_rebuild_tensor_v2"), False, []
    sizes, strides = Sequence("tuple", list(shape)), Sequence("tuple", steps)
    node.arguments = Sequence("tuple", [sketch.Storage(identity), 0, sizes, strides, False, hooks])
