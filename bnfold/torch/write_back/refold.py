"""Folding again and again, until the module has a place for every fold and every fold holds in eager mode."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import onnx_ir as ir

from bnfold import reasons
from bnfold.errors import BnfoldError, DisagreementError, ModelError
from bnfold.folding.fold import fold_into
from bnfold.graph.nodes import module_name
from bnfold.reasons import GRAPH_OUTPUT, ON_REQUEST, Reason
from bnfold.result import FoldResult, Site
from bnfold.torch.write_back.graph_diff import Comparison, GraphDiff
from bnfold.torch.write_back.verify_eager import PLEASE_REPORT

_BRANCH = partial(reasons.NO_PLACE, why="it would change a branch of a sum that the forward computes")


@dataclass
class Refusals:
    """Folds for which the module has no place, as they are found: nodes to keep, values that are outputs.

    Attributes:
        nodes: The reason, by the node's name.
        values: Makes the reason for a `node` that would change a value, by the value's name.
        apart: The names in reports of the branches that could not be merged.
    """

    nodes: dict[str, Reason]
    values: dict[str, Callable[..., Reason]]
    apart: dict[str, str] = field(default_factory=dict)

    def copy(self) -> Refusals:
        """A copy, for a trial."""
        return Refusals(dict(self.nodes), dict(self.values), dict(self.apart))

    def translated(self, reason: Reason | None, site: Site) -> Reason | None:
        """A reason of the fold in terms of the module."""
        if reason is not None and reason.rule is ON_REQUEST:
            return self.nodes.get(reason.facts["node"], reason)
        if reason is not None and reason.rule is GRAPH_OUTPUT and reason.facts["value"] in self.values:
            return self.values[reason.facts["value"]](node=site.name)
        return reason


@dataclass
class Refold:
    """Folds a module's graph, without what the module has no place for or turns out to depend on.

    A forward may ask whether a layer has a bias, return a norm of its weight, multiply by a size, or take
    another path at another one. The graph knows one run only; the copy in eager mode shows the rest.

    Attributes:
        graph: The original.
        comparison: Of `graph`.
        refusals: The folds for which the module has no place; more are added as they are found.
        error_of: Runs the folded copy, and raises if it does not hold.
        merge: Whether parallel branches become one convolution.
        keep: Names of BatchNorms to keep.
    """

    graph: ir.Model
    comparison: Comparison
    refusals: Refusals
    error_of: Callable[[GraphDiff], float]
    merge: bool
    keep: frozenset[str]

    def run(self) -> tuple[FoldResult[ir.Model], GraphDiff, float]:
        """Fold what holds, and return its largest error too."""
        while True:
            result, difference = self.fit()
            try:
                return result, difference, self.error_of(difference)
            except (ModelError, DisagreementError):
                found = self.dependent(result.folded)
                if not found and not result.merges:
                    raise
                if not found:  # no single BatchNorm is the cause, so the merged convolutions are
                    self.merge = False
                    self.refusals.apart.update({one.into: one.into for one in result.merges})
                self.refusals.nodes.update(found)

    def fit(self) -> tuple[FoldResult[ir.Model], GraphDiff]:
        """Fold again and again, each time without what the module had no place for, until all has one."""
        refusals = self.refusals
        while True:
            keep = self.keep | refusals.nodes.keys()
            result = fold_into(None, self.graph, merge=self.merge, keep=keep, keep_layout=True)
            difference = self.comparison.of(result)
            apart = [name for name in dict.fromkeys(difference.apart) if name not in refusals.apart]
            new = {node: reason for node, reason in difference.keep.items() if node not in refusals.nodes}
            if not difference.keep and not difference.apart:
                return result, difference
            if not apart and not new:
                where = ", ".join([*difference.keep, *difference.apart])
                raise ModelError(f"The fold at {where} has no form in the module.", PLEASE_REPORT)
            refusals.nodes.update(new)
            for name in apart:
                value = self.comparison.value(name)
                producer = value.producer()
                refusals.apart[name] = module_name(producer) if producer is not None else "identity"
                refusals.values.setdefault(name, _BRANCH)
                if not value.is_graph_output():
                    self.graph.graph.outputs.append(value)

    def dependent(self, suspects: Sequence[Site]) -> dict[str, Reason]:
        """The sites whose folds do not hold even by themselves."""
        nodes = frozenset(site.node for site in suspects)

        def tried(sites: Sequence[Site]) -> tuple[Sequence[Site], BnfoldError | None]:
            others = nodes - {site.node for site in sites}
            folded: Sequence[Site] = ()
            trial = replace(self, refusals=self.refusals.copy(), keep=self.keep | others)
            with _outputs_restored(self.graph):
                try:
                    result, difference = trial.fit()
                    folded = result.folded
                    self.error_of(difference)
                except (ModelError, DisagreementError) as problem:
                    return folded, problem
            return folded, None

        instead, problem = tried([])
        if problem is not None:  # arithmetic of the forward was folded instead, and is the cause
            return replace(self, keep=self.keep | nodes).dependent(instead) if instead else {}
        return {
            site.node: reasons.DEPENDS(node=site.name, problem=found.problem)
            for site, found in _culprits(suspects, lambda sites: tried(sites)[1])
        }


def _culprits(
    sites: Sequence[Site], problem_of: Callable[[Sequence[Site]], BnfoldError | None]
) -> Iterator[tuple[Site, BnfoldError]]:
    """The sites whose folds do not hold, each with its problem; halves that hold are skipped."""
    problem = problem_of(sites) if sites else None
    if problem is not None and len(sites) == 1:
        yield sites[0], problem
    elif problem is not None:
        middle = len(sites) // 2
        yield from _culprits(sites[:middle], problem_of)
        yield from _culprits(sites[middle:], problem_of)


@contextlib.contextmanager
def _outputs_restored(graph: ir.Model) -> Iterator[None]:
    count = len(graph.graph.outputs)
    try:
        yield
    finally:
        while len(graph.graph.outputs) > count:
            graph.graph.outputs.pop()
