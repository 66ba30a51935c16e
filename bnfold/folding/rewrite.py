"""Carrying out what the search has found: affines go into constants, and their own nodes are removed.

Nothing is written before the end: what nodes absorb is composed in float64 and rounded once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import onnx_ir as ir

from bnfold import reasons
from bnfold.algebra.affine import Affine, Array
from bnfold.folding.decompose import Decomposition, border_map
from bnfold.folding.provenance import Provenance
from bnfold.folding.recognise import Chain
from bnfold.folding.search import Plan
from bnfold.folding.shorten import Shorter, shorter
from bnfold.folding.tidy import close_gap
from bnfold.graph.editor import Editor
from bnfold.graph.facts import NO_FOLDS, Facts
from bnfold.graph.naming import can_stand_for, rename, replace
from bnfold.graph.nodes import label, name_of
from bnfold.ops import operator
from bnfold.ops.base import Operand
from bnfold.ops.linear import Linear
from bnfold.reasons import Reason
from bnfold.tensors.precision import OutOfRangeError


class Rewriter:
    """Rewrites one model that may be modified.

    Attributes:
        editor: What it writes with.
        misfits: The constants that turned out not to fit their type, in the order of writing.

    Args:
        facts: What is known of the model; the folds are noted there.
        provenance: Records which nodes took what.
        barred: Nodes that must stay as they are, and why.
    """

    def __init__(self, facts: Facts, provenance: Provenance, barred: Mapping[ir.Node, Reason]) -> None:
        self.editor = Editor(facts)
        self.misfits: list[OutOfRangeError] = []
        self._facts = facts
        self._provenance = provenance
        self._barred = barred
        self._inserted: set[ir.Node] = set()
        self._gaps: list[ir.Value] = []

    def affordable(self, chain: Chain, plan: Plan | Reason) -> Plan | Reason:
        """Refuse a plan that changes a node that must stay, or whose new bias Adds outnumber what goes.

        Plain arithmetic must become strictly fewer nodes.
        """
        if chain.affine.is_identity and not can_stand_for(chain.source, chain.result):
            return reasons.GRAPH_OUTPUT(value=name_of(chain.result))
        if isinstance(plan, Reason):
            return plan
        for node, _ in plan.edits:
            reason = self._barred.get(node)
            if reason is not None and reason.rule in (reasons.ON_REQUEST, reasons.RUNTIME_WORSE):
                return reason
        new = [node for node in plan.inserts if node not in self._inserted]
        room = len(chain.nodes) if chain.normalises else len(chain.nodes) - 1
        if len(new) > room:
            return reasons.MORE_NODES(inserted=len(new), removed=len(chain.nodes), node=label(new[0]))
        return plan

    def apply(self, chain: Chain, plan: Plan) -> None:
        """Let the nodes of a plan take a chain's affine, and remove the chain."""
        self._edit(plan)
        self._provenance.folded(chain, (node for node, _ in plan.edits))
        for value in plan.changed:
            if value is not chain.result:
                self.editor.rename_changed(value)
        if chain.source in plan.changed and chain.result not in plan.changed:
            rename(chain.source, like=chain.result)
        replace(chain.result, chain.source)
        self._gaps.append(chain.source)
        for node in reversed(chain.nodes):
            self.editor.release(node)

    def apply_scale(self, rest: Chain, plan: Plan, short: Shorter) -> None:
        """Let the nodes of a plan take the scale of a chain of arithmetic, of which fewer nodes stay.

        Args:
            rest: The chain with the map that is left.
            plan: What takes the scale.
            short: The nodes that stay.
        """
        self._edit(plan)
        self._provenance.scaled(rest, [node for node, _ in plan.edits])
        for value in plan.changed:
            self.editor.rename_changed(value)
        self._shorten(rest, short)

    def decompose(self, found: Decomposition) -> list[ir.Node]:
        """Let other operators, which are returned, stand for a BatchNorm."""
        if found.plan is not None:
            self._edit(found.plan)
            for changed in found.plan.changed:
                self.editor.rename_changed(changed)
        node, result = found.norm.nodes[0], found.gone[-1].outputs[0]
        value, dtype = found.norm.source, self._facts.dtype(found.norm.source)
        assert dtype is not None, "the type of what a BatchNorm reads is known"
        made = []
        for op_type, array in found.operators:
            new = self.editor.insert(node, op_type, [value])
            self.editor.set_input(new, 1, _trimmed(array, 0), dtype, f"{label(node)}.{op_type.lower()}")
            value = new.outputs[0]
            self._facts.learn(value, self._facts.shape(result), dtype)
            made.append(new)
        if made:
            rename(value, like=result)
        taken = [] if found.plan is None else [taker for taker, _ in found.plan.edits]
        holders = taken if found.border is None else [*taken, found.border[0]]
        if found.border is not None:
            try:
                made = self._shift_after(*found.border, dtype)
            except OutOfRangeError:
                self._provenance.decomposed(found.norm, (), holders)  # which is to be blamed for it
                raise
        if made:
            self._provenance.decomposed(found.norm, made, taken)
        else:
            self._provenance.folded(found.norm, holders)
        replace(result, value)
        for gone in reversed(found.gone):
            self.editor.release(gone)
        return made

    def _shift_after(self, conv: ir.Node, shift: Array, dtype: ir.DataType) -> list[ir.Node]:
        """Let a Conv give what it makes of a shift: by its bias where no window meets padding, or by an Add.

        Returns:
            The Add, if there is one.
        """
        border = border_map(conv, shift, self._facts)
        level = border.reshape(len(border), -1)[:, 0]
        with np.errstate(over="ignore"):  # which is noticed when it is written
            stored = border.astype(dtype.numpy())
        if np.all(stored == stored.reshape(len(border), -1)[:, 0].reshape(-1, *(1,) * (border.ndim - 1))):
            folds = self._facts.folds.get(conv, NO_FOLDS)
            self._facts.folds[conv] = folds.absorbing("output", Affine.along(1, 1.0, level))
            return []
        self.editor.add_after(conv, border[None], dtype)
        return [reader for reader, _ in conv.outputs[0].uses()]

    def _edit(self, plan: Plan) -> None:
        for node, step in plan.edits:
            if isinstance(step, Operand):
                old = self._facts.operand(node, step.index)
                assert old is not None, "planned on a constant"
                self._facts.edited[node, step.index] = _trimmed(old * step.scale + step.shift, old.ndim)
                continue
            folds = self._facts.folds.get(node, NO_FOLDS)
            self._facts.folds[node] = folds.absorbing(step.side, step.affine)
        self._inserted.update(plan.inserts)

    def shorten(self, chain: Chain) -> bool:
        """Express a chain that stays in as few of its nodes as possible; whether that changed anything."""
        short = shorter(chain, self._facts) if self._keeps_range(chain) else None
        if short is not None:
            self._shorten(chain, short)
        return short is not None

    def _keeps_range(self, chain: Chain) -> bool:
        """Whether a Mul at the front makes nothing in float16 that is larger than what the chain holds.

        In `(x − μ)·s` with a large s nothing is larger than the result; `s·x` may be infinite.
        """
        half = self._facts.dtype(chain.source) == ir.DataType.FLOAT16
        if not half or chain.batchnorms or not chain.affine.has_shift:
            return True
        held = Affine()
        for link in chain.links:
            longer = held.then(self._facts.composed(link.node, link.affine))
            if longer.has_shift:
                break
            held = longer
        rank = max(held.scale.ndim, chain.affine.scale.ndim)
        before, scale = (
            np.abs(affine.padded(rank)[0]) for affine in (Affine(held.scale), chain.affine.only_scale)
        )
        return bool(np.all(scale <= np.maximum(before, 1.0) * (1 + 1e-6)))

    def _shorten(self, chain: Chain, short: Shorter) -> None:
        for step in short.absorb:
            node = short.stay[0].node
            self._facts.folds[node] = self._facts.folds.get(node, NO_FOLDS).absorbing(step.side, step.affine)
        for link, array in short.constants:
            self._facts.edited[link.node, 1 - link.data] = array
        gone = [link for link in chain.links if link not in short.stay]
        if chain.batchnorms:
            self._provenance.folded(Chain(tuple(gone), chain.affine), (link.node for link in short.stay))
        else:
            self._provenance.shortened(chain, [link.node for link in short.stay])
        value, result = chain.source, chain.result
        for link in short.stay:
            link.node.replace_input_with(link.data, value)
            value = link.node.outputs[0]
            if link is not short.stay[-1]:
                self.editor.rename_changed(value)
        if value is not result:
            rename(value, like=result)
            replace(result, value)
        for link in reversed(gone):
            self.editor.release(link.node)

    def close_gaps(self) -> None:
        """Remove the changes of layout that undo each other where nothing stands between them any more."""
        for value in self._gaps:
            close_gap(value, self._facts, self.editor)

    def write(self) -> None:
        """Give every node that took something its new constants.

        Raises:
            OutOfRangeError: A constant that is computed at once does not fit its type.
        """
        for node, folds in self._facts.folds.items():
            family = operator(node)
            assert isinstance(family, Linear), "only linear operators absorb"
            with self._noting_misfits():
                family.write(node, folds, self._facts, self.editor)
        for (node, index), array in tuple(self._facts.edited.items()):
            dtype = self._facts.constant_dtype(node, index)
            with self._noting_misfits():
                self.editor.set_input(node, index, array, dtype, f"{label(node)}.constant")
        if self.misfits:
            raise self.misfits[0]
        self.editor.sweep()

    @contextmanager
    def _noting_misfits(self) -> Iterator[None]:
        """Go on after constants that do not fit: all are taken back at once, as each round is a whole run."""
        try:
            yield
        except OutOfRangeError as error:
            self.misfits.append(error)


def _trimmed(array: Array, rank: int) -> Array:
    """An array without the axes of size 1 by which an affine has more of them than the constant had.

    Runtimes recognise a bias by its one axis.
    """
    while array.ndim > rank and array.shape[0] == 1:
        array = array[0]
    return array
