"""What a module tells about its inputs: the parameters of its forward, and its first layer."""

from __future__ import annotations

import inspect
import re

import torch
from torch import nn

_KINDS = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def parameters(module: nn.Module) -> tuple[list[str] | None, list[str]]:
    """The names that `forward` takes (None when it takes any number) and those that have no default."""
    if isinstance(module, torch.jit.ScriptModule):  # its forward is no Python, and has a schema instead
        told = getattr(module.forward, "schema").arguments[1:]  # noqa: B009  (typed as a callable)
        return [one.name for one in told], [one.name for one in told if not one.has_default_value()]
    parameters = list(inspect.signature(module.forward).parameters.values())
    plain = [p for p in parameters if p.kind in _KINDS or p.kind is p.KEYWORD_ONLY]
    required = [p.name for p in plain if p.default is p.empty]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None, required
    return [p.name for p in plain], required


def first_layer(module: nn.Module) -> tuple[str, nn.Module] | None:
    """The first submodule, in the order of definition, that has parameters of its own."""
    for path, layer in module.named_modules():
        if any(True for _ in layer.parameters(recurse=False)):
            return path, layer
    return None


def channels(layer: nn.Module) -> tuple[str, int] | None:
    """What a layer calls its channels, and how many it has; None where it tells no number."""
    words = {"in_channels": "input channels", "in_features": "input features", "num_features": "channels"}
    words |= {"input_size": "input features", "embedding_dim": "features an index"}
    for attribute, word in words.items():
        if isinstance(count := getattr(layer, attribute, None), int):
            return word, count
    return None


def dimensions(layer: nn.Module) -> int:
    """How many spatial dimensions the layer's name tells, as `Conv2d`; 0 when it does not."""
    match = re.search(r"([123])d$", type(layer).__name__)
    return int(match[1]) if match else 0
