"""The float type in which a model computes: its coarsest one decides how large rounding may be."""

from __future__ import annotations

import re
from collections.abc import Sequence

import onnx_ir as ir

from bnfold.files.external_data import tensors
from bnfold.runtime.agreement import UNITS
from bnfold.runtime.interface import Port, dtype_name


def coarsest(original: ir.Model, outputs: Sequence[Port]) -> list[str | None]:
    """The coarsest float type of every output and the model's weights; None for outputs that must be equal.

    A float32 output of float16 weights has float16's precision.
    """
    weights = {dtype_name(tensor.dtype) for tensor in tensors(original) if len(tensor.shape) > 1}
    found: list[str | None] = []
    for port in outputs:
        own = [name for name in UNITS if re.search(rf"\b{name}\b", port.type)]
        if not own and port.type != "unknown":
            found.append(None)
        else:
            found.append(max({*own, *weights} & UNITS.keys(), key=UNITS.__getitem__, default="float32"))
    return found
