"""What became of the tensors that half precision does not hold, in the words of all reports."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def outcome(tensor: Mapping[str, Any], details: Mapping[str, Any]) -> str:
    """What was done about a tensor that was out of range.

    Args:
        tensor: Its record, one of `out_of_range`.
        details: Those of the step.
    """
    name = tensor["value"]
    if name in details["repaired"]:
        return "scaled by powers of two"
    if tensor["side"] == "above" or any(
        one["node"] == tensor["node"] or one["why"].startswith(repr(name)) for one in details["kept"]
    ):
        return "its nodes stay in float32"
    return "nothing; it loses digits"


def reach(tensor: Mapping[str, Any]) -> str:
    """The largest absolute value of a tensor."""
    largest = tensor["largest"]  # a report in JSON has null for infinity
    return f"{largest:.2g}" if largest is not None and math.isfinite(largest) else "infinity"


def holds(tensor: Mapping[str, Any]) -> str:
    """What its type holds, as far as it matters for the tensor."""
    largest, limit = tensor["largest"], tensor["limit"]
    if tensor["side"] == "below":
        return f"all digits from {limit:.2g}"
    near = largest is not None and largest <= limit
    return f"up to {limit:.5g}{', but half is kept spare' if near else ''}"
