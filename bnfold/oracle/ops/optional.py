"""Optionals: the value itself where there is one, None where there is none, as ONNX Runtime hands them out.

ONNX's reference puts a value into a list and does not take it out again.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bnfold.oracle.ops.call import Array, Call, Operator, Refusal


def optional(call: Call, x: Any = None) -> Any:  # noqa: ARG001
    """`Optional`: a tensor or a sequence, or nothing."""
    return (x,)


def has_element(call: Call, x: Any = None) -> Array:  # noqa: ARG001
    """`OptionalHasElement`."""
    return np.asarray(x is not None)


def get_element(call: Call, x: Any) -> Any:  # noqa: ARG001
    """`OptionalGetElement`."""
    if x is None:
        raise Refusal("the optional has no element")
    return (x,)


OPERATORS: dict[str, Operator] = {
    "Optional": optional,
    "OptionalGetElement": get_element,
    "OptionalHasElement": has_element,
}
