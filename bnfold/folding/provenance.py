"""Where each site went: the nodes that took it, or the reason why it stays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from bnfold import reasons
from bnfold.folding.merge import Merged
from bnfold.folding.neighbours.base import Joined
from bnfold.folding.recognise import Chain, is_batchnorm, situation
from bnfold.graph.facts import Facts
from bnfold.graph.nodes import label, module_name
from bnfold.reasons import Reason, Situation
from bnfold.result import Join, Site


@dataclass(eq=False)
class _Record:
    """One BatchNorm, or one chain without any; its nodes, and the nodes that hold its numbers now."""

    site: Site
    members: tuple[ir.Node, ...]
    holders: dict[ir.Node, None] = field(default_factory=dict)


class Provenance:
    """Follows every site from its node in the original to the nodes that hold its numbers at the end.

    Args:
        position: Position of each node in the original, for the order of the report.
        facts: What is known of the model.
    """

    def __init__(self, position: Mapping[ir.Node, int], facts: Facts) -> None:
        self._position = dict(position)
        self._facts = facts
        self._records: dict[ir.Node, _Record] = {}
        self._held: dict[ir.Node, dict[_Record, None]] = {}  # node -> records whose numbers it holds
        # noted at the start: a node without a name is labelled by its output, whose name a fold may change
        self._labels = {node: label(node) for node in position}

    def folded(self, chain: Chain, into: Iterable[ir.Node]) -> None:
        """Note that a chain is gone, and which nodes took it with all that it had taken itself."""
        nodes = list(into)
        for node in chain.nodes:
            self._move(node, nodes)
        for record in self._records_of(chain):
            record.site = replace(record.site, status="folded", reason=None, reason_after=None)
            self._hold(record, nodes)

    def scaled(self, chain: Chain, into: Iterable[ir.Node]) -> None:
        """Note which nodes took the scale of a chain that stays."""
        for record in self._records_of(chain):
            self._hold(record, list(into))

    def decomposed(self, norm: Chain, made: Sequence[ir.Node], takers: Sequence[ir.Node]) -> None:
        """Note which new nodes stand for a BatchNorm, and which others took a part of it."""
        for node in made:
            self._labels[node] = label(node)
        for record in self._records_of(norm):
            record.site = replace(record.site, status="decomposed")
            self._hold(record, [*made, *takers])

    def shortened(self, chain: Chain, stay: Sequence[ir.Node]) -> None:
        """Note that a chain of arithmetic now ends in another of its nodes, and `stay` of them stay."""
        last = stay[-1]
        for node in chain.nodes:
            if node not in stay:
                self._move(node, stay)
        record = self._records.pop(chain.nodes[-1], None)
        if record is not None:
            self._records[last] = record
            self._position.setdefault(last, self._position[chain.nodes[-1]])  # it may be a new one

    def merged(self, merged: Merged) -> None:
        """Note that nodes, some of which were BatchNorms or had taken them, have become one convolution."""
        for node in merged.gone:
            self._move(node, [merged.node])
            if is_batchnorm(node) or node in self._records:
                record = self._records.get(node) or self._record(node, (node,))
                record.site = replace(record.site, status="merged", reason=None, reason_after=None)
                record.holders.clear()
                self._hold(record, [merged.node])

    def joined(self, joined: Joined) -> Join:
        """Note that a layer has taken the nodes next to it, with all that these had taken; say so."""
        for node in joined.gone:
            self._move(node, [joined.node])
            record = self._records.get(node)
            if record is not None:  # it counts as folded at the end, since its node is gone
                self._hold(record, [joined.node])
        operators = "+".join(node.op_type for node in joined.gone)
        names = tuple(self._labels.get(node) or label(node) for node in joined.gone)
        return Join(self._name(joined.node), names, operators)

    def stayed_apart(self, node: ir.Node, reason: Reason) -> None:
        """Note why a node, if it is a site that stays, cannot join the branches parallel to it."""
        record = self._records.get(node)
        if record is not None and record.site.status == "kept":
            record.site = replace(record.site, reason_after=reason)

    def kept(self, chain: Chain, before: Reason, after: Reason | None) -> None:
        """Note why a chain stays, for now; plain arithmetic is not reported."""
        if chain.normalises:
            found = situation(chain, self._facts)
            if any(reason and reason.situation is Situation.QUANTISED for reason in (before, after)):
                found = Situation.QUANTISED  # which is then what to change, whatever else is in the way
            for record in self._records_of(chain):
                record.site = replace(
                    record.site, reason=before.within(found), reason_after=after and after.within(found)
                )

    def stays_on_stream(self, chain: Chain, reason: Reason) -> None:
        """Note why a value that is read elsewhere too cannot carry what a chain needs, if that keeps it."""
        for record in self._records_of(chain):
            before = record.site.reason
            if before is not None and before.rule is reasons.OTHER_READERS:
                record.site = replace(record.site, reason=reason)

    def refused(self, node: ir.Node, reason: Reason) -> None:
        """Note a node that is not an affine map, or must stay."""
        record = self._record(node, (node,))
        record.site = replace(record.site, reason=reason, reason_after=None)

    def blame(self, node: ir.Node, reason: Reason) -> dict[int, Reason]:
        """The original positions of all members of the sites whose numbers are in `node`.

        What a MatMul's input takes may end up in the bias Add after it, and what a quantised weight takes in
        the node before it: where `node` itself has taken nothing, its neighbours count.
        """
        for nodes in ({node, *node.predecessors()}, set(node.successors())):
            found = {
                self._position[member]: reason
                for record in self._records.values()
                if nodes & record.holders.keys()
                for member in record.members
                if member in self._position
            }
            if found:
                return found
        # the node has taken no site: a chain was only made shorter
        return {self._position[node]: reason} if node in self._position else {}

    def sites(self) -> tuple[Site, ...]:
        """Every site in graph order."""
        for node, record in self._records.items():
            if node.graph is None and record.site.status == "kept":  # a part of a weight that is stored now
                record.site = replace(record.site, status="folded", reason=None, reason_after=None)
        ordered = sorted(self._records.items(), key=lambda item: self._position[item[0]])
        return tuple(
            replace(record.site, into=tuple(self._name(node) for node in record.holders))
            for _, record in ordered
            if record.site.status != "kept" or record.site.reason is not None
        )

    def _hold(self, record: _Record, nodes: Sequence[ir.Node]) -> None:
        for node in nodes:
            record.holders[node] = None
            self._held.setdefault(node, {})[record] = None

    def _move(self, node: ir.Node, into: Sequence[ir.Node]) -> None:
        """Note that all that a node had taken is in others now."""
        for record in self._held.pop(node, ()):
            if node in record.holders:  # a merge may have started its list again
                del record.holders[node]
                self._hold(record, into)

    def _name(self, node: ir.Node) -> str:
        return module_name(node, self._labels.get(node))

    def _records_of(self, chain: Chain) -> list[_Record]:
        """One record for each BatchNorm of the chain, or one for all of it."""
        if chain.batchnorms:
            return [self._record(node, chain.nodes) for node in chain.batchnorms]
        if chain.nodes[-1] not in self._position:
            return []  # made by a merge: not the user's
        return [self._record(chain.nodes[-1], chain.nodes)]

    def _record(self, node: ir.Node, members: tuple[ir.Node, ...]) -> _Record:
        if node not in self._records:
            is_chain = len(members) > 1 and node.op_type != "BatchNormalization"
            op_type = "+".join(member.op_type for member in members) if is_chain else node.op_type
            graph = self._facts.scope(node).label
            self._records[node] = _Record(
                Site(self._name(node), label(node), op_type, graph, "kept"), members
            )
        self._records[node].members = members
        return self._records[node]
