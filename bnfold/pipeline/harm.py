"""Do no harm: folds after which the runtime's own graph of a model is worse are taken back, each alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import onnx_ir as ir

from bnfold import reasons
from bnfold.errors import MissingExtraError, ModelError, ProviderError
from bnfold.files.external_data import tensors
from bnfold.folding.recognise import is_batchnorm
from bnfold.graph.nodes import label
from bnfold.graph.scopes import nodes
from bnfold.pipeline.rollback import Attempt
from bnfold.result import FoldResult

if TYPE_CHECKING:
    from bnfold.latency.optimized_graph import OptimizedGraph

_LARGEST = 3 * 2**29  # bytes of weights; a larger model would be written to disk once for every graph
_FIRST = ("Add", "Sub", "Mul", "Div", "Pad", "Gather", "Slice")
_TRIES = 120  # folds to find out which ones do harm; what is not found out by then is left as it is


@dataclass(frozen=True)
class RuntimeGraphs:
    """What ONNX Runtime makes of a model before and after the fold.

    Attributes:
        original: Its graph of the original.
        folded: Its graph of the folded model.
        taken_back: Names of the nodes that were left as they are, since with them folded it was worse.
        worse: What is worse all the same, as words; empty where nothing is.
        apart: Whether no branches and layers were merged, since with them merged it was worse.
    """

    original: OptimizedGraph
    folded: OptimizedGraph
    taken_back: tuple[str, ...] = ()
    worse: tuple[str, ...] = ()
    apart: bool = False


def without_harm(
    attempt: Attempt, result: FoldResult[ir.Model]
) -> tuple[Attempt, FoldResult[ir.Model], RuntimeGraphs | None, str]:
    """Take back the folds after which ONNX Runtime's graph has more nodes, bytes or multiply-adds.

    Args:
        attempt: How the model is folded.
        result: Its fold.

    Returns:
        How the model is folded without them, that fold, what the runtime makes of it, and where that is not
        known, why, as a clause.
    """
    if sum(tensor.nbytes for tensor in tensors(attempt.source.model)) > _LARGEST:
        return attempt, result, None, "the weights are larger than 1.5 GiB"
    try:
        from bnfold.latency.optimized_graph import optimized_graph, what_grew
        from bnfold.runtime.optimizers import smallest

        original = optimized_graph(attempt.source.model)
        folded = optimized_graph(result.model)
    except MissingExtraError:
        return attempt, result, None, "it is not installed"
    except (ModelError, ProviderError) as error:
        cause = error.problem.removeprefix("ONNX Runtime cannot load the model: ").rstrip(".")
        return attempt, result, None, f"it could not load one of the models ({cause})"
    grown = what_grew(original, folded)
    if not grown:
        return attempt, result, RuntimeGraphs(original, folded), ""

    tries = iter(range(_TRIES))

    def is_harmless(other: Attempt) -> bool:
        """Whether a fold makes nothing worse; when the tries are used up, it counts as one that does."""
        return next(tries, None) is not None and not what_grew(original, optimized_graph(other.fold().model))

    def keeping(names: Sequence[str]) -> Attempt:
        what = " and ".join(grown)
        return attempt.keeping({name: reasons.RUNTIME_WORSE(node=name, what=what) for name in names})

    def culprits(suspects: Sequence[str]) -> tuple[str, ...]:
        """A smallest set of nodes without whose fold nothing is worse."""

        def harmless(names: Sequence[str]) -> bool:
            return is_harmless(keeping(names))

        return smallest(harmless, suspects) if suspects and harmless(suspects) else ()

    others, norms = _gone(attempt.source.model, result.model)
    if taken_back := culprits(others):
        attempt = keeping(taken_back)
    elif (result.merges or result.joins) and is_harmless(replace(attempt, merge=False)):
        attempt = replace(attempt, merge=False)
    elif taken_back := culprits([*others, *norms]):
        attempt = keeping(taken_back)
    else:
        return attempt, result, RuntimeGraphs(original, folded, worse=grown), ""
    result = attempt.fold()
    graphs = RuntimeGraphs(original, folded, taken_back, apart=not taken_back)
    return attempt, result, counted_again(graphs, result.model), ""


def counted_again(graphs: RuntimeGraphs, folded: ir.Model) -> RuntimeGraphs:
    """The same after folds were undone, with the graph of what the model has become."""
    from bnfold.latency.optimized_graph import optimized_graph, what_grew

    now = optimized_graph(folded)
    return replace(graphs, folded=now, worse=what_grew(graphs.original, now))


def _gone(original: ir.Model, folded: ir.Model) -> tuple[list[str], list[str]]:
    """The nodes that a fold removed: arithmetic and neighbours, which are suspected first, and BatchNorms."""
    stayed = {(node.op_type, label(node)) for node in nodes(folded)}
    gone = [node for node in nodes(original) if (node.op_type, label(node)) not in stayed]
    return [label(node) for node in gone if node.op_type in _FIRST], [
        label(node) for node in gone if is_batchnorm(node)
    ]
