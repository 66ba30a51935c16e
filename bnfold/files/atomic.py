"""Files that appear whole or not at all: written next to their destination, flushed to disk, then renamed."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from bnfold.errors import SaveError, reason
from bnfold.files import atomic
from bnfold.tensors.kernel_copy import start_writing

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

_STREAMS = {"-", "/dev/stdout", "/dev/stderr"}  # links that lead to whatever the shell has opened
_NAME = 200  # bytes of a destination's name; systems allow 255, and 30 or so are added
_AT_ONCE = 1 << 24  # bytes that are written to disk at once
_ANOTHER_FOLDER = "Give a folder that you may write to."
_REMEDIES = {
    **dict.fromkeys(
        (errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "Free some space there, or save to another disk."
    ),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _ANOTHER_FOLDER),
    errno.ENAMETOOLONG: "Give it a shorter name; the file of its external data has 23 characters more.",
}


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a stream whose bytes become the file at `path` when the block ends without an exception.

    Until then, and after any exception (an interrupt too), `path` holds what it held before. The new file
    has the permissions of the one that it replaces.

    Args:
        path: The destination, with symbolic links resolved: a link would be replaced, not followed.
    """
    temporary = hidden_next_to(path, ".tmp")
    try:
        with io.BufferedWriter(
            _Output(temporary, "xb")
        ) as stream:  # "x" and the umask, where tempfile gives 600
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        with contextlib.suppress(FileNotFoundError):
            temporary.chmod(path.stat().st_mode & 0o777)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)  # gone already when the rename was reached
    _sync_folder(path.parent)


def hidden_next_to(path: Path, suffix: str) -> Path:
    """A new name in the folder of `path`, which begins with that file's name as far as the length allows."""
    start = os.fsencode(path.name)[:_NAME].decode(errors="ignore")
    return path.with_name(f".{start}.{secrets.token_hex(6)}{suffix}")


class _Output(io.FileIO):
    """A file whose content goes to the disk while it is written."""

    _waiting = 0  # bytes that the kernel has not been asked to write yet

    def write(self, data: Buffer, /) -> int:
        """Write some of `data`, and say how many bytes."""
        count = super().write(data)
        self._waiting += count
        if self._waiting >= _AT_ONCE:
            start_writing(self.fileno(), self.tell() - self._waiting, self._waiting)
            self._waiting = 0
        return count


def _sync_folder(folder: Path) -> None:
    """Make a rename outlast a power cut, where the system can open folders (Windows cannot)."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def destination(path: str | os.PathLike[str]) -> Path:
    """Resolve `path` for [`replacing`][bnfold.files.atomic.replacing].

    Raises:
        SaveError: It is a folder, a device or a pipe, or in a folder that does not exist or is read-only.
    """
    target = Path(os.path.realpath(path))
    with save_errors(path):
        target.exists()  # raises for a name that the system does not allow
    if target.is_dir():
        raise SaveError(f"{path} is a folder.", "Give the name of a file in it.")
    if os.fspath(path) in _STREAMS or (Path(path).exists() and not target.is_file()):
        raise SaveError(
            f"{path} is not an ordinary file.", "Name a file. For JSON on standard output, type: --json -"
        )
    if not target.parent.is_dir():
        raise SaveError(f"The folder of {path} does not exist.", f"Type: mkdir -p {target.parent}")
    if not os.access(target.parent, os.W_OK):
        raise SaveError(f"The folder of {path} is read-only.", _ANOTHER_FOLDER)
    return target


@contextlib.contextmanager
def save_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what the operating system says while `path` is written into a SaveError with a remedy."""
    try:
        yield
    except OSError as error:
        fix = _REMEDIES.get(error.errno or 0, "Save to another folder.")
        raise SaveError(f"{path} could not be saved: {reason(error)}.", fix) from error


def check_destination(destination: Path, *sources: Path) -> None:
    """Refuse a file to write before any work is spent on it.

    Raises:
        SaveError: Its folder is missing or read-only, it is not an ordinary file, or it is one of `sources`.
    """
    atomic.destination(destination)
    for source in sources:
        if destination.absolute() == source.absolute() or (
            destination.exists() and source.exists() and destination.samefile(source)
        ):
            raise SaveError(
                f"{destination} is an input or an output of this command already.",
                "Name another file to write.",
            )
