"""How far a long job is, told to whoever called it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called as `progress(stage, done, total)`; a stage of unknown length has the total 0."""


def silent(stage: str, done: int, total: int) -> None:
    """Report progress to nobody."""
    del stage, done, total


def within(stage: str, progress: Progress) -> Callable[[int, int], None]:
    """Give one stage a progress callback of its own."""
    return lambda done, total: progress(stage, done, total)
