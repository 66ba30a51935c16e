"""Reading the files that NumPy writes, of which nothing is run: `.npy` and `.npz`."""

from __future__ import annotations

import os
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np

from bnfold.errors import InputError, reason
from bnfold.inputs.values import Array
from bnfold.runtime.sessions import Feeds

Content = TypeVar("Content")

WRITE_NPZ = "Write it with numpy.savez(path, input_name=array, …)."
WRITE_NPY = "Write it with numpy.save(path, array)."

# What a damaged file raises, depending on where it is damaged: NotImplementedError for an unknown
# compression, RuntimeError for a flag that says "encrypted", MemoryError for an impossible size. The header
# of an array is a line of Python, so Python's own errors come too.
_UNREADABLE = (
    OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError,
    MemoryError, OverflowError, SyntaxError, tokenize.TokenError,
)  # fmt: skip


def load_npz(path: str | os.PathLike[str]) -> Feeds:
    """Read arrays by input name from a file that `numpy.savez` wrote.

    Raises:
        InputError: The file does not exist or is not an `.npz` of plain arrays.
    """

    def load(stream: BinaryIO) -> Feeds:
        content = np.load(stream, allow_pickle=False)
        if isinstance(content, np.ndarray):
            raise InputError(f"{os.fspath(path)} holds one array without a name.", WRITE_NPZ)
        with content:
            arrays = {name: content[name] for name in content.files}
        if others := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
            raise ValueError(f"{', '.join(others)} is not an array")  # another kind of file that was zipped
        return arrays

    return _read(Path(path), load, ".npz", WRITE_NPZ)


def load_npy(path: str | os.PathLike[str]) -> Array:
    """Read the array that `numpy.save` wrote.

    Raises:
        InputError: The file does not exist or is not an `.npy` of a plain array.
    """

    def load(stream: BinaryIO) -> Array:
        return np.lib.format.read_array(stream, allow_pickle=False)

    return _read(Path(path), load, ".npy", WRITE_NPY)


def _read(path: Path, load: Callable[[BinaryIO], Content], kind: str, fix: str) -> Content:
    try:
        with path.open("rb") as stream:
            return load(stream)
    except _UNREADABLE as error:
        raise InputError(f"{path} cannot be read as an {kind} file: {reason(error)}.", fix) from error
