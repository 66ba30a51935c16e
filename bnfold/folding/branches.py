"""Sums, and their terms as linear forms: a convolution, a mean over windows, or the source itself."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from bnfold.algebra.affine import Array
from bnfold.algebra.kernel import Kernel
from bnfold.folding.recognise import Link, link_of
from bnfold.graph.facts import Facts
from bnfold.graph.nodes import caller_problem, module_name
from bnfold.graph.scopes import ONNX_DOMAINS
from bnfold.ops.conv import Conv
from bnfold.ops.pool import mean_kernel

_SUMS = frozenset({"Add", "Sub", "Sum"})
_KERNELS = {"Conv": Conv().kernel, "AveragePool": mean_kernel}


class Form(NamedTuple):
    """A linear form of a source: its kernel, the nodes that compute it, their multiply-adds a position."""

    kernel: Kernel
    source: ir.Value
    nodes: tuple[ir.Node, ...] = ()
    multiply_adds: int = 0


Term = tuple[float, ir.Value, Array | None]
"""Its sign, its value, and the elements of a constant after folds that are not written yet."""


@dataclass(frozen=True, eq=False)
class Branch:
    """One term of a sum, or several that have become one.

    Attributes:
        sign: How it enters the sum, 1 or -1.
        value: What is added; None once the branch is made of several.
        source: What the kernel reads.
        kernel: Its linear form, the sign included; None if it has no such form.
        nodes: The nodes that compute it from the source.
        multiply_adds: Multiply-adds for one position; the source as it is costs none.
        parts: The branches that it is made of, itself if it is one.
        edited: The elements of a constant term after folds that are not written yet.
    """

    sign: float
    value: ir.Value | None
    source: ir.Value
    kernel: Kernel | None = None
    nodes: tuple[ir.Node, ...] = ()
    multiply_adds: int = 0
    parts: tuple[Branch, ...] = ()
    edited: Array | None = None

    @property
    def has_conv(self) -> bool:
        """Whether a convolution is among its nodes: only such a branch can take others in."""
        return any(node.op_type == "Conv" for node in self.nodes)

    @property
    def name(self) -> str:
        """How a report calls it: by its convolution or BatchNorm."""
        return module_name(self.nodes[-1]) if self.nodes else "identity"


@dataclass
class Sum:
    """A sum with the sums that it alone reads: its branches, and the nodes that add them up."""

    node: ir.Node
    branches: list[Branch] = field(default_factory=list)
    nodes: list[ir.Node] = field(default_factory=list)


def is_sum(node: ir.Node) -> bool:
    """Whether a node adds up its inputs, or subtracts one from another, element by element."""
    return node.op_type in _SUMS and node.domain in ONNX_DOMAINS and "broadcast" not in node.attributes


def is_inner(value: ir.Value) -> bool:
    """Whether a value is read by one sum in the same graph and nothing else."""
    reader = _only_reader(value)
    return reader is not None and is_sum(reader)


def _only_reader(value: ir.Value, facts: Facts | None = None) -> ir.Node | None:
    """The one reader of a value; with facts, the one for whom its numbers matter."""
    uses = value.uses() if facts is None else facts.readers(value)
    producer = value.producer()
    if value.is_graph_output() or len(uses) != 1 or producer is None:
        return None
    [(reader, _)] = uses
    return reader if reader.graph is producer.graph else None


def sum_of(node: ir.Node, facts: Facts, barred: Collection[ir.Node]) -> Sum:
    """The branches of a sum and of all sums that it alone reads.

    Kernels, which read weights, are made only where two terms may be forms of one source.

    Args:
        node: The last of the sums.
        facts: What is known of the model.
        barred: Nodes that take no part.
    """
    found = Sum(node)
    terms: list[Term] = []
    pending: list[tuple[float, ir.Node, int]] = []

    def enter(inner: ir.Node, sign: float) -> None:
        found.nodes.append(inner)
        signs = {1: -sign} if inner.op_type == "Sub" else {}
        pending.extend((signs.get(index, sign), inner, index) for index in reversed(range(len(inner.inputs))))

    # in the order in which they are added up: runtimes let a convolution add what another has given, as long
    # as nothing else comes in between
    enter(node, 1.0)
    while pending:
        sign, current, index = pending.pop()
        value = current.inputs[index]
        if value is None:
            continue
        producer = value.producer()
        if producer is not None and is_sum(producer) and _only_reader(value) is current:
            enter(producer, sign)
        else:
            # earlier folds may have changed a constant that is not written yet
            terms.append((sign, value, facts.edited.get((current, index))))
    linear = _may_meet([value for _, value, _ in terms], facts)
    for sign, value, edited in terms:
        branch = _branch(sign, value, facts, barred) if linear else Branch(sign, value, value)
        found.branches.append(replace(branch, edited=edited))
    return found


def _may_meet(terms: Iterable[ir.Value], facts: Facts) -> bool:
    """Whether two terms could be linear forms of one source; looking reads no weights."""
    seen: set[ir.Value] = set()
    for term in terms:
        reach = set(_reach(term, facts))
        if not seen.isdisjoint(reach):
            return True
        seen |= reach
    return False


def _reach(value: ir.Value | None, facts: Facts) -> Iterator[ir.Value]:
    """Every value that a branch which ends in `value` may turn out to be a linear form of."""
    while value is not None:
        yield value
        node = value.producer()
        if node is None or _only_reader(value, facts) is None:
            return
        if node.op_type in _KERNELS:
            value = node.inputs[0] if node.inputs else None
        else:
            link = link_of(node, facts)
            value = node.inputs[link.data] if isinstance(link, Link) else None


def _branch(sign: float, value: ir.Value, facts: Facts, barred: Collection[ir.Node]) -> Branch:
    """The linear form of a term, from the nearest value that others read too or that has no kernel."""
    links: list[Link] = []
    source = value
    # what else reads one of these for its shape can read the merged convolution, which has the same
    while _only_reader(source, facts) is not None:
        producer = source.producer()
        link = link_of(producer, facts) if producer is not None else None
        if not isinstance(link, Link) or producer in barred or link.affine.axes - {1}:
            break
        links.insert(0, link)
        data = link.node.inputs[link.data]
        assert data is not None, "an affine node has a data input"
        source = data
    form = _window(source, facts, barred) or _identity(source, facts)
    if form is None:
        return Branch(sign, value, source)
    kernel = form.kernel
    for link in links:
        composed = facts.composed(link.node, link.affine)
        kernel = kernel.scaled(*composed.vectors(1, len(kernel.bias)))
    nodes = form.nodes + tuple(link.node for link in links)
    cost = form.multiply_adds or (kernel.multiply_adds if nodes else 0)
    branch = Branch(sign, value, form.source, kernel.scaled(np.asarray(sign), np.zeros(())), nodes, cost)
    return replace(branch, parts=(branch,))


def _window(
    value: ir.Value, facts: Facts, barred: Collection[ir.Node], *, composed: bool = True
) -> Form | None:
    """The form of a Conv or mean that is read here alone, together with one pointwise Conv before it."""
    node = value.producer()
    if node is None or node in barred or node.op_type not in _KERNELS or not node.inputs:
        return None
    if _only_reader(value, facts if composed else None) is None:
        return None
    source = node.inputs[0]
    before = _window(source, facts, barred, composed=False) if composed and source is not None else None
    if source is None or (before is None and len(tuple(source.uses())) < 2):
        return None  # nothing else reads the source, so there is nothing to merge with
    kernel = _kernel(node, facts)
    if kernel is None or before is None:
        return None if kernel is None else Form(kernel, source, (node,), kernel.multiply_adds)
    together = kernel.after(before.kernel)
    if together is None:
        return None
    return Form(together, before.source, (*before.nodes, node), before.multiply_adds + kernel.multiply_adds)


def _kernel(node: ir.Node, facts: Facts) -> Kernel | None:
    """The kernel of a Conv or a mean, if its settings are in the node and its numbers are finite."""
    if node.domain not in ONNX_DOMAINS or caller_problem(node) is not None:
        return None
    kernel = _KERNELS[node.op_type](node, facts)
    return kernel if kernel is not None and kernel.is_finite else None


def _identity(value: ir.Value, facts: Facts) -> Form | None:
    rank, channels = facts.rank(value), facts.size(value, 1)
    if rank is None or rank < 3 or channels is None:
        return None
    return Form(Kernel.diagonal(np.ones(channels), np.zeros(channels), rank - 2), value)
