"""The pass: every affine is pushed until constants take it; what cannot go says why.

The order is fixed, so the outcome is no matter of luck. Scopes are visited one after the other and chains in
graph order; each is pushed towards its producers, and where that fails towards its consumers. A fold may open
the way for another, so sweeps are repeated until one changes nothing. Nothing is written before the end: what
nodes absorb is composed in float64 and rounded once.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Collection
from typing import overload

import onnx
import onnx_ir as ir

from bnfold import reasons
from bnfold.errors import InputError, ModelError
from bnfold.files.load import from_proto, load_onnx
from bnfold.folding.merge import merge_branches
from bnfold.folding.merge import refusals as branch_refusals
from bnfold.folding.provenance import Ledger
from bnfold.folding.recognise import Chain, chains, data_norm, is_batchnorm, link_of
from bnfold.folding.search import Plan, search
from bnfold.folding.shorten import shorter
from bnfold.graph.editor import Editor
from bnfold.graph.facts import NO_FOLDS, Facts
from bnfold.graph.naming import can_stand_for, rename
from bnfold.graph.nodes import count_nodes, label, module_name, name_of
from bnfold.graph.scopes import scopes
from bnfold.ops import operator
from bnfold.ops.base import Operand, ToInput, ToOutput
from bnfold.ops.linear import Linear
from bnfold.reasons import Reason
from bnfold.result import FoldResult, Merge, Site
from bnfold.tensors.precision import OutOfRangeError

Progress = Callable[[int, int], None]


@overload
def fold(
    model: onnx.ModelProto,
    *,
    merge: bool = ...,
    inline_functions: bool = ...,
    keep: Collection[str] = ...,
    on_progress: Progress | None = ...,
) -> FoldResult[onnx.ModelProto]: ...
@overload
def fold(
    model: str | os.PathLike[str] | ir.Model,
    *,
    merge: bool = ...,
    inline_functions: bool = ...,
    keep: Collection[str] = ...,
    on_progress: Progress | None = ...,
) -> FoldResult[ir.Model]: ...
def fold(
    model: str | os.PathLike[str] | onnx.ModelProto | ir.Model,
    *,
    merge: bool = True,
    inline_functions: bool = False,
    keep: Collection[str] = (),
    on_progress: Progress | None = None,
) -> FoldResult[onnx.ModelProto] | FoldResult[ir.Model]:
    """Fold every eval-mode BatchNorm, and arithmetic that amounts to one, into the weights around it.

    A fold is made only where it is an identity over the reals; what stays has a reason. Numbers are computed
    in float64 and rounded once, and the same input gives the same bytes.

    Args:
        model: A path, an `onnx.ModelProto` or an `onnx_ir.Model`. It is not modified.
        merge: Whether parallel linear branches become one convolution where that does not cost more.
        inline_functions: Whether to inline model-local functions first, so that their weights, which callers
            pass in, are constants.
        keep: Names of sites, or of nodes, that shall stay as they are and take no part.
        on_progress: Called with the number of BatchNorms looked at and found, in every sweep.

    Returns:
        The folded model, a `ModelProto` for a `ModelProto` and otherwise an `onnx_ir.Model`, with the fate of
        every site.

    Raises:
        ModelError: The file cannot be read as a model.
        InputError: A name in `keep` is none in the model.
    """
    if isinstance(model, onnx.ModelProto):
        result = _fold(from_proto(model), merge, inline_functions, keep, on_progress)
        return FoldResult(
            ir.to_proto(result.model),
            result.sites,
            result.nodes_before,
            result.nodes_after,
            result.merges,
            result.apart,
        )
    opened = model if isinstance(model, ir.Model) else load_onnx(model)
    return _fold(opened, merge, inline_functions, keep, on_progress)


def fold_into(
    write: Callable[[ir.Model], None],
    model: ir.Model,
    *,
    merge: bool = True,
    inline_functions: bool = False,
    keep: Collection[str] = (),
    on_progress: Progress | None = None,
) -> FoldResult[ir.Model]:
    """Fold as [`fold`][bnfold.folding.fold.fold] does, but compute a folded weight only when it is written.

    So none need fit into memory. `fold` itself keeps what it has computed, since its models are run, compared
    and measured, which reads every weight several times.

    Args:
        write: Called with the folded model; once more, with another, each time that a weight turned out not
            to fit its type. It writes all or nothing, and lets what reading a tensor raises through.
        model: As in `fold`, like what follows.
        merge: Whether to merge parallel linear branches.
        inline_functions: Whether to inline functions first.
        keep: What shall stay.
        on_progress: Called in every sweep.

    Returns:
        The model as it was written last; its folded weights are computed anew each time they are read.

    Raises:
        InputError: A name in `keep` is none in the model.
    """
    return _fold(model, merge, inline_functions, keep, on_progress, write)


def _fold(
    original: ir.Model,
    merge: bool,
    inline: bool,
    keep: Collection[str],
    on_progress: Progress | None,
    write: Callable[[ir.Model], None] | None = None,
) -> FoldResult[ir.Model]:
    if inline and original.functions:
        from onnx_ir.passes.common import InlinePass  # with all other passes, so only where it is asked for

        original = original.clone()
        InlinePass()(original)
    before = count_nodes(original)
    barred = _kept(original, keep)
    while True:
        folding = _Pass(original.clone(), barred, merge, on_progress)
        try:
            sites = folding.run(write)
        except OutOfRangeError as late:
            error = folding.earliest(late)
            # the folds that led to numbers that do not fit their type are taken back: all begins anew without
            blamed = folding.blame(error)
            if blamed.keys() <= barred.keys():
                if not merge:
                    raise ModelError(
                        f"Folded constants of {label(error.node)} do not fit {error.dtype}.",
                        "Please report this with the model; a wider type avoids it.",
                    ) from late
                merge = False
            barred |= blamed
        else:
            after, apart = count_nodes(folding.model), tuple(folding.apart.values())
            return FoldResult(folding.model, sites, before, after, folding.merges, apart)
        del folding
        gc.collect()  # a model that is given up refers to itself, and the collector may rest


def _kept(model: ir.Model, keep: Collection[str]) -> dict[int, Reason]:
    """The nodes that shall stay, by their place in the model."""
    if not keep:
        return {}
    missing = set(keep)
    barred: dict[int, Reason] = {}
    for place, node in enumerate(node for scope in scopes(model) for node in scope.graph):
        names = {label(node), module_name(node)}.intersection(keep)
        if names:
            barred[place] = reasons.ON_REQUEST(node=label(node))
            missing -= names
    if missing:
        raise InputError(
            f"The model has no node named {', '.join(sorted(missing))}, which was to be kept.",
            "`bnfold inspect` lists the names of all BatchNorms.",
        )
    return barred


class _Pass:
    """One run over a model that is ours to change."""

    def __init__(
        self, model: ir.Model, barred: dict[int, Reason], merging: bool, on_progress: Progress | None
    ) -> None:
        self.model = model
        self.merges: tuple[Merge, ...] = ()
        self.apart: dict[str, Reason] = {}
        self._merging = merging
        self._facts = Facts(model)
        self._editor = Editor(self._facts)
        position = {node: i for i, node in enumerate(n for scope in self._facts.scopes for n in scope.graph)}
        self._barred = {node: barred[i] for node, i in position.items() if i in barred}
        self._ledger = Ledger(position, self._facts)
        self._inserted: set[ir.Node] = set()
        self._progress = on_progress or _silent

    def run(self, write: Callable[[ir.Model], None] | None) -> tuple[Site, ...]:
        """Sweep until nothing changes, then set every constant once; compute them in memory or in `write`.

        Raises:
            OutOfRangeError: One does not fit its type.
        """
        self._note_refusals()
        changed = True
        while changed:
            changed = self._sweep(rebalance=False)
            if not changed and self._merging:
                changed = self._merge()
            if not changed:
                changed = self._sweep(rebalance=True)
        self._note_branches()
        self._write()
        if write is None:
            self._editor.compute()
        else:
            write(self.model)
        return self._ledger.sites()

    def earliest(self, error: OutOfRangeError) -> OutOfRangeError:
        """The first constant in the order of writing that does not fit its type, where `error` tells of one.

        So what is taken back does not depend on when products are computed.
        """
        try:
            self._editor.check()
        except OutOfRangeError as earlier:
            return earlier
        return error

    def _merge(self) -> bool:
        found = [
            merged
            for scope in self._facts.scopes
            for merged in merge_branches(scope, self._facts, self._editor, self._barred)
        ]
        for merged in found:
            self._ledger.merged(merged)
        self.merges += tuple(merged.merge for merged in found)
        return bool(found)

    def _note_branches(self) -> None:
        """Say of branches that stayed beside others why they are not one."""
        if self._merging:
            for scope in self._facts.scopes:
                for node, reason in branch_refusals(scope, self._facts):
                    self._ledger.beside(node, reason)
                    self.apart.setdefault(reason.sentence, reason)

    def blame(self, error: OutOfRangeError) -> dict[int, Reason]:
        """The nodes to leave alone after numbers were too large for their type, and why."""
        reason = error.rule(node=label(error.node), dtype=error.dtype)
        return self._ledger.blame(error.node, reason)

    def _note_refusals(self) -> None:
        for node in (node for scope in self._facts.scopes for node in scope.graph):
            reason = data_norm(node)
            if is_batchnorm(node) or node in self._barred:
                link = link_of(node, self._facts)
                barred = self._barred.get(node) if link is not None else None
                reason = barred or (link if is_batchnorm(node) and isinstance(link, Reason) else reason)
            if reason is not None:
                self._ledger.refused(node, reason)

    def _sweep(self, *, rebalance: bool) -> bool:
        changed, done = False, 0
        total = sum(is_batchnorm(node) for scope in self._facts.scopes for node in scope.graph)
        for scope in self._facts.scopes:
            # each chain is composed when its turn comes, since the fold before it may have changed its nodes
            for chain in chains(scope, self._facts, self._barred):
                changed |= self._fold(chain, rebalance)
                done += len(chain.batchnorms)
                self._progress(done, max(total, done))
        return changed

    def _fold(self, chain: Chain, rebalance: bool) -> bool:
        """Fold one chain if there is a way; otherwise note why not."""
        first, last = chain.links[0], chain.links[-1]
        refusals: list[Reason] = []
        for node, step in (
            (first.node, ToInput(first.data, chain.affine)),
            (last.node, ToOutput(0, chain.affine)),
        ):
            found = search(node, step, self._facts, leaving=chain.nodes, rebalance=rebalance)
            plan = self._affordable(chain, found)
            if chain.affine.is_identity and not can_stand_for(chain.source, chain.result):
                plan = reasons.GRAPH_OUTPUT(value=name_of(chain.result))
            if isinstance(plan, Plan):
                self._apply(chain, plan)
                return True
            refusals.append(plan)
            # A number that is the same everywhere, and a plain bias, are part of patterns that runtimes
            # know by sight (GELU, attention): they go into weights before them, and nowhere else.
            if not chain.normalises:
                return False
        if not rebalance:
            self._ledger.kept(chain, refusals[0], refusals[1])
        return self._shorten(chain)

    def _shorten(self, chain: Chain) -> bool:
        """Say what stays in as few nodes as it can be said in."""
        short = shorter(chain, self._facts)
        if short is None:
            return False
        for step in short.absorb:
            node = short.stay[0].node
            self._facts.folds[node] = self._facts.folds.get(node, NO_FOLDS).absorbing(step.side, step.affine)
        for link, array in short.constants:
            self._facts.edited[link.node, 1 - link.data] = array
        gone = [link for link in chain.links if link not in short.stay]
        if chain.batchnorms:
            self._ledger.folded(Chain(tuple(gone), chain.affine), (link.node for link in short.stay))
        else:
            self._ledger.shortened(chain, short.stay[-1].node)
        value, result = chain.source, chain.result
        for link in short.stay:
            link.node.replace_input_with(link.data, value)
            value = link.node.outputs[0]
            if link is not short.stay[-1]:
                self._editor.rename_changed(value)
        if value is not result:
            rename(value, like=result)
            self._replace(result, value)
        for link in reversed(gone):
            self._discard(link.node)
        return True

    def _affordable(self, chain: Chain, plan: Plan | Reason) -> Plan | Reason:
        """Refuse a plan that changes a node that shall stay, or whose new bias Adds outnumber what goes.

        Plain arithmetic must get strictly fewer.
        """
        if isinstance(plan, Reason):
            return plan
        for node, _ in plan.edits:
            reason = self._barred.get(node)
            if reason is not None and reason.rule is reasons.ON_REQUEST:
                return reason
        new = [node for node in plan.inserts if node not in self._inserted]
        room = len(chain.nodes) - (0 if chain.normalises else 1)
        if len(new) > room:
            return reasons.MORE_NODES(inserted=len(new), removed=len(chain.nodes), node=label(new[0]))
        return plan

    def _apply(self, chain: Chain, plan: Plan) -> None:
        for node, step in plan.edits:
            if isinstance(step, Operand):
                old = self._facts.operand(node, step.index)
                assert old is not None, "planned on a constant"
                self._facts.edited[node, step.index] = old * step.scale + step.shift
                continue
            folds = self._facts.folds.get(node, NO_FOLDS)
            self._facts.folds[node] = folds.absorbing(step.side, step.affine)
        self._inserted.update(plan.inserts)
        self._ledger.folded(chain, (node for node, _ in plan.edits))
        for value in plan.changed:
            if value is not chain.result:
                self._editor.rename_changed(value)
        if chain.source in plan.changed:
            rename(chain.source, like=chain.result)
        self._replace(chain.result, chain.source)
        for node in reversed(chain.nodes):
            self._discard(node)

    def _replace(self, old: ir.Value, new: ir.Value) -> None:
        """Let all readers of a value read another, under the name that callers know."""
        if old.is_graph_output():
            rename(new, like=old)
        old.replace_all_uses_with(new, replace_graph_outputs=True)

    def _discard(self, node: ir.Node) -> None:
        self._facts.forget(node)
        self._editor.release(node)

    def _write(self) -> None:
        for node, folds in self._facts.folds.items():
            family = operator(node)
            assert isinstance(family, Linear), "only linear operators absorb"
            family.write(node, folds, self._facts, self._editor)
        for (node, index), array in tuple(self._facts.edited.items()):
            dtype = self._facts.constant_dtype(node, index)
            self._editor.set_input(node, index, array, dtype, f"{label(node)}.constant")
        self._editor.sweep()


def _silent(done: int, total: int) -> None:
    del done, total
