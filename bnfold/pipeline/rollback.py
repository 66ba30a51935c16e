"""Fold again without the folds that a validation found wrong."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from bnfold.files.load import blaming
from bnfold.folding.fold import fold
from bnfold.pipeline.progress import Progress, within
from bnfold.pipeline.read import Source
from bnfold.result import FoldResult

if TYPE_CHECKING:
    from bnfold.validation.validate import Validation


@dataclass(frozen=True)
class Attempt:
    """How a model is folded, for one fold or several."""

    source: Source
    merge: bool
    inline_functions: bool
    progress: Progress

    def fold(self, keep: Collection[str]) -> FoldResult[ir.Model]:
        """Fold all but what shall be kept."""
        self.progress("fold", 0, 0)
        with blaming(self.source.path):
            return fold(
                self.source.model,
                merge=self.merge,
                inline_functions=self.inline_functions,
                keep=keep,
                on_progress=within("fold", self.progress),
            )

    def without_bad_folds(
        self,
        result: FoldResult[ir.Model],
        validation: Validation,
        keep: Collection[str],
        check: Callable[[FoldResult[ir.Model]], Validation],
    ) -> tuple[FoldResult[ir.Model], Validation, tuple[str, ...]]:
        """Leave alone what is folded wrongly, and fold and check again, until all is right or none is blamed.

        What is blamed is left alone from then on, so there are no more rounds than nodes. Nodes of functions
        that are inlined before the fold have no name in the original, and so cannot be blamed.
        """
        undone: dict[str, None] = {}
        inlined = self.inline_functions and self.source.model.functions
        while not validation.passed and validation.blame and not inlined:
            wrong = [layer for layer in validation.layers if not layer.agrees] or [validation.blame.layer]
            blamed = {name for layer in wrong for name in layer.originals} - undone.keys() - set(keep)
            if not blamed:
                break
            undone |= dict.fromkeys(sorted(blamed))
            result = self.fold({*keep, *undone})
            validation = check(result)
        return result, validation, tuple(undone)
