"""TorchScript that cannot be exported as it is, found before an exporter fails on it with its own words.

What was traced in train mode stays in it, which only the graph shows. What `optimize_for_inference` made for
MKL-DNN is saved without its weights. The inputs of an export are tensors; numbers and lists
stay at their default.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

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


TENSORS = {"Tensor", "Optional[Tensor]"}
"""The types of what can be an input of an ONNX model."""

_WITHOUT_WEIGHTS = b"prim.ConstantMKLDNNTensor("


def check_optimised(stream: BinaryIO, path: str) -> None:
    """Refuse what `torch.jit.optimize_for_inference` made: `torch.jit.save` writes it without its weights.

    Args:
        stream: The archive, which [`entries`][bnfold.torch.read.safety.archive.entries] has passed.
        path: Its path, for the messages.

    Raises:
        ModelError: It has MKL-DNN constants, which are such weights.
    """
    with zipfile.ZipFile(stream) as archive:
        code = (archive.read(name) for name in archive.namelist() if name.endswith(".py"))
        if any(_WITHOUT_WEIGHTS in text for text in code):
            raise ModelError(
                f"{path} was saved after torch.jit.optimize_for_inference, and without the weights that went"
                " to MKL-DNN: PyTorch cannot read it either.",
                "Save the module before it is optimised; ONNX Runtime optimises the export by itself.",
            )


def check_inputs(module: torch.jit.ScriptModule, path: str) -> tuple[str, ...]:
    """Refuse a script without `forward`, or whose `forward` must be given anything but tensors.

    Returns:
        A sentence about what stays at its default, if anything does.

    Raises:
        ModelError: Names what else it takes, and says how that becomes a constant.
    """
    if not hasattr(module, "forward"):
        raise ModelError(f"{path} is TorchScript without a forward.", "Save a module that has one.")
    others = [one for one in arguments(module) if str(one.type) not in TENSORS]
    if needed := [f"{one.name} ({one.type})" for one in others if not one.has_default_value()]:
        raise ModelError(
            f"{path} is TorchScript whose forward takes what is not a tensor: {', '.join(needed)}.",
            "Fix it in a module around this one, whose forward takes only tensors and calls this one with"
            " the value that you need; script or trace that module, and save it.",
        )
    kept = [f"{one.name} is {one.default_value!r}" for one in others]
    return (f"Inputs that are no tensors stay at their defaults: {', '.join(kept)}.",) if kept else ()


def arguments(module: torch.jit.ScriptModule) -> list[Any]:
    """What `forward` takes, as its schema says."""
    found: list[Any] = getattr(module.forward, "schema").arguments[1:]  # noqa: B009  (typed as a callable)
    return found


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
