"""Errors in the words of the caller: keywords in Python, where a command has options."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Callable, Iterable
from inspect import signature
from typing import ParamSpec, TypeVar

from bnfold.errors import BnfoldError

P = ParamSpec("P")
ResultT = TypeVar("ResultT")

_OPTION = re.compile(r"(?<![\w-])--(no-)?([a-z][a-z0-9-]*[a-z0-9])(?:[ =](?=\S))?")
_SHAPE = re.compile(r"--(input-shape|set-shape) (\S*\w)")
_COMMAND = re.compile(r"\b(Type|Run): |\b(bnfold|pip) (--\w|\w+ )")
_OTHERS = {
    "provider": "providers",
    "batch": "batches",
    "runtime": "runtimes",
    "int8": "narrow",
    "precision": "narrow",
    "against": "earlier",
    "baseline": "accepted",
    "config": "configuration",
}
_SWITCHES = frozenset({"validate", "bench", "merge", "respect-gitignore"})
"""Keywords that are on, and that an option with `--no-` turns off."""


def speaking_python(function: Callable[P, ResultT]) -> Callable[P, ResultT]:
    """Name keywords instead of options in the errors of a function.

    An error keeps its type and its attributes.
    """

    @functools.wraps(function)
    def border(*arguments: P.args, **keywords: P.kwargs) -> ResultT:
        try:
            return function(*arguments, **keywords)
        except BnfoldError as error:
            error.problem, error.fix = in_python(error.problem), in_python(error.fix)
            error.args = (f"{error.problem}\n{error.fix}" if error.fix else error.problem,)
            raise

    return border


def only_known(names: Iterable[str]) -> Callable[[Callable[P, ResultT]], Callable[P, ResultT]]:
    """Refuse a keyword that is none of a function's, and say which was meant.

    Args:
        names: The keywords that the function takes as `**options`.
    """

    def decorate(function: Callable[P, ResultT]) -> Callable[P, ResultT]:
        own = [name for name, one in signature(function).parameters.items() if one.kind != one.VAR_KEYWORD]
        known = (*own, *names)

        @functools.wraps(function)
        def border(*arguments: P.args, **keywords: P.kwargs) -> ResultT:
            for name in keywords.keys() - set(known):
                near = difflib.get_close_matches(name, known, n=2)
                meant = f" Did you mean {' or '.join(near)}?" if near else ""
                raise TypeError(f"{function.__name__}() has no keyword {name!r}.{meant}")
            return function(*arguments, **keywords)

        return border

    return decorate


def in_python(text: str) -> str:
    """A sentence with keywords for options: `input_shape=` for `--input-shape`.

    A line with a command to type stays as it is.
    """
    return "\n".join(line if _COMMAND.search(line) else _in_python(line) for line in text.split("\n"))


def _in_python(line: str) -> str:
    shaped = _SHAPE.sub(lambda match: f'{_name(match[1])}="{match[2]}"', line)
    return _OPTION.sub(_keyword, shaped)


def _name(option: str) -> str:
    return _OTHERS.get(option, option.replace("-", "_"))


def _keyword(match: re.Match[str]) -> str:
    negated, name = match.groups()
    if negated and name in _SWITCHES:
        return f"{_name(name)}=False"
    name = f"no-{name}" if negated else name
    return f"{_name(name)}="
