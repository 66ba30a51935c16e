"""Small networks for pictures, whose contracts are changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from bnfold.files.load import from_proto
from tests.graphs import build, statistics, weight

PADDED, BARE = "Conv<pads=[1,1,1,1]>", "Conv"


def classifier(conv: str = BARE, shape: str = "N,3,H,W", opset: int = 18) -> onnx.ModelProto:
    """Conv, BatchNormalization, Relu, the mean of each channel, and a Gemm."""
    body = f"""
        c = {conv}(x, w)
        b = BatchNormalization(c, scale, bias, mean, var)
        r = Relu(b)
        p = GlobalAveragePool(r)
        f = Flatten(p)
        y = Gemm(f, m)
    """
    constants = {"w": weight(4, 3, 3, 3), "m": weight(4, 5, seed=2), **statistics(4)}
    return build(f"net (float[{shape}] x) => (float[N,5] y) {{ {body} }}", constants, opset=opset)


def model(*args: Any, **options: Any) -> ir.Model:
    """The same as the passes take it."""
    return from_proto(classifier(*args, **options))


def pictures(*shape: int, seed: int = 0) -> np.ndarray:
    """Random bytes."""
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
