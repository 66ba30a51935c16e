"""What a module says about its inputs: the parameters of its forward, and its first layer."""

from __future__ import annotations

import inspect
import itertools
import re
from dataclasses import dataclass

import torch
from torch import nn

from bnfold.torch.export import scripted
from bnfold.torch.read.torchscript import TENSORS, arguments

Inputs = tuple[torch.Tensor, ...] | dict[str, torch.Tensor]
"""What a module is called with: in order, or by the names of its forward."""

_KINDS = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True)
class Signature:
    """What is known about a module's inputs without running it.

    Attributes:
        module: The module.
        names: The parameters of its `forward`; None when it takes any number.
        required: Those that have no default.
        first_layer: The path of the first submodule, in the order of definition, that has parameters of its
            own, and the submodule.
    """

    module: nn.Module
    names: list[str] | None
    required: list[str]
    first_layer: tuple[str, nn.Module] | None

    @classmethod
    def of(cls, module: nn.Module) -> Signature:
        """Look at `module` once; the functions of this package pass the result on."""
        if isinstance(module, torch.jit.ScriptModule):
            return cls(module, *_parameters(module), scripted.first_layer(module))
        layers = (
            (path, layer) for path, layer in module.named_modules() if [*layer.parameters(recurse=False)]
        )
        return cls(module, *_parameters(module), next(layers, None))

    def bind(self, inputs: Inputs) -> dict[str, torch.Tensor] | None:
        """`inputs` by the names and in the order of `forward`; None when it takes any number."""
        if isinstance(inputs, dict):
            order = self.names if self.names is not None else list(inputs)
            return {name: inputs[name] for name in order if name in inputs}
        return None if self.names is None else dict(zip(self.names, inputs, strict=False))


def _parameters(module: nn.Module) -> tuple[list[str] | None, list[str]]:
    if isinstance(module, torch.jit.ScriptModule):  # its forward has a schema, not a Python signature
        schema = arguments(module)
        tensors = list(itertools.takewhile(lambda one: str(one.type) in TENSORS, schema))
        return [one.name for one in tensors], [one.name for one in tensors if not one.has_default_value()]
    parameters = list(inspect.signature(module.forward).parameters.values())
    plain = [p for p in parameters if p.kind in _KINDS or p.kind is p.KEYWORD_ONLY]
    required = [p.name for p in plain if p.default is p.empty]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None, required
    return [p.name for p in plain], required


def channels(layer: nn.Module) -> tuple[str, int] | None:
    """What a layer calls its channels, and how many it has; None where it has no such number."""
    words = {"in_channels": "input channels", "in_features": "input features", "num_features": "channels"}
    words |= {"input_size": "input features", "embedding_dim": "features an index"}
    for attribute, word in words.items():
        if isinstance(count := getattr(layer, attribute, None), int):
            return word, count
    return None


def dimensions(layer: nn.Module) -> int:
    """The number of spatial dimensions in the name of a layer's class, as `Conv2d`; 0 if it has none."""
    match = re.search(r"([123])d$", type(layer).__name__)
    return int(match[1]) if match else 0
