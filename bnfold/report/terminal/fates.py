"""The fate of every BatchNorm, and of merged branches, for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from bnfold.errors import listed
from bnfold.report.terminal.tables import SHOWN, count, cut, cut_each, headed, more, plural

if TYPE_CHECKING:
    from bnfold.reasons import Reason
    from bnfold.result import FoldResult, Join, Site

T = TypeVar("T")
_GROUPS_SHOWN = 8
_STYLES = {"folded": "green", "merged": "green", "decomposed": "yellow", "kept": "yellow"}


def sites(result: FoldResult[Any], *, verbose: bool = False) -> RenderableType:
    """Show every site: its name, and into what it was folded or why it stays; then reasons and merges.

    What is the same of several sites, up to names and numbers, is said once, with how many they are.

    Args:
        result: The result of a fold.
        verbose: Whether all sites are shown; otherwise the first of those that stay, and of the others.
    """
    parts: list[RenderableType] = []
    if result.sites:
        parts = [*_fates(result.sites, verbose=verbose), ""]
    groups, rest = cut(_groups(result.kept), _GROUPS_SHOWN, verbose=verbose)
    parts += [part for group in (*map(_stay, groups), *rest) for part in (group, "")]
    parts += [*_merges(result, verbose=verbose), ""] if result.merges else []
    parts += [_apart(group) for group in _grouped(result.apart, lambda reason: reason.kind)]
    if codes := sorted({site.reason.code for site in result.kept if site.reason}):
        parts.append(Text(f"More on a reason: bnfold explain {codes[0]}"))
    return Group(*(parts[:-1] if parts and parts[-1] == "" else parts))


def has_table(result: FoldResult[Any]) -> bool:
    """Whether there is anything to show of the sites."""
    return bool(result.sites or result.merges or result.apart)


def _fates(sites: Sequence[Site], *, verbose: bool) -> Iterator[RenderableType]:
    """The table of sites; where all are BatchNorms, no column says so."""
    several = any(not site.is_batchnorm for site in sites)
    table = headed("site", "status", "into, or why it stays", *(["operator"] if several else []))
    shown, left = cut_each(
        sites, lambda site: site.status not in ("folded", "merged"), SHOWN, verbose=verbose
    )
    for site in shown:
        place = Text(f"{site.name} (in {site.graph})" if site.graph else site.name)
        status = Text(site.status, style=_STYLES[site.status])
        table.add_row(place, status, _fate(site), *([Text(site.op_type)] if several else []))
    yield table
    if any(left):
        kinds = zip(("site", "folded site"), left, strict=True)
        yield more(" and ".join(count(number, f"more {kind}") for kind, number in kinds if number))


def _merges(result: FoldResult[Any], *, verbose: bool) -> list[RenderableType]:
    """Show every convolution that parallel branches became, with the multiply-adds for one position."""
    table = headed("parallel branches", "became", "multiply-adds", "now")
    for column in table.columns[2:]:
        column.justify = "right"
    shown, rest = cut(result.merges, SHOWN, verbose=verbose)
    for one in shown:
        before, after = f"{one.multiply_adds_before:,}", f"{one.multiply_adds_after:,}"
        table.add_row(Text(", ".join(one.branches)), Text(one.into), before, after)
    return [table, *rest]


def _fate(site: Site) -> Text:
    if site.reason is None or site.status == "decomposed":
        return Text(", ".join(site.into) or "nothing: it has no effect")
    return Text(", ".join(reason.code for reason in _both(site)), style="bold")


def _both(site: Site) -> tuple[Reason, ...]:
    return tuple(reason for reason in (site.reason, site.reason_after) if reason is not None)


def _groups(kept: Sequence[Site]) -> list[list[Site]]:
    """Sites whose reasons differ in names and numbers alone, together; the largest group first."""
    groups = _grouped(kept, lambda site: tuple(reason.kind for reason in _both(site)))
    return sorted(groups, key=len, reverse=True)


def _grouped(things: Iterable[T], kind: Callable[[T], Hashable]) -> list[list[T]]:
    groups: dict[Hashable, list[T]] = {}
    for thing in things:
        groups.setdefault(kind(thing), []).append(thing)
    return list(groups.values())


def _stay(group: Sequence[Site]) -> RenderableType:
    """Why the sites of a group stay, in the words of the first, and what can be done about it."""
    first, many = group[0], len(group) > 1
    title = f"{count(len(group), 'site')} stay: {listed(site.name for site in group)}" if many else first.name
    found = _both(first)
    ways = ("towards its producers: ", "towards its consumers: ") if len(found) > 1 else ("",)
    lines = Text(f"such as {first.name}:\n" if many else "")
    for way, reason in zip(ways, found, strict=True):
        lines.append_text(Text.assemble(way, (reason.code, "bold"), f" {reason.sentence}\n"))
    lines.append("\n".join(dict.fromkeys(reason.remedy for reason in found)), style="dim")
    return Group(Text(title, style=_STYLES["kept"]), Padding(lines, (0, 0, 0, 2), expand=False))


def _apart(group: Sequence[Reason]) -> Text:
    first, many = group[0], f"{len(group)} times, such as: " if len(group) > 1 else ""
    sentence = f" {first.sentence}\n"
    return Text.assemble(f"apart: {many}", (first.code, "bold"), sentence, (first.remedy, "dim"))


def fold_summary(result: FoldResult[Any], *, foreseen: bool = False) -> Text:
    """Say how many sites were folded and how many stay, and how the number of nodes has changed."""
    line = _site_counts(result, foreseen) if result.sites else _without_sites(result, foreseen)
    if result.joins:
        line.append(f" {_joins(result.joins, foreseen)}")
    return line.append(f" {count(result.nodes_before, 'node')} before, {result.nodes_after} after.")


def _joins(joins: Sequence[Join], foreseen: bool) -> str:
    """Say what went into the layers next to it, by operator."""
    found = Counter(kind for join in joins for kind in join.op_type.split("+"))
    kinds = listed((count(number, kind) for kind, number in found.items()), len(found))
    verb = "can go" if foreseen else "went"
    where = f"{plural(len(joins), 'layer')} next to {'it' if found.total() == 1 else 'them'}"
    return f"{kinds} {verb} into the {where}."


def _without_sites(result: FoldResult[Any], foreseen: bool) -> Text:
    if not result.merges:
        return Text("This model has no BatchNorm and no per-channel arithmetic to fold.")
    verb = "can become" if foreseen else "became"
    branches = sum(len(one.branches) for one in result.merges)
    return Text.assemble(
        (f"{branches} parallel branches {verb} {count(len(result.merges), 'convolution')}", "bold"),
        "; the model has no BatchNorm.",
    )


def _site_counts(result: FoldResult[Any], foreseen: bool) -> Text:
    total, folded, stay = len(result.sites), len(result.folded), len(result.kept)
    verb = "can be folded" if foreseen else "folded"
    norms = [site for site in result.sites if site.op_type == "BatchNormalization"]
    left = sum(site.status in ("kept", "decomposed") for site in norms)
    line = Text.assemble((f"{folded} of {total} {plural(total, 'site')} {verb}", "bold"))
    if len(norms) != total:
        line.append(f" ({len(norms) - left} of {count(len(norms), 'BatchNorm')})")
    if others := len(result.decomposed):
        line.append(f"; {others} {'can become' if foreseen else 'became'} other operators")
    return line.append(f"; {stay} {'stay' if stay != 1 else 'stays'}." if stay else "; none stays.")
