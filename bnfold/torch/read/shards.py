"""Weights in several files, read as if they were in one."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bnfold.errors import ModelError, listed
from bnfold.files.weight_index import shards


def read(path: str | os.PathLike[str], read_one: Callable[[Path], Mapping[str, Any]]) -> dict[str, Any]:
    """Read every file that an index names.

    Args:
        path: The index.
        read_one: Reads the weights in one file.

    Raises:
        ModelError: A file is missing, damaged, or does not have all that the index says.
    """
    weights: dict[str, Any] = {}
    for file, names in shards(path).items():
        found = read_one(file)
        if absent := [name for name in names if name not in found]:
            raise ModelError(
                f"{file} lacks weights that {path} says are in it: {listed(absent)}.", "Download both again."
            )
        weights |= {name: found[name] for name in names}
    return weights
