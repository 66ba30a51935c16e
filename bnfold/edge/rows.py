"""Rows of data: how many a sample has, and samples cut to what fits into memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bnfold.inputs.given import Inputs, as_samples
from bnfold.inputs.samples import Samples
from bnfold.runtime.interface import Port
from bnfold.runtime.sessions import Feeds

ROWS = 32
"""Rows of data that are run at once, where the batch size is open."""

LOOKED_AT = 64
"""Rows on which single values of a model are looked at."""


def samples_of(data: Inputs, ports: Sequence[Port]) -> Samples:
    """The data as samples; those that are samples already keep their classes."""
    return data if isinstance(data, Samples) else as_samples(data, ports)


def rows_of(feeds: Feeds) -> int:
    """The number of rows of a sample: the first size of its inputs."""
    return max((len(array) for array in feeds.values() if array.ndim), default=1)


def split(samples: Samples, ports: Sequence[Port], rows: int = ROWS) -> Samples:
    """The same rows in smaller samples, where every input leaves its first size open.

    Without that, all values of hundreds of rows would be in memory at once.
    """
    is_open = bool(ports) and all(port.shape and not isinstance(port.shape[0], int) for port in ports)
    if not is_open:
        return samples
    feeds: list[Feeds] = []
    for one in samples.feeds:
        lengths = {len(array) for array in one.values()}
        if len(lengths) > 1:
            return samples
        starts = range(0, max(lengths), rows)
        feeds += [{name: array[at : at + rows] for name, array in one.items()} for at in starts]
    labels = tuple(f"part {number} of {len(feeds)}" for number in range(1, len(feeds) + 1))
    return replace(samples, feeds=tuple(feeds), labels=labels, outputs=())


def first(samples: Samples, rows: int = LOOKED_AT) -> tuple[Feeds, ...]:
    """As many samples as have some rows together, one at least."""
    found: list[Feeds] = []
    for feeds in samples.feeds:
        found.append(feeds)
        rows -= rows_of(feeds)
        if rows <= 0:
            break
    return tuple(found)
