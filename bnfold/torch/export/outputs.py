"""A module's outputs, whatever container it returns them in, and the names that they get in ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from torch.utils import _pytree as pytree


@dataclass(frozen=True)
class Outputs:
    """The tensors that a module returns, in the order in which an export has them.

    Attributes:
        names: One a tensor: a dictionary's key, a named tuple's field, `output_0` in a tuple; keys within
            keys are joined by underscores. None for a module that returns one tensor as it is.
        tensors: The tensors.
    """

    names: tuple[str | None, ...]
    tensors: tuple[torch.Tensor, ...]


def outputs_of(result: Any) -> Outputs:
    """Take the tensors out of what a module returns; an export has nothing else, so the rest is dropped."""
    leaves = [pair for pair in pytree.tree_flatten_with_path(result)[0] if isinstance(pair[1], torch.Tensor)]
    return Outputs(tuple(_name(path) for path, _ in leaves), tuple(tensor for _, tensor in leaves))


def _name(path: Sequence[Any]) -> str | None:
    keys = [next(getattr(key, word) for word in ("key", "name", "idx") if hasattr(key, word)) for key in path]
    if keys and isinstance(keys[0], int):
        keys.insert(0, "output")
    return "_".join(map(str, keys)) or None


def name_outputs(model: ir.Model, names: Sequence[str | None], *, single: str | None = None) -> None:
    """Give the graph's outputs these names, as far as they are free.

    Args:
        model: The export.
        names: From `outputs_of`; ignored where the export has another number of outputs.
        single: The name of a single output that has none.
    """
    outputs = model.graph.outputs
    if len(names) != len(outputs):
        return
    taken = {value.name for graph in model.graphs() for value in _values(graph)}
    for value, name in zip(outputs, names, strict=True):
        wanted = name or single
        # an input that is returned as it is keeps its name, and so does a weight
        if wanted is None or wanted == value.name or value.producer() is None or outputs.count(value) > 1:
            continue
        while wanted in taken:
            wanted += "_out"
        taken.add(wanted)
        value.name = wanted


def _values(graph: ir.Graph) -> list[ir.Value]:
    made = [output for node in graph for output in node.outputs]
    return [*graph.inputs, *graph.initializers.values(), *made]
