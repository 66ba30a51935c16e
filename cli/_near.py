"""What a person probably meant by an option that a command does not have."""

from __future__ import annotations

import difflib

import click

_OTHER_WORDS = {
    "benchmark": "bench",
    "calib": "calibration",
    "convert": "export",
    "device": "provider",
    "ep": "provider",
    "float16": "precision",
    "fp16": "precision",
    "half": "precision",
    "lint": "check",
    "out": "output",
    "outfile": "output",
    "quantise": "int8",
    "quantize": "int8",
    "simplify": "fold",
    "verify": "validate",
}
"""Words of other tools, and the option or command of bnfold that does this."""
_RISKY = "--trust"  # it lets a file run code: nobody should come to it by a guess
_LIKE, _NEARLY = 0.75, 0.85


def command(name: str) -> str | None:
    """The command that does what a word of other tools says; None where there is none."""
    return _OTHER_WORDS.get(name)


def option(name: str, context: click.Context) -> str:
    """A sentence on an option that is not known, or nothing.

    Args:
        name: The option as it was typed, with its dashes.
        context: Of the command.
    """
    own = _options(context.command, context)
    word = name.lstrip("-").lower()
    other = _OTHER_WORDS.get(word)
    if f"--{other}" in own:
        return f"Did you mean '--{other}'?"
    if owners := _owners(name, context):
        *before, last = owners
        return f"{name} belongs to {', '.join(before)}{' and ' if before else ''}{last}."
    if other is not None and (owners := _owners(f"--{other}", context)):
        return f"bnfold {owners[0]} --{other} does that."
    if other is not None and other in _commands(context):
        return f"bnfold {other} does that."
    parts = [one for one in own if word and f"-{word}-" in f"{one[1:]}-"]
    near = parts or difflib.get_close_matches(name, own, n=2, cutoff=_LIKE)
    named = [one for one in near[:3] if one != _RISKY or _is_typo(name, one)]
    return f"Did you mean {' or '.join(map(repr, named))}?" if named else ""


def _options(one: click.Command, context: click.Context) -> list[str]:
    """Every option of a command that begins with two dashes."""
    names = [name for each in one.get_params(context) for name in (*each.opts, *each.secondary_opts)]
    return [name for name in names if name.startswith("--")]


def _commands(context: click.Context) -> list[str]:
    """The commands next to this one, or below it."""
    above = context if isinstance(context.command, click.Group) else context.parent
    group = above.command if above is not None else None
    return group.list_commands(above) if above is not None and isinstance(group, click.Group) else []


def _owners(name: str, context: click.Context) -> list[str]:
    """The commands that have an option of exactly this name."""
    above = context if isinstance(context.command, click.Group) else context.parent
    found = []
    for each in _commands(context):
        group = above.command if above is not None else None
        one = group.get_command(above, each) if above is not None and isinstance(group, click.Group) else None
        if one is not None and name in _options(one, context):
            found.append(each)
    return found


def _is_typo(one: str, other: str) -> bool:
    return difflib.SequenceMatcher(None, one, other).ratio() > _NEARLY
