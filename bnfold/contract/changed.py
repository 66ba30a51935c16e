"""What one part of a contract makes of a model, with all that its proof needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

if TYPE_CHECKING:
    from bnfold.runtime.sessions import Feeds


def as_they_are(feeds: Feeds) -> Feeds:
    """The same inputs, for changes that leave the inputs as they are."""
    return feeds


@dataclass(frozen=True)
class Changed:
    """A model after a change of its contract, and what it has to agree with.

    Attributes:
        name: Of the change, as its option on the command line without the hyphens: `"set-batch"`.
        sentence: What was changed, for the headline of a report.
        model: The changed model; the one that was given is as it was.
        reference: What it must compute: the model before the change. Its outputs are those of `model`, in the
            same order.
        back: Makes the inputs of `reference` out of those of `model`.
        details: The change in figures, as plain values for JSON.
        rounding: How far the change's own arithmetic is from float64 for inputs of `model`, in units in the
            last place; None where it has none.
        nodes: Names of the nodes that the change put into the graph.
        may_round: Whether the change may compute the same in another way, so that last digits may differ.
        by_others: Whether a converter of others made it, whose result only a run can prove.
    """

    name: str
    sentence: str
    model: ir.Model
    reference: ir.Model
    back: Callable[[Feeds], Feeds] = as_they_are
    details: Mapping[str, Any] = field(default_factory=dict)
    rounding: Callable[[Feeds], float] | None = None
    nodes: tuple[str, ...] = ()
    may_round: bool = False
    by_others: bool = False
