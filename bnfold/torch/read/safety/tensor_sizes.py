"""How much a tensor or a storage in a sketch asks for, and what is seen of its shape and type.

A tensor must lie within its storage, a storage within the file.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import torch

from bnfold.torch.read.safety.budget import ExcessiveError
from bnfold.torch.read.safety.sketch import Call, Name, Node, Sequence, Storage, children

_MOST = 100  # values that are looked at, of what a tensor is made with
_ITEM_SIZES = {
    **dict.fromkeys(("Byte", "Char", "Bool", "QInt8", "QUInt8", "QUInt4x2", "QUInt2x4", "Untyped"), 1),
    **dict.fromkeys(("Short", "Half", "BFloat16"), 2),
    **dict.fromkeys(("Int", "Float", "QInt32"), 4),
    **dict.fromkeys(("Long", "Double", "ComplexFloat"), 8),
    "ComplexDouble": 16,
}

STRIDED = {f"torch._utils._rebuild_{name}" for name in ("tensor", "tensor_v2", "tensor_v3", "qtensor")}
"""They make a tensor from a storage, an offset, sizes and strides."""

SIZED = {
    f"torch._utils._rebuild_{name}"
    for name in ("sparse_tensor", "meta_tensor_no_storage", "wrapper_subclass", "nested_tensor")
}
"""They make a tensor with sizes as arguments."""

FROM_TENSORS = {
    *(f"torch._utils._rebuild_{name}" for name in ("parameter", "parameter_with_state")),
    *(f"torch._utils._rebuild_device_tensor_from_{name}" for name in ("numpy", "cpu_tensor")),
    *("torch.nn.parameter.Parameter", "torch.device", "torch.serialization._get_layout", "builtins.complex"),
}
"""They make a tensor from others, or take what tensors have, such as a device."""

FROM_TYPE = "torch._tensor._rebuild_from_type_v2"
"""It calls its first argument on its third."""

TENSORS = STRIDED | SIZED | FROM_TENSORS - {"torch.device", "builtins.complex"} | {FROM_TYPE}
"""The functions that make tensors."""


def sizes_of(node: Node) -> tuple[int, ...]:
    """The shape of a tensor or a parameter in a sketch; `()` where it cannot be seen."""
    members = _rebuilt(node)
    try:
        return tuple(_integers(members[2])) if len(members) > 2 else ()
    except ExcessiveError:
        return ()


def type_of(node: Node) -> str:
    """The type of its numbers as in the name of a storage, such as `Float`; `""` where it cannot be seen."""
    storage = next(iter(_rebuilt(node)), None)
    kind = storage.identity.members[1:2] if isinstance(storage, Storage) else []
    return kind[0].name.removesuffix("Storage") if kind and isinstance(kind[0], Name) else ""


def _rebuilt(node: Node) -> list[Node]:
    """What a tensor is made from: its storage, offset, sizes and strides; nothing of other kinds."""
    for _ in range(_MOST):  # a parameter holds its tensor, and a subclass its class and what it is made from
        if not isinstance(node, Call) or not node.arguments.members:
            return []
        name, members = str(node.function), node.arguments.members
        if name in STRIDED:
            return members
        inner = members[2] if name == FROM_TYPE and len(members) > 2 else None
        node = Call(members[0], inner) if isinstance(inner, Sequence) else members[0]
    return []


def stored_bytes(node: Storage, size: int, records: Mapping[str, int] | None) -> int:
    """The bytes of a storage.

    Args:
        node: The storage.
        size: Bytes of the file.
        records: Bytes of each storage in an archive; None for a file that is none.

    Raises:
        ExcessiveError: They are more than the archive or the file has.
    """
    count, itemsize = stored(node)
    key = node.identity.members[2]
    there = size if records is None else records.get(str(key), 0)
    if count * itemsize > there:
        raise ExcessiveError(f"{count * itemsize} bytes of numbers where it has {there}")
    return count * itemsize


def stored(node: Storage) -> tuple[int, int]:
    """A storage's number of elements, and their size in bytes.

    Raises:
        ExcessiveError: It is of an unknown type, or the number is none.
    """
    members = node.identity.members
    kind = members[1].name if len(members) > 4 and isinstance(members[1], Name) else ""
    itemsize = _ITEM_SIZES.get(kind.removesuffix("Storage"), 0)
    if not itemsize or not isinstance(members[4], int) or members[4] < 0:
        raise ExcessiveError("numbers of an unknown kind")
    return members[4], itemsize


def strided(name: str, arguments: list[Node]) -> int:
    """The bytes of a tensor as a whole.

    Args:
        name: The function that makes it, one of `STRIDED`.
        arguments: What it is called with.

    Raises:
        ExcessiveError: It does not lie within its storage.
    """
    storage, offset, sizes, strides = (*arguments[:4], *[None] * 4)[:4]
    shape, steps = _integers(sizes), _integers(strides)
    if not isinstance(storage, Storage) or not isinstance(offset, int) or offset < 0:
        raise ExcessiveError("a tensor without numbers")
    count, itemsize = stored(storage)
    if name.endswith("_v3"):
        held = count * itemsize
        dtype = vars(torch).get(_name(arguments, 6))  # getattr would import what has such a name
        if not isinstance(dtype, torch.dtype):
            raise ExcessiveError("numbers of an unknown kind")
        itemsize = dtype.itemsize
        count = held // itemsize
    if len(shape) != len(steps):
        raise ExcessiveError("a tensor whose strides do not fit its shape")
    elements = math.prod(shape)
    last = offset + sum((one - 1) * step for one, step in zip(shape, steps, strict=False))
    packed = isinstance(storage.identity.members[1], Name) and "QUInt" in str(storage.identity.members[1])
    if elements and not packed and last >= count:
        raise ExcessiveError(f"a tensor of shape {'x'.join(map(str, shape))} from {count} numbers")
    return elements * itemsize


def _name(arguments: list[Node], place: int) -> str:
    return arguments[place].name if len(arguments) > place and isinstance(arguments[place], Name) else ""


def _integers(node: Node) -> list[int]:
    if isinstance(node, Call) and str(node.function) == "torch.Size" and node.arguments.members:
        node = node.arguments.members[0]
    found = node.members if isinstance(node, Sequence) else [-1]
    if not all(type(one) is int and one >= 0 for one in found):
        raise ExcessiveError("a tensor whose sizes are not counts")
    return found


def sized(arguments: list[Node]) -> int:
    """The most elements that any tuple of numbers among the arguments could stand for.

    Args:
        arguments: What a function of `SIZED` is called with.

    Raises:
        ExcessiveError: There are too many to look at.
    """
    most, count, work = 0, 0, list(arguments[:_MOST])
    while work:
        node = work.pop()
        inner = list(itertools.islice(children(node), _MOST + 1))
        count += 1 + len(inner)
        if count > 10 * _MOST:
            raise ExcessiveError("a tensor of an unknown kind")
        if isinstance(node, Sequence) and inner and all(type(one) is int for one in inner):
            most = max(most, math.prod(max(1, abs(one)) for one in inner))
        work += inner
    return most
