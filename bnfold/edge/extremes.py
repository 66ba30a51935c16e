"""Which values of a run leave the normal numbers of their type, where powers of two are not exact.

A value that overflows, or is so small that it loses digits, may do neither once its channel is scaled. Then
two models that are equal over the reals differ in floating point.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import onnx_ir as ir

from bnfold.errors import BnfoldError
from bnfold.graph.facts import Facts
from bnfold.oracle.oracle import Oracle
from bnfold.runtime.interface import dtype_name
from bnfold.runtime.sessions import Feeds
from bnfold.tensors.precision import LARGEST, SMALLEST_NORMAL


def first_extreme(model: ir.Model, names: Collection[str], samples: Sequence[Feeds]) -> str:
    """The first of some values that leaves the normal numbers of its type, as a clause; empty if none does.

    Args:
        model: The model, which is evaluated in float64.
        names: The names of the values.
        samples: Inputs by name.
    """
    facts = Facts(model.clone())
    types = {value.name: facts.dtype(value) for node in facts.model.graph for value in node.outputs}
    found: list[str] = []

    def see(name: str, value: Any) -> None:
        dtype = types.get(name)
        if found or name not in names or dtype not in LARGEST or dtype is None:
            return
        size = np.abs(value)
        least, kind = SMALLEST_NORMAL[dtype], dtype_name(dtype)
        if not np.all(size <= LARGEST[dtype]):
            found.append(f"{name!r} overflows {kind} there")
        elif np.any((size > 0) & (size < least)):
            found.append(f"{name!r} has values below {least:.2g} there, where {kind} loses digits")

    with suppress(BnfoldError):  # what comes after an operator that float64 does not know is not seen
        oracle = Oracle(model)
        for feeds in samples:
            oracle.walk(feeds, see)
    return found[0] if found else ""
