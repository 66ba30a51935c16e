"""Zip archives as PyTorch writes them, checked before anything in them is unpickled or compiled."""

from __future__ import annotations

import io
import re
import stat
import zipfile
import zlib
from typing import BinaryIO

from bnfold.errors import ModelError, UnsafePickleError, reason

_ESCAPING = re.compile(r"(^|[/\\])\.\.([/\\]|$)|^[/\\]|^[A-Za-z]:|\0")
_UNREADABLE = (zipfile.BadZipFile, zlib.error)
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_SAMPLES = re.compile(r"[^/]+/data/sample_inputs/[^/]+\.pt")  # torch.export.save nests these, and no others
_MOST_CODE = 1 << 28  # bytes; the TorchScript of a large network has some 10⁷
_BLOCK = 1 << 20
_DO_NOT_TRUST = "PyTorch does not write such files. Do not trust it."


def entries(stream: BinaryIO, path: str) -> set[str]:
    """List what is in the zip archive `stream`, as names below its one root folder.

    Args:
        stream: The archive, open for reading.
        path: Its path, for the messages.

    Raises:
        ModelError: Truncated, damaged, or not as PyTorch writes: an entry whose path leads out of the
            archive or that is a link, two with one name, or more bytes declared than the file has (a zip
            bomb: PyTorch never compresses what it saves, except the code in TorchScript, which may have
            256 MiB in all and is measured by unpacking it).
        UnsafePickleError: Another archive is inside.
    """
    try:
        with zipfile.ZipFile(stream) as archive:
            listing = archive.infolist()
            _check_names(listing, path)
            below = {entry.filename.partition("/")[2] for entry in listing}
            _check_sizes(archive, listing, stream.seek(0, 2), path, code=is_torchscript(below))
            _check_nesting(archive, listing, path)
    except (*_UNREADABLE, NotImplementedError, EOFError, ValueError, OSError, RuntimeError) as error:
        raise ModelError(f"{path} is truncated or damaged: {reason(error)}.", "Save it again.") from None
    if len({entry.filename.partition("/")[0] for entry in listing}) > 1:
        return {entry.filename for entry in listing}
    return below


def is_torchscript(names: set[str]) -> bool:
    """Whether these are the entries of a file by `torch.jit.save`."""
    return "constants.pkl" in names or any(name.startswith("code/") for name in names)


def is_program(names: set[str]) -> bool:
    """Whether these are the entries of a file by `torch.export.save`."""
    return "archive_format" in names or any(name.startswith("models/") for name in names)


def _check_names(listing: list[zipfile.ZipInfo], path: str) -> None:
    names = [entry.filename for entry in listing]
    if escaping := next((name for name in names if _ESCAPING.search(name)), None):
        raise ModelError(
            f"{path} holds an entry {escaping!r}, whose path leads out of the archive.", _DO_NOT_TRUST
        )
    if not all(names):
        raise ModelError(f"{path} holds an entry without a name.", _DO_NOT_TRUST)
    if len({name.casefold() for name in names}) < len(names):
        raise ModelError(f"{path} holds two entries of one name.", _DO_NOT_TRUST)
    if link := next((entry for entry in listing if stat.S_ISLNK(entry.external_attr >> 16)), None):
        raise ModelError(f"{path} holds a symbolic link, {link.filename!r}.", _DO_NOT_TRUST)


def _check_sizes(
    archive: zipfile.ZipFile, listing: list[zipfile.ZipInfo], size: int, path: str, *, code: bool
) -> None:
    """Compare what is declared with what is there; `code`: whether entries may be compressed."""
    packed = [entry for entry in listing if code and entry.compress_type != zipfile.ZIP_STORED]
    stored = sum(entry.file_size for entry in listing) - sum(entry.file_size for entry in packed)
    taken = stored + sum(entry.compress_size for entry in packed)
    if taken > size:
        raise ModelError(
            f"{path} has {size} bytes and declares {taken} of content: compressed, or a zip bomb.",
            "Save it again with torch.save or torch.export.save, which do not compress.",
        )
    unpacked = sum(entry.file_size for entry in packed)
    if unpacked > _MOST_CODE:
        raise ModelError(
            f"{path} declares {unpacked} bytes of compressed code: a zip bomb.", "Do not trust it."
        )
    for entry in packed:  # never unpacks more than declared; more than that fails the checksum
        with archive.open(entry) as content:
            found = sum(len(block) for block in iter(lambda: content.read(_BLOCK), b""))
        if found != entry.file_size:
            raise zipfile.BadZipFile(f"{entry.filename} has {found} bytes and declares {entry.file_size}")


def _check_nesting(archive: zipfile.ZipFile, listing: list[zipfile.ZipInfo], path: str) -> None:
    for entry in listing:
        if entry.is_dir() or _SAMPLES.fullmatch(entry.filename):
            continue
        with archive.open(entry) as content:
            nested = content.read(4) in _ZIP
        if nested and zipfile.is_zipfile(io.BytesIO(archive.read(entry))):
            raise UnsafePickleError(
                f"{path} was not opened: it holds another archive, {entry.filename!r}.",
                "PyTorch does not nest archives. If you trust it, unpack it and give the file inside.",
            )
