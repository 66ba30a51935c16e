"""How much a file may still ask for, and the error of one that asks for more."""

from __future__ import annotations


class ExcessiveError(Exception):
    """More than a file may ask for, as the end of "it asks for"."""


class Budget:
    """Bytes that may still be asked for, and the keys that have been looked at, by their ids."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.keys: set[int] = set()

    def spend(self, count: int, what: object) -> None:
        """Take bytes from what is left.

        Args:
            count: How many.
            what: What they are for.

        Raises:
            ExcessiveError: So many are not left.
        """
        self.left -= count
        if self.left < 0:
            raise ExcessiveError(f"more memory than it holds, for {what}")
