"""Importing what the user names: from the installed packages and the current folder."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def from_here() -> Iterator[None]:
    """Allow imports from the current folder in the block, as `python -m` does (except with `python -P`).

    What the user's code prints in the block goes to standard error: standard output is for results.
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
            with contextlib.suppress(ValueError):  # the user's code may have removed it
                sys.path.remove(here)
