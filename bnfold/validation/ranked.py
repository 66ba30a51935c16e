"""Outputs that hinge on the order of scores: a detector's rows, the largest of classes, the boxes that stay.

A right model may put two rows the other way round, or keep another box, where the scores are nearly equal. An
output that depends on such a choice then says nothing: a difference may be a swap, and where rounding alone
swaps rows of the original, its own error hides every fault. There the operators that choose are taken out of
both models ([`bnfold.validation.choices`][bnfold.validation.choices]), and what is left is compared as any
two models are. The scores are compared as outputs, so their own bounds say which of them may be ties, and
what stands behind a choice is computed from the original's choice in both models. If all of it agrees, the
models do, up to the order of scores that rounding cannot tell apart.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from bnfold.errors import InputError, ModelError, listed
from bnfold.inputs.samples import Samples
from bnfold.runtime.sessions import Feeds
from bnfold.validation import choices
from bnfold.validation.choices import Answer, Side
from bnfold.validation.cutting import keep_record
from bnfold.validation.pairing import Pairing
from bnfold.validation.results import Check, Validation
from bnfold.validation.runners import Original, Setting

Again = Callable[[ir.Model, ir.Model, Samples], Validation]


@dataclass(frozen=True)
class Models:
    """What was compared, and where.

    Attributes:
        original: The original.
        folded: The other model, with the original's names.
        pairing: In which types it takes its inputs.
        threads: Threads within an operator.
        reference: Where the original's choice is taken from.
        settings: Where the models were compared.
    """

    original: ir.Model
    folded: ir.Model
    pairing: Pairing
    threads: int
    reference: Setting
    settings: Sequence[Setting]


def settle(
    outcome: Validation, models: Models, doubtful: Collection[str], samples: Samples, again: Again
) -> Validation:
    """Compare outputs that hinge on a choice by the scores, and by what follows from one and the same choice.

    Args:
        outcome: What came out of comparing the models as they are.
        models: The models.
        doubtful: The outputs that differ, or of which the original's own error is so large that it hides
            faults.
        samples: All inputs on which they were compared.
        again: Compares two models on given inputs.

    Returns:
        The outcome as it is where no doubtful output depends on a choice.
    """
    if not doubtful:
        return outcome
    before = Side(models.original)
    if before.outputs_behind.isdisjoint(doubtful):
        return _unsettled(outcome, before.left, "They could not be taken out.")
    try:
        return _settled(outcome, models, before, samples, again)
    except (ModelError, InputError) as error:
        return _unsettled(outcome, before.names, error.problem)


def _settled(outcome: Validation, models: Models, before: Side, samples: Samples, again: Again) -> Validation:
    """The outcome where a doubtful output depends on a choice; `before` loses the operators that choose."""
    after, behind = Side(models.folded), before.outputs_behind
    own = list(_ask(before, models.reference, samples.feeds, models.threads))
    taken = [models.pairing.for_folded(feeds) for feeds in samples.feeds]
    others = {setting: list(_ask(after, setting, taken, models.threads)) for setting in models.settings}
    first = next(iter(others.values()))[0]
    pairs = choices.match(before, after, own[0], first)
    if pairs is None:
        have = listed(after.names) or "none"
        return _unsettled(outcome, before.names, f"Of such operators the other model has {have}.")
    moved = {
        setting: [_differ(one, other, pairs) for one, other in zip(own, answers, strict=True)]
        for setting, answers in others.items()
    }
    names = choices.take_out(before, after, pairs, own[0], first)
    keep_record(models.original, models.folded, before.model, after.model)
    given = [
        {**feeds, **dict(zip(names, (answer.choice for answer in answers), strict=True))}
        for feeds, answers in zip(samples.feeds, own, strict=True)
    ]
    found = again(before.model, after.model, replace(samples, feeds=tuple(given)))
    lost = {_key(check) for check in outcome.checks} - {_key(check) for check in found.checks}
    if lost or found.samples < len(given):
        why = " ".join(found.problems) or "To save time, fewer inputs would have been compared."
        return _unsettled(outcome, before.names, why)
    swapped = sum(map(any, zip(*moved.values(), strict=True)))
    note = _note(before, behind, swapped, len(given))
    settings = {_place(setting) for setting, differ in moved.items() if any(differ)}
    notes = (*found.notes, note)
    return _combined(replace(outcome, notes=notes), found, behind, settings)


def _combined(
    outcome: Validation, found: Validation, behind: Collection[str], moved: Collection[_Place]
) -> Validation:
    """The outcome with what was found from one choice, wherever the choice can be the cause of a difference.

    Args:
        outcome: What came out of comparing the models as they are.
        found: What came out of comparing them without the operators that choose.
        behind: The outputs that depend on these.
        moved: The settings at which the other model chose otherwise; elsewhere a failure stands.
    """
    others = {_key(check): check for check in found.checks}
    proof = found if found.is_fold == outcome.is_fold else outcome  # inlined functions hide what a fold is
    checks = []
    for check in outcome.checks:
        other = others.pop(_key(check))
        hinges = check.output in behind and (check.passed or _key(check)[0] in moved)
        checks.append(other if hinges else check)
    return replace(
        outcome,
        checks=(*checks, *others.values()),
        problems=proof.problems,
        tolerance=max(outcome.tolerance, found.tolerance),
        layers=proof.layers,
        proved_on=proof.proved_on,
        blame=proof.blame,
        faults=found.faults,
        decided_in_float64=proof.decided_in_float64,
    )


_Place = tuple[str, str, str]


def _place(setting: Setting) -> _Place:
    return setting.provider, setting.optimizer, "tf32" if setting.tf32 else ""


def _key(check: Check) -> tuple[_Place, str]:
    return (check.provider, check.optimizer, check.row), check.output


def _ask(side: Side, setting: Setting, samples: Sequence[Feeds], threads: int) -> Iterator[list[Answer]]:
    """What the operators that choose read and choose at a setting, sample by sample."""
    session = Original(side.asking(), threads, setting)
    for number, feeds in enumerate(samples):
        answers = side.answers(session.expected(feeds))
        # what they read shows which of them correspond; the first sample is enough
        yield answers if not number else [Answer(answer.choice, {}) for answer in answers]


def _differ(own: Sequence[Answer], others: Sequence[Answer], pairs: Sequence[tuple[int, int]]) -> bool:
    return any(not np.array_equal(own[one].choice, others[other].choice) for one, other in pairs)


def _note(before: Side, behind: Collection[str], swapped: int, samples: int) -> str:
    """What was compared how, as sentences."""
    them = "it" if len(before.names) == 1 else "them"
    return (
        f"{listed(before.names)}: rounding decides between scores that are nearly equal. On "
        f"{swapped or 'none'} of {samples} inputs the other model chose otherwise than the original. So the "
        f"scores were compared by their own bounds, and what stands behind {them} "
        f"({listed(sorted(behind))}) from the original's choice in both models."
    )


def _unsettled(outcome: Validation, names: Sequence[str], why: str) -> Validation:
    """The outcome as it is, with a note on what was not looked at, if there is anything."""
    if not names:
        return outcome
    note = (
        f"{listed(names)}: rounding decides between scores that are nearly equal. Whether that explains a "
        f"difference is not known. {why}"
    )
    return replace(outcome, notes=(*outcome.notes, note))
