"""Four small networks of the kinds that are taken to devices, as exporters write them.

The weights are random; the last network is one that no toolchain takes as it is.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from tests.graphs import build, statistics, weight

BN = "BatchNormalization({}, scale, bias, mean, var)"
PAD = "pads = [1, 1, 1, 1]"


def residual() -> onnx.ModelProto:
    """A residual block and a classifier, in opset 20, with a Reshape as PyTorch writes it."""
    text = f"""residual (float[1,3,16,16] x) => (float[1,10] y) {{
        a = Conv <{PAD}> (x, w)  b = {BN.format("a")}  c = Relu(b)
        d = Conv <{PAD}> (c, v)  e = {BN.format("d")}  f = Add(c, e)  g = Relu(f)
        h = MaxPool <kernel_shape = [3, 3], strides = [2, 2], {PAD}> (g)
        i = GlobalAveragePool(h)  j = Reshape <allowzero = 1> (i, flat)  y = Gemm <transB = 1> (j, m)
    }}"""
    constants = {"w": weight(8, 3, 3, 3), "v": weight(8, 8, 3, 3), "m": weight(10, 8)}
    return build(text, {**constants, "flat": np.array([1, 8]), **statistics(8)}, opset=20)


def inverted_residual() -> onnx.ModelProto:
    """A depthwise block with ReLU6 and a classifier, in opset 18, for any batch."""
    text = f"""inverted (float[N,3,16,16] x) => (float[N,10] y) {{
        a = Conv <{PAD}> (x, w)  b = {BN.format("a")}  c = Clip(b, zero, six)
        d = Conv <{PAD}, group = 8> (c, v)  e = {BN.format("d")}  f = Clip(e, zero, six)
        g = Conv(f, p)  h = {BN.format("g")}  i = Add(c, h)
        j = GlobalAveragePool(i)  k = Flatten(j)  y = Gemm <transB = 1> (k, m)
    }}"""
    limits = {"zero": np.float32(0), "six": np.float32(6)}
    constants = {"w": weight(8, 3, 3, 3), "v": weight(8, 1, 3, 3), "p": weight(8, 8, 1, 1)}
    return build(text, {**limits, **constants, "m": weight(10, 8), **statistics(8)})


def dynamic() -> onnx.ModelProto:
    """An encoder and a decoder for pictures of any size, in opset 17."""
    text = f"""dynamic (float[N,3,H,W] x) => (float[N,3,A,B] y) {{
        a = Conv <{PAD}> (x, w)  b = {BN.format("a")}  c = Relu(b)
        d = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (c)
        e = Conv <{PAD}> (d, v)  f = {BN.format("e")}  g = Relu(f)
        h = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">
            (g, , twice)
        i = Concat <axis = 1> (c, h)  y = Conv <{PAD}> (i, o)
    }}"""
    constants = {"w": weight(8, 3, 3, 3), "v": weight(8, 8, 3, 3), "o": weight(3, 16, 3, 3)}
    return build(text, {**constants, "twice": np.float32([1, 1, 2, 2]), **statistics(8)}, opset=17)


def impossible() -> onnx.ModelProto:
    """A layer of one size, an operator that nobody else has, a determinant, and a result of any size."""
    text = """impossible (float[1,3,8] x) => (int64[3,M] y) {
        a = Conv <pads = [1, 1]> (x, w)  b = local.Warp(a)  c = MatMul(b, t)
        d = Det(c)  e = Mul(c, d)  y = NonZero(e)
    }"""
    model = build(text, {"w": weight(6, 3, 3), "t": weight(8, 6)})
    model.graph.value_info.append(helper.make_tensor_value_info("b", onnx.TensorProto.FLOAT, [1, 6, 8]))
    return model


NETWORKS = {
    "residual": residual,
    "inverted residual": inverted_residual,
    "dynamic": dynamic,
    "impossible": impossible,
}
