"""Protobuf's wire format, as far as needed to find and replace the bytes of a model's tensors.

A message is a sequence of fields, each a tag (its number and how it is stored) and a value; a value of bytes,
text or another message has its length before it. What can hold a tensor is read, everything else is
skipped. The file may be hostile: every field has to lie within the message around it, and what
two readers could read in two ways is a [`WireError`][bnfold.files.protobuf_scan.WireError].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class WireError(Exception):
    """Bytes that this scanner does not accept. Protobuf itself may be able to read them."""


class Data(Protocol):
    """Bytes, or a file that is read when it is sliced."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> bytes: ...


class Message(NamedTuple):
    """A message within another one, at offsets into the data: its length at `at`, then its fields."""

    at: int
    begin: int
    stop: int
    parent: Message | None


class RawData(NamedTuple):
    """A tensor's `raw_data` field, at offsets into the data: the tag at `start`, the bytes at `begin`."""

    start: int
    begin: int
    stop: int
    tensor: Message


def raw_data(data: Data, smallest: int) -> list[RawData]:
    """Find the tensors' bytes in a serialized `ModelProto`, in the order of the data.

    Those of initializers and attributes, in subgraphs and functions too. Left out are tensors that hold
    anything but a description and one `raw_data`: values stored in two ways, external data, unknown fields.

    Args:
        data: The serialized model.
        smallest: In bytes; what is smaller is left out, and messages that small are skipped.

    Raises:
        WireError: A field leaves the message around it, is nested too deeply, is stored as a group or with a
            number longer than it must be, or is a message that is given twice, which protobuf merges. Not
            everything is read, so protobuf may find other mistakes.
    """
    scan = _Scan(data, smallest)
    scan.fields(_MODEL, Message(0, 0, len(data), None), 0)
    return scan.found


def replaced(data: Data, changes: Sequence[tuple[RawData, bytes, int]]) -> list[bytes | int]:
    """Replace fields of a message, and correct the lengths of all messages around them.

    Args:
        data: What `raw_data` has scanned.
        changes: Different fields in any order, and the replacement of each: some bytes, then the length of a
            payload that need not exist yet.

    Returns:
        The message piece by piece; an int i stands for the payload of change i.
    """
    growth: dict[int, int] = {}
    around: dict[int, Message] = {}
    edits: list[tuple[int, int, bytes, int]] = []
    for index, (raw, head, payload) in enumerate(changes):
        edits.append((raw.start, raw.stop, head, index))
        message: Message | None = raw.tensor
        begin, grown = raw.tensor.begin, len(head) + payload - (raw.stop - raw.start)
        growth[begin] = growth.get(begin, 0) + grown
        while message is not None and message.begin not in around:
            around[message.begin] = message
            message = message.parent
    for begin, message in sorted(around.items(), reverse=True):  # inner ones first: they begin later
        if message.parent is not None:
            grown = growth.get(begin, 0)
            length = varint(message.stop - begin + grown)
            edits.append((message.at, begin, length, -1))
            grown += len(length) - (begin - message.at)
            growth[message.parent.begin] = growth.get(message.parent.begin, 0) + grown
    pieces: list[bytes | int] = []
    run: list[bytes] = []
    position = 0
    for start, stop, head, index in sorted(edits):
        run += data[position:start], head
        position = stop
        if index >= 0:
            pieces += b"".join(run), index
            run = []
    pieces.append(b"".join([*run, data[position : len(data)]]))
    return pieces


def varint(value: int) -> bytes:
    """Write a number from 0 on, seven bits a byte, the lowest ones first."""
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def field(number: int, value: bytes) -> bytes:
    """Write a field that holds bytes, text or a message."""
    return varint(number << 3 | _BYTES) + varint(len(value)) + value


_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5  # how a value is stored: the low bits of a tag
_MODEL, _GRAPH, _NODE, _ATTRIBUTE, _FUNCTION, _TENSOR = range(6)
_LEADS: dict[int, dict[int, int]] = {  # from a message, by a tag, to the message in it
    _MODEL: {7 << 3 | _BYTES: _GRAPH, 25 << 3 | _BYTES: _FUNCTION},
    _GRAPH: {1 << 3 | _BYTES: _NODE, 5 << 3 | _BYTES: _TENSOR},
    _NODE: {5 << 3 | _BYTES: _ATTRIBUTE},
    _ATTRIBUTE: {
        n << 3 | _BYTES: kind for n, kind in ((5, _TENSOR), (6, _GRAPH), (10, _TENSOR), (11, _GRAPH))
    },
    _FUNCTION: {7 << 3 | _BYTES: _NODE},
}
_SINGULAR = {(_MODEL, 7 << 3 | _BYTES), (_ATTRIBUTE, 5 << 3 | _BYTES), (_ATTRIBUTE, 6 << 3 | _BYTES)}
_RAW_DATA = 9 << 3 | _BYTES
_DESCRIPTION = {  # dims (one by one or packed) and data_type; name, doc_string, metadata_props
    *(1 << 3 | _VARINT, 1 << 3 | _BYTES, 2 << 3 | _VARINT),
    *(8 << 3 | _BYTES, 12 << 3 | _BYTES, 16 << 3 | _BYTES),
}
_DEEPEST = 100  # messages within messages, as for protobuf
_MOST_FIELDS = 2**22  # a second or two; protobuf reads many small fields faster
_WINDOW = 2**12  # bytes read at a time: many small fields, or little wasted before a large one
_LONGEST_HEAD = 16  # bytes: a tag, then a length or a number


class _Scan:
    """One walk through the data, from front to back."""

    def __init__(self, data: Data, smallest: int) -> None:
        self.found: list[RawData] = []
        self._data = data
        self._smallest = smallest
        self._window = b""
        self._base = 0  # where the window begins in the data
        self._count = 0

    def fields(self, kind: int, message: Message, depth: int) -> None:
        """Scan the fields of a message that is not a tensor."""
        if depth > _DEEPEST:
            raise WireError("messages are nested too deeply")
        leads = _LEADS[kind]
        seen: set[int] = set()
        position = message.begin
        while position < message.stop:
            tag, at, begin, stop = self._field(position, message.stop)
            inner = leads.get(tag)
            if inner is not None:
                if (kind, tag) in _SINGULAR and tag in seen:
                    raise WireError("a message is given twice")
                seen.add(tag)
                if stop - begin >= self._smallest:
                    part = Message(at, begin, stop, message)
                    if inner == _TENSOR:
                        self._tensor(part)
                    else:
                        self.fields(inner, part, depth + 1)
            position = stop

    def _tensor(self, message: Message) -> None:
        raw: RawData | None = None
        position = message.begin
        while position < message.stop:
            tag, _, begin, stop = self._field(position, message.stop)
            if tag == _RAW_DATA and raw is None:
                raw = RawData(position, begin, stop, message)
            elif tag not in _DESCRIPTION:
                return
            position = stop
        if raw is not None and raw.stop - raw.begin >= self._smallest:
            self.found.append(raw)

    def _field(self, position: int, limit: int) -> tuple[int, int, int, int]:
        """The tag of the field at `position`; where its length is, its value begins, and it stops."""
        self._count += 1
        if self._count > _MOST_FIELDS:
            raise WireError("too many fields")
        start = position - self._base
        if start + _LONGEST_HEAD > len(self._window):
            self._window, self._base, start = self._data[position : position + _WINDOW], position, 0
        window = self._window
        try:
            tag, at = window[start], start + 1
            if tag > 0x7F:
                tag, at = _number(window, start)
            stored, begin = tag & 7, at
            if stored == _BYTES:
                length, begin = window[at], at + 1
                if length > 0x7F:
                    length, begin = _number(window, at)
                stop = begin + length
            elif stored == _VARINT:
                stop = at + 1
                while window[stop - 1] > 0x7F:
                    stop += 1
            elif stored in (_FOUR, _EIGHT):
                stop = at + (4 if stored == _FOUR else 8)
            else:
                raise WireError("a group, or no way to store a value")
        except IndexError:
            raise WireError("the data ends within a field") from None
        if tag < 8 or stop + self._base > limit:
            raise WireError("a field is numbered 0, or leaves its message")
        base = self._base
        return tag, at + base, begin + base, stop + base


def _number(window: bytes, position: int) -> tuple[int, int]:
    """A number below 2³¹ at `position`, as short as it can be, and where it ends.

    Raises:
        IndexError: It ends beyond the window.
    """
    value = shift = 0
    while True:
        byte = window[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            break
        shift += 7
    if value >= 2**31 or (byte == 0 and shift):
        raise WireError("a number is too long")
    return value, position
