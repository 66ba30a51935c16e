"""Where calls are made: here, on a Dask cluster, or on Ray. An engine knows functions and nothing of models.

Every engine is reached through its own interface of futures, and looks the same from outside: `submit`
returns a `concurrent.futures.Future`. A new engine is a new file with a function `opened`, and its name in
`ENGINES`.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from bnfold.errors import InputError

ResultT = TypeVar("ResultT")
ENGINES = ("local", "dask", "ray")


class Engine(Protocol):
    """A place that makes calls."""

    def submit(self, function: Callable[..., ResultT], *arguments: Any) -> Future[ResultT]:
        """Have a function called, which the engine's workers can import; the future may raise what it raises.

        It may raise an exception of the engine's own as well, where the worker ended before the call did.
        """
        ...

    def slots(self) -> int:
        """How many calls go on side by side, at the moment."""
        ...


def opened(name: str, jobs: int | None = None) -> AbstractContextManager[Engine]:
    """Open an engine; at the end of the block its calls end too.

    Args:
        name: `"local"`, `"dask"` or `"ray"` for workers on this machine; `"dask://HOST:PORT"` or
            `"ray://HOST:PORT"` for those of a cluster.
        jobs: How many workers on this machine; None takes one per CPU.

    Raises:
        InputError: It is none of these.
        MissingExtraError: It is not installed.
    """
    found = re.fullmatch(r"(\w+)(?:://(\S+))?", name)
    if found is None or found[1] not in ENGINES or (found[1] == "local" and found[2]):
        raise InputError(
            f"{name!r} is not an engine.", "Known are local, dask, dask://HOST:PORT, ray and ray://HOST:PORT."
        )
    module = importlib.import_module(f"{__name__}.{found[1]}")
    engine: AbstractContextManager[Engine] = module.opened(found[2] or "", jobs)
    return engine
