"""What was done after the fold, as sentences and tables for a terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.text import Text

from bnfold.edge.balance import held
from bnfold.pipeline.narrow import Convert, narrowed
from bnfold.report.terminal.half import holds, outcome, reach
from bnfold.report.terminal.tables import cut, headed, more

if TYPE_CHECKING:
    from bnfold.pipeline.steps import Done

_SHOWN = 8  # rows of a table


def steps(done: Sequence[Done], *, verbose: bool = False) -> list[RenderableType]:
    """Show each step: its sentence, and what there is to show of its details.

    The step to fewer bits is in the answer already. A conversion that was taken back shows why as well.
    """
    parts: list[RenderableType] = []
    said = narrowed(done)
    for one in done:
        if said is None or one.sentence != said.sentence:
            parts += ["", Text(one.sentence, style="" if one.passed else "bold yellow")]
        show = _TABLES.get(one.name)
        if show is not None and (one.passed or one.name == Convert.name):
            parts += show(one.details, None if verbose else _SHOWN)
    return parts


def changes(done: Sequence[Done]) -> list[RenderableType]:
    """Show what was changed before the fold, and what is left of it, each in a line."""
    return [Text(one.sentence) for one in done]


def _equalized(details: Mapping[str, Any], most: int | None) -> list[RenderableType]:
    """The layers that changed most, or would lose most with one step, and what stopped their scales.

    With all that there is, also the layers that are held or took no part.
    """
    layers, refused = details["layers"], details["refused"] if most is None else {}
    shown = [
        one
        for one in layers
        if one["moved"]
        or abs(one["bits_before"] - one["bits_after"]) >= 0.005
        or (most is None and one["stopped"])
    ]
    if not shown and not refused:
        return []
    worst = sorted(shown, key=lambda one: -max(one["bits_before"], one["bits_after"]))[:most]
    table = headed("layer", "channels moved", "bits lost with one step", "stopped by")
    for column in table.columns[1:3]:
        column.justify = "right"
    for one in (one for one in layers if one in worst):
        table.add_row(
            Text(one["layer"]),
            f"{one['moved']:,} of {one['channels']:,}",
            f"{one['bits_before']:.2f} → {one['bits_after']:.2f}",
            Text(held(one["stopped"]) if one["stopped"] else "–"),
        )
    for name, why in refused.items():
        table.add_row(Text(name), "–", "–", Text(why))
    rest = len(shown) - len(worst)
    return [table, *([more(f"{rest} more")] if rest else [])]


def _converted(details: Mapping[str, Any], most: int | None) -> list[RenderableType]:
    """The tensors that were out of range with what was done, and the nodes in float32 with the reasons."""
    parts: list[RenderableType] = []
    shown, rest = cut(details["out_of_range"], _SHOWN, verbose=most is None)
    if shown:
        table = headed("tensor", "node", "operator", "reaches", "the type holds", "what was done")
        for one in shown:
            where = (Text(one["node"] or "(an input)"), Text(one["operator"]))
            table.add_row(Text(one["value"]), *where, reach(one), holds(one), outcome(one, details))
        parts += ["", Text(f"Tensors out of the range of {shown[0]['dtype']}:"), table, *rest]
    shown, rest = cut(details["kept"], _SHOWN, verbose=most is None)
    if shown:
        table = headed("node", "operator", "why it stays in float32")
        for one in shown:
            table.add_row(Text(one["node"]), Text(one["operator"]), Text(one["why"]))
        parts += ["", Text("Nodes in float32:"), table, *rest]
    return parts


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
    "precision": _converted,
}
