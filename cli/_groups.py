"""A command whose help shows its options in groups, and which takes each of them once."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import click

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

_GROUPS: WeakKeyDictionary[click.Parameter, str] = WeakKeyDictionary()
_LAST = "Other options"


def together(title: str, *options: Callable[[Any], Any]) -> Callable[[CommandT], CommandT]:
    """Combine several decorators into one; the help shows their options in this order, under the title."""

    def decorate(command: CommandT) -> CommandT:
        before = list(getattr(command, "__click_params__", ()))
        for option in reversed(options):
            command = option(command)
        for parameter in getattr(command, "__click_params__", ()):
            if parameter not in before:
                _GROUPS.setdefault(parameter, title)
        return command

    return decorate


class Command(click.Command):
    """A command with groups of options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse an option that is given twice: the first one would be without effect."""
        if not ctx.resilient_parsing:
            order = self.make_parser(ctx).parse_args(list(args))[2]
            for parameter, number in Counter(order).items():
                if number > 1 and _is_single(parameter):
                    raise click.UsageError(
                        f"{max(parameter.opts, key=len)} is given {number} times; it takes one value.", ctx
                    )
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options group by group, those of no group last."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is not None:
                groups.setdefault(_GROUPS.get(parameter, _LAST), []).append(record)
        only = len(groups) == 1
        for title, records in sorted(groups.items(), key=lambda group: group[0] == _LAST):
            with formatter.section("Options" if only else title):
                formatter.write_dl(records)


def _is_single(parameter: click.Parameter) -> bool:
    return isinstance(parameter, click.Option) and not (
        parameter.multiple or parameter.is_flag or parameter.count
    )


def meant(name: str, known: Iterable[str]) -> str:
    """A question for a name that is not known: " Did you mean 'export'?", or nothing."""
    near = difflib.get_close_matches(name, list(known), n=2, cutoff=0.6)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
