"""An archive with another pickle in it, without a copy of what else it holds."""

from __future__ import annotations

import io
import zipfile
from typing import BinaryIO


class _Overlay(io.RawIOBase):
    """A file whose end is replaced in memory, from the first position that is written to."""

    def __init__(self, base: BinaryIO) -> None:
        self._base = base
        self._cut = self._size = base.seek(0, 2)
        self._tail = io.BytesIO()
        self._written = False
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        start = {0: 0, 1: self._at, 2: self._cut + len(self._tail.getbuffer())}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        view = memoryview(buffer).cast("B")
        if self._at < self._cut:
            self._base.seek(self._at)
            data = self._base.read(min(len(view), self._cut - self._at))
        else:
            self._tail.seek(self._at - self._cut)
            data = self._tail.read(len(view))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def write(self, data: bytes) -> int:  # type: ignore[override]
        if not self._written:
            self._written, self._cut = True, self._at
        self._tail.seek(self._at - self._cut)
        count = self._tail.write(data)
        self._at += count
        return count

    def truncate(self, size: int | None = None) -> int:
        end = self._at if size is None else size
        self._tail.truncate(max(0, end - self._cut))
        return end


def with_pickle(stream: BinaryIO, name: str, data: bytes) -> io.BufferedIOBase:
    """Show the archive in `stream` with `data` as its entry `name`.

    Args:
        stream: An archive by `torch.save`, open for reading; it stays as it is.
        name: The full name of an entry.
        data: What it holds now.
    """
    overlay = _Overlay(stream)
    with zipfile.ZipFile(overlay, "a") as archive:
        old = archive.getinfo(name)
        archive.filelist.remove(old)
        del archive.NameToInfo[name]
        archive.writestr(name, data)
    overlay.seek(0)
    return io.BufferedReader(overlay, 1 << 16)
