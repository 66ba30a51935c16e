"""Ray: a cluster that is there, or one on this machine for as long as the fleet takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

from bnfold.errors import BnfoldError, MissingExtraError, reason

ResultT = TypeVar("ResultT")


class Ray:
    """Tasks with a CPU each."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._known: dict[Callable[..., Any], Any] = {}

    def submit(self, function: Callable[..., ResultT], *arguments: Any) -> Future[ResultT]:
        """Have a function called by a worker; Ray gives it to another where one ends."""
        if function not in self._known:
            self._known[function] = self._ray.remote(num_cpus=1, max_retries=3)(function)
        future: Future[ResultT] = self._known[function].remote(*arguments).future()
        return future

    def slots(self) -> int:
        """The CPUs of all nodes, which may come and go."""
        return int(self._ray.cluster_resources().get("CPU", 0))


@contextmanager
def opened(address: str, jobs: int | None) -> Iterator[Ray]:
    """Connect to a cluster, or start one here.

    Args:
        address: `HOST:PORT` of a cluster's Ray Client server; empty for this machine.
        jobs: How many CPUs here; None takes all.

    Raises:
        MissingExtraError: Ray is not installed.
        BnfoldError: It could not be reached or started.
    """
    try:
        import ray
    except ImportError:
        raise MissingExtraError("ray", "ray", "use --engine ray") from None
    try:
        if address:
            ray.init(address=f"ray://{address}", log_to_driver=False)
        else:
            ray.init(num_cpus=jobs, include_dashboard=False, log_to_driver=False, configure_logging=False)
    except (ConnectionError, RuntimeError, TimeoutError) as error:
        raise BnfoldError(
            f"Ray could not be reached or started: {reason(error)}.", "Check the address of --engine."
        ) from error
    try:
        yield Ray(ray)
    finally:
        ray.shutdown()
