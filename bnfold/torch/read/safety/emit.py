"""A graph of nodes written as a pickle of protocol 2, in opcodes that torch's weights-only unpickler reads.

What that unpickler cannot fill, such as a `deque` or a class of the user's, is filled by one function of
bnfold's ([`filled`][bnfold.torch.read.safety.plain.filled]).
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass

from bnfold.torch.read.safety.plain import FILLED
from bnfold.torch.read.safety.sketch import Call, Name, Node, Sequence, Storage, Table

_SMALL = 1 << 31
_SHORT = 9  # bytes of a number's code, so that it is not worth an entry in the memo
_FILLABLE = {"collections.OrderedDict", "collections.Counter"}
_TUPLES = {0: pickle.EMPTY_TUPLE, 1: pickle.TUPLE1, 2: pickle.TUPLE2, 3: pickle.TUPLE3}


@dataclass(frozen=True)
class _Code:
    code: bytes


@dataclass(frozen=True)
class _Put:
    node: Node


_MARK, _REDUCE, _BUILD = _Code(pickle.MARK), _Code(pickle.REDUCE), _Code(pickle.BUILD)


def filled_natively(call: Call) -> bool:
    """Whether torch's unpickler itself can put into `call` what is put into it."""
    return not call.added and (not call.entries or str(call.function) in _FILLABLE)


def emit(root: Node, instead: Callable[[Node], Node] = lambda node: node) -> bytes:
    """Write `root` as a pickle.

    Args:
        root: The node.
        instead: Called with each node; gives the one to write in its place.

    Raises:
        pickle.UnpicklingError: A tuple or the arguments of a call contain themselves, or a number has more
            than 255 bytes.
    """
    out = [pickle.PROTO, b"\x02"]
    memo: dict[int, int] = {}
    begun: set[int] = set()
    kept: list[list[Node]] = []  # what has been written must live on, since it is known by its id
    work: list[Node] = [_Code(pickle.STOP), root]
    while work:
        item = work.pop()
        if isinstance(item, _Code):
            out.append(item.code)
            continue
        if isinstance(item, _Put):
            number = memo[id(item.node)] = len(memo)
            out.append(pickle.LONG_BINPUT + struct.pack("<I", number))
            continue
        node = instead(item)
        if id(node) in memo:
            out.append(pickle.LONG_BINGET + struct.pack("<I", memo[id(node)]))
        elif not isinstance(node, (Name, Sequence, Table, Storage, Call)):
            out.append(_atom(node))
            if len(out[-1]) > _SHORT:  # written once, however often it is named
                kept.append([node])
                work.append(_Put(node))
        else:
            if id(node) in begun:
                raise pickle.UnpicklingError("something that contains itself")
            begun.add(id(node))
            kept.append(_parts(node))
            work.extend(reversed(kept[-1]))
    return b"".join(out)


def _parts(node: Node) -> list[Node]:
    """What is written for a node: opcodes, and nodes to write in between."""
    if isinstance(node, Name):
        return [_Code(pickle.GLOBAL + f"{node.module}\n{node.name}\n".encode()), _Put(node)]
    if isinstance(node, Storage):
        return [node.identity, _Code(pickle.BINPERSID), _Put(node)]
    if isinstance(node, Table):
        return [_Code(pickle.EMPTY_DICT), _Put(node), *_entries(node.entries)]
    if isinstance(node, Call):
        return _call(node)
    if node.kind == "list":
        head = [_Code(pickle.EMPTY_LIST), _Put(node)]
        return [*head, _MARK, *node.members, _Code(pickle.APPENDS)] if node.members else head
    if node.kind == "tuple":
        code = _TUPLES.get(len(node.members))
        inner = [*node.members, _Code(code)] if code else [_MARK, *node.members, _Code(pickle.TUPLE)]
        return [*inner, _Put(node)]
    made = Sequence("tuple", [Sequence("list", node.members)])
    return [Name("builtins", node.kind), made, _REDUCE, _Put(node)]


def _call(node: Call) -> list[Node]:
    how = _Code(pickle.NEWOBJ) if node.new else _REDUCE
    parts: list[Node] = [node.function, node.arguments, how, _Put(node)]
    if filled_natively(node):
        parts += _entries(node.entries)
    else:
        pairs = Sequence("list", [Sequence("tuple", list(entry)) for entry in node.entries])
        # the object is in the memo by then, and is what `filled` gives back
        parts = [FILLED, *parts, Sequence("list", node.added), pairs, _Code(pickle.TUPLE3), _REDUCE]
    for state in node.states:
        parts += [state, _BUILD]
    return parts


def _entries(entries: list[tuple[Node, Node]]) -> list[Node]:
    return [_MARK, *(part for entry in entries for part in entry), _Code(pickle.SETITEMS)] if entries else []


def _atom(value: Node) -> bytes:
    if value is None:
        return pickle.NONE
    if isinstance(value, bool):
        return pickle.NEWTRUE if value else pickle.NEWFALSE
    if isinstance(value, int):
        if -_SMALL <= value < _SMALL:
            return pickle.BININT + struct.pack("<i", value)
        data = pickle.encode_long(value)
        if len(data) > 255:
            raise pickle.UnpicklingError("a number of more than 255 bytes")
        return pickle.LONG1 + bytes([len(data)]) + data
    if isinstance(value, float):
        return pickle.BINFLOAT + struct.pack(">d", value)
    if isinstance(value, (bytes, bytearray)):
        text = value.decode("latin-1")
        return b"c_codecs\nencode\n" + _atom(text) + _atom("latin1") + pickle.TUPLE2 + pickle.REDUCE
    encoded = str(value).encode("utf-8", "surrogatepass")
    return pickle.BINUNICODE + struct.pack("<I", len(encoded)) + encoded
