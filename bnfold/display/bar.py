"""A bar that shows how far a long job is, in a terminal and in a notebook."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec


def is_watched() -> bool:
    """Whether somebody sees a bar: standard error is a terminal, or this is a notebook that can show one."""
    if sys.stderr is not None and sys.stderr.isatty():
        return True
    return is_notebook() and find_spec("ipywidgets") is not None  # which rich needs there


def is_notebook() -> bool:
    """Whether Python runs for a notebook's page."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


@contextmanager
def bar(stages: Mapping[str, str]) -> Iterator[Callable[[str, int, int], None]]:
    """Show the stage of a job and how far it is; the bar vanishes at the end.

    Args:
        stages: What each stage is called, by the name that a report of progress has.

    Yields:
        To be called as `report(stage, done, total)`; a stage of unknown length has the total 0.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Starting", total=None)

        yield lambda stage, done, total: progress.update(
            task, description=stages[stage], completed=done, total=total or None
        )
