"""What a message says to add: a model that only needs an option is not a failure, if the option is said."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bnfold.errors import BnfoldError
from bnfold.fleet.options import OPTIONS

_ADD = re.compile(r"\badd: (--.+?)(?:; or: |$)", re.IGNORECASE | re.MULTILINE)  # the first of several
_TAKEN = frozenset({"input-shape", "dtype", "arch", "key", "allow"})
"""What may be asked for; `trust` is nothing that a file has a say in."""


def asked(error: BnfoldError) -> dict[str, Any]:
    """The options that a message asks for, by name; none where it asks for something else."""
    found = _ADD.search(error.fix)
    return options(_named(found[1].split())) if found else {}


def options(given: Any) -> dict[str, Any]:
    """Options by name from what a process has said, which may have read a hostile file; none if it is odd."""
    if not isinstance(given, Mapping) or not given.keys() <= _TAKEN:
        return {}
    found: dict[str, Any] = {}
    for name, value in given.items():
        texts = value if isinstance(value, list) else [value]
        if not texts or not all(isinstance(text, str) and text for text in texts):
            return {}
        found[name] = texts if OPTIONS["export"][name].kind == "texts" else texts[0]
    return found


def added(before: Mapping[str, Any], further: Mapping[str, Any]) -> dict[str, Any]:
    """Options with further ones: in place of those of the same name, but for classes, which are added."""
    allowed = [*before.get("allow", ()), *further.get("allow", ())]
    return {**before, **further, **({"allow": allowed} if allowed else {})}


def _named(words: list[str]) -> dict[str, list[str]]:
    """Words as they are typed, by the names of the options."""
    found: dict[str, list[str]] = {}
    for name, value in zip(words[::2], words[1::2], strict=False):
        found.setdefault(name.removeprefix("--"), []).append(value.rstrip(","))
    return found
