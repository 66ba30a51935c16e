"""A limit as text, for reports of all kinds."""

from __future__ import annotations

import dataclasses

from bnfold.targets.operators import Operators
from bnfold.targets.profile import Limit


def in_words(limit: Limit) -> str:
    """A limit as names and values; of lists of operators their number."""
    parts = []
    for field in dataclasses.fields(limit):
        value = getattr(limit, field.name)
        if (value == field.default and field.name != "open") or (isinstance(limit, Operators) and not value):
            continue
        if isinstance(limit, Operators) and field.name != "domains":
            parts.append(f"{len(value)} {field.name}")
        elif isinstance(value, tuple):
            parts.append(f"{field.name}: {', '.join(map(str, value))}")
        else:
            parts.append(f"{field.name}: {value}")
    return "; ".join(parts)
