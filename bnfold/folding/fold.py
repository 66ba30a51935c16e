"""Folding a model: recognise every affine, search a way for it, rewrite, and merge branches between rounds.

The order is fixed, so the same model always has the same outcome. Scopes are visited one after the other and
chains in graph order; each is pushed towards its producers, and where that fails towards its consumers. A
fold may make another possible, so sweeps are repeated until one changes nothing.
"""

from __future__ import annotations

import difflib
import gc
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, overload

import onnx
import onnx_ir as ir

from bnfold import reasons
from bnfold.errors import InputError, ModelError
from bnfold.files.load import blaming, from_proto, load_onnx
from bnfold.files.other_types import to_proto
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
from bnfold.graph.nodes import count_nodes, label, module_name
from bnfold.graph.scopes import nodes
from bnfold.ops.base import ToInput, ToOutput
from bnfold.patterns import find
from bnfold.reasons import Reason
from bnfold.result import FoldResult, Join, Merge, Site
from bnfold.tensors.precision import OutOfRangeError

Progress = Callable[[int, int], None]


@overload
def fold(
    model: onnx.ModelProto,
    *,
    merge: bool = ...,
    inline_functions: bool = ...,
    keep: Collection[str] = ...,
    no_batchnorm: bool = ...,
    on_progress: Progress | None = ...,
) -> FoldResult[onnx.ModelProto]: ...
@overload
def fold(
    model: str | os.PathLike[str] | ir.Model,
    *,
    merge: bool = ...,
    inline_functions: bool = ...,
    keep: Collection[str] = ...,
    no_batchnorm: bool = ...,
    on_progress: Progress | None = ...,
) -> FoldResult[ir.Model]: ...
def fold(
    model: str | os.PathLike[str] | onnx.ModelProto | ir.Model,
    *,
    merge: bool = True,
    inline_functions: bool = False,
    keep: Collection[str] = (),
    no_batchnorm: bool = False,
    on_progress: Progress | None = None,
) -> FoldResult[onnx.ModelProto] | FoldResult[ir.Model]:
    """Fold every eval-mode BatchNorm, and arithmetic that amounts to one, into the weights around it.

    A fold is made only where it is an identity over the reals; what stays has a reason. Numbers are computed
    in float64 and rounded once, and the same input gives the same bytes.

    Args:
        model: A path, an `onnx.ModelProto` or an `onnx_ir.Model`. It is not modified.
        merge: Whether parallel linear branches, and two layers in a row, become one where that does not cost
            more.
        inline_functions: Whether to inline model-local functions first, so that their weights, which callers
            pass in, are constants.
        keep: Names of sites, or of nodes, that stay as they are and take no part.
        no_batchnorm: Whether BatchNorms that cannot be folded become other operators, such as a Mul and an
            Add, for targets that have no BatchNormalization. It makes nothing faster.
        on_progress: Called with the number of BatchNorms looked at and found, in every sweep.

    Returns:
        The folded model, a `ModelProto` for a `ModelProto` and otherwise an `onnx_ir.Model`, with the fate of
        every site.

    Raises:
        ModelError: The file cannot be read as a model.
        InputError: The model has no node of a name in `keep`.
    """
    if isinstance(model, (str, os.PathLike)):
        with blaming(model):
            return fold(
                load_onnx(model),
                merge=merge,
                inline_functions=inline_functions,
                keep=keep,
                no_batchnorm=no_batchnorm,
                on_progress=on_progress,
            )
    opened = from_proto(model) if isinstance(model, onnx.ModelProto) else model
    result: FoldResult[Any] = fold_into(
        None,
        opened,
        merge=merge,
        inline_functions=inline_functions,
        keep=keep,
        no_batchnorm=no_batchnorm,
        on_progress=on_progress,
    )
    return replace(result, model=to_proto(result.model)) if isinstance(model, onnx.ModelProto) else result


def fold_into(
    write: Callable[[ir.Model], None] | None,
    model: ir.Model,
    *,
    merge: bool = True,
    inline_functions: bool = False,
    keep: Collection[str] = (),
    no_batchnorm: bool = False,
    keep_layout: bool = False,
    on_progress: Progress | None = None,
) -> FoldResult[ir.Model]:
    """Fold as [`fold`][bnfold.folding.fold.fold] does, but compute a folded weight only when it is written.

    So folded weights need not fit into memory. `fold` itself keeps what it has computed, since its models are
    run, compared and measured, which reads every weight several times.

    Args:
        write: Called with the folded model; and again, with another, each time that a weight turned out not
            to fit its type. It writes all or nothing, and does not catch what reading a tensor raises. None:
            every weight is computed at once, and nothing is written.
        model: As in `fold`, like what follows.
        merge: Whether to merge parallel linear branches, and layers in a row.
        inline_functions: Whether to inline functions first.
        keep: What stays; a mapping gives the reason with each name.
        no_batchnorm: Whether BatchNorms that stay become other operators.
        keep_layout: Whether Reshapes and Transposes stay even where they undo each other, and layers what is
            next to them: a module's forward makes them.
        on_progress: Called in every sweep.

    Returns:
        The model as it was written last; its folded weights are computed again each time they are read.

    Raises:
        InputError: The model has no node of a name in `keep`.
    """
    origin = (record.digest(model), record.names(model))
    if inline_functions and model.functions:
        from onnx_ir.passes.common import InlinePass  # imports all other passes, so only where it is needed

        model = model.clone()
        InlinePass()(model)
    before = count_nodes(model)
    barred = _kept(model, keep)
    while True:
        attempt = _Pass(
            model.clone(),
            barred,
            merging=merge,
            no_batchnorm=no_batchnorm,
            keep_layout=keep_layout,
            on_progress=on_progress,
        )
        try:
            sites = attempt.run(write, *origin)
        except OutOfRangeError as late:
            errors = attempt.misfits() or [late]
            # start again without the folds that led to numbers that do not fit their type
            blamed = attempt.blame(errors)
            if blamed.keys() <= barred.keys():
                if not merge:
                    raise ModelError(
                        f"Folded constants of {label(errors[0].node)} do not fit {errors[0].dtype}.",
                        "Please report this with the model; a wider type avoids it.",
                    ) from late
                merge = False
            barred |= blamed
        else:
            after, apart = count_nodes(attempt.model), tuple(attempt.apart.values())
            merges, joins = tuple(attempt.merges), tuple(attempt.joins)
            return FoldResult(attempt.model, sites, before, after, merges, apart, joins)
        del attempt
        gc.collect()  # a model that is given up refers to itself, so only the collector frees its memory


def _kept(model: ir.Model, keep: Collection[str]) -> dict[int, Reason]:
    """The nodes that stay on request, by their position in the model."""
    if not keep:
        return {}
    given = keep if isinstance(keep, Mapping) else {}
    missing = set(keep)
    barred: dict[int, Reason] = {}
    for position, node in enumerate(nodes(model)):
        names = {label(node), module_name(node)}.intersection(keep)
        if names:
            own = next((given[name] for name in names if given.get(name)), None)
            barred[position] = own or reasons.ON_REQUEST(node=label(node))
            missing -= names
    if missing:
        raise InputError(
            f"The model has no node named {', '.join(sorted(missing))}, which was to be kept.",
            f"{_question(model, missing)}`bnfold inspect` lists the names of all BatchNorms.",
        )
    return barred


def _question(model: ir.Model, missing: Collection[str]) -> str:
    """A question for the first name that is not there, if one of the model's is much like it."""
    names = {module_name(node) for node in nodes(model)}
    near = difflib.get_close_matches(min(missing), sorted(names), n=2)
    return f"Did you mean {' or '.join(near)}? " if near else ""


class _Pass:
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
