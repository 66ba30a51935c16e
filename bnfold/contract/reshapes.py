"""Reshapes without `allowzero`, where it means nothing: converters for small devices refuse the attribute.

It says whether a zero in the shape is a size or "as it was", and PyTorch's exporter always writes it. A zero
that is a size leaves the result without elements, and so the input too: for any other tensor a computed shape
has no zero, and the attribute makes no difference.
"""

from __future__ import annotations

import sys
from enum import Enum, auto

import onnx_ir as ir

from bnfold.contract.changed import Changed
from bnfold.graph.facts import Facts
from bnfold.graph.nodes import caller_problem, integer
from bnfold.graph.scopes import ONNX_DOMAINS
from bnfold.graph.shape_inference import Dims

_ATTRIBUTE = "allowzero"
_KEEPING = ("Identity", "Reshape", "Squeeze", "Unsqueeze")  # the numbers of their first input, in order


class _Matters(Enum):
    """For which tensors the attribute makes a difference."""

    NEVER = auto()
    EMPTY = auto()  # those without elements
    MADE_FOR_ZERO = auto()  # the shape has a zero that copying would replace


def plain(model: ir.Model) -> Changed | None:
    """Drop the attribute where tensors with elements get the same shape without it; None where none do."""
    other = model.clone()
    facts = Facts(other)
    found = {node: _matters(node, facts) for node in facts.nodes() if _has_it(node)}
    dropped = [node for node, matters in found.items() if matters is not _Matters.MADE_FOR_ZERO]
    if not dropped:
        return None
    for node in dropped:
        node.attributes.pop(_ATTRIBUTE)
    of_sizes = sum(found[node] is _Matters.EMPTY for node in dropped)
    same, parts = len(dropped) - of_sizes, []
    if same:
        parts.append(f"{_count(same)} in which it makes no difference")
    if of_sizes:
        parts.append(
            f"{_count(of_sizes)} to computed sizes, which may no longer take tensors without elements"
        )
    return Changed(
        "plain-reshapes",
        f"Dropped {_ATTRIBUTE} from {', and from '.join(parts)}.",
        other,
        model,
        details={"dropped": len(dropped), "of_sizes": of_sizes},
    )


def _count(number: int) -> str:
    return "1 Reshape" if number == 1 else f"{number} Reshapes"


def _has_it(node: ir.Node) -> bool:
    if node.op_type != "Reshape" or node.domain not in ONNX_DOMAINS:
        return False
    attribute = node.attributes.get(_ATTRIBUTE)
    return attribute is not None and not attribute.is_ref() and attribute.as_int() != 0


def _matters(node: ir.Node, facts: Facts) -> _Matters:
    before, wanted = facts.shape(node.inputs[0]), _numbers(node.inputs[1], facts)
    if wanted is not None:
        zeros = [axis for axis, size in enumerate(wanted) if not isinstance(size, int) or size == 0]
        # a zero is copied from the same axis: it stays one where both sizes are the same, known or not
        differ = [axis for axis in zeros if wanted[axis] is None or wanted[axis] != _size(before, axis)]
        if not differ:
            return _Matters.NEVER
        if any(wanted[axis] == 0 for axis in differ):
            return _Matters.MADE_FOR_ZERO
    if before is not None and all(isinstance(size, int) and size > 0 for size in before):
        return _Matters.NEVER
    return _Matters.EMPTY


def _size(shape: Dims | None, axis: int) -> int | str | None:
    return shape[axis] if shape is not None and axis < len(shape) else None


def _numbers(value: ir.Value | None, facts: Facts) -> Dims | None:
    """What a vector holds that is made of constants and of sizes: numbers, and names of open sizes.

    Returns:
        An element for each, None where it is not known; None for the whole where not even their number is.
    """
    array, node = facts.constants.array(value), None if value is None else value.producer()
    if array is not None:
        return tuple(int(number) for number in array.reshape(-1))
    if node is None or node.domain not in ONNX_DOMAINS or caller_problem(node) is not None:
        return None
    if node.op_type == "Shape":
        shape = facts.shape(node.inputs[0])
        end = integer(node, "end", sys.maxsize)
        return None if shape is None else shape[integer(node, "start", 0) : end]
    if node.op_type in _KEEPING:
        return _numbers(node.inputs[0], facts)
    if node.op_type == "Concat" and facts.rank(value) == 1:
        parts = [_numbers(part, facts) for part in node.inputs]
        known = [part for part in parts if part is not None]
        return tuple(size for part in known for size in part) if len(known) == len(parts) else None
    if node.op_type == "Gather" and facts.rank(node.inputs[0]) == 1:
        of, places = _numbers(node.inputs[0], facts), facts.constants.array(node.inputs[1])
        found = [] if places is None else [int(place) for place in places.reshape(-1)]
        if of is not None and places is not None and all(-len(of) <= place < len(of) for place in found):
            return tuple(of[place] for place in found)
    return None
