"""Importing what the user names: from the installed packages, and from the folder that they stand in."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def from_here() -> Iterator[None]:
    """Let the current folder's modules be imported in the block, as `python -m` does (but for `python -P`).

    What the user's code prints meanwhile goes to standard error: standard output is for results.
    """
    here = str(Path.cwd())
    added = here not in sys.path and "" not in sys.path and not getattr(sys.flags, "safe_path", False)
    if added:
        sys.path.insert(0, here)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        if added:
            with contextlib.suppress(ValueError):  # the user's code may have taken it away
                sys.path.remove(here)
