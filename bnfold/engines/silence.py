"""What a library in C++ writes, kept away from standard output, which is for reports."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import IO


@contextlib.contextmanager
def captured() -> Iterator[Callable[[], str]]:
    """Keep what is written to standard output and standard error; yields a function that reads it.

    Raises:
        OSError: The process has no files left.
    """
    with tempfile.TemporaryFile(prefix="bnfold-") as file, contextlib.ExitStack() as stack:
        for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
            with contextlib.suppress(AttributeError, ValueError, OSError):  # it may be closed
                stream.flush()
                stack.callback(_restore, os.dup(number), number)
                os.dup2(file.fileno(), number)
        yield lambda: _read(file)


def _restore(kept: int, number: int) -> None:
    os.dup2(kept, number)
    os.close(kept)


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
