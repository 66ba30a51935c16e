"""Finding formulas in a graph."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations

import numpy as np
import onnx_ir as ir

from bnfold.graph.facts import Facts
from bnfold.graph.scopes import ONNX_DOMAINS
from bnfold.patterns.formula import Constant, Either, Formula, Number, Op, Product, Sum, Value

_TOLERANCE = 2e-3  # float16 keeps 0.044715 to within 3e-4 of it, and some exporters write four digits
_DEPTH = 4  # how many products are taken apart, one within the other
_COMMUTATIVE = frozenset({"Add", "Mul", "Max", "Min"})
SAME = frozenset({"Identity", "Cast", "Dropout"})


@dataclass(frozen=True)
class Match:
    """What a formula was found to be.

    Attributes:
        values: The values by the names of the formula.
        nodes: The nodes that make it up, from the last to the first.
    """

    values: Mapping[str, ir.Value] = field(default_factory=dict)
    nodes: tuple[ir.Node, ...] = ()


class Matcher:
    """Finds formulas in a model of which these facts are known."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def at(self, formula: Formula, node: ir.Node) -> Iterator[Match]:
        """Every way in which the first output of `node` is the formula."""
        return self._value(formula, node.outputs[0], Match())

    def _value(self, formula: Formula, value: ir.Value | None, match: Match) -> Iterator[Match]:
        if value is None:
            return
        if isinstance(formula, Either):
            for way in formula.ways:
                yield from self._value(way, value, match)
        elif isinstance(formula, Value):
            origin = _origin(value)
            if match.values.get(formula.name, origin) is origin and not self._facts.constants.has(origin):
                yield replace(match, values={**match.values, formula.name: origin})
        elif isinstance(formula, Constant):
            if self._facts.constants.has(value):
                yield match
        elif isinstance(formula, Number):
            number = self._number(value)
            if number is not None and (formula.number is None or _near(number, formula.number)):
                yield match
        elif isinstance(formula, Op):
            yield from self._op(formula, value, match)
        else:
            yield from self._flat(formula, value, match)

    def _op(self, formula: Op, value: ir.Value, match: Match) -> Iterator[Match]:
        node = _origin(value).producer()
        if node is None or node.op_type not in formula.kinds.split() or node.domain not in ONNX_DOMAINS:
            return
        found = replace(match, nodes=(*match.nodes, node)) if formula.fixed else match
        orders = permutations(node.inputs) if node.op_type in _COMMUTATIVE else (tuple(node.inputs),)
        for inputs in orders:
            yield from self._all(formula.inputs, inputs, found)

    def _flat(self, formula: Product | Sum, value: ir.Value, match: Match) -> Iterator[Match]:
        """Products and sums: take the value apart as far as it gives as many parts as are wanted."""
        is_product = isinstance(formula, Product)
        parts = formula.factors if isinstance(formula, Product) else formula.terms
        for leaves, number, nodes in self._parts(value, is_product, len(parts), _DEPTH):
            if len(leaves) != len(parts) or not nodes:
                continue
            if formula.number is not None and not _near(number, formula.number):
                continue
            found = replace(match, nodes=(*match.nodes, *nodes))
            for order in permutations(leaves):
                yield from self._all(parts, order, found)

    def _all(
        self, formulas: Sequence[Formula], values: Sequence[ir.Value | None], match: Match
    ) -> Iterator[Match]:
        if not formulas:
            yield match
        elif values:
            for found in self._value(formulas[0], values[0], match):
                yield from self._all(formulas[1:], values[1:], found)

    def _parts(
        self, value: ir.Value, is_product: bool, most: int, depth: int
    ) -> Iterator[tuple[list[ir.Value], float, tuple[ir.Node, ...]]]:
        """The ways to read a value as a product (or a sum) of so many values at most, and a number."""
        neutral = 1.0 if is_product else 0.0
        number = self._number(value)
        if number is not None:
            yield [], number, ()
            return
        if most == 0:
            return
        yield [value], neutral, ()
        node = _origin(value).producer()
        if node is None or depth == 0 or node.domain not in ONNX_DOMAINS:
            return
        if node.op_type not in (("Mul", "Div") if is_product else ("Add", "Sub")) or len(node.inputs) != 2:
            return
        left, right = node.inputs
        if left is None or right is None:
            return
        if node.op_type in ("Div", "Sub"):
            divisor = self._number(right)
            if divisor is None or (is_product and divisor == 0):
                return
            for leaves, own, nodes in self._parts(left, is_product, most, depth - 1):
                yield leaves, own / divisor if is_product else own - divisor, (node, *nodes)
            return
        for first, one, before in self._parts(left, is_product, most, depth - 1):
            for second, two, after in self._parts(right, is_product, most - len(first), depth - 1):
                total = one * two if is_product else one + two
                yield [*first, *second], total, (node, *before, *after)

    def _number(self, value: ir.Value) -> float | None:
        """The number that a constant of one element is."""
        constants = self._facts.constants
        if not constants.has(value):
            return None
        shape = self._facts.shape(value)
        if shape is None or math.prod(dim if isinstance(dim, int) else 0 for dim in shape) != 1:
            return None
        array = constants.array(value)
        if array is None or array.dtype.kind not in "fiuV":
            return None
        return float(np.asarray(array, np.float64).reshape(-1)[0])


def _origin(value: ir.Value) -> ir.Value:
    """What a value is but for its type and name."""
    while (node := value.producer()) is not None and node.op_type in SAME and node.inputs[0] is not None:
        value = node.inputs[0]
    return value


def _near(number: float, wanted: float) -> bool:
    return math.isclose(number, wanted, rel_tol=_TOLERANCE, abs_tol=1e-12)
