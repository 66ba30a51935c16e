"""Pickle protocols 4 and 5, as `torch.save(..., pickle_protocol=4)` writes them, translated to protocol 2.

PyTorch's weights-only unpickler reads protocol 2 alone, in which the names of classes are written out. Later
ones put a name together from two strings on the stack. Where these stand right before, which is how every
pickler writes them, the name is known and can be written out; anything else that is newer will be refused.
"""

from __future__ import annotations

import contextlib
import pickle
import pickletools
import re
import struct
import tempfile
import zipfile
from collections.abc import Iterator
from typing import BinaryIO

_STRINGS = ("SHORT_BINUNICODE", "BINUNICODE")
_GETS = ("BINGET", "LONG_BINGET")
_NAME = re.compile(r"[\w.]+")
_NEWEST = 2  # except EMPTY_SET, which the weights-only unpickler knows


@contextlib.contextmanager
def lowered(stream: BinaryIO) -> Iterator[BinaryIO]:
    """Yield the zip archive in `stream` with its pickle in protocol 2; `stream` itself if it already is.

    Args:
        stream: An archive by `torch.save` that [`entries`][bnfold.torch.read.safety.archive.entries] has
            passed.

    Raises:
        pickle.UnpicklingError: The pickle holds what protocol 2 cannot express.
    """
    with zipfile.ZipFile(stream) as archive:
        name = next(entry for entry in archive.namelist() if entry.endswith("data.pkl"))
        data = archive.read(name)
        if data[:1] != pickle.PROTO or data[1] <= _NEWEST:
            stream.seek(0)
            yield stream
            return
        plain = b"".join(_Translation(data))
        with tempfile.TemporaryFile(prefix="bnfold-") as copy:
            with zipfile.ZipFile(copy, "w") as target:
                for entry in archive.infolist():
                    target.writestr(entry, plain if entry.filename == name else archive.read(entry))
            copy.seek(0)
            yield copy


class _Translation:
    """One pickle, opcode by opcode."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._memoized = 0
        self._texts: dict[int, str] = {}  # strings in the memo, which may never be written there
        self._held: list[tuple[str, bytes]] = []  # strings that a STACK_GLOBAL may need

    def __iter__(self) -> Iterator[bytes]:
        opcodes = list(pickletools.genops(self._data))
        ends = [position for _, _, position in opcodes[1:]] + [len(self._data)]
        yield pickle.PROTO + bytes([_NEWEST])
        for (opcode, argument, start), end in zip(opcodes, ends, strict=True):
            yield from self._opcode(opcode, argument, self._data[start or 0 : end])

    def _opcode(self, opcode: pickletools.OpcodeInfo, argument: object, raw: bytes) -> Iterator[bytes]:
        name = opcode.name
        if name in ("PROTO", "FRAME"):
            return
        if name in _STRINGS or (name in _GETS and argument in self._texts):
            text = argument if isinstance(argument, str) else self._texts[int(str(argument))]
            if len(self._held) == 2:
                yield self._held.pop(0)[1]
            self._held.append((text, _push(text)))
        elif name == "MEMOIZE":
            put = pickle.LONG_BINPUT + struct.pack("<I", self._memoized)
            if self._held:
                text, code = self._held.pop()
                self._texts[self._memoized] = text
                self._held.append((text, code + put))
            else:
                yield put
            self._memoized += 1
        elif name == "STACK_GLOBAL":
            names = [text for text, _ in self._held]
            if len(names) != 2 or not all(map(_NAME.fullmatch, names)):
                raise pickle.UnpicklingError("a class whose name is computed")
            self._held.clear()
            yield pickle.GLOBAL + "".join(f"{text}\n" for text in names).encode()
        elif opcode.proto > _NEWEST and name != "EMPTY_SET":
            raise pickle.UnpicklingError(f"the opcode {name}")
        else:
            yield from (code for _, code in self._held)
            self._held.clear()
            yield raw


def _push(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogatepass")
    return pickle.BINUNICODE + struct.pack("<I", len(encoded)) + encoded
