"""Weights whose scales are those of blocks: the other axes take a fold as scales of channels do."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest

import bnfold
from tests.graphs import (
    build,
    feeds,
    fold_and_compare,
    kept_codes,
    operators,
    positive,
    run,
    statistics,
    weight,
)

NORM = "BatchNormalization({0}, scale, bias, mean, var)"


def blocked(*, transposed: bool = False, zero: bool = True, uneven: bool = False) -> dict[str, np.ndarray]:
    """An int8 weight `[8, 6]` (or `[7, 6]`) in blocks of four rows; transposed, of four columns."""
    rng = np.random.default_rng(0)
    held = {
        "q": rng.integers(-50, 50, (7 if uneven else 8, 6)).astype(np.int8),
        "s": rng.uniform(0.01, 0.03, (2, 6)).astype(np.float32),
        "z": rng.integers(-9, 9, (2, 6)).astype(np.int8),
    }
    if not zero:
        del held["z"]
    return {name: array.T.copy() if transposed else array for name, array in held.items()}


def after(held: dict[str, np.ndarray], line: str, axis: int) -> onnx.ModelProto:
    """A product with such a weight, and a BatchNorm of its six columns."""
    rows = max(held["q"].shape)
    text = (
        f"g (float[5,{rows}] x) => (float[5,6] y) {{ "
        f"w = DequantizeLinear<axis={axis}, block_size=4>(q, s{', z' if 'z' in held else ''}) "
        f"m = {line} y = {NORM.format('m')} }}"
    )
    return build(text, {**held, **statistics(6)}, opset=21, ir_version=10)


@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize("uneven", [False, True])
def test_channels_off_the_blocks_take_the_scale(zero: bool, uneven: bool) -> None:
    result = fold_and_compare(after(blocked(zero=zero, uneven=uneven), "MatMul(x, w)", 0))
    assert operators(result.model) == ["DequantizeLinear", "MatMul", "Add"]
    kinds = [tensor.data_type for tensor in result.model.graph.initializer]
    assert onnx.TensorProto.INT8 in kinds
    held = blocked(zero=zero, transposed=True, uneven=uneven)
    result = fold_and_compare(after(held, "Gemm<transB=1>(x, w)", 1))
    assert operators(result.model) == ["DequantizeLinear", "Gemm"]


def test_rows_that_are_cut_into_blocks_do_not() -> None:
    text = (
        "g (float[5,8] x) => (float[5,6] y) { w = DequantizeLinear<axis=0, block_size=4>(q, s, z) "
        f"r = Sigmoid(x) n = {NORM.format('r')} y = MatMul(n, w) }}"
    )
    model = build(text, {**blocked(), **statistics(8)}, opset=21, ir_version=10)
    assert "BN210" in kept_codes(fold_and_compare(model))


def test_one_scale_for_all_passes_into_every_block() -> None:
    text = (
        "g (float[5,8] x) => (float[5,6] y) { w = DequantizeLinear<axis=0, block_size=4>(q, s, z) "
        "m = MatMul(x, w) y = Mul(m, k) }"
    )
    model = build(text, {**blocked(), "k": np.float32(-1.7)}, opset=21, ir_version=10)
    assert operators(fold_and_compare(model).model) == ["DequantizeLinear", "MatMul"]


def test_a_kernel_in_blocks_takes_scales_along_both_other_axes() -> None:
    """One for each output channel and one for each input channel; the blocks are along the taps."""
    rng = np.random.default_rng(0)
    text = (
        "g (float[2,3,9] x) => (float[2,5,6] y) { w = DequantizeLinear<axis=2, block_size=2>(q, s) "
        "r = Sigmoid(x) p = Mul(r, k) c = Conv(p, w) y = BatchNormalization(c, scale, bias, mean, var) }"
    )
    held = {
        "q": rng.integers(-50, 50, (5, 3, 4)).astype(np.int8),
        "s": rng.uniform(0.01, 0.03, (5, 3, 2)).astype(np.float32),
        "k": weight(3, 1),
    }
    model = build(text, {**held, **statistics(5)}, opset=21, ir_version=10)
    assert operators(fold_and_compare(model).model) == ["DequantizeLinear", "Sigmoid", "Conv"]


def test_four_bits_take_no_negative_scale() -> None:
    held = {name: array for name, array in blocked(zero=False).items() if name != "q"}
    held["q"] = np.random.default_rng(0).integers(-7, 8, (8, 6)).astype(ml_dtypes.int4)
    text = (
        "g (float[5,8] x) => (float[5,6] y) { w = DequantizeLinear<axis=0, block_size=4>(q, s) "
        f"m = MatMul(x, w) y = {NORM.format('m')} }}"
    )
    kept = bnfold.fold(build(text, {**held, **statistics(6)}, opset=21, ir_version=10))
    assert "BN210" in kept_codes(kept)
    model = build(text, {**held, **positive(statistics(6))}, opset=21, ir_version=10)
    result = bnfold.fold(model)
    assert operators(result.model) == ["DequantizeLinear", "MatMul", "Add"]
    [expected], [actual] = run(model, feeds(model)), run(result.model, feeds(model))
    assert np.abs(expected - actual).max() <= 2e-5 * np.abs(expected).max()
