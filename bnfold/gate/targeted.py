"""What stands in a model's way to the targets of the settings, as findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from bnfold.gate.finding import Found

if TYPE_CHECKING:
    from bnfold.gate.subject import Subject

Look = Callable[["Subject"], Iterator[Found]]


def opening(target: str) -> str:
    """How a finding about a target begins."""
    return f"for {target}, "


def of_targets(*kinds: str) -> Look:
    """Answers what in a model breaks the rules of some kinds, of any target.

    Args:
        kinds: Their names, as in [`KINDS`][bnfold.targets.profile.KINDS].
    """

    def look(subject: Subject) -> Iterator[Found]:
        for broken in subject.broken:
            if broken.rule.kind in kinds:
                before, found = opening(broken.target), broken.obstacle
                yield Found(f"{before}{found.one}", found.many and f"{before}{found.many}", found.sites)

    return look


def with_targets(look: Look, *kinds: str) -> Look:
    """The same question, asked for the targets as well."""
    others = of_targets(*kinds)

    def both(subject: Subject) -> Iterator[Found]:
        yield from look(subject)
        yield from others(subject)

    return both
