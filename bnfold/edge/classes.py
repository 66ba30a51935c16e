"""Numbered channels in classes: those of one class are scaled alike, and what holds one of them holds all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
_FREE = np.iinfo(np.int64).max


class Classes:
    """Numbered channels that are made members of one class, or held at the scale 1."""

    def __init__(self) -> None:
        self._parent = np.zeros(0, np.int64)
        self._held = np.zeros(0, np.int64)  # of those that stand for a class, the number of the reason
        self._reasons: list[str] = []

    def new(self, count: int) -> Ids:
        """Channels of classes of their own."""
        first = len(self._parent)
        made = np.arange(first, first + count)
        self._parent = np.concatenate([self._parent, made])
        self._held = np.concatenate([self._held, np.full(count, _FREE)])
        return made

    @property
    def size(self) -> int:
        """The number of all channels."""
        return len(self._parent)

    def root(self, ids: Ids) -> Ids:
        """One member for each channel that stands for its class."""
        found = self._parent[ids]
        while not np.array_equal(up := self._parent[found], found):
            found = up
        self._parent[ids] = found
        return found

    def join(self, first: Ids, second: Ids) -> None:
        """Let channels be of the same class in pairs."""
        while True:
            one, other = self.root(first), self.root(second)
            apart = one != other
            if not apart.any():
                return
            low, high = np.minimum(one, other)[apart], np.maximum(one, other)[apart]
            np.minimum.at(self._parent, high, low)  # what else it was to join comes in the next round
            np.minimum.at(self._held, low, self._held[high])

    def fix(self, ids: Ids, why: str) -> None:
        """Hold the classes of channels at the scale 1."""
        roots = self.root(ids)
        self._held[roots] = np.minimum(self._held[roots], len(self._reasons))
        self._reasons.append(why)

    def is_free(self, ids: Ids) -> npt.NDArray[np.bool_]:
        """Whether each channel may be scaled."""
        return np.asarray(self._held[self.root(ids)] == _FREE)

    def why_fixed(self, ids: Ids) -> list[str | None]:
        """What holds each channel; None where nothing does."""
        held = self._held[self.root(ids)].tolist()
        return [None if at == _FREE else self._reasons[at] for at in held]


@dataclass(frozen=True)
class Labels:
    """The channels of a value: along which axis they lie, and their numbers in order."""

    axis: int
    ids: Ids
