"""What stands in a model's way to a target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bnfold.targets.obstacle import Obstacle
from bnfold.targets.profile import Profile, Rule
from bnfold.targets.view import View


@dataclass(frozen=True)
class Broken:
    """A rule of a target, and what in a model breaks it."""

    target: str
    rule: Rule
    obstacle: Obstacle


def obstacles(profile: Profile, view: View) -> Iterator[Broken]:
    """Everything in a model that a target does not take, in the order of the profile's rules."""
    for rule in profile.rules:
        for obstacle in rule.limit.look(view):
            yield Broken(profile.name, rule, obstacle)
