"""Two modules side by side in eager mode and float64."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from bnfold.errors import DisagreementError, ModelError
from bnfold.files.contents import reason
from bnfold.torch.quiet import silent
from bnfold.torch.rehearsal import tensors

TOLERANCE = 1e-9
"""Folds that are right differ by a few roundings of float64, about 1e-15; wrong ones by what a layer does."""
_DRAWS = 3
_FIX = "That is a mistake in bnfold: please report it with the model. keep= leaves what it names as it is."


def compare(original: nn.Module, folded: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> float:
    """Run both on the example inputs and on random ones.

    Args:
        original: A copy in float64 and eval mode.
        folded: The same, folded.
        args: Example inputs in order, in float64.
        kwargs: Example inputs by name.

    Returns:
        The largest `max|a − b| / max|a|` of any output.

    Raises:
        DisagreementError: It is above the tolerance, or outputs are of another number, shape or type.
        ModelError: The folded copy does not run.
    """
    worst = 0.0
    for some_args, some_kwargs in _inputs(args, kwargs):
        with torch.no_grad(), silent():  # what it prints and warns of was passed on when it first ran
            expected = list(tensors(original(*some_args, **some_kwargs)))
            try:
                actual = list(tensors(folded(*some_args, **some_kwargs)))
            except Exception as error:  # the user's own code, which may look for what is gone
                problem = f"The folded copy of the module does not run: {reason(error)}."
                fix = "Where its forward looks for something of a BatchNorm that is gone, name that in keep=."
                raise ModelError(problem, fix) from error
        if len(expected) != len(actual):
            raise DisagreementError("The folded copy gives another number of outputs.", _FIX)
        errors = (relative_error(one, other) for one, other in zip(expected, actual, strict=True))
        worst = max(worst, *errors, 0.0)
    if not worst <= TOLERANCE:
        raise DisagreementError(f"The folded copy differs from the module by {worst:.1e} in float64.", _FIX)
    return worst


def relative_error(expected: torch.Tensor, actual: torch.Tensor) -> float:
    """`max|a − b| / max|a|`; infinite where shapes, types or what is not finite differ."""
    if expected.shape != actual.shape or expected.dtype != actual.dtype:
        return float("inf")
    if torch.equal(expected, actual) or not expected.numel():
        return 0.0
    if not (expected.is_floating_point() or expected.is_complex()):
        return float("inf")
    finite = torch.isfinite(expected)
    if not torch.equal(finite, torch.isfinite(actual)):
        return float("inf")
    if not torch.equal(expected[~finite].nan_to_num(), actual[~finite].nan_to_num()):
        return float("inf")
    scale = float(expected[finite].abs().max()) if finite.any() else 0.0
    error = float((expected[finite] - actual[finite]).abs().max()) if finite.any() else 0.0
    return error / scale if scale else (error and float("inf"))


def _inputs(
    args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    yield tuple(args), dict(kwargs)
    generator = torch.Generator().manual_seed(0)
    for _ in range(_DRAWS):
        yield (
            tuple(_drawn(value, generator) for value in args),
            {name: _drawn(value, generator) for name, value in kwargs.items()},
        )


def _drawn(example: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Normal numbers; what is no float keeps its values, in another order, since they may be indices."""
    if example.is_floating_point():
        return torch.randn(example.shape, generator=generator, dtype=torch.float64).to(example.dtype)
    order = torch.randperm(example.numel(), generator=generator)
    return example.reshape(-1)[order].reshape(example.shape)
