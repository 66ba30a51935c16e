"""What eight bits would do to the weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from bnfold.gate.finding import Found
from bnfold.gate.rule import Rule

if TYPE_CHECKING:
    from bnfold.gate.subject import Subject


def _loses_bits(subject: Subject) -> Iterator[Found]:
    from bnfold.edge.ranges import losses

    if found := losses(subject.facts):
        yield Found(
            "with one step a weight, 1 layer loses a bit or more of 8",
            "with one step a weight, {} layers lose a bit or more of 8",
            tuple(one.layer for one in found),
        )


RULES = (
    Rule(
        "M206",
        "int8-range",
        "one step a weight costs bits",
        "The largest channel of a weight sets the step of an integer type for all of them. In these layers"
        " the others are so much smaller that they lose a bit or more on average.",
        "Type: bnfold export MODEL --equalize, which may make it less and says what holds a layer; or"
        " quantise with one step a channel, where the target has it.",
        _loses_bits,
        severity="note",
        default=False,
    ),
)
