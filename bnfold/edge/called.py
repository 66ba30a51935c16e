"""The nodes that a user means: by their own name, or by that of the module that they were exported from."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from bnfold.errors import InputError
from bnfold.graph.nodes import path_of


def called(model: ir.Model, wanted: Collection[str]) -> tuple[str, ...]:
    """The names of nodes that are called so.

    Args:
        model: The model, all of whose nodes have names.
        wanted: Names of nodes, or module paths, each of which stands for all nodes of the module.

    Raises:
        InputError: Nothing is called so.
    """
    found: dict[str, None] = {}
    for name in wanted:
        nodes = [node for node in model.graph if name in (node.name, path_of(node))]
        if not nodes:
            raise InputError(
                f"{name!r} is not a node of the model.",
                "Give names of nodes or of PyTorch modules; without --leave, -v lists those in question.",
            )
        found |= dict.fromkeys(str(node.name) for node in nodes)
    return tuple(found)
