"""Which parameter or buffer of a module each constant of its exported graph comes from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch import nn

from bnfold.algebra.affine import Array


@dataclass(frozen=True)
class TensorMatch:
    """The tensor of a module that a constant of the graph comes from.

    Attributes:
        name: The parameter's or buffer's first name.
        transposed: Whether the constant is its transpose, as a Linear's weight is for a MatMul.
    """

    name: str
    transposed: bool = False


class TensorLookup:
    """Finds the tensor that a constant comes from.

    The exporter gives a parameter's constant the parameter's own name. A constant that it has computed from
    parameters has another; it is searched for by its numbers, as it is, reshaped or transposed, and found
    only if exactly one tensor has them: first in the module of the node, then everywhere.

    Args:
        module: The module that was exported, in float64 and on the CPU.
    """

    def __init__(self, module: nn.Module) -> None:
        self._first: dict[int, str] = {}
        self._names: dict[str, str] = {}
        self._tensors: dict[str, npt.NDArray[np.generic]] = {}
        for name, tensor in named_tensors(module):
            first = self._first.setdefault(id(tensor), name)
            self._names[name] = first
            if tensor.is_floating_point() and tensor.layout == torch.strided:  # others are not folded
                self._tensors[first] = tensor.detach().numpy()

    def find(self, value: ir.Value, path: str) -> TensorMatch | None:
        """The tensor that a constant comes from.

        Args:
            value: A constant of the exported graph.
            path: Of the module of its reader.
        """
        name = self._names.get(value.name or "")
        if name is not None:
            return TensorMatch(name)
        array = array_of(value)
        if array is None or array.dtype.kind != "f" or array.size < 2 or array.min() == array.max():
            return None  # such numbers could come from anywhere
        found = {name: match for name in self._tensors if (match := self._match(name, array))}
        own = [match for name, match in found.items() if name.rpartition(".")[0] == path]
        everywhere = own or list(found.values())
        return everywhere[0] if len(everywhere) == 1 else None

    def _match(self, name: str, array: npt.NDArray[np.generic]) -> TensorMatch | None:
        tensor = self._tensors[name]
        if tensor.size != array.size or tensor.flat[0] != array.flat[0] or tensor.flat[-1] != array.flat[-1]:
            return None  # the corners are the same in every layout
        if np.array_equal(tensor.reshape(-1), array.reshape(-1)):
            return TensorMatch(name)
        transposed = tensor.ndim == array.ndim == 2 and np.array_equal(tensor.T, array)
        return TensorMatch(name, transposed=True) if transposed else None

    def laid_out(self, match: TensorMatch, array: Array) -> Array:
        """A constant of the graph in the layout of the tensor that it comes from; a new one as it is."""
        if match.name not in self._tensors:
            return array
        return (array.T if match.transposed else array).reshape(self._tensors[match.name].shape)


def named_tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Every parameter and buffer under each of its names."""
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def layer_with_bias(module: nn.Module, path: str | None) -> nn.Module | None:
    """The layer at a path if it is a convolution or a Linear whose weight is a parameter, not computed."""
    try:
        layer = module.get_submodule(path) if path else None
    except AttributeError:  # a path that the exporter made up
        return None
    # the one base of all convolutions, which has no public name
    if not isinstance(layer, (nn.modules.conv._ConvNd, nn.Linear)):  # noqa: SLF001
        return None
    return layer if "weight" in dict(layer.named_parameters(recurse=False)) else None


def has_bias(layer: nn.Module) -> bool:
    """Whether a layer has a bias; otherwise it can get one."""
    return "bias" in dict(layer.named_parameters(recurse=False))


def array_of(value: ir.Value | None) -> npt.NDArray[np.generic] | None:
    """The elements of a constant that is stored; None for anything else."""
    return value.const_value.numpy() if value is not None and value.const_value is not None else None


def fits(array: Array, dtype: torch.dtype) -> bool:
    """Whether numbers can be rounded to a type: none becomes infinite, and the largest keep their digits."""
    if not array.size:
        return True
    exact = torch.from_numpy(np.ascontiguousarray(array))
    error = (exact.to(dtype).double() - exact).abs().max()
    return bool(error <= 2 * torch.finfo(dtype).eps * exact.abs().max())
