"""What means something else in another version, or nothing, and is left as it is by onnx's converter."""

from __future__ import annotations

import onnx_ir as ir

from bnfold.contract.opsets import crosses, opset_of, own_nodes
from bnfold.errors import ModelError
from bnfold.graph.nodes import label, text

_SCANS_WITHOUT_BATCH_SINCE = 9
# Values of an attribute, by operator and attribute, with the versions before which and from which on they are
# not there. The checker looks at the names of attributes, not at the values.
_VALUES: dict[tuple[str, str], dict[str, tuple[int, int | None]]] = {
    ("Pad", "mode"): {"wrap": (19, None)},
    ("Resize", "coordinate_transformation_mode"): {
        "half_pixel_symmetric": (19, None),
        "tf_half_pixel_for_nn": (11, 13),
    },
}


def demand_same_meaning(model: ir.Model, opset: int) -> None:
    """Refuse what a conversion to a version would leave as it is, and should not.

    Raises:
        ModelError: Names the node.
    """
    scans_differ = crosses(_SCANS_WITHOUT_BATCH_SINCE, opset_of(model), opset)
    for node in own_nodes(model):
        if node.op_type == "Scan" and scans_differ:
            raise ModelError(
                f"Scan {label(node)!r} has a batch before opset {_SCANS_WITHOUT_BATCH_SINCE}, and none from"
                " there on"
            )
        _demand_values(node, opset)


def _demand_values(node: ir.Node, opset: int) -> None:
    for (operator, name), known in _VALUES.items():
        if node.op_type != operator or (value := text(node, name, "")) not in known:
            continue
        since, until = known[value]
        said = f'{operator} {label(node)!r} has {name}="{value}"'
        if opset < since:
            raise ModelError(f"{said}, which came with opset {since}")
        if until is not None and opset >= until:
            raise ModelError(f"{said}, which opset {until} dropped")
