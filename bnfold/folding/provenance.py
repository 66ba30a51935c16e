"""The book of a fold: which nodes took which site, and what stays for which reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from bnfold.folding.merge import Merged
from bnfold.folding.recognise import Chain, is_batchnorm
from bnfold.graph.facts import Facts
from bnfold.graph.nodes import label, module_name
from bnfold.reasons import Reason
from bnfold.result import Site, Status


@dataclass(eq=False)
class _Entry:
    """One BatchNorm, or one chain without any."""

    name: str
    node: str
    op_type: str
    graph: str
    members: tuple[ir.Node, ...]
    reasons: tuple[Reason | None, Reason | None] = (None, None)
    touched: dict[ir.Node, None] = field(default_factory=dict)
    status: Status = "kept"


class Ledger:
    """Follows every site from its node in the original to the nodes that hold its numbers at the end.

    Args:
        position: Place of each node in the original, for the order of the report.
        facts: What is known of the model.
    """

    def __init__(self, position: Mapping[ir.Node, int], facts: Facts) -> None:
        self._position = position
        self._facts = facts
        self._entries: dict[ir.Node, _Entry] = {}
        self._touching: dict[ir.Node, dict[_Entry, None]] = {}  # the entries that have touched a node
        # taken down at the start: a node without a name goes by its output's, which a fold may change
        self._labels = {node: label(node) for node in position}

    def folded(self, chain: Chain, into: Iterable[ir.Node]) -> None:
        """Note that a chain is gone and which nodes took it, together with all that it had taken itself."""
        nodes = list(into)
        for node in chain.nodes:
            self._move(node, nodes)
        for entry in self._open(chain):
            entry.status = "folded"
            entry.reasons = (None, None)
            self._touch(entry, nodes)

    def shortened(self, chain: Chain, last: ir.Node) -> None:
        """Note that a chain of arithmetic now ends in another of its nodes."""
        entry = self._entries.pop(chain.nodes[-1], None)
        if entry is not None:
            self._entries[last] = entry

    def merged(self, merged: Merged) -> None:
        """Note that nodes, BatchNorms and what others had folded into, have become one convolution."""
        for node in merged.gone:
            self._move(node, [merged.node])
            if is_batchnorm(node) or node in self._entries:
                entry = self._entries.get(node) or self._entry(node, (node,))
                entry.status = "merged"
                entry.reasons = (None, None)
                entry.touched.clear()
                self._touch(entry, [merged.node])

    def beside(self, node: ir.Node, reason: Reason) -> None:
        """Note that a node, if it is a site that stays, is a branch beside others that it cannot join."""
        entry = self._entries.get(node)
        if entry is not None and entry.status == "kept":
            entry.reasons = (entry.reasons[0], reason)

    def kept(self, chain: Chain, before: Reason, after: Reason | None) -> None:
        """Note why a chain stays, for now; plain arithmetic is not worth a line."""
        if chain.normalises:
            for entry in self._open(chain):
                entry.reasons = (before, after)

    def refused(self, node: ir.Node, reason: Reason) -> None:
        """Note a node that is no affine map, or may not be moved."""
        self._entry(node, (node,)).reasons = (reason, None)

    def blame(self, node: ir.Node, reason: Reason) -> dict[int, Reason]:
        """The original positions of all members of the sites whose numbers are in `node`.

        What a MatMul's input takes may end in the bias Add behind it, and what a quantised weight takes in
        the node before: where nothing is in `node` itself, its neighbours are asked.
        """
        for holders in ({node, *node.predecessors()}, set(node.successors())):
            found = {
                self._position[member]: reason
                for entry in self._entries.values()
                if holders & entry.touched.keys()
                for member in entry.members
                if member in self._position
            }
            if found:
                return found
        # no site has put anything there: a chain was only made shorter
        return {self._position[node]: reason} if node in self._position else {}

    def sites(self) -> tuple[Site, ...]:
        """Every site in graph order."""
        ordered = sorted(self._entries.items(), key=lambda item: self._position[item[0]])
        return tuple(
            Site(
                name=entry.name,
                node=entry.node,
                op_type=entry.op_type,
                graph=entry.graph,
                status=entry.status,
                into=tuple(self._name(node) for node in entry.touched),
                reason=entry.reasons[0],
                reason_after=entry.reasons[1],
            )
            for _, entry in ordered
            if entry.status != "kept" or entry.reasons[0] is not None
        )

    def _touch(self, entry: _Entry, nodes: Sequence[ir.Node]) -> None:
        for node in nodes:
            entry.touched[node] = None
            self._touching.setdefault(node, {})[entry] = None

    def _move(self, node: ir.Node, into: Sequence[ir.Node]) -> None:
        """Let all that a node had taken be in others."""
        for entry in self._touching.pop(node, ()):
            if node in entry.touched:  # not so where a merge has begun its list anew
                del entry.touched[node]
                self._touch(entry, into)

    def _name(self, node: ir.Node) -> str:
        return module_name(node, self._labels.get(node))

    def _open(self, chain: Chain) -> list[_Entry]:
        """One entry for each BatchNorm of the chain, or one for all of it."""
        if chain.batchnorms:
            return [self._entry(node, chain.nodes) for node in chain.batchnorms]
        if chain.nodes[-1] not in self._position:
            return []  # made by a merge: not the user's
        return [self._entry(chain.nodes[-1], chain.nodes)]

    def _entry(self, node: ir.Node, members: tuple[ir.Node, ...]) -> _Entry:
        if node not in self._entries:
            is_chain = len(members) > 1 and node.op_type != "BatchNormalization"
            op_type = "+".join(member.op_type for member in members) if is_chain else node.op_type
            scope = self._facts.scope(node)
            self._entries[node] = _Entry(self._name(node), label(node), op_type, scope.label, members)
        self._entries[node].members = members
        return self._entries[node]
