"""What stands in a model's way to a target."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Obstacle:
    """One thing in a model that a target does not take.

    Attributes:
        one: What it is, as a sentence without a full stop; about a single site where it names sites.
        many: The same about several sites, with `{}` for how many; empty where there are none.
        sites: The nodes, values or inputs that it is about, in order; empty for the model as a whole.
    """

    one: str
    many: str = ""
    sites: tuple[str, ...] = ()

    @property
    def headline(self) -> str:
        """What it is, with the number of sites if there are several."""
        return self.many.format(len(self.sites)) if len(self.sites) > 1 else self.one


def counted(thing: str, verbs: tuple[str, str], rest: str, sites: Iterable[str]) -> Obstacle:
    """An obstacle about things of one kind.

    Args:
        thing: What is counted, in the singular, such as `"Conv"`.
        verbs: What one of them does, and what several do: `("has", "have")`.
        rest: The rest of the sentence.
        sites: Those that are meant.
    """
    several = f"{thing}es" if thing.endswith(("s", "x", "h")) else f"{thing}s"
    whole = f"{several} {verbs[1]} {rest}".replace("{", "{{").replace("}", "}}")  # of a name in the file
    return Obstacle(f"1 {thing} {verbs[0]} {rest}", f"{{}} {whole}", (*sites,))


IS, HAS = ("is", "are"), ("has", "have")
