"""The numbers of the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from bnfold.gate.finding import Found
from bnfold.gate.rule import Rule

if TYPE_CHECKING:
    from bnfold.gate.numbers import Numbers
    from bnfold.gate.subject import Subject

_FLOAT16 = 65504.0
_DEVIATIONS = 6.0  # of a normal distribution: beyond them lie two values in a thousand million
_SMALL = 1e-9  # under a variance, of which 1e-5 is the usual ε


def _weights(subject: Subject, wanted: Callable[[Numbers], object], one: str, many: str) -> Iterator[Found]:
    names = tuple(
        numbers.name or "a constant without a name" for numbers in subject.numbers if wanted(numbers)
    )
    if names:
        yield Found(one, many, names)


def _nan(subject: Subject) -> Iterator[Found]:
    yield from _weights(subject, lambda one: one.nan, "1 weight holds NaN", "{} weights hold NaN")


def _infinite(subject: Subject) -> Iterator[Found]:
    multiplied = subject.multiplied
    yield from _weights(
        subject,
        lambda one: one.infinite and one.name in multiplied,
        "1 weight holds an infinity",
        "{} weights hold infinities",
    )


def _subnormal(subject: Subject) -> Iterator[Found]:
    yield from _weights(
        subject,
        lambda one: one.subnormal,
        "1 weight holds subnormal numbers",
        "{} weights hold subnormal numbers",
    )


def _beyond_float16(subject: Subject) -> Iterator[Found]:
    yield from _weights(
        subject,
        lambda one: one.largest > _FLOAT16,
        "1 weight holds numbers beyond float16",
        "{} weights hold numbers beyond float16",
    )


def _activations(subject: Subject) -> Iterator[Found]:
    import numpy as np

    from bnfold.folding.recognise import is_batchnorm
    from bnfold.graph.nodes import module_name

    large = []
    for scope in subject.facts.scopes:
        for node in filter(is_batchnorm, scope.graph):
            gamma, beta = (subject.facts.operand(node, place) for place in (1, 2))
            if gamma is None or beta is None:
                continue
            if np.max(np.abs(beta) + _DEVIATIONS * np.abs(gamma), initial=0.0) > _FLOAT16:
                large.append(module_name(node))
    if large:
        yield Found(
            "the values after 1 BatchNorm may leave the range of float16",
            "the values after {} BatchNorms may leave the range of float16",
            tuple(large),
        )


def _flat(subject: Subject) -> Iterator[Found]:
    import numpy as np

    from bnfold.folding.recognise import is_batchnorm
    from bnfold.graph.nodes import module_name, real

    flat = []
    for scope in subject.facts.scopes:
        for node in filter(is_batchnorm, scope.graph):
            variance = subject.facts.operand(node, 4)
            if (
                variance is not None
                and variance.size
                and np.min(variance) + real(node, "epsilon", 1e-5) < _SMALL
            ):
                flat.append(module_name(node))
    if flat:
        yield Found(
            "1 BatchNorm divides by nearly zero (σ² + ε)",
            "{} BatchNorms divide by nearly zero (σ² + ε)",
            tuple(flat),
        )


RULES = (
    Rule(
        "M201",
        "nan-weight",
        "a weight holds NaN",
        "Whatever it is multiplied with is NaN as well: the model was saved after its training had diverged,"
        " or the file is damaged.",
        "Take an earlier checkpoint.",
        _nan,
        needs="weights",
        severity="error",
    ),
    Rule(
        "M202",
        "infinite-weight",
        "a weight holds an infinity",
        "A layer multiplies with it, so its results are infinite or NaN. An infinity as a"
        " bound, in a table or in a mask that is added is not meant.",
        "Take an earlier checkpoint.",
        _infinite,
        needs="weights",
        severity="error",
    ),
    Rule(
        "M203",
        "subnormal-weight",
        "a weight holds subnormal numbers",
        "They are smaller than the smallest normal number of their type. Some hardware computes them slowly,"
        " other hardware takes them for zero.",
        "Set them to zero before the export.",
        _subnormal,
        needs="weights",
        severity="note",
        default=False,
    ),
    Rule(
        "M204",
        "beyond-float16",
        "a weight holds numbers beyond float16",
        "They are above 65504 and become infinite in half precision.",
        "Keep the layer in float32, or rescale it.",
        _beyond_float16,
        needs="weights",
        default=False,
    ),
    Rule(
        "M205",
        "activation-range",
        "values may leave the range of float16",
        "A channel after a BatchNorm has the mean β and the standard deviation |γ| over the data of the"
        " training; |β| + 6·|γ| is beyond 65504.",
        "Keep the layers after it in float32 or bfloat16.",
        _activations,
        default=False,
    ),
    Rule(
        "M207",
        "flat-channel",
        "a BatchNorm divides by nearly zero",
        "σ² + ε is below 1e-9, so that rounding errors of this channel are multiplied by 30,000 and more. In"
        " most cases ε was lost or changed by a conversion.",
        "Compare ε with that of the trained network; PyTorch's is 1e-5.",
        _flat,
    ),
)
