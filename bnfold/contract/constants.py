"""Constants as tensors: some converters know no other attribute of a `Constant`."""

from __future__ import annotations

import onnx_ir as ir

from bnfold.contract.changed import Changed
from bnfold.contract.opsets import own_nodes
from bnfold.graph.constants import held


def plain(model: ir.Model) -> Changed:
    """Let every Constant hold a tensor in place of numbers, as PyTorch's exporter writes some."""
    other = model.clone()
    count = write_tensors(other)
    constants = "1 Constant" if count == 1 else f"{count} Constants"
    said = f"Wrote {constants} as tensors in place of numbers."
    return Changed("plain-constants", said, other, model, details={"written": count})


def write_tensors(model: ir.Model) -> int:
    """Let Constants hold tensors, which they have always done, and not numbers, in a model itself.

    Returns:
        How many were changed. Texts and sparse tensors stay.
    """
    count = 0
    for node in own_nodes(model):
        tensor = held(node) if node.op_type == "Constant" and "value" not in node.attributes else None
        if tensor is not None:
            node.attributes.clear()
            node.attributes["value"] = ir.AttrTensor("value", tensor)
            count += 1
    return count
