"""Where in a checkpoint the weights are, among the optimizer's state, the epoch, and averaged weights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from bnfold.errors import InputError, ModelError
from bnfold.torch.read.safety.outline import Part

Weights = Mapping[str, Any]

_DEPTH = 3
_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)
_NOT_WEIGHTS = re.compile(r"optim|sched|scaler|rng|loss|metric", re.IGNORECASE)


@dataclass(frozen=True)
class Candidate:
    """Something in a file that could be the model.

    Attributes:
        key: The way to it, with dots; `""` when it is the whole file.
        content: A module, or tensors by name; where none has been made yet, their outline.
    """

    key: str
    content: nn.Module | Weights | Part

    def __str__(self) -> str:
        if not isinstance(self.content, Mapping):
            return f"{self.key} (a module, {_type(self.content)})"
        return f"{self.key} ({len(self.content)} tensors)"


class SeveralModelsError(InputError):
    """A checkpoint holds several models, and it was not said which is meant.

    Args:
        path: The file.
        candidates: The models.
        options: The options to add, for each of them.
    """

    def __init__(self, path: str, candidates: list[Candidate], options: str = "") -> None:
        super().__init__(
            f"{path} holds more than one model: {', '.join(map(str, candidates))}.",
            "Say which, add: " + (options or "; or: ".join(f"--key {one.key}" for one in candidates)),
        )
        self.path = path
        self.candidates = candidates

    def completed(self, options: str) -> SeveralModelsError:
        """The same error, which also asks for what else is missing."""
        return SeveralModelsError(self.path, self.candidates, options)


def find(found: Any, key: str | None, path: str) -> Candidate:
    """Pick out what a file holds: a module, or weights.

    Args:
        found: What was unpickled, or its outline.
        key: The way to it, with dots; it may go on into the names of weights, to take a part of them, as
            `state_dict.backbone`. None where there is only one.
        path: The file, for the messages.

    Raises:
        SeveralModelsError: There are several and no key.
        InputError: The key leads nowhere.
        ModelError: There is none.
    """
    if key:
        return _follow(found, key, path)
    candidates = list(_search(found, "", 0, set()))
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise SeveralModelsError(path, candidates)
    what = f"a {_type(found)}"
    if isinstance(found, Mapping):
        what = f"a dictionary without weights ({some(found)})"
    raise ModelError(
        f"{path} holds {what}, not a model.",
        "Save the module, torch.save(model, path), or its weights, torch.save(model.state_dict(), path).",
    )


def unwrapped(module: nn.Module) -> nn.Module:
    """The network in DataParallel and its like, which change how it is trained and not what it computes."""
    while isinstance(module, _WRAPPERS) and isinstance(
        inner := module.__dict__["_modules"].get("module"), nn.Module
    ):
        module = inner
    return module


def is_weights(found: Any) -> bool:
    """Whether `found` is what `state_dict()` gives: tensors by name, and modules' extra state."""
    return (
        isinstance(found, Mapping)
        and any(map(_is_tensor, found.values()))
        and all(
            isinstance(name, str) and (_is_tensor(value) or name.endswith("_extra_state"))
            for name, value in found.items()
        )
    )


def _is_tensor(found: Any) -> bool:
    return found.is_tensor if isinstance(found, Part) else isinstance(found, torch.Tensor)


def _is_module(found: Any) -> bool:
    return found.is_module if isinstance(found, Part) else isinstance(found, nn.Module)


def _type(found: Any) -> str:
    if isinstance(found, Mapping):
        return "dictionary"
    return found.kind if isinstance(found, Part) else type(found).__name__


def _search(found: Any, key: str, depth: int, seen: set[int]) -> Iterator[Candidate]:
    """The models in a checkpoint; what is there under two keys is found under the first."""
    identity = id(getattr(found, "node", found))
    if identity in seen:
        return
    if _is_module(found) or is_weights(found):
        seen.add(identity)
        yield Candidate(key, found)
    elif isinstance(found, Mapping) and depth < _DEPTH:
        seen.add(identity)
        for name, value in found.items():
            if isinstance(name, str) and not _NOT_WEIGHTS.search(name):
                yield from _search(value, f"{key}.{name}" if key else name, depth + 1, seen)


def _follow(found: Any, key: str, path: str) -> Candidate:
    content: Any = next(_at(found, key), None)
    if _is_module(content) or is_weights(content):
        return Candidate(key, content)
    held = list(_search(found, "", 0, set()))
    candidates = ", ".join(map(str, held))
    there = f"a {_type(content)}" if content is not None else "nothing"
    raise InputError(
        f"{path} holds {there} under --key {key}.",
        "The file itself is the weights: leave --key out."
        if any(not one.key for one in held)
        else f"It holds: {candidates}."
        if held
        else "It holds no weights.",
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
