"""The versions of operators and of the file format that a target reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bnfold.targets.obstacle import Obstacle
from bnfold.targets.view import View


@dataclass(frozen=True)
class Versions:
    """The oldest and the newest version that is read; None is not known."""

    min: int | None = None
    max: int | None = None

    def nearest(self, version: int) -> int:
        """The version that is read and closest to one."""
        above = version if self.min is None else max(version, self.min)
        return above if self.max is None else min(above, self.max)

    def _beyond(self, what: str, version: int) -> Iterator[Obstacle]:
        if self.max is not None and version > self.max:
            yield Obstacle(f"the {what} is {version}, and {self.max} is the limit")
        if self.min is not None and version < self.min:
            yield Obstacle(f"the {what} is {version}, and {self.min} is the oldest that is read")


@dataclass(frozen=True)
class Opset(Versions):
    """The versions of ONNX's operator set."""

    def look(self, view: View) -> Iterator[Obstacle]:
        """Hold the model's opset against them."""
        yield from self._beyond("opset", opset_of(view))


@dataclass(frozen=True)
class IrVersion(Versions):
    """The versions of the file format."""

    def look(self, view: View) -> Iterator[Obstacle]:
        """Hold the model's IR version against them."""
        yield from self._beyond("IR version", view.model.ir_version)


def opset_of(view: View) -> int:
    """The opset of the main graph."""
    return next(scope.opset for scope in view.facts.scopes if scope.graph is view.model.graph)
