"""Matrix products whose bits do not depend on how many threads there are."""

from __future__ import annotations

import functools
import threading
from typing import Any

import numpy as np

from bnfold.algebra.affine import Array

_alone = threading.Lock()  # the number of threads is the process's: two that set it would keep the other's


def product(first: Array, second: Array) -> Array:
    """`first @ second`, with a linear algebra library that uses one thread: several may add in another order.

    Args:
        first: Of shape `(…, M, K)`.
        second: Of shape `(…, K, N)` or `(K,)`, as NumPy takes it.

    Returns:
        Their product, of the shape that NumPy gives it.
    """
    with _alone, _libraries().limit(limits=1, user_api="blas"):
        return np.asarray(first @ second)


@functools.cache
def _libraries() -> Any:
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]  # has no stubs

    return ThreadpoolController()
