"""What others do well: constants that can be computed beforehand, equal nodes, and what nobody reads."""

from __future__ import annotations

import importlib.metadata

import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from bnfold.contract.changed import Changed
from bnfold.errors import MissingExtraError, ModelError, reason
from bnfold.graph.nodes import count_nodes


def simplified(model: ir.Model) -> Changed:
    """Fold constants with onnxscript, and clean up with the passes of onnx_ir.

    No rule that rewrites operators is applied, since BatchNorms are this program's own work.

    Raises:
        MissingExtraError: onnxscript is not installed.
        ModelError: It cannot process the model.
    """
    try:
        from onnxscript import optimizer
    except ImportError as error:
        raise MissingExtraError("onnxscript", "simplify", "simplify a model") from error
    other = model.clone()
    clean = (
        common_passes.IdentityEliminationPass(),
        common_passes.CommonSubexpressionEliminationPass(),
        common_passes.DeduplicateInitializersPass(),
        common_passes.RemoveUnusedNodesPass(),
        common_passes.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        common_passes.RemoveUnusedOpsetsPass(),
    )
    try:
        optimizer.fold_constants(other)
        for step in clean:
            step(other)
    except Exception as error:  # a pass fails in its own way on what it does not expect
        raise ModelError(
            f"onnxscript could not simplify the model: {reason(error)}.", "Leave --simplify out."
        ) from error
    before, after = count_nodes(model), count_nodes(other)
    version = importlib.metadata.version("onnxscript")
    said = f"Simplified by onnxscript {version}: {after:,} nodes instead of {before:,}."
    if before == after:
        said = f"onnxscript {version} found nothing to simplify."
    return Changed("simplify", said, other, model, details={"before": before, "after": after}, may_round=True)
