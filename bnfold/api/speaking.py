"""Errors in the words of the caller: keywords in Python, where a command has options."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from bnfold.errors import BnfoldError

P = ParamSpec("P")
ResultT = TypeVar("ResultT")

_OPTION = re.compile(r"(?<![\w-])--(no-)?([a-z][a-z0-9-]*[a-z0-9])(?:[ =](?=\S))?")
_OTHERS = {
    "provider": "providers",
    "batch": "batches",
    "runtime": "runtimes",
    "int8": "narrow",
    "precision": "narrow",
}
_SWITCHES = frozenset({"validate", "bench", "merge"})
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


def in_python(text: str) -> str:
    """A sentence with keywords for options: `input_shape=` for `--input-shape`.

    A line that begins with a command to type stays as it is.
    """
    return "\n".join(
        line if re.search(r"\b(Type|Run): ", line) else _OPTION.sub(_keyword, line)
        for line in text.split("\n")
    )


def _keyword(match: re.Match[str]) -> str:
    negated, name = match.groups()
    if negated and name in _SWITCHES:
        return f"{name}=False"
    name = f"no-{name}" if negated else name
    return f"{_OTHERS.get(name, name.replace('-', '_'))}="
