"""One eager run of a copy before it is exported: how its modules are called, and what its hooks do.

A hook sees what goes into a module and what comes out. A fold changes values between modules, so what a hook
sees must stay the same, whether the hook changes it or only reads it. Hooks that only read are removed from
the copy that is exported: they may do what an exporter cannot follow, such as `.numpy()`.
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

# torch has no public list of a module's hooks
_FORWARD = ("_forward_hooks", "_forward_pre_hooks")
_BACKWARD = ("_backward_hooks", "_backward_pre_hooks")


@dataclass
class TraceRun:
    """What a run has shown.

    Attributes:
        hooked: Paths of the modules that have hooks; the root, whose values are the model's own, left out.
        odd: Paths of the modules that were once called with, or returned, something other than one tensor.
        called: Paths of the modules that were called at all.
    """

    hooked: frozenset[str]
    odd: set[str] = field(default_factory=set)
    called: set[str] = field(default_factory=set)

    def is_plain(self, path: str) -> bool:
        """Whether a module was called, each time with one tensor, and returned one."""
        return path in self.called and path not in self.odd


def hooks_of(module: nn.Module) -> Iterator[dict[int, Callable[..., Any]]]:
    """The dictionaries of a module's own forward and backward hooks, some of them empty."""
    yield from (getattr(module, name) for name in _FORWARD + _BACKWARD)


def trace_run(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> TraceRun:
    """Run `module` once, and remove its hooks that do not change anything.

    Args:
        module: A copy, in eval mode, which is changed.
        args: Its inputs in order.
        kwargs: Its inputs by name.

    Raises:
        InputError: It does not run on these inputs.
    """
    paths: dict[nn.Module, list[str]] = {}
    for path, part in module.named_modules(remove_duplicate=False):
        paths.setdefault(part, []).append(path)
    hooked = {path for part, names in paths.items() if any(hooks_of(part)) for path in names}
    found = TraceRun(frozenset(hooked - {""}))
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
            " and give example inputs that the module accepts.",
        ) from error
    for handle in handles:
        handle.remove()
    for part in paths:
        _keep_only(part, {key: originals[key] for key in changing})
    return found


def _probe(hook: Callable[..., Any], key: int, changing: set[int]) -> Callable[..., Any]:
    """The hook, with a note when it returns something or writes into a tensor that it gets."""

    def probe(*args: Any, **kwargs: Any) -> Any:
        before = _versions((args, kwargs))
        result = hook(*args, **kwargs)
        if result is not None or before != _versions((args, kwargs)):
            changing.add(key)
        return result

    return probe


def _versions(value: Any) -> list[int]:
    """How often each tensor was written to, which torch counts nowhere else."""
    return [tensor._version for tensor in tensors(value)]  # noqa: SLF001


def _noting(paths: Sequence[str], found: TraceRun) -> Callable[..., None]:
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
        kept = {key: changing[key] for key in hooks if key in changing}
        hooks.clear()
        hooks.update(kept)
    for name in _BACKWARD:
        getattr(module, name).clear()


def expose(module: nn.Module, hooked: frozenset[str]) -> list[str]:
    """Make a module return, after its own output, every value that a hook of the modules in `hooked` sees.

    Args:
        module: A copy, which is changed.
        hooked: Paths of its modules that have, or had, hooks.

    Returns:
        A list that holds, after each run, for every additional output the path of the hooked module.
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
    """Every tensor in nested tuples, lists, mappings and other containers that PyTorch knows, in order."""
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
