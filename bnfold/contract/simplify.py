"""What others do well: constants that can be computed beforehand, equal nodes, and what nobody reads."""

from __future__ import annotations

import importlib.metadata

import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from bnfold.contract.changed import Changed
from bnfold.errors import MissingExtraError, ModelError, reason
from bnfold.graph.nodes import count_nodes
from bnfold.graph.scopes import nodes, scopes

_RANDOM = frozenset(
    {"Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform"}
    | {"RandomUniformLike"}
)  # two that are alike are not the same, and Dropout in training mode is one of them


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
    shapes = [value.shape for value in other.graph.outputs]
    defaults = _alone(other)
    is_random = any(node.op_type in _RANDOM for node in nodes(other))
    clean = (
        common_passes.IdentityEliminationPass(),
        *(() if is_random else (common_passes.CommonSubexpressionEliminationPass(),)),
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
    for value, shape in zip(other.graph.outputs, shapes, strict=True):
        value.shape = shape
    for value in other.graph.inputs:
        if value.name in defaults:
            value.const_value = defaults[value.name]
            other.graph.register_initializer(value)
    before, after = count_nodes(model), count_nodes(other)
    version = importlib.metadata.version("onnxscript")
    said = f"Simplified by onnxscript {version}: {after:,} nodes instead of {before:,}."
    if before == after:
        said = f"onnxscript {version} found nothing to simplify."
    details = {"before": before, "after": after}
    return Changed("simplify", said, other, model, details=details, may_round=True, by_others=True)


def _alone(model: ir.Model) -> dict[str, ir.TensorProtocol]:
    """Take out of a model what misleads the optimizer: defaults of inputs, which callers may override.

    Sizes that a file records of its values may be stale, and are no sizes to compute with: they go, too.

    Returns:
        The defaults by the names of their inputs.
    """
    defaults = {}
    for value in model.graph.inputs:
        if value.const_value is not None and value.name:
            defaults[value.name] = value.const_value
            model.graph.initializers.pop(value.name)
            value.const_value = None
    for scope in scopes(model):
        for node in scope.graph:
            for value in node.outputs:
                value.shape = None
    return defaults
