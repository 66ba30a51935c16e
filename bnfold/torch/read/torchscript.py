"""What was traced in train mode stays in it: found in the graph, since no flag says so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from bnfold.errors import ModelError

# operators that behave differently in training, and the index of the argument that says so
_TRAINING = {
    "aten::batch_norm": 5,
    "aten::dropout": 2,
    "aten::dropout_": 2,
    "aten::feature_dropout": 2,
    "aten::alpha_dropout": 2,
    "aten::rrelu": 3,
}


def check_mode(module: torch.jit.ScriptModule, path: str) -> None:
    """Refuse what was traced in train mode: a trace keeps that, whatever `eval()` says afterwards.

    Raises:
        ModelError: A BatchNorm runs on the statistics of its batch, or a dropout drops.
    """
    if found := sorted(set(_in_training(module.inlined_graph))):
        raise ModelError(
            f"{path} was traced in train mode: {', '.join(found)} in it behaves as in training.",
            "Trace the model again after model.eval().",
        )


def _in_training(block: Any) -> Iterator[str]:
    """The operators of a graph, or of a block in it, whose argument `training` is the constant True."""
    for node in block.nodes():
        where = _TRAINING.get(node.kind())
        if where is not None and list(node.inputs())[where].toIValue() is True:
            yield node.kind().removeprefix("aten::")
        for inner in node.blocks():
            yield from _in_training(inner)
