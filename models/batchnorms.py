"""The BatchNorms of a PyTorch module: finding them, and giving them statistics worth folding."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def batchnorms(module: nn.Module) -> list[_BatchNorm]:
    """List every BatchNorm layer (of any dimension) in `module`, in the order of its children."""
    return [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]


def seeded_statistics(module: ModuleT, seed: int = 0) -> ModuleT:
    """Give every BatchNorm in `module` random statistics and parameters, in place.

    A fresh BatchNorm is nearly the identity (mean 0, variance 1, γ 1, β 0): folding it wrongly would go
    unnoticed. Here no two channels are alike: means and β of either sign, variances between 0.25 and 2, and γ
    between 0.5 and 1.5 in size, a quarter of them negative.

    Args:
        module: Any module. Its other parameters and its train or eval mode stay as they are.
        seed: The same seed gives the same numbers to the same module.

    Returns:
        `module` itself.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(like: torch.Tensor, low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(like.shape, generator=generator)

    with torch.no_grad():
        for layer in batchnorms(module):
            if layer.running_mean is not None:
                layer.running_mean.copy_(uniform(layer.running_mean, -0.5, 0.5))
            if layer.running_var is not None:
                layer.running_var.copy_(uniform(layer.running_var, 0.25, 2.0))
            if layer.affine:
                sign = torch.where(uniform(layer.weight, 0, 1) < 0.25, -1.0, 1.0)
                layer.weight.copy_(sign * uniform(layer.weight, 0.5, 1.5))
                layer.bias.copy_(uniform(layer.bias, -0.5, 0.5))
    return module
