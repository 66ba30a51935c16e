"""Reshapes without `allowzero`, where it means nothing: converters for small devices refuse the attribute."""

from __future__ import annotations

import onnx_ir as ir

from bnfold.contract.changed import Changed
from bnfold.graph.facts import Facts
from bnfold.graph.nodes import integer

_ATTRIBUTE = "allowzero"


def plain(model: ir.Model) -> Changed:
    """Drop the attribute from every Reshape to a constant shape that has no zero.

    It says whether a zero is a size or "as it was"; PyTorch's exporter writes it always.
    """
    other = model.clone()
    facts = Facts(other)
    dropped = 0
    for node in facts.nodes():
        if node.op_type != "Reshape" or _ATTRIBUTE not in node.attributes or not facts.has_constant(node, 1):
            continue
        shape = facts.operand(node, 1)
        if integer(node, _ATTRIBUTE, 0) and shape is not None and shape.all():
            node.attributes.pop(_ATTRIBUTE)
            dropped += 1
    reshapes = "1 Reshape" if dropped == 1 else f"{dropped} Reshapes"
    return Changed(
        "plain-reshapes",
        f"Dropped {_ATTRIBUTE} from {reshapes} whose shape has no zero.",
        other,
        model,
        details={"dropped": dropped},
    )
