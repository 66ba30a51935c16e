"""Inputs for a model: random ones that it accepts, and the check whether given ones fit it.

The samples go through kinds of values, from ordinary to extreme ([`bnfold.inputs.values`]
[bnfold.inputs.values]), and through sizes of the dynamic dimensions ([`bnfold.inputs.search`]
[bnfold.inputs.search]). Notes say what could not be varied and what was left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bnfold.errors import InputError, ModelError
from bnfold.inputs import coverage, search, uses
from bnfold.inputs.coverage import Dimension, Integers, dynamic, shapes_text
from bnfold.inputs.further import Further
from bnfold.inputs.search import GIVE_INPUTS, Runner
from bnfold.inputs.sizes import Sizing, draw
from bnfold.inputs.uses import Use
from bnfold.inputs.values import DRAWN, KINDS, Array, converted
from bnfold.runtime.interface import Port
from bnfold.runtime.sessions import Feeds

Outputs = TypeVar("Outputs")

_KEPT_BYTES = 2**28  # of outputs: those of a classifier are small, a hundred segmented pictures are not


@dataclass(frozen=True)
class Samples:
    """Inputs to run a model on.

    Attributes:
        feeds: One mapping of input names to arrays for each sample.
        notes: One sentence for every sample, or part of a file, that was left out.
        labels: A name for each sample: `"normal 1×3×64×64"`, or the file that it comes from.
        outputs: The model's outputs for each, if it was run to choose them; None where they were not kept.
        dimensions: The sizes that each dynamic dimension has in them.
        integers: The numbers that each integer input has in them.
        classes: The right class of every row, over all samples in order; None without labels.
        further: Draws more for the same model; None for given ones.
    """

    feeds: tuple[Feeds, ...]
    notes: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    outputs: tuple[Any, ...] = ()
    dimensions: tuple[Dimension, ...] = ()
    integers: tuple[Integers, ...] = ()
    classes: npt.NDArray[np.int64] | None = None
    further: Further | None = None

    def each(self, run: Callable[[Feeds], Outputs]) -> Iterator[tuple[str, Feeds, Outputs]]:
        """Label, inputs and outputs of every sample, in order; `run` computes outputs that were not kept.

        Args:
            run: The function that the samples were chosen with, so that it would return the kept outputs.
        """
        known = self.outputs or (None,) * len(self.feeds)
        for label, feeds, outputs in zip(self.labels, self.feeds, known, strict=True):
            yield label, feeds, run(feeds) if outputs is None else outputs


def choose(
    ports: Sequence[Port],
    run: Callable[[Feeds], object],
    *,
    count: int = len(KINDS),
    seed: int = 0,
    model: ir.Model | None = None,
) -> Samples:
    """Draw samples that the model accepts: `count`, or more where there are more sizes to go through.

    Every sample is run once. One that the model rejects, or that has an output without a finite value, proves
    nothing: it is left out with a note as long as another one remains.

    Args:
        ports: The inputs that the model needs.
        run: Runs the model; raises ModelError where it rejects the inputs.
        count: Number of samples, at least 1. The first is normal, the second uniform; from the seventh on the
            kinds repeat with new values, each at another size. If it is less than six, sizes may be left out;
            from six on, every size is used.
        seed: The same seed gives the same samples.
        model: The model, which shows what it does with integers; without it, small ones are drawn.

    Returns:
        The samples with their outputs, as far as those fit into 256 MiB.

    Raises:
        InputError: The model accepts no size that was tried, rejects every sample, or has an input that
            cannot be drawn.
    """
    if count < 1:
        raise InputError(f"{count} samples prove nothing.", "Ask for 1 or more.")
    for port in ports:
        _demand_drawable(port)
    used = uses.of(ports, model)
    plan = search.plan(ports, run, seed, used, one=count == 1)
    trials, room = [], _KEPT_BYTES
    for number in range(count if count < len(KINDS) else max(count, len(plan.sizings))):
        trial = _trial(ports, run, plan.sizings, number, seed, used)
        room -= trial.size
        trials.append(trial if room >= 0 else replace(trial, outputs=None))
    ran = [trial for trial in trials if trial.rejection is None]
    if not ran:
        raise _rejected(next(trial.rejection for trial in trials if trial.rejection))
    # If no sample has finite outputs, the kinds are not the cause: all are kept, and the comparison says so.
    kept = [trial for trial in ran if trial.finite] or ran
    feeds = tuple(trial.feeds for trial in kept)
    dimensions = coverage.dimensions(ports, feeds, plan.rejected)
    left_out = (trial.note for trial in trials if trial not in kept)
    return Samples(
        feeds,
        tuple(left_out),
        tuple(trial.label for trial in kept),
        tuple(trial.outputs for trial in kept),
        dimensions,
        coverage.integers(ports, feeds, used),
        further=Further(ports, plan.sizings, used, seed),
    )


def run_drawn(run: Callable[[Feeds], Outputs], feeds: Feeds) -> Outputs:
    """Run the model on a sample that was drawn for it, and return what `run` returns.

    Raises:
        InputError: The model rejects it, so that random inputs do not suit this model.
    """
    try:
        return run(feeds)
    except ModelError as error:
        raise _rejected(error) from error


def fit(arrays: Feeds, ports: Sequence[Port]) -> Feeds:
    """Check given arrays against the model's inputs, and convert them to its types where nothing is lost.

    Floats convert to any float type and integers to any type that holds their values.

    Raises:
        InputError: A name, rank, size or type does not fit; the error lists what the model expects.
    """
    expected = "The model expects " + ("; ".join(map(str, ports)) or "no inputs") + "."
    names = [port.name for port in ports]
    if sorted(arrays) != sorted(names):
        raise InputError(f"The inputs given are named {', '.join(sorted(arrays)) or 'nothing'}.", expected)
    sizes: dict[str, int] = {}
    fitted: dict[str, Array] = {}
    for port in ports:
        array = np.asarray(arrays[port.name])
        if not _shape_fits(port, array.shape, sizes):
            raise InputError(
                f"The input {port.name!r} was given with the shape {list(array.shape)}.", expected
            )
        taken = converted(array, port.type)
        if taken is None:
            raise InputError(f"The input {port.name!r} was given as {array.dtype}.", expected)
        fitted[port.name] = taken
    return fitted


# --- trials -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)  # compared by identity, since arrays have no simple equality
class _Trial:
    """A sample that was drawn, and the model's outputs for it or its rejection.

    `finite` says whether every float output has a finite value; `size` is that of the outputs, in bytes.
    """

    label: str
    feeds: Feeds
    outputs: Any = None
    finite: bool = False
    size: int = 0
    rejection: ModelError | None = None

    @property
    def note(self) -> str:
        """The sentence with which it is left out."""
        if self.rejection:
            return f"The sample {self.label} was left out: the model rejects it. {self.rejection.problem}"
        return f"The sample {self.label} was left out: the original gives no finite value for it."


def _trial(
    ports: Sequence[Port],
    run: Runner,
    sizings: Sequence[Sizing],
    number: int,
    seed: int,
    used: Mapping[str, Use],
) -> _Trial:
    """Draw and run the sample of that number; in time every kind comes at every size."""
    which = number % len(KINDS)
    sizing = sizings[(number + number // math.lcm(len(KINDS), len(sizings))) % len(sizings)]
    feeds = draw(ports, sizing, seed=(seed, number), kind=KINDS[which], uses=used)
    label = f"{KINDS[which]} {shapes_text(feeds)}"
    try:
        outputs = run(feeds)
    except ModelError as error:
        return _Trial(label, feeds, rejection=error)
    arrays = list(search.leaves(outputs))
    finite = search.has_finite_values(arrays)
    return _Trial(label, feeds, outputs, finite, sum(array.nbytes for array in arrays))


def _rejected(error: ModelError) -> InputError:
    return InputError(f"The model rejects a random input that was drawn for it. {error.problem}", GIVE_INPUTS)


def _demand_drawable(port: Port) -> None:
    if port.type not in DRAWN:
        raise InputError(
            f"The input {port.name!r} is {port.type}, which NumPy cannot hand to ONNX Runtime.",
            "To fold the model without running it, type: bnfold fold MODEL -o OUT.onnx; or export it with "
            "--no-validate --no-bench.",
        )
    if port.shape is None:
        raise InputError(
            f"The model does not say how many dimensions its input {port.name!r} has.",
            GIVE_INPUTS,
        )


def _shape_fits(port: Port, given: tuple[int, ...], sizes: dict[str, int]) -> bool:
    """Whether a shape is one that the input declares; `sizes` collects what every symbol stands for."""
    if port.shape is None:
        return True
    if len(given) != len(port.shape):
        return False
    symbols = dict(dynamic(port))
    for axis, (declared, size) in enumerate(zip(port.shape, given, strict=True)):
        wanted = declared if isinstance(declared, int) else sizes.setdefault(symbols[axis], size)
        if wanted != size:
            return False
    return True
