"""Whether two models agree, as tables and sentences for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from bnfold.errors import listed
from bnfold.report.terminal.tables import SHOWN, count, cut, cut_each, headed, more, small

if TYPE_CHECKING:
    from bnfold.validation.results import Check, Validation
    from bnfold.validation.unseen import Unseen

_LAYERS_SHOWN = 12
_FAILURES_SHOWN = 2  # the answer is at most four lines
_UNSEEN_SHOWN = 3  # of each kind


def validation(result: Validation, *, verbose: bool = False, before: str = "") -> RenderableType:
    """Show the verdict, every comparison with the truth, the layers that stand out, and what was not seen.

    Args:
        result: The comparison.
        verbose: Whether all comparisons, layers and gaps are shown; otherwise the first, and what is wrong.
        before: Begins the verdict where a later step made another model, as `"Before int8, "`.
    """
    parts: list[RenderableType] = [Text(result.accuracy.sentence)] if result.accuracy else []
    parts.append(_agreement(result, verbose=verbose, before=before))
    parts += [Text(other, style="yellow") for other in result.differences if other not in result.failures]
    parts += ["", *_checks(result, verbose=verbose), ""] if result.checks else []
    parts += [Text(fault.sentence, style="yellow") for fault in result.faults]
    if result.layers:
        parts += [Text(_proof(result)), *_worst_layers(result, verbose=verbose)]
    parts += [Text(note, style="dim") for note in result.notes]
    unseen = [Text("  ").append_text(line) for line in _unseen(result.unseen, verbose=verbose)]
    parts += [Text("Not seen", style="bold"), *unseen] if unseen else []
    return Group(*parts)


def _unseen(unseen: Unseen, *, verbose: bool) -> Iterator[Text]:
    """Where a fault would not have shown; of each kind of gap the first few."""
    yield from map(Text, filter(None, (unseen.cover, unseen.not_known)))
    for gaps in unseen.kinds:
        shown, rest = cut(gaps, _UNSEEN_SHOWN, verbose=verbose)
        yield from (Text(gap.sentence) for gap in shown)
        yield from rest


def _checks(result: Validation, *, verbose: bool) -> list[RenderableType]:
    """The table of comparisons; of very many those that fail and the first of the others."""
    by_truth = any(check.error is not None for check in result.checks)
    errors = ("error", "original's", "RMS ratio") if by_truth else ("max abs", "max rel")
    table = headed("output", "verdict", "provider", "optimizer", *errors, "bound", "top-1")
    for column in table.columns[4:]:
        column.justify = "right"
    shown, left = cut_each(result.checks, lambda check: check.fails, SHOWN, verbose=verbose)
    for check in shown:
        ratio = "–" if check.ratio is None else f"{check.ratio:.2f}"
        figures = (
            (small(check.error), small(check.original_error), ratio)
            if by_truth
            else (small(check.max_abs), small(check.max_rel))
        )
        table.add_row(
            Text(check.output),
            _outcome(check),
            check.provider,
            f"{check.optimizer}{', TF32' if check.row else ''}" if check.has_optimizer else "–",
            *figures,
            small(check.tolerance if check.bound is None else check.bound),
            "–" if check.top1 is None else f"{check.top1:.2%}",
        )
    kinds = zip(("that disagree", "others"), left, strict=True)
    rest = " and ".join(f"{number:,} {kind}" for kind, number in kinds if number)
    return [table, *([more(rest)] if rest else [])]


def _outcome(check: Check) -> Text:
    if check.row:
        return Text("for comparison", style="dim")
    if check.passed and not check.compared:
        return Text("not compared", style="yellow")
    if check.passed:
        return Text("agrees", style="green")
    return Text("excused", style="yellow") if check.excused else Text("disagrees", style="bold red")


def _agreement(result: Validation, *, verbose: bool, before: str = "") -> Text:
    """Say whether the models agree, and on which inputs."""
    if result.undecided and not result.failures:
        return Text(result.undecided, style="bold yellow")
    other = "The folded model" if result.is_fold else "The second model"
    if not result.passed:
        other += (
            " computes what the original computes, but its callers meet something else."
            if result.differs_to_callers_only
            else " does not compute what the original computes."
        )
        shown, rest = cut(result.failures, _FAILURES_SHOWN, verbose=verbose)
        return Text("\n").join((Text("\n".join((other, *shown)), style="bold red"), *rest))
    kind = "given input" if result.seed is None else "random input"
    left = result.not_compared
    limit = f"{listed(left)} {'was' if len(left) == 1 else 'were'} not compared; all else of " if left else ""
    first = other[0].lower() if left or before else other[0]
    return Text(
        f"{before}{limit}{first}{other[1:]} computes what the original computes, on "
        f"{count(result.samples, kind)}. {result.oracle}",
        style="yellow" if left else "green",
    )


def _proof(result: Validation) -> str:
    """Say how far the proof in float64 went."""
    good = [layer for layer in result.layers if layer.agrees]
    worst = max(good, key=lambda layer: layer.fold_error / layer.bound, default=None)
    nearest = f" (at most {small(worst.fold_error)}, where {small(worst.bound)} is allowed)" if worst else ""
    have = "have" if len(result.layers) > 1 else "has"
    which = "that both models compute" if result.is_fold else f"that {have} the same name in both models"
    return (
        f"In float64, on {count(len(result.proved_on), 'input')}, {len(good)} of "
        f"{count(len(result.layers), 'value')} {which} {'is' if len(good) == 1 else 'are'} the same up to "
        f"one rounding of the weights{nearest}."
    )


def _worst_layers(result: Validation, *, verbose: bool) -> list[RenderableType]:
    """The layers that are farthest off, where ONNX Runtime's errors were measured layer by layer."""
    measured = [layer for layer in result.layers if layer.folded_error is not None]
    if not measured:
        return []
    table = headed("value", "fold of", "in float64", "bound", "error", "original's")
    for column in table.columns[2:]:
        column.justify = "right"
    worst, rest = cut(
        sorted(measured, key=lambda layer: -(layer.fold_error / layer.bound)), _LAYERS_SHOWN, verbose=verbose
    )
    for layer in sorted(worst, key=lambda layer: layer.depth):
        table.add_row(
            Text(layer.name),
            Text(layer.site or "–"),
            Text(small(layer.fold_error), style="" if layer.agrees else "bold red"),
            small(layer.bound),
            small(layer.folded_error),
            small(layer.original_error),
        )
    return ["", table, *rest, ""]
