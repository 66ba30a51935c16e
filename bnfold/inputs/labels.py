"""The right class of every row of the data, from a text file, an `.npy` or an `.npz`.

A text file has one integer on a line, in the order of the rows, or for a folder of pictures `name,class`. A
first line that holds words is a heading.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bnfold.errors import InputError, listed, reason
from bnfold.inputs.arrays import load_npy, load_npz

_FIX = "Write one class number on a line, or numpy.save(path, classes)."


def read(path: Path, pictures: Sequence[str] = ()) -> npt.NDArray[np.int64]:
    """Read the classes.

    Args:
        path: The file; its content decides how it is read, not its name.
        pictures: The names of the pictures that the classes belong to, in the order of the rows.

    Returns:
        `[N]`, each at least 0.

    Raises:
        InputError: The file cannot be read, is not a list of classes, or lacks some of the pictures.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(6)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {reason(error)}.", "Check the path.") from error
    if head.startswith(b"PK"):
        classes = _only(path, load_npz(path))
    elif head.startswith(b"\x93NUMPY"):
        classes = _integers(path, load_npy(path))
    else:
        classes = _text(path, pictures)
    if not classes.size or classes.min() < 0:
        what = "has no class in it" if not classes.size else f"has the class {classes.min()}"
        raise InputError(f"{path} {what}.", "Classes are numbered from 0.")
    return classes


def _only(path: Path, arrays: Any) -> npt.NDArray[np.int64]:
    """The one array of an `.npz` that can be a list of classes."""
    able = [name for name, array in arrays.items() if array.dtype.kind in "iu" and array.ndim == 1]
    if len(able) != 1:
        found = listed(able) or "none"
        raise InputError(f"{path} has not exactly one array of integers in a row: {found}.", _FIX)
    return _integers(path, arrays[able[0]])


def _integers(path: Path, array: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    if array.dtype.kind not in "iu" or array.size != len(np.atleast_1d(array)):
        what = f"{array.dtype} {list(array.shape)}"
        raise InputError(f"{path} holds {what}, which is not a list of classes.", _FIX)
    return array.reshape(-1).astype(np.int64)


def _text(path: Path, pictures: Sequence[str]) -> npt.NDArray[np.int64]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            lines = [[cell.strip() for cell in line] for line in csv.reader(stream)]
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a text file: {reason(error)}.", _FIX) from error
    entries = list(_entries(path, lines))
    if not any(name for name, _ in entries):
        return np.array([number for _, number in entries], np.int64)
    if not pictures:
        raise InputError(f"{path} names a picture on each line, and the data are arrays.", _FIX)
    classes = dict(entries)
    if len(classes) != len(entries):
        raise InputError(f"{path} names a picture twice.", "Give every picture one class.")
    if absent := [name for name in pictures if name not in classes]:
        raise InputError(f"{path} has no class for {listed(absent)}.", "Add a line name,class for each.")
    return np.array([classes[name] for name in pictures], np.int64)


def _entries(path: Path, lines: Sequence[Sequence[str]]) -> Iterator[tuple[str, int]]:
    """Name and class on every line; without names, the name is empty."""
    filled = [(place, line) for place, line in enumerate(lines, start=1) if any(line)]
    for number, (place, line) in enumerate(filled):
        name, text = ("", line[0]) if len(line) == 1 else (line[0], line[1])
        try:
            if len(line) > 2:
                raise ValueError
            yield name, int(text)
        except ValueError:
            if number:
                raise InputError(f"Line {place} of {path} is not a class: {','.join(line)}.", _FIX) from None
