"""Quantisation against ONNX Runtime: integers equal, scales in double."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto

from bnfold.oracle.oracle import Oracle
from tests.graphs import run
from tests.oracle.ops.nodes import agrees, evaluated, floats, node

X = {"x": 3 * floats(3, 4)}
SCALES = np.array([0.05, 0.1, 0.2, 0.4], np.float32)


def integers(*shape: int, kind: type = np.uint8, seed: int = 0) -> np.ndarray:
    low, high = (-8, 8) if kind is ml_dtypes.int4 else (np.iinfo(kind).min, np.iinfo(kind).max + 1)
    return np.random.default_rng(seed).integers(low, high, shape).astype(kind)


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
@pytest.mark.parametrize("opset", [10, 13, 19, 21, 23])
def test_per_tensor(opset: int, kind: type) -> None:
    constants = {"s": np.array(0.03, np.float32), "z": np.array(3, kind)}
    agrees("QuantizeLinear", X, constants, opset=opset)
    agrees("DequantizeLinear", {"q": integers(3, 4, kind=kind)}, constants, opset=opset)


def test_a_half_is_rounded_to_even_before_the_zero_point_is_added() -> None:
    x = {"x": np.array([0.5, 1.5, 2.5, -0.5], np.float32)}
    y = agrees("QuantizeLinear", x, {"s": np.array(1, np.float32), "z": np.array(1, np.int8)})[0]
    assert y.tolist() == [1, 3, 3, 1]


def test_per_axis() -> None:
    agrees("QuantizeLinear", X, {"s": SCALES, "z": integers(4)}, axis=1)
    agrees("QuantizeLinear", X, {"s": SCALES[:3]}, axis=-2)
    agrees("DequantizeLinear", {"q": integers(3, 4)}, {"s": SCALES, "z": integers(4)}, axis=-1)


def test_per_block() -> None:
    q = {"q": integers(6, 5)}
    constants = {"s": np.abs(floats(3, 5)), "z": integers(3, 5)}
    agrees("DequantizeLinear", q, constants, axis=0, block_size=2, opset=21)
    agrees("QuantizeLinear", {"x": 9 * floats(6, 5)}, constants, axis=0, block_size=2, opset=21)


def test_types_of_few_bits() -> None:
    constants = {"s": SCALES, "z": integers(4, kind=ml_dtypes.int4)}
    q = {"w": integers(3, 4, kind=ml_dtypes.int4)}
    agrees("DequantizeLinear", {}, {**q, **constants}, opset=21, axis=1)
    y = evaluated("QuantizeLinear", X, constants, opset=21, axis=1)
    expected = np.clip(np.rint(X["x"] / SCALES.astype(float)) + constants["z"].astype(int), -8, 7)
    assert np.array_equal(y.astype(int), expected)
    eight = X["x"].astype(ml_dtypes.float8_e4m3fn)
    y = evaluated("DequantizeLinear", {}, {"w": eight, "s": np.array(0.5, np.float16)}, opset=19)
    assert y.dtype == np.float64
    assert np.array_equal(y, eight.astype(float) / 2)


def test_without_a_zero_point_the_type_is_stated_or_uint8() -> None:
    scale = {"s": np.array(0.05, np.float32)}
    assert evaluated("QuantizeLinear", X, scale, opset=21).dtype == np.uint8
    stated = evaluated("QuantizeLinear", X, scale, opset=21, output_dtype=TensorProto.INT16)
    assert stated.dtype == np.int16
    assert stated.min() < 0
    rounded = evaluated(
        "QuantizeLinear", {"x": np.array([1e9, 0.3])}, scale, opset=21, output_dtype=TensorProto.FLOAT8E4M3FN
    )
    assert rounded.astype(float)[0] == 448


def test_dynamic() -> None:
    agrees("DynamicQuantizeLinear", X, outputs=3)
    y, scale, zero = Oracle(node("DynamicQuantizeLinear", {"x": np.zeros(2, np.float32)}, outputs=3)).run(
        {"x": np.zeros(2, np.float32)}
    )
    assert (y.tolist(), float(scale), int(zero)) == ([0, 0], 1.0, 0)


def test_products_of_integers_are_exact() -> None:
    zeros = {"xz": np.array(120, np.uint8), "wz": np.array(7, np.uint8)}
    agrees(
        "ConvInteger", {"x": integers(1, 3, 6, 6)}, {"w": integers(4, 3, 3, 3), **zeros}, pads=[1, 1, 1, 1]
    )
    agrees("MatMulInteger", {"a": integers(3, 4)}, {"b": integers(4, 5), **zeros})
    agrees("MatMulInteger", {"a": integers(3, 4)}, {"b": integers(4, 5)})


def test_quantized_products_are_off_by_one_at_most() -> None:
    one = {"xs": np.array(0.02, np.float32), "xz": np.array(120, np.uint8)}
    last = {"ys": np.array(0.3, np.float32), "yz": np.array(128, np.uint8)}
    filters = {"w": integers(4, 3, 3, 3), "ws": SCALES / 10, "wz": np.full(4, 128, np.uint8)}
    bias = {"b": np.arange(4, dtype=np.int32) * 100}
    x = {"x": integers(1, 3, 6, 6)}
    matrix = {"b": integers(4, 5), "bs": np.array(0.01, np.float32), "bz": np.array(130, np.uint8)}
    a = {"a": integers(3, 4)}
    for feeds, model in (
        (x, node("QLinearConv", x, {**one, **filters, **last, **bias})),
        (a, node("QLinearMatMul", a, {**one, **matrix, **last})),
    ):
        expected, actual = run(model, feeds)[0], Oracle(model).run(feeds)[0]
        assert actual.dtype == expected.dtype
        difference = np.abs(expected.astype(int) - actual.astype(int))
        assert difference.max() <= 1  # where float32's rounding falls on the other side of a half
        assert difference.mean() < 0.02
        assert len(np.unique(actual)) > 5
