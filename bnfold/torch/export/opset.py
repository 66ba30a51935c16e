"""Meeting `--opset` for PyTorch files: what the exporter does not write itself is converted."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from bnfold.contract.converter import through_onnx
from bnfold.contract.versions import OLDEST, OLDEST_IR, check, set_ir_version
from bnfold.errors import ModelError

__all__ = ["NATIVE", "OLDEST", "OLDEST_IR", "check", "convert", "set_ir_version"]

NATIVE = range(18, 26)  # what the exporter writes; for others the model is converted


def convert(model: ir.Model, opset: int) -> ir.Model:
    """Give `model` an opset that the exporter does not write itself.

    To older ones with onnx's own converter. To newer ones if no operator of the model has changed in between.

    Raises:
        ModelError: That is not possible; names the operator.
    """
    return _raise(model, opset) if opset > NATIVE[-1] else through_onnx(model, opset)[0]


def _raise(model: ir.Model, opset: int) -> ir.Model:
    now = model.graph.opset_imports[""]
    for node in model.graph.all_nodes():
        if node.domain:
            continue
        first = onnx.defs.get_schema(node.op_type, opset).since_version
        if first > now:
            raise ModelError(
                f"The model cannot be converted to opset {opset}: {node.op_type} changed in opset {first}.",
                f"Leave --opset out, or take {first - 1} or older.",
            )
    model.graph.opset_imports[""] = opset
    return model
