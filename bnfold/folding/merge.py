"""Parallel linear branches over one source become one convolution.

A sum is looked at with all the sums that it alone reads. Its terms that are convolutions, per-channel affine
maps, means over windows or the source itself, all over one source, are added up kernel by kernel, as long as
one kernel needs no more multiply-adds than the two that it replaces. Merging alternates with folding: a scale
after the sum is folded into the merged convolution, which may then be a term of the next sum.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import zip_longest

import numpy as np
import onnx_ir as ir

from bnfold import reasons
from bnfold.folding.branches import Branch, Sum, Term, is_inner, is_sum, sum_of
from bnfold.graph.editor import Editor
from bnfold.graph.facts import Facts
from bnfold.graph.naming import rename
from bnfold.graph.nodes import label, module_name
from bnfold.graph.scopes import Scope
from bnfold.graph.shape_inference import Dims
from bnfold.reasons import Reason
from bnfold.result import Merge


@dataclass(frozen=True)
class Merged:
    """What merging the branches of one sum has done.

    Attributes:
        merge: For the report.
        node: The new convolution.
        gone: The nodes that it replaces.
    """

    merge: Merge
    node: ir.Node
    gone: tuple[ir.Node, ...]


def merge_branches(
    scope: Scope, facts: Facts, editor: Editor, barred: Collection[ir.Node] = ()
) -> Iterator[Merged]:
    """Merge the branches of every sum of a scope where that does not cost more.

    Args:
        scope: Where to look.
        facts: What is known of the model.
        editor: Writes the new nodes.
        barred: Nodes that take no part.
    """
    for node in tuple(scope.graph):
        if node.graph is not None and is_sum(node) and not is_inner(node.outputs[0]):
            found = sum_of(node, facts, barred)
            branches = _merged(found, facts)
            if len(branches) < len(found.branches):
                yield from _rewrite(found, branches, facts, editor)


def refusals(scope: Scope, facts: Facts) -> Iterator[tuple[ir.Node, Reason]]:
    """Every node of a branch that stays apart from others over its source, and why."""
    for node in scope.graph:
        if is_sum(node) and not is_inner(node.outputs[0]):
            found = sum_of(node, facts, ())
            for i, j in _pairs(found.branches):
                first, second = found.branches[i], found.branches[j]
                reason = _refusal(found.node, first, second, facts)
                if reason is not None:
                    yield from ((member, reason) for member in (*first.nodes, *second.nodes))


def _merged(found: Sum, facts: Facts) -> list[Branch]:
    """Merge the first pair for which that pays, until none is left; the others keep their places."""
    branches = list(found.branches)
    while True:
        for i, j in _pairs(branches):
            first, second = branches[i], branches[j]
            if _difference(first, second, facts) is None and _pays(first, second):
                branches[i] = _together(first, second)
                del branches[j]
                break
        else:
            return branches


def _pairs(branches: Sequence[Branch]) -> Iterator[tuple[int, int]]:
    """The places of any two branches over one source of which at least one has a convolution."""
    everyone, convs = defaultdict[int, list[int]](list), defaultdict[int, list[int]](list)
    for place, branch in enumerate(branches):
        everyone[id(branch.source)].append(place)
        if branch.has_conv:
            convs[id(branch.source)].append(place)
    for place, branch in enumerate(branches):
        others = (everyone if branch.has_conv else convs)[id(branch.source)]
        yield from ((place, other) for other in others if other > place)


def _pays(first: Branch, second: Branch) -> bool:
    assert first.kernel is not None, "compared by their kernels"
    assert second.kernel is not None, "compared by their kernels"
    return first.kernel.cost_with(second.kernel) <= first.multiply_adds + second.multiply_adds


def _together(first: Branch, second: Branch) -> Branch:
    assert first.kernel is not None, "merged by their kernels"
    assert second.kernel is not None, "merged by their kernels"
    kernel = first.kernel.plus(second.kernel)
    nodes, parts = first.nodes + second.nodes, first.parts + second.parts
    return Branch(1.0, None, first.source, kernel, nodes, kernel.multiply_adds, parts)


def _difference(first: Branch, second: Branch, facts: Facts) -> str | None:
    """Why two branches over one source cannot be one kernel; None where they can."""
    a, b = first.kernel, second.kernel
    if a is None or b is None:
        return "one of them could not be read as a convolution"
    if a.difference(b) is not None or (a.margin == b.margin and a.stride == b.stride):
        return a.difference(b)
    sizes = [_spatial_sizes(branch, facts) for branch in (first, second)]
    # adding them must not broadcast
    same = sizes[0] is not None and sizes[0] == sizes[1]
    return None if same else "their outputs are not provably of one size"


def _spatial_sizes(branch: Branch, facts: Facts) -> tuple[int, ...] | None:
    value = branch.parts[0].value
    shape = facts.shape(value)
    sizes = tuple(dim for dim in (shape or ())[2:] if isinstance(dim, int))
    return sizes if shape is not None and len(sizes) == len(shape) - 2 else None


def _refusal(node: ir.Node, first: Branch, second: Branch, facts: Facts) -> Reason | None:
    facts_of = {"branch": second.name, "others": first.name, "node": label(node)}
    difference = _difference(second, first, facts)
    if difference is not None or first.kernel is None or second.kernel is None:
        return reasons.BRANCHES_DIFFER(**facts_of, difference=difference)
    before, after = first.multiply_adds + second.multiply_adds, first.kernel.cost_with(second.kernel)
    return reasons.BRANCHES_COST(**facts_of, before=before, after=after) if after > before else None


def _rewrite(found: Sum, branches: list[Branch], facts: Facts, editor: Editor) -> Iterator[Merged]:
    """Insert a Conv for each merged branch, and a sum of these and of what is left."""
    terms: list[Term] = []
    merged: list[Merged] = []
    for branch in branches:
        if branch.value is not None:
            terms.append((branch.sign, branch.value, branch.edited))
            continue
        conv = _convolution(_place(found, branch), branch, facts, editor)
        before = sum(part.multiply_adds for part in branch.parts)
        names = tuple(part.name for part in branch.parts)
        merge = Merge(module_name(conv), names, before, branch.multiply_adds)
        merged.append(Merged(merge, conv, branch.nodes))
        terms.insert(0, (1.0, conv.outputs[0], None))
    total = _added_up(found, terms, facts, editor)
    result = found.node.outputs[0]
    facts.learn(total, facts.shape(result), facts.dtype(result))
    rename(total, like=result)
    result.replace_all_uses_with(total, replace_graph_outputs=True)
    for node in found.nodes:
        editor.release(node)
    for one in merged:
        for node in reversed(one.gone):
            editor.release(node, instead=one.node.outputs[0])
    yield from merged


def _place(found: Sum, branch: Branch) -> ir.Node:
    """Before which node a merged convolution stands: before all that reads a branch for its shape."""
    graph = found.node.graph
    assert graph is not None, "the sum is in a graph"
    if all(len(output.uses()) < 2 for node in branch.nodes for output in node.outputs):
        return found.node
    return next(node for node in graph if node in branch.nodes)


def _added_up(found: Sum, terms: list[Term], facts: Facts, editor: Editor) -> ir.Value:
    """What is added minus what is subtracted; a Sum stays a Sum, so that there are not more nodes."""
    several = any(node.op_type == "Sum" for node in found.nodes)

    def joined(op_type: str, *parts: Term) -> Term:
        values = [value for _, value, _ in parts]
        node = editor.insert(found.node, op_type, values)
        for index, (_, _, edited) in enumerate(parts):
            if edited is not None:
                facts.edited[node, index] = edited
        shape = reduce(_broadcast, (facts.shape(value) for value in values))
        facts.learn(node.outputs[0], shape, facts.dtype(values[0]))
        return 1.0, node.outputs[0], None

    added, subtracted = (
        [joined("Sum", *parts)] if several and len(parts) > 2 else parts
        for parts in ([term for term in terms if term[0] == sign] for sign in (1, -1))
    )
    # one by one: a sum of constants alone would be a constant, of elements that are not written yet
    total = reduce(lambda sofar, term: joined("Add", sofar, term), added)
    return reduce(lambda sofar, term: joined("Sub", sofar, term), subtracted, total)[1]


def _broadcast(first: Dims | None, second: Dims | None) -> Dims | None:
    """The shape of an elementwise result, as far as it is known."""
    if first is None or second is None:
        return None
    pairs = zip_longest(reversed(first), reversed(second), fillvalue=1)
    return tuple(b if a in (1, b) else a if b == 1 else None for a, b in pairs)[::-1]


def _convolution(before: ir.Node, branch: Branch, facts: Facts, editor: Editor) -> ir.Node:
    """A Conv with the branch's kernel and the name of its largest convolution."""
    kernel = branch.kernel
    assert kernel is not None, "merged branches have a kernel"
    largest = max(
        (node for node in branch.nodes if node.op_type == "Conv"), key=lambda node: _taps(node, facts)
    )
    weight = largest.inputs[1]
    dtype = facts.constant_dtype(largest, 1)
    attributes = {
        "kernel_shape": kernel.size,
        "strides": kernel.stride,
        "dilations": kernel.dilation,
        "pads": kernel.pads,
    }
    node = editor.insert(before, "Conv", [branch.source], like=largest)
    node.attributes.update({name: ir.AttrInt64s(name, value) for name, value in attributes.items()})
    node.attributes["group"] = ir.AttrInt64("group", kernel.groups)
    stem = weight.name if weight is not None and weight.name else label(node)
    for index, array, name in ((1, kernel.weight, f"{stem}.merged"), (2, kernel.bias, f"{stem}.merged.bias")):
        if index == 2 and not np.any(array):
            continue
        editor.set_input(node, index, array, dtype, name)
        facts.edited[node, index] = array  # unrounded, for the folds to come
    value = branch.parts[0].value
    facts.learn(node.outputs[0], facts.shape(value), dtype)
    return node


def _taps(node: ir.Node, facts: Facts) -> int:
    shape = facts.shape(node.inputs[1])
    return int(np.prod([dim for dim in shape or () if isinstance(dim, int)]))
