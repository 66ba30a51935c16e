"""Values of a folded model that have the name of another value of the original, though the fold is right.

bnfold makes none. Other tools fold a BatchNorm into a convolution and keep the name of the convolution's
output, although it now holds what the BatchNorm computed. Such a value is recognised by its readers: they
are those of a value that is gone. It is then compared with that value, just as strictly.
"""

from __future__ import annotations

import onnx_ir as ir

from bnfold.oracle.evaluator import NotEvaluableError
from bnfold.runtime.sessions import Feeds
from bnfold.validation.layer_proof import prove
from bnfold.validation.results import Layer


def proved(
    original: ir.Model, folded: ir.Model, feeds: Feeds, unit: float
) -> tuple[tuple[Layer, ...], ir.Model]:
    """Prove a fold value by value, and return the folded model with the names used for that.

    Args:
        original: The model before the fold.
        folded: The model after it.
        feeds: One sample.
        unit: Unit roundoff of the coarsest float type among the original's weights.

    Raises:
        NotEvaluableError: One of them has an operator that the oracle does not know.
    """
    layers = prove(original, folded, feeds, unit)
    wrong = {layer.name for layer in layers if not layer.agrees}
    meant = {name: other for name, other in _moved(original, folded).items() if name in wrong}
    while meant:
        renamed = _renamed(folded, meant)
        try:
            found = prove(original, renamed, feeds, unit)
        except NotEvaluableError:  # the guess was wrong, for example in its shape; the first proof stands
            break
        right = {layer.name for layer in found if layer.agrees}
        if right.issuperset(meant.values()):
            return found, renamed
        meant = {name: other for name, other in meant.items() if other in right}
    return layers, folded


def _moved(original: ir.Model, folded: ir.Model) -> dict[str, str]:
    """The values of the folded model, none of them an output, whose readers are those of one that is gone."""
    before, after = _readers(original), _readers(folded)
    there = {value.name for node in folded.graph for value in node.outputs}
    gone = {readers: name for name, readers in before.items() if name not in there}
    outputs = {value.name for value in folded.graph.outputs}
    return {
        name: gone[readers]
        for name, readers in after.items()
        if name in before and name not in outputs and readers != before[name] and readers in gone
    }


def _readers(model: ir.Model) -> dict[str, frozenset[tuple[str, int]]]:
    """Who reads each value that a node of the main graph computes: the reader's output, at which input."""
    return {
        value.name: frozenset((use.node.outputs[0].name or "", use.idx) for use in value.uses())
        for node in model.graph
        for value in node.outputs
        if value.name and node.op_type != "Constant" and value.uses()
    }


def _renamed(model: ir.Model, names: dict[str, str]) -> ir.Model:
    copy = model.clone()
    for node in copy.graph:
        for value in node.outputs:
            value.name = names.get(value.name or "", value.name)
    return copy
