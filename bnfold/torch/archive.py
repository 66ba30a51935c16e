"""Zip archives as PyTorch writes them, checked by their directory alone before anything in them is read."""

from __future__ import annotations

import re
import zipfile
from typing import BinaryIO

from bnfold.errors import ModelError
from bnfold.files.contents import reason

_ESCAPING = re.compile(r"(^|[/\\])\.\.([/\\]|$)|^[/\\]|^[A-Za-z]:|\0")


def entries(stream: BinaryIO, path: str) -> set[str]:
    """List what is in the zip archive `stream`, as names below its one root folder.

    Args:
        stream: The archive, open for reading.
        path: Its path, for the messages.

    Raises:
        ModelError: Truncated, damaged, or not as PyTorch writes: an entry whose path leads out of the
            archive, two with one name, or more bytes declared than the file has (a zip bomb: PyTorch never
            compresses what it saves; the code in TorchScript is left out of this sum, for it is).
    """
    try:
        with zipfile.ZipFile(stream) as archive:
            listing = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise ModelError(f"{path} is truncated or damaged: {reason(error)}.", "Save it again.") from None
    names = [entry.filename for entry in listing]
    fix = "PyTorch does not write such files. Do not trust it."
    if escaping := next((name for name in names if _ESCAPING.search(name)), None):
        raise ModelError(f"{path} holds an entry {escaping!r}, whose path leads out of the archive.", fix)
    if len({name.casefold() for name in names}) < len(names):
        raise ModelError(f"{path} holds two entries of one name.", fix)
    below = {name.partition("/")[2] for name in names}
    if is_torchscript(below):
        return below
    declared, size = sum(entry.file_size for entry in listing), stream.seek(0, 2)
    if declared > size:
        raise ModelError(
            f"{path} has {size} bytes and declares {declared} of content: compressed, or a zip bomb.",
            "Save it again with torch.save or torch.export.save, which do not compress.",
        )
    if len({name.partition("/")[0] for name in names}) > 1:
        return set(names)
    return below


def is_torchscript(names: set[str]) -> bool:
    """Whether these are the entries of a file by `torch.jit.save`."""
    return "constants.pkl" in names or any(name.startswith("code/") for name in names)
