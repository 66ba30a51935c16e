"""Which files are checked."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from bnfold.errors import InputError, reason
from bnfold.gate.settings import Settings


def discover(given: Iterable[str], settings: Settings) -> list[Path]:
    """The files of paths, patterns and folders, each once however it is named, in the order of their names.

    What is named itself is taken as it is; of a folder those files are taken that `settings.include` names.

    Args:
        given: Paths, folders, and patterns such as `"models/**/*.onnx"` for shells that do not expand them.
        settings: What counts as a model, and what is passed over.

    Raises:
        InputError: A path is not there, nothing fits a pattern, or a folder cannot be read.
    """
    found: list[Path] = []
    for one in given:
        path = Path(one)
        if path.is_dir():
            found += _within(path, settings)
        elif os.path.lexists(path):
            found.append(path)
        elif glob.has_magic(one):
            fitting = [Path(name) for name in glob.iglob(one, recursive=True)]  # noqa: PTH207 - it may be absolute
            if not fitting:
                raise InputError(f"Nothing fits {one}.", "Check the pattern; it is relative to this folder.")
            for name in fitting:
                found += _within(name, settings) if name.is_dir() else [name]
        else:
            raise InputError(f"{one} is not there.", "Check the path; it is relative to this folder.")
    places = {os.path.abspath(path): path for path in reversed(found)}  # noqa: PTH100 - a link is a file of its own
    return sorted(places.values(), key=lambda path: path.as_posix())


def _within(folder: Path, settings: Settings) -> Iterator[Path]:
    for place, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not _any(name, settings.exclude)]
        for name in files:
            path = Path(place, name)
            # a pipe would never end; it is an answer only where somebody has named it
            if _any(name, settings.include) and not _any(name, settings.exclude) and path.is_file():
                yield path


def _refuse(error: OSError) -> None:
    raise InputError(
        f"{error.filename} cannot be read: {reason(error)}.",
        "Correct its permissions, or exclude the folder.",
    ) from error


def _any(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
