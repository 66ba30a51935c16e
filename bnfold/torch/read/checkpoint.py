"""Where in a checkpoint the weights are, among the optimizer's state, the epoch, and averaged weights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bnfold.errors import InputError, ModelError

Weights = Mapping[str, Any]

_DEPTH = 3
_NOT_WEIGHTS = re.compile(r"optim|sched|scaler|rng|loss|metric", re.IGNORECASE)


@dataclass(frozen=True)
class Candidate:
    """Something in a file that could be the model.

    Attributes:
        key: The way to it, with dots; `""` when it is the whole file.
        content: A module, or tensors by name.
    """

    key: str
    content: nn.Module | Weights

    def __str__(self) -> str:
        if isinstance(self.content, nn.Module):
            return f"{self.key} (a module, {type(self.content).__name__})"
        return f"{self.key} ({len(self.content)} tensors)"


def find(found: Any, key: str | None, path: str) -> Candidate:
    """Pick out what a file holds: a module, or weights.

    Args:
        found: What was unpickled.
        key: The way to it, with dots; it may go on into the names of weights, to take a part of them, as
            `state_dict.backbone`. None where there is only one.
        path: The file, for the messages.

    Raises:
        InputError: There are several and no key, or the key leads nowhere.
        ModelError: There is none.
    """
    if key:
        return _follow(found, key, path)
    candidates = list(_search(found, "", 0))
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise InputError(
            f"{path} holds more than one model: {', '.join(map(str, candidates))}.",
            "Say which: " + ", or ".join(f"--key {candidate.key}" for candidate in candidates),
        )
    what = f"a {type(found).__name__}"
    if isinstance(found, Mapping):
        what = f"a dictionary without weights ({some(found)})"
    raise ModelError(
        f"{path} holds {what}, not a model.",
        "Save the module, torch.save(model, path), or its weights, torch.save(model.state_dict(), path).",
    )


def is_weights(found: Any) -> bool:
    """Whether `found` is what `state_dict()` gives: tensors by name, and modules' extra state."""
    return (
        isinstance(found, Mapping)
        and any(isinstance(value, torch.Tensor) for value in found.values())
        and all(
            isinstance(name, str) and (isinstance(value, torch.Tensor) or name.endswith("_extra_state"))
            for name, value in found.items()
        )
    )


def _search(found: Any, key: str, depth: int) -> Iterator[Candidate]:
    if isinstance(found, nn.Module) or is_weights(found):
        yield Candidate(key, found)
    elif isinstance(found, Mapping) and depth < _DEPTH:
        for name, value in found.items():
            if isinstance(name, str) and not _NOT_WEIGHTS.search(name):
                yield from _search(value, f"{key}.{name}" if key else name, depth + 1)


def _follow(found: Any, key: str, path: str) -> Candidate:
    content = next(_at(found, key), None)
    if content is not None and (isinstance(content, nn.Module) or is_weights(content)):
        return Candidate(key, content)
    candidates = ", ".join(map(str, _search(found, "", 0)))
    there = f"a {type(content).__name__}" if content is not None else "nothing"
    raise InputError(
        f"{path} holds {there} under --key {key}.",
        f"It holds: {candidates}." if candidates else "It holds no weights.",
    )


def _at(found: Any, key: str) -> Iterator[Any]:
    """What the dotted `key` may lead to; a name in the file may contain dots itself."""
    if not isinstance(found, Mapping):
        return
    if key in found:
        yield found[key]
    parts = key.split(".")
    for count in range(len(parts) - 1, 0, -1):
        if (name := ".".join(parts[:count])) in found:
            yield from _at(found[name], ".".join(parts[count:]))
    if is_weights(found) and (part := below(found, f"{key}.")):
        yield part


def below(weights: Weights, prefix: str) -> Weights:
    """The weights whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def some(found: Mapping[Any, Any]) -> str:
    """The first names in a dictionary."""
    keys = [str(key) for key in list(found)[:3]]
    return ", ".join(keys) + (", ..." if len(found) > 3 else "")
