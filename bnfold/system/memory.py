"""Memory of the process itself."""

from __future__ import annotations

import contextlib
import ctypes
import sys


def return_freed() -> None:
    """Let the C library return what has been freed to the system, where it would keep it for itself.

    A session of a large model leaves up to the size of its weights behind, in pieces that glibc keeps.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library has no such function
            ctypes.CDLL(None).malloc_trim(0)
