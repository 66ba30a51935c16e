"""Loading weights into their network: all of them, or an error that lists what does not fit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from bnfold.errors import InputError, ModelError, listed, reason
from bnfold.torch.read.checkpoint import Weights, below

_WRAPPERS = ("module.", "_orig_mod.")  # DataParallel and AveragedModel; torch.compile
_COUNTER = "n_averaged"  # of torch.optim.swa_utils.AveragedModel, next to the weights
_COUNTS = "num_batches_tracked"  # no output depends on it
_SHOWN = 10


def fill(
    network: nn.Module,
    weights: Weights,
    path: str,
    arch: str,
    key: str = "",
    *,
    ignore_unexpected: bool = False,
) -> tuple[str, ...]:
    """Load `weights` into `network`, in place.

    Names that begin with `module.` or `_orig_mod.`, as DataParallel and torch.compile leave them, lose that
    prefix if the network's names have none. A weight that is missing but shared with one that is there
    (tied weights, as safetensors stores them once) is not missing.

    Args:
        network: The network that they belong to.
        weights: Tensors by name.
        path: The file, for the messages.
        arch: What made the network, for the messages.
        key: The way to the weights in the file, for the messages.
        ignore_unexpected: Whether weights that the network does not have are left out.

    Returns:
        Sentences about what was changed: prefixes, types, what was left out.

    Raises:
        ModelError: A weight is missing, unexpected, or of another shape.
    """
    own = network.state_dict()
    named, prefixes = _without_wrappers(weights, own)
    named, part = _part_that_fits(named, own)
    left = [name for name in named if name not in own] if ignore_unexpected else []
    _compare(named, own, path, arch, key, ignore_unexpected=ignore_unexpected)
    if left:
        named = {name: value for name, value in named.items() if name in own}
        named = _with_versions(named, weights)
    try:
        network.load_state_dict(named, strict=False)  # compared above, where tied weights are known
    except Exception as error:  # set_extra_state and hooks are the user's own code
        raise InputError(
            f"{path} could not be loaded into {arch}: {reason(error)}.", "Load it in Python to see where."
        ) from error
    removed = [f"Taken off the names of its weights: {', '.join(prefixes)}"] if prefixes else []
    ignored = [f"Left out, since {arch} does not have them: {listed(left, _SHOWN)}."] if left else []
    taken = [f"Taken: its weights below {part[:-1]}, which are all that {arch} has."] if part else []
    return (*removed, *taken, *ignored, *_types(named, own))


def _without_wrappers(weights: Weights, own: Mapping[str, Any]) -> tuple[Weights, list[str]]:
    """Take wrappers' prefixes off, and `_orig_mod` from within names; list which."""
    taken: list[str] = []
    named = dict(weights)
    while prefix := next((wrapper for wrapper in _WRAPPERS if _wrapped(named, own, wrapper)), None):
        named.pop(_COUNTER, None)
        named = {name.removeprefix(prefix): value for name, value in named.items()}
        taken.append(prefix)
    inner = f".{_WRAPPERS[1]}"
    if any(inner in name for name in named) and not any(inner in name for name in own):
        named = {name.replace(inner, "."): value for name, value in named.items()}
        taken.append(_WRAPPERS[1])
    # load_state_dict reads the version of each module there, and adds what older ones lack
    metadata = getattr(weights, "_metadata", None)
    if metadata is None or taken:
        return named, taken
    return weights, taken


def _wrapped(named: Weights, own: Mapping[str, Any], prefix: str) -> bool:
    names = named.keys() - {_COUNTER}
    return (
        bool(names)
        and all(name.startswith(prefix) for name in names)
        and not any(name.startswith(prefix) for name in own)
    )


def _part_that_fits(named: Weights, own: Mapping[str, Any]) -> tuple[Weights, str]:
    """The one part of the weights that is a whole network of this kind, and the prefix of its names.

    A trainer holds the network as `model.` beside its loss. Where two parts fit, or all of the weights do,
    nothing is chosen.
    """
    first = next((name for name in own if not name.endswith(_COUNTS)), None)
    if first is None or first in named:
        return named, ""
    found = []
    for name in named:
        prefix = name.removesuffix(first)
        if name.endswith(f".{first}") and _is_whole(inner := below(named, prefix), own):
            found.append((inner, prefix))
    return found[0] if len(found) == 1 else (named, "")


def _is_whole(weights: Weights, own: Mapping[str, Any]) -> bool:
    counts = {name for name in own if name.endswith(_COUNTS)}
    return weights.keys() | counts == own.keys() and all(
        _shape(own[name]) in (None, _shape(value)) for name, value in weights.items()
    )


def _with_versions(named: dict[str, Any], weights: Weights) -> Weights:
    """`named` with the versions of their modules, which `load_state_dict` reads."""
    versions = getattr(weights, "_metadata", None)
    if versions is None:
        return named
    held: OrderedDict[str, Any] = OrderedDict(named)
    held.__dict__["_metadata"] = versions  # as state_dict() itself does
    return held


def _compare(
    weights: Weights, own: Mapping[str, Any], path: str, arch: str, key: str, *, ignore_unexpected: bool
) -> None:
    shared = {_place(own[name]) for name in weights.keys() & own.keys()} - {None}
    missing = [
        name
        for name in own
        if name not in weights and not name.endswith(_COUNTS) and _place(own[name]) not in shared
    ]
    unexpected = [] if ignore_unexpected else [name for name in weights if name not in own]
    shapes = [
        f"{name} ({_shape(weights[name])} in the file, {_shape(own[name])} in the network)"
        for name in weights
        if name in own and _shape(own[name]) not in (None, _shape(weights[name]))
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    if not any(kinds.values()):
        return
    raise ModelError(
        f"{path} does not fit {arch}: "
        + ", ".join(f"{len(names)} {kind}" for kind, names in kinds.items() if names)
        + ".",
        "\n".join(
            [f"{kind}: {listed(names, _SHOWN)}" for kind, names in kinds.items() if names]
            + list(_hint(weights, own, key))
            + (
                ["If these are not parts of it, leave them out with --ignore-unexpected"]
                if unexpected and not missing and not shapes
                else []
            )
            + ["Name the network that they were saved from with --arch, its sizes with --arch-args."]
        ),
    )


def _place(value: Any) -> tuple[int, tuple[int, ...]] | None:
    """Where a tensor lies in memory, which is the same for tied weights; None for no tensor."""
    if not isinstance(value, torch.Tensor) or is_lazy(value) or not value.numel():
        return None
    return value.data_ptr(), tuple(value.shape)


def _shape(value: Any) -> str | None:
    """A shape to be compared and shown; None for what has none yet, or is not a tensor."""
    if not isinstance(value, torch.Tensor) or is_lazy(value):
        return None
    return "x".join(map(str, value.shape)) or "scalar"


def _hint(weights: Weights, own: Mapping[str, Any], key: str) -> Iterator[str]:
    """A part of the weights that fits by its names: a network that was a part of a larger one."""
    parts = {name.partition(".")[0] for name in weights}
    for part in sorted(parts):
        inner = below(weights, f"{part}.")
        if inner.keys() == own.keys() and all(_shape(inner[name]) == _shape(own[name]) for name in own):
            yield f"Those below {part} fit: add --key {f'{key}.{part}' if key else part}"


def _types(weights: Weights, own: Mapping[str, Any]) -> Iterator[str]:
    changes = {
        (value.dtype, own[name].dtype)
        for name, value in weights.items()
        if isinstance(value, torch.Tensor) and isinstance(own.get(name), torch.Tensor)
        if value.is_floating_point() and value.dtype != own[name].dtype
    }
    for stored, taken in sorted(changes, key=str):
        yield f"Weights of type {str(stored)[6:]} were converted to the network's {str(taken)[6:]}."
