"""Changes to a copy of a module: tensors, biases, and modules that are replaced."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from bnfold.algebra.affine import Array

_CONVOLUTIONS: dict[int, Callable[..., nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


@dataclass(frozen=True, eq=False)
class SetTensor:
    """A parameter or buffer gets new numbers."""

    name: str
    array: Array

    def apply(self, module: nn.Module) -> None:
        """Write in place, so that tied tensors stay tied."""
        path, _, name = self.name.rpartition(".")
        old = getattr(module.get_submodule(path), name)
        with torch.no_grad():
            old.copy_(torch.from_numpy(np.ascontiguousarray(self.array)).to(old.dtype))


@dataclass(frozen=True, eq=False)
class NewBias:
    """A layer that had no bias gets one."""

    path: str
    array: Array

    def apply(self, module: nn.Module) -> None:
        """Make the parameter, of the weight's type and on its device."""
        layer = module.get_submodule(self.path)
        layer.bias = _parameter(self.array, like=layer.get_parameter("weight"))


@dataclass(frozen=True, eq=False)
class Convolution:
    """The convolution that parallel branches have become; the fields are `nn.Conv2d`'s."""

    weight: Array
    bias: Array | None
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def build(self, like: torch.Tensor) -> nn.Module:
        """Make the layer, of the type and on the device of `like`."""
        layer = _CONVOLUTIONS[self.weight.ndim - 2](
            self.weight.shape[1] * self.groups,
            self.weight.shape[0],
            self.weight.shape[2:],
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            bias=self.bias is not None,
            device="meta",  # its numbers follow, and no random ones are drawn
        )
        layer.weight = _parameter(self.weight, like)
        if self.bias is not None:
            layer.bias = _parameter(self.bias, like)
        return layer


@dataclass(frozen=True)
class Relu:
    """A ReLU that the forward of the module computes."""


Part = str | Relu | Convolution
"""One step of what stays of a module: the name of a child, or a layer to make."""


@dataclass(frozen=True, eq=False)
class Replace:
    """A module is replaced, everywhere, by what is left of it.

    Attributes:
        path: Its first path.
        parts: What is left, in order; nothing means the identity. Children keep their names.
    """

    path: str
    parts: tuple[Part, ...] = ()

    def apply(self, module: nn.Module) -> None:
        """Put the new module in every place that held the old one, in its mode."""
        old = module.get_submodule(self.path)
        new = self._made(old)
        new.training = old.training
        for path, part in list(module.named_modules(remove_duplicate=False)):
            if part is old:
                module.set_submodule(path, new)

    def _made(self, old: nn.Module) -> nn.Module:
        if not self.parts:
            return nn.Identity()
        made: OrderedDict[str, nn.Module] = OrderedDict()
        for part in self.parts:
            if isinstance(part, str):
                made[part] = old.get_submodule(part)
                continue
            name = _free("conv" if isinstance(part, Convolution) else "act", [*made, *self.parts])
            layer = part.build(next(old.parameters())) if isinstance(part, Convolution) else nn.ReLU()
            made[name] = layer.train(old.training)
        return nn.Sequential(made)


Edit = SetTensor | NewBias | Replace


def apply(edits: Iterable[Edit], module: nn.Module) -> None:
    """Change `module`: numbers first, since their paths are those before any module is replaced."""
    for edit in sorted(edits, key=lambda edit: isinstance(edit, Replace)):
        edit.apply(module)


def _parameter(array: Array, like: torch.Tensor) -> nn.Parameter:
    tensor = torch.from_numpy(np.ascontiguousarray(array)).to(dtype=like.dtype).to(like.device)
    return nn.Parameter(tensor, requires_grad=like.requires_grad)


def _free(wanted: str, taken: list[object]) -> str:
    while wanted in taken:
        wanted += "_"
    return wanted
