"""What searches have found impossible, so that no later one tries it again.

Hundreds of BatchNorms may lead to one sum, and all of them fail at the same operator after it. Whether a node
can take an affine is a question of shapes, signs, zeros and equal elements, and almost never of the numbers
themselves, so what was refused to one affine is refused to every one that is like it in these.
"""

from __future__ import annotations

from typing import Literal

import onnx_ir as ir

from bnfold import reasons
from bnfold.reasons import Reason

Mode = Literal["push", "rebalance", "stream"]
"""How far a search may go.

- `push`: a value changes only if all that read it take what is done to it.
- `rebalance`: a value that is read elsewhere may be rescaled as well, its other readers taking the inverse
  scale: `x' = s·x`, and `W·x = (W/s)·x'`. Only scales, and only moderate ones.
- `stream`: such a value may also carry a shift, which its other readers take back.
"""
Question = tuple[ir.Node, type, int, tuple[int, ...]]
"""A node, the kind of step that it was to make, through which input or output, and all inputs involved."""

_OF_NUMBERS = frozenset({reasons.ACTIVATIONS, reasons.PADDING, reasons.BAD_NUMBERS})
"""Rules that look at how large an affine is, or at which number it leaves as it is."""


class Refusals:
    """Remembers refusals for as long as the model stays as it is.

    Attributes:
        in_every_mode: Whole searches that were refused before they met anything that a mode decides, by what
            they were asked for.
    """

    def __init__(self) -> None:
        self.in_every_mode: dict[tuple[object, ...], Reason] = {}
        self._known: dict[Mode, dict[Question, dict[bytes, Reason]]] = {}

    def clear(self) -> None:
        """Forget all, since the model has changed."""
        self.in_every_mode.clear()
        self._known.clear()

    def in_mode(self, mode: Mode) -> dict[Question, dict[bytes, Reason]]:
        """What searches of one mode refused: by the question, and by the kind of the affine."""
        return self._known.setdefault(mode, {})


def holds_for_all(reason: Reason, mode: Mode) -> bool:
    """Whether a reason stands in the way of every search that comes there with an affine of the same kind.

    A search that goes both ways refuses a value also for what it has itself done to it.
    """
    if reason.rule is reasons.OTHER_READERS:
        return mode == "push"
    return reason.rule not in _OF_NUMBERS
