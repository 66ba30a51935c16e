"""Weights in several files: which, by their index, as Hugging Face's libraries write them into a folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

from bnfold.errors import ModelError, listed, reason

_SUFFIX = ".index.json"
_LARGEST = 1 << 26  # bytes; the index of a network with a million tensors has as many
_USUAL = (
    *("model.safetensors.index.json", "model.safetensors"),
    *("diffusion_pytorch_model.safetensors.index.json", "diffusion_pytorch_model.safetensors"),
    *("pytorch_model.bin.index.json", "pytorch_model.bin", "pytorch_model.pt"),
)


def file_of(path: str | os.PathLike[str]) -> Path:
    """The file that holds the weights, or their index, if `path` is a folder of a model; otherwise `path`."""
    folder = Path(path)
    try:
        return next((one for name in _USUAL if (one := folder / name).is_file()), folder)
    except (OSError, ValueError):  # whoever opens it says what is wrong
        return folder


def is_index(path: str | os.PathLike[str]) -> bool:
    """Whether a file is an index of weights by its name and its beginning."""
    file = Path(path)
    if not file.name.endswith(_SUFFIX):
        return False
    with file.open("rb") as stream:
        return stream.read(_LARGEST).lstrip().startswith(b"{")


def shards(path: str | os.PathLike[str]) -> dict[Path, list[str]]:
    """The files that an index names, each with the names of the weights that it holds.

    Raises:
        ModelError: It is damaged, names a file outside its own folder, or one that is not there.
    """
    index = Path(path)
    try:
        with index.open("rb") as stream:
            where = json.loads(stream.read(_LARGEST))["weight_map"]
        if not isinstance(where, dict) or not where:
            raise ValueError("it names no weights")
        found: dict[Path, list[str]] = {}
        for name, file in where.items():
            if (
                not isinstance(file, str)
                or Path(file).name != file
                or file in ("", ".", "..")
                or "\0" in file
            ):
                raise ValueError(f"it names a file {file!r} outside its folder")
            found.setdefault(index.parent / file, []).append(name)
    except (ValueError, KeyError, TypeError, RecursionError, OSError) as error:
        raise ModelError(
            f"{path} is not an index of weights: {reason(error)}.", "Save or download it again."
        ) from error
    if absent := [one.name for one in found if not one.is_file()]:
        raise ModelError(
            f"{path} needs {listed(absent)}, which {'are' if len(absent) > 1 else 'is'} not in its folder.",
            "Put every file that it names into the same folder.",
        )
    return found
