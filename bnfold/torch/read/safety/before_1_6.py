"""A file in PyTorch's format before 1.6, shown as an archive of the present one: then both are read alike.

It is a row of pickles: a number that marks it, a version, the system, the object, and the keys of the
storages; then the storages in that order, each after the number of its elements. Classes of modules come with
the text of their source code, which is not looked at.
"""

from __future__ import annotations

import contextlib
import io
import mmap
import pickle
import struct
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from bnfold.errors import ModelError, reason
from bnfold.torch.read.safety import sketch, tensor_sizes
from bnfold.torch.read.safety.sketch import Storage

_BEFORE = 3  # pickles before the object
_COUNT = struct.Struct("<q")


ENTRY = "archive/data.pkl"
"""The object's place in the archive; it is empty there."""


def as_archive(stream: BinaryIO, path: str) -> tuple[BinaryIO, sketch.Sketch]:
    """The same content as an archive in memory, of which nothing has been made.

    Args:
        stream: The file.
        path: Its path, for the messages.

    Returns:
        The archive with the storages, and what its pickle would make.

    Raises:
        ModelError: It is damaged, or holds storages that are parts of others, as before PyTorch 0.4.
    """
    try:
        with bounded(stream) as whole:
            for _ in range(_BEFORE):
                sketch.read(whole)
            drawn, keys = sketch.read(whole), sketch.read(whole).root
            storages = [node for node in sketch.reachable([drawn.root]) if isinstance(node, Storage)]
            sizes = {str(one.identity.members[2]): tensor_sizes.stored(one)[1] for one in storages}
            for one in storages:
                _put_in_present_form(one, path)
            return _written(whole, keys, sizes), drawn
    except ModelError:
        raise
    except Exception as error:  # a damaged file can lead the reader into any exception
        raise ModelError(f"{path} is truncated or damaged: {reason(error)}.", "Save it again.") from error


def _put_in_present_form(storage: Storage, path: str) -> None:
    """Take off what a storage says about the storage that it is a part of, which is none."""
    *members, part_of = storage.identity.members
    if part_of is not None:
        raise ModelError(
            f"{path} holds numbers that are parts of others, as PyTorch wrote them before 0.4.",
            "If you trust it: torch.save(torch.load(path, weights_only=False), other), and give other.",
        )
    storage.identity.members = members


def _written(whole: Any, keys: Any, sizes: dict[str, int]) -> BinaryIO:
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w") as archive:
        archive.writestr(ENTRY, b"")
        archive.writestr("archive/version", "3\n")
        for key in map(str, keys.members):
            (count,) = _COUNT.unpack(whole.read(_COUNT.size))
            length = count * sizes[key]
            if not 0 <= length <= len(whole) - whole.tell():
                raise pickle.UnpicklingError(f"{length} bytes of numbers where it has fewer")
            archive.writestr(f"archive/data/{key}", whole.read(length))
    into.seek(0)
    return into


@contextlib.contextmanager
def bounded(stream: BinaryIO) -> Iterator[Any]:
    """Map a file into memory, so that no length in it leads to more memory than the file has bytes."""
    with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as whole:
        yield whole
