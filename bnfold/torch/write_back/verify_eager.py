"""Comparing two modules in eager mode and float64."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from bnfold.errors import DisagreementError, ModelError, reason
from bnfold.torch.export.open_sizes import other_sizes
from bnfold.torch.run_quietly import silent, untouched
from bnfold.torch.write_back.trace_run import tensors

TOLERANCE = 1e-9
"""Right folds differ by a few roundings of float64, about 1e-15; wrong ones by the effect of a layer."""
_DRAWS = 3
_TRIES = 3  # one more, twice as many, two more: what strides or halving accept
PLEASE_REPORT = (
    "That is a mistake in bnfold: please report it with the model. keep= leaves the BatchNorms that it names"
    " as they are."
)


def compare(original: nn.Module, folded: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> float:
    """Run both on the example inputs, on random ones, and at other sizes that the original takes.

    Both draw the same random numbers, and their buffers are restored.

    Args:
        original: A copy in float64 and eval mode.
        folded: The same, folded.
        args: Example inputs in order, in float64.
        kwargs: Example inputs by name.

    Returns:
        The largest `max|a − b| / max|a|` of any output.

    Raises:
        DisagreementError: It is above the tolerance, or outputs differ in number, shape or type.
        ModelError: The folded copy does not run.
    """
    names = list(kwargs)
    example = (*args, *kwargs.values())
    worst = 0.0

    def run(module: nn.Module, values: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        own = [value.clone() for value in values]  # the module may write into them
        torch.manual_seed(0)
        with torch.no_grad(), untouched(module), silent():  # its prints were passed on in its first run
            result = module(*own[: len(args)], **dict(zip(names, own[len(args) :], strict=True)))
            return [tensor.clone() for tensor in tensors(result)]

    def error_on(values: Sequence[torch.Tensor]) -> float | None:
        try:
            expected = run(original, values)
        except Exception:  # the user's own code, which need not accept every number and size
            return None
        try:
            folded.eval()
            actual = run(folded, values)
        except Exception as error:  # the user's own code, which may use what is gone
            problem = f"The folded copy of the module does not run: {reason(error)}."
            fix = "If its forward uses something of a BatchNorm that is gone, name that BatchNorm in keep=."
            raise ModelError(problem, fix) from error
        if len(expected) != len(actual):
            raise DisagreementError("The folded copy returns another number of outputs.", PLEASE_REPORT)
        pairs = zip(expected, actual, strict=True)
        difference = max((relative_error(one, other) for one, other in pairs), default=0.0)
        if not difference <= TOLERANCE:
            shapes = ", ".join("x".join(map(str, value.shape)) or "scalar" for value in values)
            raise DisagreementError(
                f"The folded copy differs from the module by {difference:.1e} in float64"
                f" on inputs of shape {shapes}.",
                PLEASE_REPORT,
            )
        return difference

    generator = torch.Generator().manual_seed(0)
    for values in (example, *([_drawn(value, generator) for value in example] for _ in range(_DRAWS))):
        worst = max(worst, error_on(values) or 0.0)
    for tries in _other_sizes(example):
        errors = (error_on([_drawn(value, generator) for value in values]) for values in tries)
        worst = max(worst, next((error for error in errors if error is not None), 0.0))
    return worst


def relative_error(expected: torch.Tensor, actual: torch.Tensor) -> float:
    """`max|a − b| / max|a|`; infinite where shapes, types or non-finite values differ."""
    if expected.shape != actual.shape or expected.dtype != actual.dtype:
        return float("inf")
    if torch.equal(expected, actual) or not expected.numel():
        return 0.0
    finite = torch.isfinite(expected)
    if (
        not (expected.is_floating_point() or expected.is_complex())
        or not torch.equal(finite, torch.isfinite(actual))
        or not torch.equal(expected[~finite].nan_to_num(), actual[~finite].nan_to_num())
    ):
        return float("inf")
    scale = float(expected[finite].abs().max()) if finite.any() else 0.0
    error = float((expected[finite] - actual[finite]).abs().max()) if finite.any() else 0.0
    return error / scale if scale else (error and float("inf"))


def _other_sizes(example: Sequence[torch.Tensor]) -> Iterator[list[Sequence[torch.Tensor]]]:
    """For each size, others to try; first axes of one length are one size, and so are other axes."""
    inputs = {str(index): value for index, value in enumerate(example)}
    sizes = {
        name: {axis: f"{min(axis, 1)} {length}" for axis, length in enumerate(value.shape)}
        for name, value in inputs.items()
    }
    for _, tries in other_sizes(inputs, sizes):
        yield [list(resized.values()) for _, resized in tries[:_TRIES]]


def _drawn(example: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Normal numbers; integers keep their values, in another order, since they may be indices."""
    if example.is_floating_point():
        return torch.randn(example.shape, generator=generator, dtype=torch.float64).to(example.dtype)
    order = torch.randperm(example.numel(), generator=generator)
    return example.reshape(-1)[order].reshape(example.shape)
