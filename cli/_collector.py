"""Python's garbage collector, which a short process can do without."""

from __future__ import annotations

import atexit
import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def resting() -> Iterator[None]:
    """Leave memory to reference counts.

    Of what a fold lets go, next to nothing is in cycles. Looking for them again and again among all the
    nodes, and once more when Python ends, would take a tenth of the time of a small fold.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    atexit.register(gc.freeze)
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
