"""Matrix products in one thread leave the number of threads as it was."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from bnfold.algebra import matmul


def threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_the_number_of_threads_is_given_back_whoever_computes_beside() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 30, 40)), rng.normal(size=(2, 40, 20))
    with threadpool_limits(2, user_api="blas"):
        before = threads()
        with ThreadPoolExecutor(4) as pool:
            made = list(pool.map(lambda _: matmul.product(first, second), range(200)))
        assert threads() == before
    assert all(np.array_equal(one, made[0]) for one in made)
    np.testing.assert_allclose(made[0], np.einsum("bmk,bkn->bmn", first, second), rtol=1e-12)
