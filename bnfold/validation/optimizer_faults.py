"""Outputs of the original that ONNX Runtime's own optimizer changes by more than rounding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from bnfold.runtime import optimizers
from bnfold.runtime.sessions import Feeds, ModelLike
from bnfold.validation.deviation import deviation, magnitude
from bnfold.validation.output_check import OutputCheck
from bnfold.validation.results import Fault
from bnfold.validation.runs import error_in


def changed_outputs(
    provider: str, names: Sequence[str], checks: Sequence[OutputCheck]
) -> Iterator[tuple[int, Fault]]:
    """The outputs that the default optimizer changes by more than rounding, with their numbers.

    Args:
        provider: Where they ran.
        names: Names of the outputs.
        checks: The check of each output with the optimizer at its default.
    """
    for number, (name, check) in enumerate(zip(names, checks, strict=True)):
        run = check.worst_original_run
        if check.type_bound is not None and check.exceeds_rounding(run):
            errors = (run.original_same_setting, run.original_optimizer_off, run.folded)
            yield number, Fault(provider, name, *errors)


def with_optimizers(
    fault: Fault,
    check: OutputCheck,
    number: int,
    original: ModelLike,
    feeds: Feeds,
    truth: object,
    threads: int,
) -> Fault:
    """Add the optimizers that cause a fault.

    Args:
        fault: The fault without them.
        check: The check of the output.
        number: Number of the output.
        original: The model.
        feeds: The sample on which the fault shows most.
        truth: The right value of the output for this sample.
        threads: Threads within an operator.
    """
    run, scales = check.worst_original_run, magnitude(truth)

    def wrong(outputs: list[object]) -> bool:
        return error_in(run.group, scales, deviation(truth, outputs[number])) > check.rounding_limit(run)

    found = optimizers.culprits(original, feeds, wrong, provider=fault.provider, threads=threads)
    return replace(fault, optimizers=found)
