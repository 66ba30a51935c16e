"""Numbers and places in the words of the page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

PROVIDERS = {"cpu": "CPU", "cuda": "CUDA"}
"""The usual names of ONNX Runtime's providers, in the order of the page."""

SPEED = {"faster": "good", "slower": "bad", "too noisy to say": "warn"}
"""How a verdict on latency is marked; no measurable difference has no mark."""

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float | None, digits: int = 2) -> str:
    """Write a number with some digits: as `0.0123`, or if it is very small or large as `1.2×10⁻⁷`."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    power = int(exponent)
    if -3 <= power <= 3:
        return f"{value:.{max(digits - 1 - power, 0)}f}"
    return f"{mantissa}×10{str(power).translate(_SUPERSCRIPTS)}"


def short(value: float) -> str:
    """Write a count with at most four digits and a unit, as `4.82 M`."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= limit:
            return f"{value / (1e3 if unit == 'k' else limit):.3g} {unit}"
    return f"{value:,.0f}"


def count(amount: int, noun: str) -> str:
    """Write a number with its noun, as `3 layers`."""
    return f"{amount:,} {noun}" if amount == 1 else f"{amount:,} {noun}s"


def provider(name: str) -> str:
    """Give the usual name of a provider."""
    return PROVIDERS.get(name, name)


def place(check: Mapping[str, Any]) -> str:
    """Say on which provider and at which settings a comparison was made."""
    row = f", {check['row'].upper()}" if check.get("row") else ""
    return f"{provider(check['provider'])}, optimizer {check['optimizer']}{row}"
