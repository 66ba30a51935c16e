"""Progress of the public functions: a bar by itself where somebody watches, or the caller's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bnfold.display.bar import bar, is_watched
from bnfold.pipeline.progress import WORDS, Progress, silent


@contextmanager
def watching(progress: Progress | bool | None) -> Iterator[Progress]:
    """Give what reports progress.

    Args:
        progress: Called as `progress(stage, done, total)`; or whether a bar is shown; None shows one in a
            terminal and in a notebook.
    """
    if callable(progress):
        yield progress
    elif progress or (progress is None and is_watched()):
        with bar(WORDS) as report:
            yield report
    else:
        yield silent
