"""The two models of a comparison, as they were given and as they were read."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from bnfold.runtime.interface import Interface
from bnfold.runtime.sessions import ModelLike
from bnfold.validation.dtypes import coarsest
from bnfold.validation.pairing import Pairing


@dataclass(frozen=True)
class ModelPair:
    """The two models, as they were given and as they were read, and what callers see of them.

    The folded one has the original's names, but its own types.

    Attributes:
        is_fold: Whether the second carries bnfold's record of its fold from the first, so that equal names
            mean equal values.
    """

    original: ModelLike
    folded: ModelLike
    before: ir.Model
    after: ir.Model
    ports: Interface
    pairing: Pairing
    threads: int
    is_fold: bool

    @property
    def kinds(self) -> list[str | None]:
        """The coarsest float type behind each output; None where it must be equal."""
        return self.pairing.coarser(coarsest(self.before, self.ports.outputs))
