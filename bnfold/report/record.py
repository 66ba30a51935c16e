"""A result as values that JSON has: one key for each field of its class."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

Json = dict[str, Any]


def record(result: Any, *properties: str, without: Collection[str] = ()) -> Json:
    """Give the fields of a dataclass by name, in their order.

    Args:
        result: An object of a dataclass. What its fields hold is recorded in the same way.
        properties: Names of its properties to add after the fields.
        without: Names of fields to leave out.
    """
    names = [field.name for field in fields(result) if field.name not in without]
    return {name: plain(getattr(result, name)) for name in (*names, *properties)}


def plain(value: Any) -> Any:
    """Give a value as JSON has it: tuples as lists, and None for a number that is not finite."""
    if is_dataclass(value):
        return record(value)
    if isinstance(value, Mapping):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None  # `float`, since NumPy's float64 is one too
    return value
