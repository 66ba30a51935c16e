"""Bytes from file to file, by the kernel where it can: they need not pass through this process."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import BinaryIO, Protocol

_PIECE = 1 << 24  # bytes: what the kernel is asked for at once, and what is on its way to the disk meanwhile
_REMEMBERED = 1 << 29  # bytes of a file that the system may keep in memory when they are on the disk
_ON_ITS_WAY = 1 << 26  # bytes that may not be on the disk yet when writing them has been started
_BUFFER = 1 << 20  # bytes read at once where the kernel does not copy; less is not worth starting a write for
_CANNOT = {  # errors for files that a kernel does not copy, an older one between two disks for instance
    errno.EBADF,
    errno.EINVAL,
    errno.EIO,  # of either file: reading and writing here shows of which
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.EPERM,
    errno.EXDEV,
}


class Readable(Protocol):
    """A file to copy from."""

    def fileno(self) -> int:
        """Its descriptor."""

    def read_into(self, part: memoryview, offset: int) -> None:
        """Fill `part` with the bytes from `offset` on; raise where there are not as many."""


def copy(source: Readable, offset: int, length: int, stream: BinaryIO) -> None:
    """Write `length` bytes of `source`, from `offset` on, to where `stream` is.

    Raises:
        OSError: They cannot be written.
        Exception: What `source.read_into` raises where they cannot be read.
    """
    done = 0
    if isinstance(stream, io.BufferedWriter):
        stream.flush()  # what follows goes past its buffer
        start = stream.tell()
        try:
            for count in _by_kernel(source.fileno(), offset, length, stream.fileno(), start):
                done += count
        finally:
            stream.seek(start + done)
    buffer = memoryview(bytearray(min(length - done, _BUFFER)))
    while done < length:
        part = buffer[: length - done]
        source.read_into(part, offset + done)
        stream.write(part)
        done += len(part)


def _by_kernel(source: int, offset: int, length: int, target: int, start: int) -> Iterator[int]:
    """Copy what the kernel copies, first in one way, then in another, and yield the length of each piece."""
    done = 0
    for way in (_copy_file_range, _sendfile):
        while done < length:
            try:
                count = way(source, offset + done, min(length - done, _PIECE), target, start + done)
            except OSError as error:
                if error.errno not in _CANNOT:
                    raise
                break
            if not count:  # the end of the source, or a file of which the kernel knows no length
                break
            if count >= _BUFFER:
                start_writing(target, start + done, count)
            done += count
            yield count


def _copy_file_range(source: int, offset: int, count: int, target: int, start: int) -> int:
    if sys.platform != "linux" or not hasattr(os, "copy_file_range"):
        return 0
    return os.copy_file_range(source, target, count, offset, start)


def _sendfile(source: int, offset: int, count: int, target: int, start: int) -> int:
    if sys.platform != "linux":  # others send to sockets only
        return 0
    os.lseek(target, start, os.SEEK_SET)
    return os.sendfile(target, source, offset, count)


def start_writing(descriptor: int, begin: int, length: int) -> None:
    """Have the kernel start to write bytes of a file to disk, so that an fsync has less to wait for.

    That is what Linux does when advised that bytes just written are not needed soon; they stay in memory
    until they are on the disk. Advised again, it drops those that are: so only the beginning of a very large
    file stays in memory, and what the system caches of other files is not evicted.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError):  # a hint, which a file system may not support
        os.posix_fadvise(descriptor, begin, length, os.POSIX_FADV_DONTNEED)
        arrived = max(begin - 2 * _ON_ITS_WAY, _REMEMBERED)
        if arrived < begin - _ON_ITS_WAY:
            os.posix_fadvise(descriptor, arrived, begin - _ON_ITS_WAY - arrived, os.POSIX_FADV_DONTNEED)
