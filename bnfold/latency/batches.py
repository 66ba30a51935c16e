"""What to time on: one sample, at every batch size that was asked for."""

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
    """The first sample given, or a random one that the model takes, repeated to each batch size.

    Args:
        ports: The model's inputs.
        run: Runs the model; raises ModelError where it rejects the inputs.
        inputs: What was given; None draws a sample.
        batches: Batch sizes; none takes the sample as it is.
        seed: Of a random sample.

    Returns:
        Inputs by batch size; under None alone where no size was asked for.

    Raises:
        InputError: The inputs do not fit, none can be drawn that the model takes, or its batch size is fixed.
    """
    known = samples.choose(ports, run, count=1, seed=seed) if inputs is None else as_samples(inputs, ports)
    first = known.feeds[0]
    if not batches:
        return {None: first}
    free = {port.name for port in ports if port.shape and not isinstance(port.shape[0], int)}
    if not free:
        raise InputError(
            f"The model's batch size is fixed, so that {batches[0]} cannot be asked for.",
            "Leave --batch out, or export the model with --dynamic batch.",
        )
    made: dict[int | None, Feeds] = {batch: _repeated(first, free, batch) for batch in batches}
    for feeds in made.values():
        samples.run_drawn(run, feeds)
    return made


def _repeated(feeds: Feeds, free: set[str], batch: int) -> Feeds:
    """The rows of every input in `free`, over and over until there are `batch` of them."""
    return {
        name: np.take(array, np.arange(batch) % len(array), axis=0) if name in free else array
        for name, array in feeds.items()
    }
