"""A small language for formulas as graphs write them.

Exporters write one formula in many ways: `x / √2` or `x · 0.7071`, `0.5 · x · y` in any order, `x · x` or
`Pow(x, 2)`. So a formula is described by what it computes: products and sums are sets of factors and terms,
whatever their order, and a division by a number is a product with its inverse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Value:
    """Any value that is not constant; the same one wherever its name stands."""

    name: str


@dataclass(frozen=True)
class Number:
    """One constant number; any where it is None."""

    number: float | None = None


@dataclass(frozen=True)
class Constant:
    """Any constant, whatever its shape."""


@dataclass(frozen=True)
class Op:
    """A node of one of these operators, which reads these formulas; it may read more after them.

    Attributes:
        kinds: The operators, separated by blanks.
        inputs: What it reads; Add, Mul, Max and Min may read it in either order.
        fixed: Whether the node belongs to what must not change. Otherwise it only has to be there.
    """

    kinds: str
    inputs: tuple[Formula, ...] = ()
    fixed: bool = True


@dataclass(frozen=True)
class Product:
    """Factors in any order and association, times a number; any number where it is None."""

    factors: tuple[Formula, ...]
    number: float | None = 1.0


@dataclass(frozen=True)
class Sum:
    """Terms in any order and association, plus a number; any number where it is None."""

    terms: tuple[Formula, ...]
    number: float | None = 0.0


@dataclass(frozen=True)
class Either:
    """One of several ways to write the same."""

    ways: tuple[Formula, ...]


Formula: TypeAlias = "Value | Number | Constant | Op | Product | Sum | Either"

X = Value("x")


@dataclass(frozen=True)
class Pattern:
    """A formula that runtimes run as one operator.

    Attributes:
        name: How reports call it.
        formula: How it is written.
        anchors: Operators of which it holds at least one, as rare as can be.
        last: Operators that its last node can be.
        sources: Where it is documented or written down that a runtime does so.
        own: The operators, each with a constant, that follow it as its own scale and shift, in this order.
    """

    name: str
    formula: Formula
    anchors: tuple[str, ...]
    last: tuple[str, ...]
    sources: tuple[str, ...]
    own: tuple[str, ...] = ()


def operators_of(formula: Formula) -> set[str]:
    """The operators of all nodes that can make up a formula."""
    match formula:
        case Op(kinds, parts):
            own = set(kinds.split())
        case Product(parts):
            own = {"Mul", "Div"}
        case Sum(parts):
            own = {"Add", "Sub"}
        case Either(parts):
            own = set()
        case _:
            return set()
    return own.union(*map(operators_of, parts))


def square(value: Formula) -> Formula:
    """`value²`."""
    return Either((Op("Pow", (value, Number(2.0))), Product((value, value), 1.0)))


def root(value: Formula) -> Formula:
    """`√value`."""
    return Either((Op("Sqrt", (value,)), Op("Pow", (value, Number(0.5)))))


def over_root(numerator: Formula, value: Formula) -> Formula:
    """`numerator / √value`."""
    inverse = Either(
        (
            Op("Reciprocal", (root(value),)),
            Op("Div", (Number(1.0), root(value))),
            Op("Pow", (value, Number(-0.5))),
            Op("Pow", (root(value), Number(-1.0))),
        )
    )
    return Either((Op("Div", (numerator, root(value))), Op("Mul", (numerator, inverse))))


def clipped(value: Formula, low: float, high: float) -> Formula:
    """`min(max(value, low), high)`, as Clip or written out; bounds in attributes are not looked at."""
    ways: list[Formula] = [
        Op("Clip", (value, Number(low), Number(high))),
        Op("Clip", (value,)),
        Op("Min", (Op("Max", (value, Number(low))), Number(high))),
        Op("Max", (Op("Min", (value, Number(high))), Number(low))),
    ]
    if low == 0:
        ways.append(Op("Min", (Op("Relu", (value,)), Number(high))))
    return Either(tuple(ways))
