"""What a pickle would make, as a graph of plain nodes: read without making any of it.

Every opcode that a pickler writes is understood, of all protocols; a call is only written down. A graph has
at most as many nodes as its pickle has bytes, since what is used twice is one node.
"""

from __future__ import annotations

import pickle
import pickletools
import re
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, TypeAlias

Node: TypeAlias = Any
"""One of the classes below, or a number, a string, bytes, a boolean or None."""

_NAME = re.compile(r"[\w.]+")
_ATOMS = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LISTS = {"LIST": "list", "TUPLE": "tuple", "FROZENSET": "frozenset"}
_EMPTY = {"EMPTY_LIST": "list", "EMPTY_TUPLE": "tuple", "EMPTY_SET": "set"}


@dataclass(frozen=True, slots=True)
class Name:
    """A class or a function, by its present name (Python 2's are translated)."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


COMPUTED = Name("builtins", "<computed>")
"""What stands for a function that a call has given, and no name; a model never has one."""


@dataclass(eq=False, slots=True)
class Sequence:
    """A tuple, list, set or frozenset."""

    kind: str
    members: list[Node] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Table:
    """A dictionary."""

    entries: list[tuple[Node, Node]] = field(default_factory=list)

    def get(self, name: str) -> Node:
        """The last value under the string `name`; None if there is none."""
        return next((value for key, value in reversed(self.entries) if key == name), None)


@dataclass(eq=False, slots=True)
class Storage:
    """The numbers of a tensor, by what torch looks them up with: a tuple."""

    identity: Sequence


@dataclass(eq=False, slots=True)
class Call:
    """What a call makes, and what is put into it afterwards.

    Attributes:
        function: What is called.
        arguments: With what: a tuple, or something that is none, in a damaged file.
        new: Whether it is `__new__` of a class that is called.
        states: What `__setstate__` or the attributes get.
        added: What is appended to it.
        entries: What is put into it under keys.
    """

    function: Name
    arguments: Sequence
    new: bool = False
    states: list[Node] = field(default_factory=list)
    added: list[Node] = field(default_factory=list)
    entries: list[tuple[Node, Node]] = field(default_factory=list)


@dataclass
class Sketch:
    """What a pickle holds.

    Attributes:
        root: What it would make.
        protocol: The version of the format that it needs.
        names: Every class and function that it names, in order.
    """

    root: Node
    protocol: int
    names: list[str]


def read(stream: BinaryIO) -> Sketch:
    """Read the next pickle in `stream`, an `io.BytesIO` or a memory map: something with an end.

    Raises:
        pickle.UnpicklingError: An opcode, or an order of them, that no pickler writes.
        ValueError: It is truncated, or a length in it is larger than what follows.
    """
    reader = _Reader()
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            reader.step(opcode, argument)
        return Sketch(reader.stack[-1], reader.protocol, list(reader.names))
    except (IndexError, KeyError, OverflowError) as error:
        raise pickle.UnpicklingError(f"an opcode that lacks its operands ({type(error).__name__})") from None


def children(node: Node) -> Iterator[Node]:
    """The nodes and values that one is made of."""
    if isinstance(node, Sequence):
        yield from node.members
    elif isinstance(node, Table):
        for entry in node.entries:
            yield from entry
    elif isinstance(node, Storage):
        yield node.identity
    elif isinstance(node, Call):
        yield from (node.function, node.arguments, *node.states, *node.added)
        for entry in node.entries:
            yield from entry


def reachable(roots: Iterable[Node], onward: Callable[[Node], Iterable[Node]] = children) -> Iterator[Node]:
    """Every node that `roots` are made of, once each, in order; values are left out."""
    seen: set[int] = set()
    work = list(roots)[::-1]
    while work:
        node = work.pop()
        if isinstance(node, (Name, Sequence, Table, Storage, Call)) and id(node) not in seen:
            seen.add(id(node))
            yield node
            work.extend(list(onward(node))[::-1])


class _Reader:
    """The stack machine of a pickle."""

    def __init__(self) -> None:
        self.stack: list[Node] = []
        self.marks: list[list[Node]] = []
        self.memo: dict[int, Node] = {}
        self.names: dict[str, None] = {}
        self.protocol = 0
        self.steps = 0

    def step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        name = opcode.name
        self.protocol = max(self.protocol, opcode.proto)
        self.steps += 1
        if name in ("PROTO", "FRAME", "STOP"):
            return
        if name in _ATOMS:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self.stack.append(Sequence(_EMPTY[name]))
        elif name in _LISTS:
            members = self._since_mark()
            self.stack.append(Sequence(_LISTS[name], members))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            self.stack.append(Sequence("tuple", self._take(int(name[-1]))))
        elif "PUT" in name or name == "MEMOIZE":
            place = len(self.memo) if argument is None else int(argument)
            if place > self.steps:  # some readers make room for as many
                raise pickle.UnpicklingError(f"a value that is remembered as number {place}")
            self.memo[place] = self.stack[-1]
        elif "GET" in name:
            self.stack.append(self.memo[argument])
        elif method := getattr(self, f"_{name.lower()}", None):
            method(argument)
        else:
            raise pickle.UnpicklingError(f"the opcode {name}")

    def _take(self, count: int) -> list[Node]:
        if len(self.stack) < count:
            raise IndexError(count)
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def _since_mark(self) -> list[Node]:
        members, self.stack = self.stack, self.marks.pop()
        return members

    def _mark(self, _: object) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def _pop(self, _: object) -> None:
        self.stack.pop()

    def _bytearray8(self, content: bytes) -> None:
        self.names["builtins.bytearray"] = None
        self.stack.append(Call(Name("builtins", "bytearray"), Sequence("tuple", [bytes(content)])))

    def _empty_dict(self, _: object) -> None:
        self.stack.append(Table())

    def _dict(self, _: object) -> None:
        members = self._since_mark()  # another stack is the current one from here on
        self.stack.append(Table(_pairs(members)))

    def _append(self, _: object) -> None:
        value = self.stack.pop()
        self._members("list").append(value)

    def _appends(self, _: object) -> None:
        values = self._since_mark()
        self._members("list").extend(values)

    def _additems(self, _: object) -> None:
        values = self._since_mark()
        self._members("set").extend(values)

    def _members(self, kind: str) -> list[Node]:
        into = self.stack[-1]
        if isinstance(into, Sequence) and into.kind == kind:
            return into.members
        if isinstance(into, Call):
            return into.added
        raise pickle.UnpicklingError(f"something is put into what is not a {kind}")

    def _setitem(self, _: object) -> None:
        self._put(self._take(2))

    def _setitems(self, _: object) -> None:
        self._put(self._since_mark())

    def _put(self, members: list[Node]) -> None:
        into = self.stack[-1]
        if not isinstance(into, (Table, Call)):
            raise pickle.UnpicklingError("something is put into what is not a dictionary")
        into.entries.extend(_pairs(members))

    def _global(self, text: str) -> None:
        self._named(*text.split(" ", 1))

    def _stack_global(self, _: object) -> None:
        self._named(*self._take(2))

    def _named(self, module: Node, name: Node = None) -> None:
        texts = (module, name)
        if not all(isinstance(text, str) and _NAME.fullmatch(text) for text in texts):
            raise pickle.UnpicklingError("a class whose name is computed")
        home, attribute = NAME_MAPPING.get((module, str(name)), (module, str(name)))
        found = Name(IMPORT_MAPPING.get(home, home), attribute)
        self.names[str(found)] = None
        self.stack.append(found)

    def _reduce(self, _: object) -> None:
        self._call(*self._take(2))

    def _newobj(self, _: object) -> None:
        self._call(*self._take(2), new=True)

    def _call(self, function: Node, arguments: Node, *, new: bool = False) -> None:
        if isinstance(function, Call):  # as of a method, in what a trainer keeps beside the model
            function, arguments = COMPUTED, Sequence("tuple", [function, arguments])
        if not isinstance(function, Name) or not isinstance(arguments, Sequence):
            raise pickle.UnpicklingError("a call of what is not named")
        self.stack.append(Call(function, arguments, new))

    def _build(self, _: object) -> None:
        state = self.stack.pop()
        made = self.stack[-1]
        if not isinstance(made, Call):
            raise pickle.UnpicklingError("a state for what was not made by a call")
        made.states.append(state)

    def _binpersid(self, _: object) -> None:
        identity = self.stack.pop()
        kind = identity.members[0] if isinstance(identity, Sequence) and identity.members else None
        if kind == "module":  # a class with its source code, as written before PyTorch 1.6
            self.stack.append(identity.members[1])
        elif kind == "storage":
            self.stack.append(Storage(identity))
        else:
            raise pickle.UnpicklingError("a persistent object that is not a storage")


def _pairs(members: list[Node]) -> list[tuple[Node, Node]]:
    if len(members) % 2:
        raise pickle.UnpicklingError("a key without a value")
    return list(zip(members[::2], members[1::2], strict=True))
