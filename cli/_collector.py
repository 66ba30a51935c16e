"""Python's garbage collector, which a short process does not need."""

from __future__ import annotations

import atexit
import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def resting() -> Iterator[None]:
    """Leave memory to reference counts.

    A fold leaves almost no garbage in cycles. Searching all nodes for cycles again and again, and once more
    when Python exits, would take a tenth of the time of a small fold.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    atexit.register(gc.freeze)
    try:
        yield
    finally:
        if was_enabled:
            # All that was made meanwhile counts as old now. As young, it would be searched at once for
            # cycles, which takes a tenth of the time of a large fold too.
            gc.freeze()
            gc.unfreeze()
            gc.enable()
