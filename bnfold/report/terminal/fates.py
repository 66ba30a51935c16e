"""The fate of every BatchNorm, and of merged branches, for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from bnfold.report.terminal.tables import count, headed, plural

if TYPE_CHECKING:
    from bnfold.reasons import Reason
    from bnfold.result import FoldResult, Site

_SHOWN = 20  # sites that are gone; all of them would push out of sight what is said of those that stay
_STYLES = {"folded": "green", "merged": "green", "kept": "yellow"}


def sites(result: FoldResult[Any], *, foreseen: bool = False) -> RenderableType:
    """Show every site: its name, its operator, and where it went or why it stays; then the merged branches.

    Args:
        result: Of a fold.
        foreseen: Whether nothing is saved, so that the words speak of what would happen; all sites are shown
            then, and otherwise those that stay and the first few of those that are gone.
    """
    parts: list[RenderableType] = []
    if result.sites:
        parts = [*_fates(result.sites, len(result.sites) if foreseen else _SHOWN), ""]
    parts += [merges(result), ""] if result.merges else []
    parts += [Text.assemble("apart: ", *_words(reason)) for reason in result.apart]
    return Group(*parts, fold_summary(result, foreseen=foreseen))


def _fates(sites: Iterable[Site], most: int) -> Iterator[RenderableType]:
    table = headed("site", "operator", "status", "into, or why it stays")
    table.columns[0].overflow = "fold"
    gone = 0
    for site in sites:
        gone += site.status != "kept"
        if site.status == "kept" or gone <= most:
            place = f"{site.name}\n(in {site.graph})" if site.graph else site.name
            status = Text(site.status, style=_STYLES[site.status])
            table.add_row(Text(place), site.op_type, status, _fate(site))
    yield table
    if gone > most:
        more = count(gone - most, "more site")
        yield Text(f"… and {more} that went into others; --json FILE lists all.", style="dim")


def merges(result: FoldResult[Any]) -> RenderableType:
    """Show every convolution that parallel branches became, with the multiply-adds for one position."""
    table = headed("parallel branches", "became", "multiply-adds", "now")
    for column in table.columns[2:]:
        column.justify = "right"
    for one in result.merges:
        before, after = f"{one.multiply_adds_before:,}", f"{one.multiply_adds_after:,}"
        table.add_row(Text(", ".join(one.branches)), Text(one.into), before, after)
    return table


def _fate(site: Site) -> Text:
    if site.reason is None:
        return Text(", ".join(site.into) or "nothing: it changes no number")
    if site.reason_after is None:
        return Text.assemble(*_words(site.reason))
    before, after = _words(site.reason), _words(site.reason_after)
    return Text.assemble("towards its producers: ", *before, "\ntowards its consumers: ", *after)


def _words(reason: Reason) -> tuple[str | tuple[str, str], ...]:
    return (reason.code, "bold"), f" {reason.sentence}\n", (reason.remedy, "dim")


def fold_summary(result: FoldResult[Any], *, foreseen: bool = False) -> Text:
    """Say how many sites are gone and how many stay, operator by operator, and how the nodes have changed."""
    line = _site_counts(result, foreseen) if result.sites else _without_sites(result, foreseen)
    line.append(f" {count(result.nodes_before, 'node')} before, {result.nodes_after} after.")
    if codes := sorted({site.reason.code for site in result.kept if site.reason}):
        line.append(f"\nMore on a reason: bnfold explain {codes[0]}")
    return line


def _without_sites(result: FoldResult[Any], foreseen: bool) -> Text:
    if not result.merges:
        return Text("There is no BatchNorm and no per-channel arithmetic to fold in this model.")
    verb = "can become" if foreseen else "became"
    branches = sum(len(one.branches) for one in result.merges)
    return Text.assemble(
        (f"{branches} parallel branches {verb} {count(len(result.merges), 'convolution')}", "bold"),
        "; there is no BatchNorm.",
    )


def _site_counts(result: FoldResult[Any], foreseen: bool) -> Text:
    total, gone, stay = len(result.sites), len(result.folded), len(result.kept)
    verb = "can be folded" if foreseen else "folded"
    norms = [site for site in result.sites if site.op_type == "BatchNormalization"]
    left = sum(site.status == "kept" for site in norms)
    line = Text.assemble((f"{gone} of {total} {plural(total, 'site')} {verb}", "bold"))
    if len(norms) != total:
        line.append(f" ({len(norms) - left} of {count(len(norms), 'BatchNorm')})")
    return line.append(f"; {stay} {'stay' if stay != 1 else 'stays'}." if stay else "; none stays.")
