"""What equalisation did to a model and to each of its layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Generic

from bnfold.display.shown import Shown
from bnfold.result import ModelT

if TYPE_CHECKING:
    from bnfold.display.plots import Bar


@dataclass(frozen=True)
class Balance:
    """What was done to one layer.

    Attributes:
        layer: Its name.
        operator: Its operator.
        moved: How many of its output channels were scaled.
        channels: How many it has.
        bits_before: Bits that one step for the whole weight costs a channel on average.
        bits_after: The same now.
        stopped: Why its outputs could not be scaled; empty where they could.
    """

    layer: str
    operator: str
    moved: int
    channels: int
    bits_before: float
    bits_after: float
    stopped: str = ""


@dataclass(frozen=True, repr=False)
class Equalized(Shown, Generic[ModelT]):
    """The outcome of [`bnfold.equalize`][bnfold.api.equalize.equalize]. It is true if a channel was scaled.

    Attributes:
        model: The model with its channels balanced, of the kind that was given.
        layers: What was done to each layer, in the order of the graph.
        refused: Layers that took no part, by name, each with what stands in the way.
    """

    model: ModelT
    layers: tuple[Balance, ...]
    refused: dict[str, str] = field(default_factory=dict)

    axis: ClassVar[str] = "bits that one step for the whole weight costs a channel"

    @property
    def headline(self) -> str:
        """How many channels were scaled, and what that is good for."""
        channels = sum(one.channels for one in self.layers)
        where = f"{channels} channels in {_layers(len(self.layers))}"
        apart = f" {_layers(len(self.refused))} took no part." if self.refused else ""
        if not self.moved:
            return f"None of {where} was scaled.{apart}"
        before = sum(one.bits_before * one.channels for one in self.layers) / channels
        after = sum(one.bits_after * one.channels for one in self.layers) / channels
        less = f"One step for a whole weight costs a channel {after:.2f} bits instead of {before:.2f}."
        return f"{self.moved} of {where} scaled by powers of two. {less}{apart}"

    def __bool__(self) -> bool:
        return self.moved > 0

    def records(self) -> list[dict[str, Any]]:
        """A row for each layer; of one that took no part, only the name and the reason are known."""
        rows = [asdict(one) for one in self.layers]
        none = dict.fromkeys(one.name for one in fields(Balance))
        return rows + [none | {"layer": name, "stopped": why} for name, why in self.refused.items()]

    def bars(self) -> Sequence[Bar]:
        """The bits of each layer, before and after."""
        from bnfold.display.plots import Bar

        return [
            bar
            for one in self.layers
            for bar in (
                Bar(f"{one.layer}, before", one.bits_before),
                Bar(f"{one.layer}, after", one.bits_after),
            )
        ]

    @property
    def moved(self) -> int:
        """How many channels were scaled, each counted where it is computed."""
        return sum(one.moved for one in self.layers)


def held(why: str) -> str:
    """Why a layer is held, as a clause: of what was said of its output, or of a node that reads it.

    Args:
        why: The `stopped` of its [`Balance`][bnfold.edge.balance.Balance].
    """
    return f"its output {why}" if why.split(" ", 1)[0] in _OF_THE_OUTPUT else why


_OF_THE_OUTPUT = frozenset({"is", "has", "stands"})  # the verbs; other reasons are whole clauses


def _layers(number: int) -> str:
    return f"{number} layer{'' if number == 1 else 's'}"
