"""The proof value by value: the values that two models both compute, and the first that is wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bnfold.errors import listed


@dataclass(frozen=True)
class Layer:
    """One value that both models compute, and how far each is from the truth there.

    Attributes:
        name: The value's name, the same in both models.
        depth: Its place in the original's order, from 0.
        fold_error: Error of the folded model's nodes between the values that both models have before and this
            one, computed in float64, relative to the value's scale.
        bound: The error that one rounding of every weight explains.
        original_error: Largest relative error of the original in ONNX Runtime, optimizer off; None unless
            measured.
        folded_error: The same of the folded model.
        site: The BatchNorms that were removed between the values before and this one; None without one.
        nodes: The folded model's nodes that compute it from the values before.
        originals: The original's nodes that compute it.
        channels: Which channels have this error, as words; None where all share one bound.
        beyond_range: A clause on a value that these nodes compute on the way and that its type does not hold,
            while the original's are within theirs; None where there is none.
    """

    name: str
    depth: int
    fold_error: float
    bound: float
    original_error: float | None = None
    folded_error: float | None = None
    site: str | None = None
    nodes: tuple[str, ...] = ()
    originals: tuple[str, ...] = ()
    channels: str | None = None
    beyond_range: str | None = None

    @property
    def is_exact(self) -> bool:
        """Whether rounding explains the error of the fold."""
        return self.fold_error <= self.bound

    @property
    def by(self) -> str:
        """How far it is off, to follow its name; there may be no measure for it."""
        if math.isfinite(self.fold_error):
            return f"by {self.fold_error:.2g} of its scale"
        return "which is zero, not finite or of another shape in one of them"

    @property
    def agrees(self) -> bool:
        """Whether the fold is exact and nothing on the way leaves the range of its type."""
        return self.is_exact and self.beyond_range is None


@dataclass(frozen=True)
class Blame:
    """The first value that the folded model computes wrongly.

    Attributes:
        layer: The value, its nodes and the fold that made them.
        runtime: Whether the fold is right there, and only ONNX Runtime's numbers are wrong.
        provider: Where ONNX Runtime ran, if its numbers are wrong.
        is_fold: Whether an equal name is known to mean an equal value.
    """

    layer: Layer
    runtime: bool = False
    provider: str | None = None
    is_fold: bool = True

    @property
    def sentence(self) -> str:
        """Where it goes wrong, and which fold it comes from."""
        layer = self.layer
        which = f" (in {layer.channels})" if layer.channels else ""
        if not self.is_fold and not layer.beyond_range:
            return (
                "Of the values that have the same name in both models, the first that differs in float64 "
                f"is {layer.name!r}, {layer.by}{which}; rounding the weights "
                f"explains {layer.bound:.2g}."
            )
        made = listed(layer.nodes) or "no node"
        stood = listed(layer.originals)
        folds = f" It comes from the fold of {layer.site}." if layer.site else ""
        if self.runtime:
            fold = f"fold of {layer.site}" if layer.site else "fold"
            return (
                f"The first value that differs is {layer.name!r}, on {self.provider}: {made} in the folded "
                f"model, {stood} in the original. The {fold} is right in float64 there."
            )
        if layer.beyond_range and (layer.is_exact or not self.is_fold):
            where = f"{made} in the {'folded' if self.is_fold else 'other'} model, {stood} in the original"
            return f"On the way to {layer.name!r}, {layer.beyond_range}: {where}.{folds}"
        return (
            f"The first value that differs is {layer.name!r}, {layer.by}{which}: "
            f"{made} differs from {stood} in the original.{folds}"
        )
