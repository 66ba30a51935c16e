"""Saving and loading the trained files, which need none of our classes.

A network that runs its layers one after the other is saved as torch.nn's own layers (`.pt`); one with a
forward that they define as the program that `torch.export` makes of it (`.pt2`).
"""

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
from torch.export import Dim, ExportedProgram

from bnfold.errors import BnfoldError
from bnfold.torch import load as load_checked

FOLDER = Path(__file__).parent
LAYERS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    value for value in vars(nn).values() if isinstance(value, type) and issubclass(value, nn.Module)
]


def save(network: nn.Sequential, path: Path) -> None:
    """Save `network` in eval mode as a plain `nn.Sequential` with the same children; whole or not at all.

    The subclass is not stored: whoever loads the file needs its layers' classes, which are torch's, and none
    of ours.
    """
    plain = nn.Sequential(OrderedDict(copy.deepcopy(network).named_children())).eval()
    # By way of memory: given a path, torch would write the temporary file's name into the archive.
    content = io.BytesIO()
    torch.save(plain, content)
    _write(content, path)


def save_program(network: nn.Module, shape: tuple[int, ...], path: Path) -> None:
    """Save what `network` does in eval mode to batches of any size, as a program; whole or not at all.

    Args:
        network: Takes one tensor `[N, *shape]`.
        shape: Of its input, without the batch.
        path: The file to write.
    """
    example = torch.zeros(2, *shape)  # a batch of 1 would be taken for a constant
    program = torch.export.export(
        copy.deepcopy(network).eval(), (example,), dynamic_shapes=({0: Dim("batch", min=1)},)
    )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it says where our sources were
    content = io.BytesIO()
    torch.export.save(program, content)
    _write(content, path)


def _write(content: io.BytesIO, path: Path) -> None:
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(content.getvalue())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load(path: Path) -> nn.Module:
    """Load a trained file as a module in eval mode, without running any code that it may carry.

    Raises:
        ValueError: If it cannot be read, asks for any class but torch.nn's own, or holds something else than
            a module or, with the suffix `.pt2`, a program.
    """
    return _load_program(path) if path.suffix == ".pt2" else _load_layers(path)


def _load_layers(path: Path) -> nn.Module:
    try:
        with torch.serialization.safe_globals(LAYERS):
            network = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path} is not a whole torch.save file of torch.nn's own layers.") from error
    if not isinstance(network, nn.Module):
        raise ValueError(f"{path} holds a {type(network).__name__}, not a module.")
    return network.eval()


def _load_program(path: Path) -> nn.Module:
    try:
        program = load_checked(path).source
    except BnfoldError as error:
        raise ValueError(f"{path} is not a whole torch.export.save file.") from error
    if not isinstance(program, ExportedProgram):
        raise ValueError(f"{path} holds a {type(program).__name__}, not a program.")
    return program.module()
