"""Targets in the terminal: all of them, one of them, and how far a model is on its way to one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from bnfold.pipeline.targeting import Reached, next_commands
from bnfold.report.terminal.tables import headed
from bnfold.targets.profile import Note, Profile, Rule
from bnfold.targets.words import in_words


def targets(known: Iterable[Profile]) -> RenderableType:
    """List targets by name, title, and the day of their newest source."""
    table = headed("target", "what it is", "as of")
    for one in known:
        days = [*(rule.date for rule in one.rules), *(note.date for note in one.notes)]
        table.add_row(Text(one.name, style="bold"), Text(one.title), Text(f"{max(days)}" if days else ""))
    return Group(table, "", Text("What one demands: bnfold targets NAME"))


def target(profile: Profile) -> RenderableType:
    """Show what a target demands, with sources, what else is known, and what is not."""
    parts: list[RenderableType] = [Text(profile.title, style="bold"), "", Text("What it demands:")]
    for rule in profile.rules:
        parts += [Text(f"  {rule.what} ({in_words(rule.limit)})"), _source(rule)]
    if profile.notes:
        parts += ["", Text("Not checked, but documented:")]
        for note in profile.notes:
            parts += [Text(f"  {note.what}"), _source(note)]
    if profile.unknown:
        parts += ["", Text("Not known:"), *(Text(f"  {one}") for one in profile.unknown)]
    return Group(*parts)


def _source(one: Rule | Note) -> Text:
    return Text(f"    {one.date}, {one.source}", style="dim", overflow="fold")


def reached(one: Reached, written: Path) -> RenderableType:
    """Show what stands in the way to a target, and what to type next."""
    name = one.profile.name
    parts: list[RenderableType] = []
    if not one:
        parts = [Text(f"In the way to {name}:", style="bold")]
        parts += [Text(f"  {found.obstacle.headline}: {found.rule.what}") for found in one.obstacles]
    parts += [Text(f"Next: {line}") for line in next_commands(one, written)]
    return Group("", *parts)
