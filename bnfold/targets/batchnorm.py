"""Whether a BatchNorm may remain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bnfold.folding.recognise import is_batchnorm
from bnfold.graph.nodes import module_name
from bnfold.targets.obstacle import Obstacle, counted
from bnfold.targets.view import View


@dataclass(frozen=True)
class BatchNorm:
    """The target has no BatchNorm.

    Attributes:
        after: The operators right after which it may stand all the same, since the toolchain folds it there.
        rank: The number of dimensions over which it may stand alone, since the toolchain makes another
            operator of it; None where it may not.
    """

    after: tuple[str, ...] = ()
    rank: int | None = None

    def look(self, view: View) -> Iterator[Obstacle]:
        """Name the BatchNorms that the toolchain would not fold."""
        stay = []
        for node in filter(is_batchnorm, view.nodes):
            value = node.inputs[0]
            source = None if value is None else value.producer()
            folds = source is not None and source.op_type in self.after and len(source.outputs[0].uses()) == 1
            if not folds and (self.rank is None or view.facts.rank(value) not in (self.rank, None)):
                stay.append(module_name(node))
        if stay:
            yield counted(
                "BatchNorm",
                ("stays", "stay"),
                "where the toolchain folds none, and the target has no such operator",
                stay,
            )
