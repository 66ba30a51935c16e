"""Fold again without the folds that a validation found wrong."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import onnx_ir as ir

from bnfold.files.external_data import tensors
from bnfold.files.load import blaming
from bnfold.folding.fold import fold_into
from bnfold.ops.constraints import naming_faults
from bnfold.options import Checking
from bnfold.pipeline.progress import Progress, Stage, within
from bnfold.pipeline.read import Source
from bnfold.reasons import Reason
from bnfold.result import FoldResult
from bnfold.tensors.product import Product

if TYPE_CHECKING:
    from bnfold.inputs.given import Inputs
    from bnfold.validation.validate import Validation

_HELD = 2**28  # bytes of weights: those of a larger model are computed again each time they are read


@dataclass(frozen=True)
class Attempt:
    """How a model is folded and validated, once or several times."""

    source: Source
    keep: Collection[str] | Mapping[str, Reason | None]
    merge: bool
    inline_functions: bool
    checking: Checking
    inputs: Inputs | None
    progress: Progress
    no_batchnorm: bool = False

    def keeping(self, nodes: Mapping[str, Reason]) -> Attempt:
        """The same with more nodes that stay, each for its reason."""
        return replace(self, keep={**_with_reasons(self.keep), **nodes})

    def fold(self, undone: Collection[str] = ()) -> FoldResult[ir.Model]:
        """Fold everything except `keep` and what was undone."""
        self.progress(Stage.FOLD, 0, 0)
        with blaming(self.source.path):
            return fold_into(
                _computed if _weight(self.source.model) > _HELD else None,
                self.source.model,
                merge=self.merge,
                inline_functions=self.inline_functions,
                no_batchnorm=self.no_batchnorm,
                keep={**_with_reasons(self.keep), **dict.fromkeys(undone)},
                on_progress=within(Stage.FOLD, self.progress),
            )

    def validate(self, result: FoldResult[ir.Model]) -> Validation:
        """Compare a folded model with the original."""
        from bnfold.validation.compare import compare

        on_progress = within(Stage.VALIDATE, self.progress)
        with naming_faults(self.source.model):
            return compare(self.source.model, result.model, self.checking, self.inputs, on_progress)

    def without_bad_folds(
        self, result: FoldResult[ir.Model], validation: Validation
    ) -> tuple[FoldResult[ir.Model], Validation, tuple[str, ...]]:
        """Undo the wrong folds, then fold and validate again, until all is right or no fold can be blamed.

        Every round undoes at least one more node for good, so there are no more rounds than nodes. Nodes of
        functions that are inlined before the fold have no name in the original and so cannot be blamed.
        """
        undone: dict[str, None] = {}
        inlined = self.inline_functions and self.source.model.functions
        while not validation.passed and validation.blame and not inlined:
            wrong = [layer for layer in validation.layers if not layer.agrees] or [validation.blame.layer]
            blamed = {name for layer in wrong for name in layer.originals} - undone.keys() - set(self.keep)
            if not blamed:
                break
            undone |= dict.fromkeys(sorted(blamed))
            result = self.fold(undone)
            validation = self.validate(result)
        return result, validation, tuple(undone)


def _with_reasons(keep: Collection[str] | Mapping[str, Reason | None]) -> Mapping[str, Reason | None]:
    return keep if isinstance(keep, Mapping) else dict.fromkeys(keep)


def _weight(model: ir.Model) -> int:
    return sum(tensor.nbytes for tensor in tensors(model))


def _computed(model: ir.Model) -> None:
    """Compute every folded weight without keeping it: whether it fits its type must be known at once."""
    for tensor in tensors(model):
        if isinstance(tensor, Product):
            for _ in tensor.blocks():
                pass
