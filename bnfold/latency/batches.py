"""The inputs for timing: one sample, at every requested batch size."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from bnfold.errors import InputError
from bnfold.inputs import samples
from bnfold.inputs.given import Inputs, as_samples
from bnfold.runtime.interface import Port
from bnfold.runtime.sessions import Feeds


def by_batch(
    ports: Sequence[Port],
    run: Callable[[Feeds], object],
    inputs: Inputs | None,
    batches: Sequence[int],
    seed: int,
) -> dict[int | None, Feeds]:
    """The first given sample, or a random one that the model accepts, repeated to each batch size.

    Args:
        ports: The model's inputs.
        run: Runs the model; raises ModelError where it rejects the inputs.
        inputs: The given inputs; None draws a sample.
        batches: Batch sizes; empty uses the sample as it is.
        seed: Seed of a random sample.

    Returns:
        Inputs by batch size; only under None if no size was requested.

    Raises:
        InputError: The inputs do not fit, no accepted inputs can be drawn, or the batch size is fixed.
    """
    known = samples.choose(ports, run, count=1, seed=seed) if inputs is None else as_samples(inputs, ports)
    first = known.feeds[0]
    if not batches:
        return {None: first}
    free = {port.name for port in ports if port.shape and not isinstance(port.shape[0], int)}
    if not free:
        raise InputError(
            f"The model's batch size is fixed, so it cannot be {batches[0]}.",
            "Leave --batch out, or export the model with --dynamic batch.",
        )
    made: dict[int | None, Feeds] = {batch: _repeated(first, free, batch) for batch in batches}
    for feeds in made.values():
        samples.run_drawn(run, feeds)
    return made


def _repeated(feeds: Feeds, free: set[str], batch: int) -> Feeds:
    """The rows of every input in `free`, repeated until there are `batch` of them."""
    return {
        name: np.take(array, np.arange(batch) % len(array), axis=0) if name in free else array
        for name, array in feeds.items()
    }
