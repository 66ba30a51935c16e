"""Questions to a store, many at a time: each takes long and costs nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

ArgumentT = TypeVar("ArgumentT")
ResultT = TypeVar("ResultT")

_AT_ONCE = 32
_AHEAD = 128  # that are asked, or answered and not yet taken: `Executor.map` would ask and hold all


def mapped(function: Callable[[ArgumentT], ResultT], given: Iterable[ArgumentT]) -> Iterator[ResultT]:
    """What a function returns for each of many arguments, in their order; few are held at a time.

    Raises:
        Exception: What the function raises.
    """
    waiting: deque[Future[ResultT]] = deque()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for one in given:
            waiting.append(pool.submit(function, one))
            if len(waiting) == _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
