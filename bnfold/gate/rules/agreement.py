"""What a model has in common with the one that it was made from, and with the one that it was before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from bnfold.gate.finding import Found
from bnfold.gate.rule import Rule

if TYPE_CHECKING:
    from bnfold.gate.subject import Subject
    from bnfold.validation.results import Validation

_OPTION = " --match order pairs them by their order."  # of bnfold validate, and not here


def _differs_from_source(subject: Subject) -> Iterator[Found]:
    yield from _difference(subject.against_source, "its source", "its source computes")


def _differs_from_earlier(subject: Subject) -> Iterator[Found]:
    yield from _difference(subject.against_earlier, "what it was before", "it computed before")


def _difference(validation: Validation, other: str, computed: str) -> Iterator[Found]:
    if validation.undecided and not validation.failures:
        yield Found(f"the model could not be compared with {other}: {_plain(validation.undecided)}")
    elif not validation.checks and not validation.passed:
        yield Found(f"the model could not be compared with {other}: {_plain(validation.failures[0])}")
    elif not validation.passed:
        yield Found(f"the model does not compute what {computed}: {_plain(validation.failures[0])}")


def _interface(subject: Subject) -> Iterator[Found]:
    differences = tuple(map(_plain, subject.differences))
    if differences:
        # each is a site, so that a baseline accepts those that it lists and no other
        yield Found(
            "callers meet something else than before", "callers meet {} things else than before", differences
        )


def _larger(subject: Subject) -> Iterator[Found]:
    from bnfold.latency.optimized_graph import what_grew

    assert subject.earlier is not None, "asked for files with an earlier version only"
    before, now = subject.optimized(subject.earlier), subject.optimized(subject.path)
    if subject.has_other_sizes:  # then it moves and multiplies more or less whatever its nodes are
        before = replace(before, bytes=None, multiply_adds=None)
    grown = what_grew(before, now)
    if grown:
        yield Found(f"ONNX Runtime's graph of it has grown: {', '.join(grown)}")


def _slower(subject: Subject) -> Iterator[Found]:
    from bnfold.latency.benchmark import benchmark

    assert subject.earlier is not None, "asked for files with an earlier version only"
    timed = benchmark(subject.earlier, subject.path)
    if timed.slower:
        yield Found("; ".join(map(_plain, timed.slower)))


def _plain(sentence: str) -> str:
    return " ".join(sentence.removesuffix(_OPTION).split()).rstrip(".")


RULES = (
    Rule(
        "M401",
        "differs-from-source",
        "the model does not compute what its source computes",
        "It was exported from other weights, or by a converter that changed the function; the two were run on"
        " the same inputs, in ONNX Runtime and in float64.",
        "Export it again from the source, or correct `sources` in the settings.",
        _differs_from_source,
        needs="source",
        severity="error",
    ),
    Rule(
        "M402",
        "differs-from-earlier",
        "the model does not compute what it computed before",
        "Asked with `--against`. A change that was meant to leave the function alone did not.",
        "If it is a new model, ignore this code for the file in this change.",
        _differs_from_earlier,
        needs="earlier",
        severity="error",
    ),
    Rule(
        "M403",
        "interface",
        "callers of the model meet something else than before",
        "Asked with `--against`. Inputs or outputs have other names, types or sizes, the opset changed, or"
        " metadata is gone: code that calls the model may break.",
        "Export it with the names and sizes of before, or change its callers in the same commit.",
        _interface,
        needs="earlier",
    ),
    Rule(
        "M404",
        "larger-graph",
        "ONNX Runtime's own graph has grown",
        "Asked with `--against`. What ONNX Runtime makes of the model at its default has more nodes, moves"
        " more bytes or takes more multiply-adds than before. Where inputs have other sizes, only nodes are"
        " compared. Nothing is timed.",
        "Look at what the export wrote differently; `bnfold bench OLD NEW` says what it costs.",
        _larger,
        needs="earlier",
    ),
    Rule(
        "M405",
        "slower",
        "the model is slower than before",
        "Asked with `--against` and by name alone, since it takes seconds for each model: both are timed in"
        " turns, and only a difference that is certain is reported.",
        "`bnfold bench OLD NEW` shows the figures.",
        _slower,
        needs="earlier",
        default=False,
    ),
)
