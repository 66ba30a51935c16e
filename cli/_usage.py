"""What a wrong command line is answered with: what is wrong and what to type, as every other error."""

from __future__ import annotations

import re

import click

from . import _groups, _near

_KINDS = {"a valid integer": "a whole number", "a valid float": "a number"}
"""What click calls what an option takes, and what a person does."""
_CHOICES = {"f16": "float16", "fp16": "float16", "half": "float16", "bf16": "bfloat16"}
"""What other tools call a choice, and what bnfold does."""


def answer(error: click.UsageError, command: str) -> tuple[str, str]:
    """The problem and the fix of a command line that click or a command has refused.

    Args:
        error: The refusal; its context, if it has one, says which command it is about.
        command: The command's name where it has none.
    """
    name = error.ctx.command_path if error.ctx is not None else command
    more = f"{name} --help says more."
    if isinstance(error, click.NoSuchOption):
        hint = _near.option(error.option_name, error.ctx) if error.ctx is not None else ""
        return f"{name} has no option {error.option_name}.", f"{hint} {more}".strip()
    if isinstance(error, click.MissingParameter) and error.ctx is not None and error.param is not None:
        words = " ".join([name, *error.ctx.command.collect_usage_pieces(error.ctx)])
        return f"{_title(error.param)} is missing.", f"Write it as: {words}\n{more}"
    if isinstance(error, click.BadParameter) and error.param is not None:
        hint = _near_choice(error)
        return f"{_title(error.param)}: {_plain(error.message)}", f"{hint} {more}".strip()
    if found := re.match(r"No such command ('.*?')", error.message):
        return f"{found[0]}.", f"{_near_command(error, found[1][1:-1])} {more}".strip()
    problem, question, hint = error.format_message().partition(" Did you mean ")
    return f"{problem.rstrip('.')}.", f"{question.lstrip()}{hint} {more}".lstrip()


def _title(parameter: click.Parameter) -> str:
    """An option by its long name, an argument by its place holder."""
    if isinstance(parameter, click.Option):
        return max(parameter.opts, key=len)
    return parameter.human_readable_name


def _plain(message: str) -> str:
    """A message without the names of click's types."""
    return re.sub(r"(a valid (?:integer|float))( range)?", lambda found: _KINDS[found[1]], message)


def _near_command(error: click.UsageError, name: str) -> str:
    """A question for a name that is not a command of its group."""
    group = error.ctx.command if error.ctx is not None else None
    if error.ctx is None or not isinstance(group, click.Group):
        return ""
    known = group.list_commands(error.ctx)
    other = _near.command(name)
    return f"Did you mean {other!r}?" if other in known else _groups.meant(name, known)


def _near_choice(error: click.BadParameter) -> str:
    """A question for a value that is not one of an option's choices."""
    kind = error.param.type if error.param is not None else None
    given = re.match(r"'(.*?)' is not one of ", error.message)
    if given is None or not isinstance(kind, click.Choice):
        return ""
    known = list(map(str, kind.choices))
    other = _CHOICES.get(given[1].lower())
    return f"Did you mean {other!r}?" if other in known else _groups.meant(given[1], known)
