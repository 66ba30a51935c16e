"""Which sizes of inputs may be open, and how large a batch is taken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from bnfold.runtime.interface import Port, interface, shape_text
from bnfold.targets.obstacle import HAS, Obstacle, counted
from bnfold.targets.view import View


@dataclass(frozen=True)
class Sizes:
    """What is demanded of the sizes of inputs.

    Attributes:
        open: Which sizes may be open: none, or the batch, which is the first of two or more.
        batch: The only batch that is taken; None takes any.
    """

    open: Literal["none", "batch"] = "none"
    batch: int | None = None

    def look(self, view: View) -> Iterator[Obstacle]:
        """Name the inputs with open sizes, and those with another batch."""
        ports = interface(view.model).inputs
        wrong = [port for port in ports if self.is_open(port)]
        for shape in dict.fromkeys(shape_text(port.shape) for port in wrong):
            names = [port.name for port in wrong if shape_text(port.shape) == shape]
            yield counted("input", HAS, f"open sizes ({shape})", names)
        for port in ports:
            if self.batch is not None and self._batch(port) not in (None, self.batch):
                yield Obstacle(
                    f"an input has a batch of {self._batch(port)}, and only {self.batch} is taken",
                    sites=(port.name,),
                )

    def is_open(self, port: Port) -> bool:
        """Whether a size of an input is open that may not be."""
        if port.shape is None:
            return True
        rest = port.shape[1:] if self.open == "batch" and len(port.shape) > 1 else port.shape
        return not all(isinstance(size, int) for size in rest)

    @staticmethod
    def _batch(port: Port) -> int | None:
        first = port.shape[0] if port.shape is not None and len(port.shape) > 1 else None
        return first if isinstance(first, int) else None
