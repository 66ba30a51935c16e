"""One eager run of a copy before it is exported: how its modules are called, and what its hooks do.

A hook sees what goes into a module and what comes out. A fold changes values between modules, so what a hook
sees must be left as it is, whether the hook changes it or only looks. Those that only look are taken off the
copy that is exported: they may do what an exporter cannot follow, as `.numpy()`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from bnfold.errors import InputError, reason
from bnfold.torch.run_quietly import quiet

_FORWARD = ("_forward_hooks", "_forward_pre_hooks")
_BACKWARD = ("_backward_hooks", "_backward_pre_hooks")


@dataclass
class Rehearsal:
    """What a run has shown.

    Attributes:
        hooked: Paths of the modules that have hooks; the root, whose values are the model's own, left out.
        odd: Paths of the modules that were once called with something other than one tensor, or gave it.
        called: Paths of the modules that were called at all.
    """

    hooked: frozenset[str]
    odd: set[str] = field(default_factory=set)
    called: set[str] = field(default_factory=set)

    def is_plain(self, path: str) -> bool:
        """Whether a module has only been seen to take one tensor and to give one."""
        return path in self.called and path not in self.odd


def hooks_of(module: nn.Module) -> Iterator[dict[int, Callable[..., Any]]]:
    """The dictionaries of a module's own forward and backward hooks, some of them empty."""
    yield from (getattr(module, name) for name in _FORWARD + _BACKWARD)


def rehearse(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Rehearsal:
    """Run `module` once, and take off its hooks that do not change anything.

    Args:
        module: A copy, in eval mode, that is ours to change.
        args: Its inputs in order.
        kwargs: Its inputs by name.

    Raises:
        InputError: It does not run on these inputs.
    """
    paths: dict[nn.Module, list[str]] = {}
    for path, part in module.named_modules(remove_duplicate=False):
        paths.setdefault(part, []).append(path)
    hooked = {path for part, names in paths.items() if any(hooks_of(part)) for path in names}
    found = Rehearsal(frozenset(hooked - {""}))
    changing: set[int] = set()
    originals: dict[int, Callable[..., Any]] = {}
    handles = []
    for part, names in paths.items():
        for name in _FORWARD:
            for key, hook in getattr(part, name).items():
                originals[key] = hook
                getattr(part, name)[key] = _probe(hook, key, changing)
        handles.append(part.register_forward_hook(_noting(names, found), with_kwargs=True))
    try:
        with torch.no_grad(), quiet():
            module(*copy.deepcopy(tuple(args)), **copy.deepcopy(dict(kwargs)))  # it may write into them
    except Exception as error:  # the user's own code
        raise InputError(
            f"The module does not run in float64 on these inputs: {reason(error)}.",
            "bnfold.torch.fold proves its folds in float64: let casts in forward follow the weights' type,"
            " and give example inputs that the module takes.",
        ) from error
    for handle in handles:
        handle.remove()
    for part in paths:
        _keep_only(part, {key: originals[key] for key in changing})
    return found


def _probe(hook: Callable[..., Any], key: int, changing: set[int]) -> Callable[..., Any]:
    """The hook itself, with a note when it gives something or writes into a tensor that it was given."""

    def probe(*args: Any, **kwargs: Any) -> Any:
        before = [tensor._version for tensor in tensors((args, kwargs))]
        result = hook(*args, **kwargs)
        if result is not None or before != [tensor._version for tensor in tensors((args, kwargs))]:
            changing.add(key)
        return result

    return probe


def _noting(paths: Sequence[str], found: Rehearsal) -> Callable[..., None]:
    def note(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        del module
        found.called.update(paths)
        one = len(args) == 1 and not kwargs and isinstance(args[0], torch.Tensor)
        if not (one and isinstance(output, torch.Tensor)):
            found.odd.update(paths)

    return note


def _keep_only(module: nn.Module, changing: Mapping[int, Callable[..., Any]]) -> None:
    for name in _FORWARD:
        hooks = getattr(module, name)
        for key in list(hooks):
            if key in changing:
                hooks[key] = changing[key]
            else:
                del hooks[key]
    for name in _BACKWARD:
        getattr(module, name).clear()


def expose(module: nn.Module, hooked: frozenset[str]) -> list[str]:
    """Let a module give, behind its own output, every value that a hook of the modules in `hooked` sees.

    Args:
        module: A copy that is ours to change.
        hooked: Paths of its modules that have, or had, hooks.

    Returns:
        A list that holds, after each run, for every further output the path of the module that is hooked.
    """
    owners: list[str] = []
    seen: list[torch.Tensor] = []

    def begin(root: nn.Module, args: Any) -> None:
        del root, args
        owners.clear()
        seen.clear()

    def note(path: str) -> Callable[..., None]:
        def hook(part: nn.Module, *values: Any) -> None:
            del part
            for tensor in tensors(values):
                owners.append(path)
                seen.append(tensor.clone())  # what comes next may write into it

        return hook

    def end(root: nn.Module, args: Any, output: Any) -> Any:
        del root, args
        return output, *seen

    for path, part in module.named_modules():
        if path not in hooked:
            continue
        part.register_forward_pre_hook(note(path), prepend=True, with_kwargs=True)
        part.register_forward_hook(note(path), prepend=True, with_kwargs=True)
    if hooked:  # the root's hook comes first of all: it begins each run
        module.register_forward_pre_hook(begin, prepend=True)
        module.register_forward_hook(end)
    return owners


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """Every tensor in nested tuples, lists, mappings and what else PyTorch knows as a container, in order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors(part)
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from tensors(part)
    elif not pytree.tree_is_leaf(value):  # such as a dataclass that is registered
        yield from tensors(pytree.tree_leaves(value))
