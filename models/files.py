"""Saving and loading the trained files, which hold nothing but torch.nn's own layers."""

from __future__ import annotations

import copy
import io
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

FOLDER = Path(__file__).parent
LAYERS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    value for value in vars(nn).values() if isinstance(value, type) and issubclass(value, nn.Module)
]


def save(network: nn.Sequential, path: Path) -> None:
    """Save `network` in eval mode as a plain `nn.Sequential` with the same children; whole or not at all.

    The subclass stays behind: whoever loads the file needs its layers' classes, which are torch's, and none
    of ours.
    """
    plain = nn.Sequential(OrderedDict(copy.deepcopy(network).named_children())).eval()
    # By way of memory: given a path, torch would write the temporary file's name into the archive.
    content = io.BytesIO()
    torch.save(plain, content)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(content.getvalue())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load(path: Path) -> nn.Module:
    """Load a file that holds torch.nn's own layers, without running any code that it may carry.

    Raises:
        ValueError: If it cannot be read, asks for any other class, or holds something else than a module.
    """
    try:
        with torch.serialization.safe_globals(LAYERS):
            network = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path} is no whole torch.save file of torch.nn's own layers.") from error
    if not isinstance(network, nn.Module):
        raise ValueError(f"{path} holds a {type(network).__name__}, not a module.")
    return network
