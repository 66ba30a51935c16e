"""What was done after the fold, as sentences and tables for a terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.text import Text

from bnfold.pipeline.narrow import narrowed
from bnfold.report.terminal.tables import headed, more

if TYPE_CHECKING:
    from bnfold.pipeline.steps import Done

_SHOWN = 8  # layers


def steps(done: Sequence[Done], *, verbose: bool = False) -> list[RenderableType]:
    """Show each step: its sentence, and what there is to show of its details.

    The step to fewer bits is in the answer already.
    """
    parts: list[RenderableType] = []
    said = narrowed(done)
    for one in done:
        if said is None or one.sentence != said.sentence:
            parts += ["", Text(one.sentence, style="" if one.passed else "bold yellow")]
        show = _TABLES.get(one.name)
        if show is not None and one.passed:
            parts += show(one.details, None if verbose else _SHOWN)
    return parts


def changes(done: Sequence[Done]) -> list[RenderableType]:
    """Show what was changed before the fold, and what is left of it, each in a line."""
    return [Text(one.sentence) for one in done]


def _equalized(details: Mapping[str, Any], most: int | None) -> list[RenderableType]:
    """The layers that changed most, or would lose most with one step, and what stopped their scales."""
    layers = details["layers"]
    changed = [one for one in layers if one["moved"] or abs(one["bits_before"] - one["bits_after"]) >= 0.005]
    if not changed:
        return []
    worst = sorted(changed, key=lambda one: -max(one["bits_before"], one["bits_after"]))[:most]
    table = headed("layer", "channels moved", "bits lost with one step", "stopped by")
    for column in table.columns[1:3]:
        column.justify = "right"
    for one in (one for one in layers if one in worst):
        table.add_row(
            Text(one["layer"]),
            f"{one['moved']:,} of {one['channels']:,}",
            f"{one['bits_before']:.2f} → {one['bits_after']:.2f}",
            Text(f"its output {one['stopped']}" if one["stopped"] else "–"),
        )
    rest = len(changed) - len(worst)
    return [table, *([more(f"{rest} more")] if rest else [])]


def _quantized(details: Mapping[str, Any], most: int | None) -> list[RenderableType]:
    """Every layer's noise, if all is asked for, with what it brings to leave the worst in float."""
    layers = details["layers"]
    if most is not None or not layers:
        return []
    gains = {one["layer"]: one["gain"] for one in details["leave"]}
    table = headed("node", "operator", "its weight", "its output", "lost there", "output with --leave")
    for column in table.columns[2:]:
        column.justify = "right"
    for one in layers:
        gain = gains.get(one["layer"])
        table.add_row(
            Text(one["layer"]),
            Text(one["operator"]),
            *(_decibels(one[name]) for name in ("weight", "sqnr", "added")),
            "–" if gain is None else f"{gain:+.1f} dB",
        )
    said = (
        "Signal to noise of each layer in int8, and what leaving one in float brings at the model's output:"
    )
    return ["", Text(said), table]


def _decibels(ratio: float) -> str:
    if math.isfinite(ratio):
        return f"{ratio:.1f} dB"
    return "no noise" if ratio == math.inf else "–"


_TABLES: Mapping[str, Callable[[Mapping[str, Any], int | None], list[RenderableType]]] = {
    "equalize": _equalized,
    "int8": _quantized,
}
