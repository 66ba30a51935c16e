"""Dask: a cluster that is there, or one on this machine for as long as the fleet takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from bnfold.errors import BnfoldError, MissingExtraError, reason
from bnfold.fleet.engines.local import available

ResultT = TypeVar("ResultT")
_SECONDS = 30  # to reach a scheduler
_PATIENCE = 30.0  # seconds for a worker of this machine to come back


class Dask:
    """A client's executor, which has `concurrent.futures` as its interface.

    Args:
        client: Connected to a scheduler.
        cluster: The cluster on this machine, if it is ours.
        jobs: The number of its workers.
    """

    def __init__(self, client: Any, cluster: Any = None, jobs: int = 0) -> None:
        self._client, self._executor = client, client.get_executor(pure=False)
        self._cluster, self._jobs, self._whole = cluster, jobs, time.monotonic()

    def submit(self, function: Callable[..., ResultT], *arguments: Any) -> Future[ResultT]:
        """Have a function called by a worker; the scheduler gives it to another where one ends."""
        future: Future[ResultT] = self._executor.submit(function, *arguments)
        return future

    def slots(self) -> int:
        """The threads of all workers, which may come and go."""
        count = sum(map(int, self._client.nthreads().values()))
        if self._cluster is not None:
            self._replace(self._jobs - count)
        return count

    def _replace(self, missing: int) -> None:
        """Start others for workers that stay away: a nanny gives up one that is killed while it starts."""
        now = time.monotonic()
        if missing <= 0:
            self._whole = now
        elif now - self._whole > _PATIENCE:
            self._cluster.scale(len(self._cluster.worker_spec) + missing)
            self._whole = now


@contextmanager
def opened(address: str, jobs: int | None) -> Iterator[Dask]:
    """Connect to a scheduler, or start a cluster of processes with a thread each.

    Args:
        address: `HOST:PORT` of a scheduler; empty for a cluster on this machine.
        jobs: How many processes here; None takes one per CPU.

    Raises:
        MissingExtraError: dask.distributed is not installed.
        BnfoldError: There is no answer from the scheduler.
    """
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        raise MissingExtraError("distributed", "dask", "use --engine dask") from None
    with ExitStack() as stack:
        if address:
            try:
                client = stack.enter_context(Client(f"tcp://{address}", timeout=_SECONDS))
            except OSError as error:
                raise BnfoldError(
                    f"The scheduler at {address} does not answer: {reason(error)}.",
                    "Check the address: dask scheduler prints it when it starts.",
                ) from error
            yield Dask(client)
            return
        jobs = jobs or available()
        cluster = stack.enter_context(
            LocalCluster(
                n_workers=jobs,
                threads_per_worker=1,
                memory_limit=None,  # each model has its own
                dashboard_address=":0",  # any port that is free
            )
        )
        yield Dask(stack.enter_context(Client(cluster)), cluster, jobs)
