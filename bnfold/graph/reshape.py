"""Where a channel axis goes when a tensor is reshaped: proved from the shapes, or not at all.

Reshaping keeps the row-major order of the elements. Two shapes of the same elements share the borders at
which the products of the leading sizes agree; between two borders a few axes become a few others, and an
affine that varies there is laid out over the old axes and read off along the new ones. So a flattened axis
repeats or tiles the vector, a channel shuffle's split gives a matrix, and nothing is guessed from sizes that
agree.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np

from bnfold.algebra.affine import Affine, Array
from bnfold.graph.shape_inference import Dim, Dims

_Border = tuple[int, int]
_LIMIT = 1 << 26  # elements; a coefficient that would grow beyond this is not worth a fold


def reshaped(affine: Affine, before: Dims, after: Dims) -> Affine | None:
    """An affine on a tensor of shape `before`, in the axes of the same elements in shape `after`.

    Args:
        affine: Coefficients in the axes of `before`.
        before: Sizes, symbols or None where unknown; the same symbol means the same size.
        after: The same for the new shape.

    Returns:
        The affine, or None where the shapes do not prove it.
    """
    borders = _borders(before, after)
    scale, shift = affine.padded(len(before))
    new = [_rearranged(coefficient, before, after, borders) for coefficient in (scale, shift)]
    return Affine(new[0], new[1]) if new[0] is not None and new[1] is not None else None


def _rearranged(coefficient: Array, before: Dims, after: Dims, borders: list[_Border]) -> Array | None:
    """Reshape from the right, so that the axes left of a group are still those of `before`."""
    for (i, j), (k, m) in reversed(list(itertools.pairwise(borders))):
        left, own, right = coefficient.shape[:i], coefficient.shape[i:k], coefficient.shape[k:]
        if all(size == 1 for size in own):
            coefficient = coefficient.reshape(left + (1,) * (m - j) + right)
            continue
        old, new = _sizes(before[i:k]), _sizes(after[j:m])
        if old is None or new is None or math.prod(old) != math.prod(new):
            return None
        if math.prod(left) * math.prod(old) * math.prod(right) > _LIMIT:
            return None
        coefficient = np.broadcast_to(coefficient, left + old + right).reshape(left + new + right)
    return coefficient


def _borders(before: Dims, after: Dims) -> list[_Border]:
    """Pairs of positions at which the products of all leading (equally: of all trailing) sizes agree."""
    ends = (len(before), len(after))
    found = {(0, 0), ends}
    found.update(_agreements(before, after))
    found.update((ends[0] - i, ends[1] - j) for i, j in _agreements(before[::-1], after[::-1]))
    chain: list[_Border] = []
    for i, j in sorted(found, key=lambda border: (sum(border), border)):
        if not chain or (i >= chain[-1][0] and j >= chain[-1][1]):
            chain.append((i, j))
    return chain


def _agreements(before: Dims, after: Dims) -> set[_Border]:
    positions: dict[object, list[int]] = {}
    for position, product in enumerate(_products(after)):
        positions.setdefault(product, []).append(position)
    return {(i, j) for i, product in enumerate(_products(before)) for j in positions.get(product, ())}


def _products(dims: Dims) -> list[object]:
    """The product of the first n sizes for n = 0, 1, …, until the first that is unknown or zero."""
    number, symbols = 1, Counter[str]()
    products: list[object] = [(1, frozenset())]
    for dim in dims:
        if dim is None or dim == 0:
            break
        if isinstance(dim, int):
            number *= dim
        else:
            symbols[dim] += 1
        products.append((number, frozenset(symbols.items())))
    return products


def _sizes(dims: tuple[Dim, ...]) -> tuple[int, ...] | None:
    sizes = tuple(dim for dim in dims if isinstance(dim, int) and dim > 0)
    return sizes if len(sizes) == len(dims) else None
