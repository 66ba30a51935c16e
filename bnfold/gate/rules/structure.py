"""What a fold would do to the graph, and what stands in its way."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from bnfold.gate.finding import Found
from bnfold.gate.rule import Rule

if TYPE_CHECKING:
    from bnfold.gate.subject import Subject
    from bnfold.result import Site

_TRAINING = "BN101"


def _batchnorms(subject: Subject) -> list[Site]:
    return [site for site in subject.folded.sites if site.op_type == "BatchNormalization"]


def _some(sites: list[Site], one: str, many: str) -> Iterator[Found]:
    if sites:
        yield Found(one, many, tuple(site.name for site in sites))


def _foldable(subject: Subject) -> Iterator[Found]:
    gone = [site for site in _batchnorms(subject) if site.status in ("folded", "merged")]
    nodes = subject.folded.nodes_before, subject.folded.nodes_after
    for found in _some(gone, "1 BatchNorm can be folded", "{} BatchNorms can be folded"):
        yield replace(found, nodes=nodes)


def _training(subject: Subject) -> Iterator[Found]:
    training = [site for site in _batchnorms(subject) if site.reason and site.reason.code == _TRAINING]
    yield from _some(training, "1 BatchNorm is in training mode", "{} BatchNorms are in training mode")


def _never_updated(subject: Subject) -> Iterator[Found]:
    import numpy as np

    fresh = [
        name
        for name, (mean, variance) in subject.statistics.items()
        if mean.size and not np.any(mean) and np.all(variance == 1)
    ]
    if fresh:
        yield Found(
            "the statistics of 1 BatchNorm were never updated",
            "the statistics of {} BatchNorms were never updated",
            tuple(fresh),
        )


def _branches(subject: Subject) -> Iterator[Found]:
    merges = tuple(merge.into for merge in subject.folded.merges)
    if merges:
        yield Found(
            "1 set of parallel branches can be one convolution",
            "{} sets of parallel branches can each be one convolution",
            merges,
        )


def _quantised_first(subject: Subject) -> Iterator[Found]:
    from bnfold.reasons import Situation

    quantised = [
        site for site in _batchnorms(subject) if site.reason and site.reason.situation is Situation.QUANTISED
    ]
    yield from _some(
        quantised,
        "1 BatchNorm stays since the model was quantised before the fold",
        "{} BatchNorms stay since the model was quantised before the fold",
    )


def _kept(subject: Subject) -> Iterator[Found]:
    by_kind: dict[str, list[Site]] = defaultdict(list)
    for site in _batchnorms(subject):
        if site.status == "kept" and site.reason and site.reason.code != _TRAINING:
            by_kind[f"{site.reason.code}, {site.reason.title}"].append(site)
    for kind, sites in by_kind.items():
        yield from _some(sites, f"1 BatchNorm stays ({kind})", f"{{}} BatchNorms stay ({kind})")


RULES = (
    Rule(
        "M101",
        "foldable-batchnorm",
        "BatchNorms can be folded",
        "A BatchNorm in eval mode is a scale and a shift for each channel, which the layer next to it can"
        " take into its weights. Left in the file, it is one more operator to run, and some targets have"
        " none.",
        "Run `bnfold check --fix`, or export the model with `bnfold export`.",
        _foldable,
        fixable=True,
    ),
    Rule(
        "M102",
        "training-mode",
        "a BatchNorm is in training mode",
        "It normalises with the statistics of each batch, so a sample's result depends on the samples that"
        " come with it.",
        "Call `model.eval()` before the export.",
        _training,
        severity="error",
    ),
    Rule(
        "M103",
        "fresh-statistics",
        "the statistics of a BatchNorm were never updated",
        "Its running mean is 0 and its running variance 1 in every channel, as they are before the first"
        " step of training: the weights of another network, of a layer that never ran, or of none were"
        " exported.",
        "Look at which weights were loaded. If the layer was frozen on purpose, ignore this code for the"
        " file.",
        _never_updated,
        needs="weights",
    ),
    Rule(
        "M104",
        "parallel-branches",
        "parallel branches can be one convolution",
        "Branches over one value that are convolutions and are added amount to one convolution, as in RepVGG"
        " and MobileOne. They are meant for training; run apart, they cost time and memory.",
        "Run `bnfold check --fix`, or export the model with `bnfold export`.",
        _branches,
        fixable=True,
    ),
    Rule(
        "M106",
        "quantised-first",
        "the model was quantised before its BatchNorms were folded",
        "The scales of a quantised layer are those of its output before the BatchNorm. Folded afterwards, the"
        " integers would not fit them any more.",
        "Fold the float model, then quantise it.",
        _quantised_first,
    ),
    Rule(
        "M107",
        "kept-batchnorm",
        "a BatchNorm stays",
        "It cannot be folded exactly. The reason has a code of its own, which `bnfold explain` explains.",
        "See `bnfold inspect`. A target that has no BatchNorm takes `bnfold export --no-batchnorm`.",
        _kept,
        severity="note",
        default=False,
    ),
)
