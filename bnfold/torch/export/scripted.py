"""What an export needs of TorchScript: its first layer, and a forward that takes only tensors.

It has operators instead of layers, and when frozen no parameters. The exporter takes no input that may be
missing, and none that is no tensor. A script around the other, whose forward has only the inputs that are
there, leaves the rest at its default.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import onnx_ir as ir
import torch
from torch import nn

from bnfold.torch.read.torchscript import arguments

_INNER = "bnfold_inner"
_CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_GROUPS = {"aten::conv1d": 6, "aten::conv2d": 6, "aten::conv3d": 6, "aten::_convolution": 8}
_DEEPEST = 1000  # modules, one in another


def first_layer(module: torch.jit.ScriptModule) -> tuple[str, nn.Module] | None:
    """A layer without numbers that says what the first operator with a weight does; None if it has none.

    Args:
        module: TorchScript, whose calls of submodules are inlined here.
    """
    for node in _nodes(module.inlined_graph):
        kind, inputs = node.kind(), list(node.inputs())
        if kind not in _GROUPS and kind not in ("aten::linear", "aten::embedding"):
            continue
        path, weight = _value(inputs[0 if kind == "aten::embedding" else 1], module)
        if not isinstance(weight, torch.Tensor) or weight.dim() < 2:
            continue
        layer = _layer(kind, weight, inputs)
        if layer is not None:
            return path.rpartition(".")[0], layer
    return None


def only_with(module: torch.jit.ScriptModule, names: Sequence[str]) -> torch.jit.ScriptModule:
    """The module itself, or a script around it whose `forward` takes just the tensors of these names."""
    schema = arguments(module)
    if all(str(one.type) == "Tensor" for one in schema) and len(schema) == len(names):
        return module
    if not all(name.isidentifier() for name in names):
        return module
    holder = nn.Module()
    holder.add_module(_INNER, module)
    around: torch.jit.ScriptModule = torch.jit.script(holder.eval())
    given = ", ".join(f"{name}={name}" for name in names)
    around.define(f"def forward(self, {', '.join(names)}):\n    return self.{_INNER}({given})\n")
    return around


def path_within(path: str) -> str:
    """The path of a module or a weight without the script around it."""
    return path.removeprefix(f"{_INNER}.").removeprefix(_INNER)


def take_off(model: ir.Model, module: nn.Module) -> None:
    """Give the weights, nodes and values of an export the names that they have without the script around."""
    if not hasattr(module, _INNER):
        return
    for node in model.graph.all_nodes():
        node.name = (node.name or "").replace(f"/{_INNER}/", "/")
    values = [value for node in model.graph.all_nodes() for value in (*node.inputs, *node.outputs) if value]
    taken = {value.name for value in values}
    for value in values:
        plain = path_within(value.name or "").replace(f"/{_INNER}/", "/")
        if plain not in taken:
            taken.add(plain)
            value.name = plain


def _layer(kind: str, weight: torch.Tensor, inputs: list[Any]) -> nn.Module | None:
    sizes = list(weight.shape)
    if kind == "aten::embedding":
        return nn.Embedding(sizes[0], sizes[1], device="meta")
    if kind == "aten::linear":
        return nn.Linear(sizes[1], sizes[0], device="meta")
    groups = inputs[_GROUPS[kind]].toIValue()
    if kind == "aten::_convolution" and inputs[6].toIValue() is not False:  # transposed
        return None
    make: Any = _CONVOLUTIONS.get(len(sizes) - 2)
    if make is None or not isinstance(groups, int) or groups < 1 or sizes[0] % groups:
        return None
    layer: nn.Module = make(sizes[1] * groups, sizes[0], tuple(sizes[2:]), groups=groups, device="meta")
    return layer


def _nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


def _value(value: Any, module: torch.jit.ScriptModule) -> tuple[str, Any]:
    """A constant, or what is under a path in the module; with that path."""
    names: list[str] = []
    for _ in range(_DEEPEST):
        node = value.node()
        if node.kind() != "prim::GetAttr":
            break
        names.append(node.s("name"))
        value = next(node.inputs())
    else:
        return "", None
    if not names:
        return "", value.toIValue()
    found: Any = module
    for name in reversed(names):
        found = getattr(found, name, None)
    return ".".join(reversed(names)), found
