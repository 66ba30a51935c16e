"""What runtimes recognise as a whole: formulas that are written out in nodes and run as one operator.

A fold that takes a number out of one of them is exact, and makes the model slower. So no push starts in one
or changes one of its nodes. Each family of formulas is a file whose `PATTERNS` say how it is written and
which runtimes know it, with their sources; a new pattern is an entry there, a new family a new file.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from bnfold.graph.facts import Facts
from bnfold.graph.scopes import ONNX_DOMAINS
from bnfold.patterns.formula import Pattern, operators_of
from bnfold.patterns.matching import SAME, Matcher

PATTERNS: tuple[Pattern, ...] = tuple(
    pattern
    for module in pkgutil.iter_modules(__path__)
    for pattern in getattr(importlib.import_module(f"{__name__}.{module.name}"), "PATTERNS", ())
)
"""All patterns, of every family."""

_VOCABULARY = SAME.union(*(operators_of(pattern.formula) for pattern in PATTERNS))
_REACH = 5  # nodes from an anchor to the last node of its pattern
_MANY = 60  # nodes that are looked at from one anchor


@dataclass(frozen=True)
class Patterns:
    """The patterns of a model, by their nodes.

    Attributes:
        fixed: Nodes that must stay as they are, with the pattern that each belongs to.
        free: Nodes that hold the scale and the shift of a normalisation. They may take another affine, as new
            numbers of the same shape; they must not go.
    """

    fixed: Mapping[ir.Node, Pattern] = field(default_factory=dict)
    free: Mapping[ir.Node, Pattern] = field(default_factory=dict)


NO_PATTERNS = Patterns()


def find(facts: Facts) -> Patterns:
    """Every pattern of a model, each found from its rarest operator on."""
    anchors: dict[str, list[Pattern]] = {}
    for pattern in PATTERNS:
        for kind in pattern.anchors:
            anchors.setdefault(kind, []).append(pattern)
    matcher = Matcher(facts)
    fixed: dict[ir.Node, Pattern] = {}
    free: dict[ir.Node, Pattern] = {}
    for scope in facts.scopes:
        for node in scope.graph:
            if node.op_type not in anchors or node.domain not in ONNX_DOMAINS:
                continue
            after = _after(node)
            for pattern in anchors[node.op_type]:
                for last in after:
                    if last.op_type not in pattern.last:
                        continue
                    match = next(
                        (found for found in matcher.at(pattern.formula, last) if node in found.nodes), None
                    )
                    if match is not None and len(match.nodes) > 1:  # one node alone has no number to protect
                        for member in match.nodes:
                            fixed.setdefault(member, pattern)
                        for member in _own_affine(last, pattern.own, facts):
                            free.setdefault(member, pattern)
    return Patterns(fixed, {node: pattern for node, pattern in free.items() if node not in fixed})


def _after(anchor: ir.Node) -> Collection[ir.Node]:
    """The nodes within reach of an anchor, itself first, in the direction of the data."""
    found: dict[ir.Node, None] = {anchor: None}
    edge = [anchor]
    for _ in range(_REACH):
        edge = [
            reader
            for node in edge
            for output in node.outputs
            for reader in dict.fromkeys(user for user, _ in output.uses())
            if reader not in found and reader.graph is anchor.graph and reader.op_type in _VOCABULARY
        ]
        found.update(dict.fromkeys(edge))
        if len(found) > _MANY:
            break
    return found


def _own_affine(last: ir.Node, kinds: Sequence[str], facts: Facts) -> Iterator[ir.Node]:
    """The scale and the shift, each a node with a constant, that follow a normalisation."""
    node = last
    for kind in kinds:
        readers = [user for user, _ in node.outputs[0].uses()]
        while len(readers) == 1 and readers[0].op_type in SAME:
            node = readers[0]
            readers = [user for user, _ in node.outputs[0].uses()]
        if len(readers) != 1 or readers[0].op_type != kind or readers[0].domain not in ONNX_DOMAINS:
            continue
        if sum(facts.has_constant(readers[0], index) for index in (0, 1)) == 1:
            node = readers[0]
            yield node
