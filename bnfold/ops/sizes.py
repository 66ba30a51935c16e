"""Sizes that a model computes from the sizes of its values, as exporters write a change of shape.

PyTorch's `x.view(x.size(0) * x.size(1), -1)`, where sizes are open, becomes a Reshape to the product of two
entries of `Shape(x)`, and its result has an axis with a name of its own. As a product, it can be followed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from bnfold.algebra.affine import Affine, Array
from bnfold.graph.facts import Facts
from bnfold.graph.nodes import integer
from bnfold.graph.reshape import reshaped
from bnfold.graph.scopes import ONNX_DOMAINS
from bnfold.graph.shape_inference import Dim, Dims

Products = Mapping[str, Dims]
"""Sizes that are products of others, by their names."""

_ALIKE = frozenset({"Identity", "Reshape", "Squeeze", "Unsqueeze"})  # one number remains what it is
_WHOLE = (ir.DataType.INT32, ir.DataType.INT64)
_REACH = 16  # nodes between two changes of shape
_DEPTH = 10  # nodes between a shape and its use


def products(node: ir.Node, facts: Facts) -> Products:
    """What is known of the sizes that a Reshape makes, and the Reshapes before it."""
    found: dict[str, Dims] = {}
    maker: ir.Node | None = node
    for _ in range(_REACH):
        if maker is None or not maker.inputs or maker.inputs[0] is None:
            break
        if maker.op_type == "Reshape" and maker.domain in ONNX_DOMAINS and len(maker.inputs) > 1:
            target = _entries(maker.inputs[1], facts, _DEPTH) or []
            dims = facts.shape(maker.outputs[0]) or ()
            found |= {
                dim: factors
                for dim, factors in zip(dims, target, strict=False)
                if isinstance(dim, str) and len(factors) > 1
            }
        maker = maker.inputs[0].producer()
    return found


def passed(affine: Affine, before: Dims, after: Dims, known: Products) -> Affine | None:
    """An affine of a tensor, in the axes of the same elements in another shape; None where it is not proved.

    Args:
        affine: In the axes of `before`.
        before: Sizes, symbols or None where unknown; the same symbol means the same size.
        after: The same for the new shape.
        known: Symbols that are products.
    """
    # an affine that varies along an axis knows how many elements there are
    sizes = np.broadcast_shapes(*(c.shape for c in affine.padded(len(before))))
    pinned: dict[Dim, Dim] = {
        dim: size for dim, size in zip(before, sizes, strict=True) if isinstance(dim, str) and size > 1
    }
    apart: list[list[Dims]] = [
        [known.get(dim, (dim,)) if isinstance(dim, str) else (dim,) for dim in dims]
        for dims in ([pinned.get(dim, dim) for dim in dims] for dims in (before, after))
    ]
    start, end = _agreed(*([dim for factors in axes for dim in factors] for axes in apart))
    split = affine.mapped(len(before), lambda c: c.reshape(_split(c.shape, apart[0])))
    found = reshaped(split, start, end)
    if found is None:
        return None
    coefficients = [_joined(c, apart[1]) for c in found.padded(len(end))]
    scale, shift = coefficients
    return None if scale is None or shift is None else Affine(scale, shift)


def _split(shape: Sequence[int], axes: Sequence[Dims]) -> list[int]:
    """A coefficient's shape with an axis for each factor; along a product it does not vary."""
    return [
        size
        for whole, factors in zip(shape, axes, strict=True)
        for size in (whole, *(1,) * (len(factors) - 1))
    ]


def _joined(coefficient: Array, axes: Sequence[Dims]) -> Array | None:
    """A coefficient with one axis for all factors of a product; None where it varies along one of them."""
    shape, place = [], 0
    for factors in axes:
        own = coefficient.shape[place : place + len(factors)]
        if len(factors) > 1 and set(own) != {1}:
            return None
        shape.append(own[0])
        place += len(factors)
    return coefficient.reshape(shape)


def _agreed(one: list[Dim], other: list[Dim]) -> tuple[Dims, Dims]:
    """Two shapes of as many elements: axes before which and after which they agree are of one size."""
    for i, j in itertools.product(range(len(one)), range(len(other))):
        before = _product(one[:i]) == _product(other[:j]) is not None
        if before and _product(one[i + 1 :]) == _product(other[j + 1 :]) is not None:
            dims = (one[i], other[j])
            one[i] = other[j] = next((dim for dim in dims if isinstance(dim, int)), dims[0] or dims[1])
    return tuple(one), tuple(other)


def _product(dims: list[Dim]) -> tuple[int, list[str]] | None:
    """A number and the symbols that it is multiplied by; None where something is not known, or zero."""
    known = [dim for dim in dims if dim]
    symbols = sorted(dim for dim in known if isinstance(dim, str))
    number = math.prod(dim for dim in known if isinstance(dim, int))
    return (number, symbols) if len(known) == len(dims) else None


def _entries(value: ir.Value | None, facts: Facts, depth: int) -> list[Dims] | None:
    """The elements of a list of sizes, each as a product; None where not even their number is known."""
    node = value.producer() if value is not None else None
    array = facts.constants.array(value)
    if array is not None:
        numbers = np.asarray(array).reshape(-1)
        return [(int(size),) for size in numbers] if numbers.dtype.kind in "iu" else None
    if node is None or node.domain not in ONNX_DOMAINS or depth == 0:
        return None
    if node.op_type == "Shape":
        shape = facts.shape(node.inputs[0])
        bounds = slice(integer(node, "start", 0), integer(node, "end", len(shape or ())))
        return None if shape is None else [(dim,) for dim in shape[bounds]]
    parts = [_entries(source, facts, depth - 1) for source in node.inputs]
    lists = [part for part in parts if part is not None]
    if node.op_type == "Concat":
        return [entry for part in lists for entry in part] if len(lists) == len(parts) else None
    if node.op_type == "Gather":
        return _gathered(*lists) if len(lists) == 2 else None
    if node.op_type == "Mul" and [len(part) for part in lists] == [1, 1]:
        factors = (*lists[0][0], *lists[1][0])
        return [factors] if all(not isinstance(size, int) or size > 0 for size in factors) else None
    same = node.op_type in _ALIKE or (node.op_type == "Cast" and facts.dtype(node.outputs[0]) in _WHOLE)
    return parts[0] if same and parts[0] is not None and len(parts[0]) == 1 else None


def _gathered(entries: list[Dims], places: list[Dims]) -> list[Dims] | None:
    found = [entries[at] for (at, *_) in places if isinstance(at, int) and -len(entries) <= at < len(entries)]
    return found if len(found) == len(places) else None
