"""What all rules for neighbours share: who stands next to whom, and which weights may change."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from bnfold.algebra.affine import Array
from bnfold.graph.editor import Editor
from bnfold.graph.facts import Facts
from bnfold.graph.nodes import caller_problem
from bnfold.graph.scopes import ONNX_DOMAINS
from bnfold.ops import quantized
from bnfold.tensors.precision import OutOfRangeError, rounded

MOST_ELEMENTS = 2**26
"""Of a weight that is read at once; larger ones stay as they are, since a fold must do with little memory."""

MOST_WORK = 2**34
"""Multiply-adds that the product of two weights may take, some seconds."""

_WIDE = (ir.DataType.FLOAT, ir.DataType.DOUBLE)


@dataclass(frozen=True)
class Joined:
    """What one rule has done.

    Attributes:
        node: The layer that took its neighbours.
        gone: The nodes that it took, in graph order.
    """

    node: ir.Node
    gone: tuple[ir.Node, ...]


Joining = Callable[[ir.Node, Facts, Editor, Collection[ir.Node]], Joined | None]
"""Joins a node with what stands before it, unless these nodes must stay whole; None where it cannot."""


@dataclass(frozen=True)
class Rule:
    """A way in which a layer takes its neighbours.

    Attributes:
        operators: The operators of the later one of both.
        join: Does it.
        multiplies: Whether weights are multiplied with each other, so that it counts as merging.
    """

    operators: Collection[str]
    join: Joining
    multiplies: bool = False


def before(node: ir.Node, kinds: Collection[str], whole: Collection[ir.Node]) -> ir.Node | None:
    """The node of one of these kinds that gives a node its first input, which nothing else reads.

    What takes only its type, as the CastLike that exporters write for a bias of zeros does, may read anything
    else of that type. What takes its shape may not: a Pad changes that, and layers in a row need not have it.
    """
    value = node.inputs[0] if node.inputs else None
    maker = value.producer() if value is not None else None
    if value is None or maker is None or maker.op_type not in kinds or maker.domain not in ONNX_DOMAINS:
        return None
    if not is_read_alone(value, node) or maker.graph is not node.graph:
        return None
    if len(maker.outputs) != 1 or maker in whole or caller_problem(maker) is not None:
        return None
    return maker


def is_read_alone(value: ir.Value, node: ir.Node) -> bool:
    """Whether a node reads a value once, and all others take only its type, so that the value may vanish."""
    own = [index for reader, index in value.uses() if reader is node]
    others = (use for use in value.uses() if use[0] is not node)
    return len(own) == 1 and not value.is_graph_output() and all(map(_takes_type, others))


def _takes_type(use: tuple[ir.Node, int]) -> bool:
    node, index = use
    return node.op_type == "CastLike" and index == 1 and node.domain in ONNX_DOMAINS


def is_own(node: ir.Node, index: int, facts: Facts) -> bool:
    """Whether nothing else will read an input, so that what replaces it is not stored in addition.

    What a fold has changed gets a constant of its own when it is written.
    """
    if (node, index) in facts.edited or node in facts.folds:
        return True
    value = node.inputs[index]
    assert value is not None, "asked about a weight"
    others = (use for use in facts.readers(value) if use != (node, index))
    return not value.is_graph_output() and all(
        other in facts.edited or other[0] in facts.folds for other in others
    )


def can_be_multiplied(node: ir.Node, facts: Facts) -> bool:
    """Whether a layer's weight, at input 1, may become a product: its own, not quantised, not in half."""
    return (
        facts.has_constant(node, 1)
        and not facts.has_constant(node, 0)
        and is_own(node, 1, facts)
        and quantized.source(node, 1) is None
        and facts.constant_dtype(node, 1) in _WIDE
    )


def fit(node: ir.Node, arrays: Iterable[Array], dtype: ir.DataType) -> bool:
    """Whether constants are finite and fit a type."""
    try:
        for array in arrays:
            rounded(node, array, dtype)
            if not np.all(np.isfinite(array)):
                return False
    except OutOfRangeError:
        return False
    return True
