"""What ONNX Runtime's own optimizer does to the original, where that is more than rounding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from bnfold.runtime import optimizers
from bnfold.runtime.sessions import Feeds, ModelLike
from bnfold.validation.deviation import deviation
from bnfold.validation.output_check import Tally
from bnfold.validation.results import Fault


def suspects(provider: str, names: Sequence[str], tallies: Sequence[Tally]) -> Iterator[tuple[int, Fault]]:
    """The outputs that the default optimizer changes beyond rounding, with their number.

    Args:
        provider: Where.
        names: Of the outputs.
        tallies: Of the outputs at the default.
    """
    for number, (name, tally) in enumerate(zip(names, tallies, strict=True)):
        run = tally.suspect
        if tally.natural is not None and run.own.largest > tally.rounding(run):
            errors = (run.own.largest, run.reference.largest, run.folded.largest)
            yield number, Fault(provider, name, *errors)


def named(
    fault: Fault, number: int, original: ModelLike, feeds: Feeds, truth: object, rounding: float, threads: int
) -> Fault:
    """The fault with the optimizers that cause it.

    Args:
        fault: What was seen.
        number: Of the output.
        original: The model.
        feeds: A sample on which it shows.
        truth: The right value of the output there.
        rounding: The error beyond which the output is wrong.
        threads: Threads within an operator.
    """

    def wrong(outputs: list[object]) -> bool:
        return deviation(truth, outputs[number]).largest > rounding

    found = optimizers.culprits(original, feeds, wrong, provider=fault.provider, threads=threads)
    return replace(fault, optimizers=found)
