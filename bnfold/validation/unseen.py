"""What a comparison did not see: where a fault could stand that nothing of it would have shown.

Two models that agree on some inputs agree where these inputs lead. A branch that never ran, a row of a table
that no index met, a channel that was zero throughout, or a size that was not tried, may hold anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Gap:
    """One thing that was not seen, or not all of it.

    Attributes:
        name: The node, value, dimension or output.
        seen: How much of it was seen: branches, rows, channels or sizes.
        total: How much there is; None where that has no end.
        sentence: What was not seen.
        missing: The numbers of the rows or channels, as first and last of every run of them.
    """

    name: str
    seen: int
    total: int | None
    sentence: str
    missing: Ranges = ()


@dataclass(frozen=True)
class Unseen:
    """All that a comparison did not see, each kind in the order of the model.

    Attributes:
        branches: Branches of an If, and bodies of loops, that never ran.
        rows: Tables of which some rows were met by no index.
        zero_channels: Inputs, values inside and outputs with channels that were zero throughout, so that a
            fault in what reads them cannot show. Zeros that only go through are listed where they begin.
        sizes: Dynamic dimensions that were tried at one size, or at sizes of one parity.
        integers_only: Outputs that are computed from floats, of which only integers were compared.
        undecided_channels: Channels of outputs that decide little or nothing.
        not_known: Why some of this is not known, as a sentence; empty where all is.
        cover: What further inputs were drawn and why no more, as a sentence; empty where none were wanted.
    """

    branches: tuple[Gap, ...] = ()
    rows: tuple[Gap, ...] = ()
    zero_channels: tuple[Gap, ...] = ()
    sizes: tuple[Gap, ...] = ()
    integers_only: tuple[Gap, ...] = ()
    undecided_channels: tuple[Gap, ...] = ()
    not_known: str = ""
    cover: str = ""

    @property
    def kinds(self) -> tuple[tuple[Gap, ...], ...]:
        """The gaps, kind by kind."""
        return (
            self.branches,
            self.rows,
            self.zero_channels,
            self.sizes,
            self.integers_only,
            self.undecided_channels,
        )

    def sentences(self, most: int | None = None) -> Iterator[str]:
        """Everything as sentences.

        Args:
            most: Of each kind so many, and then how many more there are; None gives all.
        """
        yield from filter(None, (self.cover, self.not_known))
        for gaps in self.kinds:
            shown = gaps if most is None or len(gaps) <= most + 1 else gaps[:most]
            yield from (gap.sentence for gap in shown)
            if len(shown) < len(gaps):
                yield f"… and {len(gaps) - len(shown)} more like this."
