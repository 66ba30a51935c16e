"""Whether a module that was read is one: made of tensors and modules, finite, and not too deep to run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from bnfold.errors import ModelError

_DEPTH = 128  # Python calls some functions for each level, and stops at 1000
_RUNS = 1_000_000  # of layers, for one input


def check(module: nn.Module, path: str) -> None:
    """Refuse a module that cannot run, before anything walks through it.

    Args:
        module: What was read.
        path: The file, for the messages.

    Raises:
        ModelError: A parameter, buffer or submodule is of another type, or has no numbers; or a module
            contains itself, is more than 128 deep, or runs its layers more than a million times.
    """
    runs: dict[int, int] = {}  # layers that run where a module does; those that are done
    levels: dict[int, int] = {}  # of modules in each
    above: set[int] = set()
    work: list[tuple[nn.Module, str, bool]] = [(module, "", False)]
    while work:
        part, name, done = work.pop()
        if done:
            above.discard(id(part))
            inner = [one for one in part.__dict__["_modules"].values() if one is not None]
            runs[id(part)] = 1 + sum(runs[id(one)] for one in inner)
            levels[id(part)] = 1 + max((levels[id(one)] for one in inner), default=0)
            _check_levels(levels[id(part)], path)
            if runs[id(part)] > _RUNS:
                raise _damaged(path, f"{_called(name)} runs its layers more than {_RUNS} times")
            continue
        if id(part) in above:
            raise _damaged(path, f"{_called(name)} contains itself")
        if id(part) in runs:
            continue
        above.add(id(part))
        _check_levels(len(above), path)
        _check_own(part, name, path)
        work.append((part, name, True))
        for label, one in part.__dict__["_modules"].items():
            if one is not None:
                work.append((one, f"{name}.{label}" if name else label, False))


def _check_levels(count: int, path: str) -> None:
    if count > _DEPTH:
        raise _damaged(path, f"its modules are nested more than {_DEPTH} deep")


def _check_own(part: nn.Module, name: str, path: str) -> None:
    """Check the types of what one module consists of."""
    for attribute, kind, known, wanted in (
        ("_parameters", "parameter", torch.Tensor, "a tensor"),
        ("_buffers", "buffer", torch.Tensor, "a tensor"),
        ("_modules", "layer", nn.Module, "a module"),
    ):
        held: Any = part.__dict__.get(attribute)
        if not isinstance(held, Mapping):
            raise _damaged(path, f"{_called(name)} has no {kind}s, not even an empty list of them")
        for label, value in held.items():
            full = f"{name}.{label}" if name else f"{label}"
            if not isinstance(label, str):
                raise _damaged(path, f"the {kind} {full!r} has a name that is not text")
            if value is not None and not isinstance(value, known):
                raise _damaged(path, f"the {kind} {full!r} is of type {type(value).__name__}, not {wanted}")
            if isinstance(value, torch.Tensor) and value.is_meta and not is_lazy(value):
                raise _damaged(path, f"the {kind} {full!r} has a shape and no numbers (device meta)")
    if not isinstance(part.__dict__.get("training"), bool):
        raise _damaged(path, f"{_called(name)} does not say whether it is in train mode")


def _called(name: str) -> str:
    return f"the module {name!r}" if name else "the module"


def _damaged(path: str, what: str) -> ModelError:
    return ModelError(f"{path} is damaged: {what}.", "Save it again, with torch.save(model, path).")
