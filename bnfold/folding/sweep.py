"""One run over a model: recognise every affine, search a way for it, rewrite, and merge between sweeps.

The order is fixed, so the same model always has the same outcome. Scopes are visited one after the other and
chains in graph order; each is pushed towards its producers, and where that fails towards its consumers. A
fold may make another possible, so sweeps are repeated until one changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from bnfold import reasons
from bnfold.folding import record
from bnfold.folding.decompose import Decomposition, decomposition
from bnfold.folding.memory import Mode, Refusals
from bnfold.folding.merge import merge_branches, refusals
from bnfold.folding.neighbours import join_neighbours
from bnfold.folding.provenance import Provenance
from bnfold.folding.recognise import (
    Chain,
    carried,
    chains,
    data_norm,
    has_ample_range,
    is_batchnorm,
    is_preprocessing,
    link_of,
    stream_obstacle,
)
from bnfold.folding.rewrite import Rewriter
from bnfold.folding.search import Plan, Start, search
from bnfold.folding.shorten import shorter, without_scale
from bnfold.graph.facts import Facts
from bnfold.graph.nodes import label
from bnfold.ops.base import ToInput, ToOutput
from bnfold.patterns import find
from bnfold.reasons import Reason
from bnfold.result import Join, Merge, Site
from bnfold.tensors.precision import OutOfRangeError

Progress = Callable[[int, int], None]
"""Called with the number of BatchNorms looked at and found."""


class Pass:
    """One run over a model that may be modified.

    Attributes:
        model: The model.
        merges: The convolutions that were made of parallel branches.
        joins: What went into the layers next to it.
        apart: Why parallel branches stayed apart, by the sentence.
    """

    def __init__(
        self,
        model: ir.Model,
        barred: dict[int, Reason],
        *,
        merging: bool,
        no_batchnorm: bool,
        keep_layout: bool,
        on_progress: Progress | None,
    ) -> None:
        self.model = model
        self.merges: list[Merge] = []
        self.joins: list[Join] = []
        self.apart: dict[str, Reason] = {}
        self._merging = merging
        self._no_batchnorm = no_batchnorm
        self._keep_layout = keep_layout
        self._facts = Facts(model)
        position = {node: i for i, node in enumerate(self._facts.nodes())}
        self._barred = {node: barred[i] for node, i in position.items() if i in barred}
        self._patterns = find(self._facts)
        self._whole = {*self._barred, *self._patterns.fixed, *self._patterns.free}
        self._provenance = Provenance(position, self._facts)
        self._rewriter = Rewriter(self._facts, self._provenance, self._barred)
        self._memory = Refusals()
        self._on_progress = on_progress

    def run(
        self, write: Callable[[ir.Model], None] | None, original: str, before: frozenset[str]
    ) -> tuple[Site, ...]:
        """Sweep until nothing changes, then set every constant once; compute them in memory or in `write`.

        The model then carries the record of its fold from `original`, whose values' names are `before`.

        Raises:
            OutOfRangeError: One does not fit its type.
        """
        self._note_refusals()
        self._sweep_all()
        if self._merging:
            self._note_branches()
        while self._no_batchnorm and self._decompose():
            self._facts.infer()  # a constant of several channels says how many its neighbours have
            self._memory.clear()
            self._sweep_all()  # what stands for one BatchNorm may take what stands for another
        if not self._keep_layout:
            self._rewriter.close_gaps()
        self._rewriter.write()
        sites = self._provenance.sites()
        if self.merges or self.joins or any(site.into for site in sites):
            record.write(self.model, original, before, sites)
        if write is None:
            self._rewriter.editor.compute()
        else:
            write(self.model)
        return sites

    def misfits(self) -> list[OutOfRangeError]:
        """Every constant that does not fit its type: weights, which are computed last, and then the others.

        So which folds are taken back does not depend on when constants are computed.
        """
        return [*self._rewriter.editor.misfits(), *self._rewriter.misfits]

    def blame(self, errors: Sequence[OutOfRangeError]) -> dict[int, Reason]:
        """The nodes to leave alone after numbers were out of range for their type, and why."""
        blamed: dict[int, Reason] = {}
        for error in errors:
            reason = error.rule(node=label(error.node), dtype=error.dtype)
            found = self._provenance.blame(error.node, reason)
            if not blamed.keys() & found.keys():  # otherwise it may fit without what is blamed already
                blamed |= found
        return blamed

    def _note_refusals(self) -> None:
        for node in self._facts.nodes():
            link = link_of(node, self._facts) if is_batchnorm(node) or node in self._barred else None
            barred = self._barred.get(node) if link is not None else None
            reason = barred or (link if isinstance(link, Reason) else data_norm(node))
            if reason is not None:
                self._provenance.refused(node, reason)

    def _sweep_all(self) -> None:
        """Sweep in every mode until nothing changes."""
        changed = True
        while changed:
            changed = (
                self._sweep("push")
                or (self._merging and self._merge())
                or self._sweep("stream")
                or self._sweep("rebalance")
                or self._join()
            )

    def _sweep(self, mode: Mode) -> bool:
        """Try to fold every chain of the model once; whether anything changed."""
        changed, done = False, 0
        total = sum(is_batchnorm(node) for node in self._facts.nodes())
        for scope in self._facts.scopes:
            # each chain is composed when its turn comes, since the fold before it may have changed its nodes
            for chain in chains(scope, self._facts, self._whole):
                if self._fold(chain, mode):
                    changed = True
                    self._memory.clear()
                done += len(chain.batchnorms)
                if self._on_progress is not None:
                    self._on_progress(done, max(total, done))
        return changed

    def _fold(self, chain: Chain, mode: Mode) -> bool:
        """Fold one chain if there is a way; otherwise note why not."""
        if mode == "stream":
            return self._fold_into_stream(chain)
        first, last = chain.links[0], chain.links[-1]
        refused: list[Reason] = []
        for start in (
            (first.node, ToInput(first.data, chain.affine)),
            (last.node, ToOutput(0, chain.affine)),
        ):
            plan = self._planned(chain, [start], mode)
            if isinstance(plan, Plan):
                self._rewriter.apply(chain, plan)
                return True
            refused.append(plan)
            # A number that is the same everywhere, and a plain bias, cost little where they are, and may be
            # part of a pattern that the list does not have yet: they go into weights before them only, unless
            # it is what is done to an input, such as a division by 255.
            if not chain.normalises and not is_preprocessing(chain, self._facts):
                return False
        if mode == "push":
            self._provenance.kept(chain, refused[0], refused[1])
            if self._fold_scale(chain):
                return True
        return self._rewriter.shorten(chain)

    def _fold_scale(self, chain: Chain) -> bool:
        """Let what reads a chain take its scale, if the shift alone is fewer nodes: it passes padding."""
        rest = without_scale(chain)
        short = shorter(rest, self._facts) if rest is not None else None
        if rest is None or short is None:
            return False
        start = chain.links[-1].node, ToOutput(0, chain.affine.only_scale)
        plan = self._planned(chain, [start], "push")
        if isinstance(plan, Reason) or plan.inserts:
            return False
        self._rewriter.apply_scale(rest, plan, short)
        return True

    def _fold_into_stream(self, chain: Chain) -> bool:
        """Let what a BatchNorm reads carry its shift, and what reads it take its scale, if there is a way."""
        split = carried(chain, self._facts)
        if split is None:
            return False
        first, last = chain.links[0], chain.links[-1]
        starts: list[Start] = [
            (first.node, ToInput(first.data, split.back)),
            (last.node, ToOutput(0, split.on)),
        ]
        plan = self._planned(chain, starts, "stream")
        if isinstance(plan, Reason):
            return False
        obstacle = stream_obstacle(chain, self._facts)
        if obstacle is not None:
            self._provenance.stays_on_stream(chain, obstacle)
            return False
        self._rewriter.apply(chain, plan)
        return True

    def _planned(self, chain: Chain, starts: Sequence[Start], mode: Mode) -> Plan | Reason:
        """A way for a chain's affine that costs no more than it saves."""
        found = search(
            starts,
            self._facts,
            memory=self._memory,
            patterns=self._patterns,
            ample=mode == "push" and self._facts.has_halves and has_ample_range(chain, self._facts),
            leaving=chain.nodes,
            mode=mode,
        )
        return self._rewriter.affordable(chain, found)

    def _decompose(self) -> bool:
        """Let other operators stand for the BatchNorms that stay, but for those that stay on request.

        Returns:
            Whether there were any.
        """
        changed = False
        refused: dict[ir.Node, Reason] = {}
        for node in tuple(self._facts.nodes()):
            barred = self._barred.get(node)
            if not is_batchnorm(node) or (barred is not None and barred.rule is reasons.ON_REQUEST):
                continue
            alone = node in self._whole
            found = decomposition(node, self._facts, self._without_inserts, alone=alone)
            if isinstance(found, Decomposition):
                changed, made = True, self._rewriter.decompose(found)
                self._whole.update(made if alone else ())
                self._memory.clear()
            elif found is not None:
                refused[node] = found
        for node, reason in refused.items():
            self._provenance.refused(node, reason)
        return changed

    def _without_inserts(self, chain: Chain, start: Start, leaving: Sequence[ir.Node]) -> Plan | Reason:
        """A way that needs no new node."""
        plan = self._rewriter.affordable(
            chain,
            search([start], self._facts, memory=self._memory, patterns=self._patterns, leaving=leaving),
        )
        if isinstance(plan, Plan) and plan.inserts:
            return reasons.MORE_NODES(inserted=len(plan.inserts), removed=0, node=label(plan.inserts[0]))
        return plan

    def _merge(self) -> bool:
        """Merge parallel branches; whether there were any."""
        found = [
            merged
            for scope in self._facts.scopes
            for merged in merge_branches(scope, self._facts, self._rewriter.editor, self._whole)
        ]
        for merged in found:
            self._memory.clear()
            self._provenance.merged(merged)
            self.merges.append(merged.merge)
        return bool(found)

    def _join(self) -> bool:
        """Let layers take the nodes next to them; whether any did."""
        if self._keep_layout:
            return False
        joins = len(self.joins)
        for scope in self._facts.scopes:
            editor = self._rewriter.editor
            for joined in join_neighbours(scope, self._facts, editor, self._whole, merging=self._merging):
                self._memory.clear()
                self.joins.append(self._provenance.joined(joined))
        return len(self.joins) > joins

    def _note_branches(self) -> None:
        """Note why parallel branches that stayed apart did."""
        for scope in self._facts.scopes:
            for node, reason in refusals(scope, self._facts):
                self._provenance.stayed_apart(node, reason)
                self.apart.setdefault(reason.sentence, reason)
