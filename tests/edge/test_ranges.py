"""Weight ranges: by output channel of every operator, the bits that a common step loses, what is left out."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import bnfold
from bnfold.edge.ranges import NodeRange, WeightRange, losses, ranges
from bnfold.graph.facts import Facts
from tests.graphs import build, statistics, weight

_BN = "BatchNormalization(c, scale, bias, mean, var)"


def measured(model: onnx.ModelProto, **options: bool) -> tuple[NodeRange, ...]:
    original = ir.from_proto(model)
    result = bnfold.fold(original, **options)
    return ranges(original, result.model, result)


def conv(w: np.ndarray, numbers: dict[str, np.ndarray], name: str = "conv") -> onnx.ModelProto:
    """A 3×3 convolution of four channels with a BatchNorm behind it."""
    model = build(
        f"g (float[2,4,5,5] x) => (float[2,{len(w)},3,3] y) {{ c = Conv(x, w) y = {_BN} }}",
        {"w": w, **numbers},
    )
    model.graph.node[0].name = name
    return model


def scale_of(numbers: dict[str, np.ndarray]) -> np.ndarray:
    wide = {name: array.astype(np.float64) for name, array in numbers.items()}
    return np.abs(wide["scale"] / np.sqrt(wide["var"] + np.float32(1e-5)))


@pytest.mark.parametrize("name", ["conv", ""])
def test_a_convolution_is_measured_by_output_channel(name: str) -> None:
    w, numbers = weight(6, 4, 3, 3), statistics(6)
    (one,) = measured(conv(w, numbers, name=name))
    own = np.abs(w.astype(np.float64)).max(axis=(1, 2, 3))
    assert one.before is not None
    assert (one.op_type, one.type, one.graph) == ("Conv", "float32", "")
    np.testing.assert_array_equal(one.before.maxima, own)
    np.testing.assert_allclose(one.after.maxima, own * scale_of(numbers), rtol=1e-7)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_transposed_convolution_has_its_output_channels_by_group(groups: int) -> None:
    w, numbers = weight(4, 6 // groups, 2, 2), statistics(6)
    model = build(
        f"g (float[2,4,5,5] x) => (float[2,6,6,6] y) {{ c = ConvTranspose<group={groups}>(x, w) y = {_BN} }}",
        {"w": w, **numbers},
    )
    (one,) = measured(model)
    each, cin = 6 // groups, 4 // groups
    expected = [np.abs(w[c // each * cin : (c // each + 1) * cin, c % each]).max() for c in range(6)]
    assert one.before is not None
    np.testing.assert_array_equal(one.before.maxima, expected)
    np.testing.assert_allclose(one.after.maxima, expected * scale_of(numbers), rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "shape", "axis"),
    [
        ("Gemm(x, w)", (4, 6), 1),
        ("Gemm<transB=1>(x, w)", (6, 4), 0),
        ("MatMul(x, w)", (4, 6), 1),
    ],
)
def test_a_linear_layer_is_measured_along_its_free_axis(call: str, shape: tuple[int, int], axis: int) -> None:
    w, numbers = weight(*shape), statistics(6)
    model = build(f"g (float[3,4] x) => (float[3,6] y) {{ c = {call} y = {_BN} }}", {"w": w, **numbers})
    (one,) = measured(model)
    own = np.abs(w).max(axis=1 - axis)
    assert one.before is not None
    np.testing.assert_array_equal(one.before.maxima, own)
    np.testing.assert_allclose(one.after.maxima, own * scale_of(numbers), rtol=1e-6)


def test_a_constant_on_the_left_gives_the_rows() -> None:
    w, numbers = weight(6, 4), statistics(6)
    model = build(
        f"g (float[2,4,3] x) => (float[2,6,3] y) {{ c = MatMul(w, x) y = {_BN} }}", {"w": w, **numbers}
    )
    (one,) = measured(model)
    assert one.before is not None
    np.testing.assert_array_equal(one.before.maxima, np.abs(w).max(axis=1))


def test_bits_lost_follow_the_formula() -> None:
    assert WeightRange((4.0, 1.0, 0.5, 2.0), 0).bits_lost == pytest.approx((0 + 2 + 3 + 1) / 4)
    assert WeightRange((3.0, 3.0), 0).bits_lost == 0
    assert WeightRange((1.0, 2.0**-40), 0).bits_lost == pytest.approx(8 / 2), "an int8 has no more to lose"


def test_a_channel_of_zeros_is_counted_and_costs_nothing() -> None:
    w = weight(6, 4, 3, 3)
    w[2] = 0
    (one,) = measured(conv(w, statistics(6)))
    assert (one.after.zeros, len(one.after.live)) == (1, 5)
    assert math.isfinite(one.after.bits_lost)
    assert WeightRange((0.0, 0.0), 0).bits_lost == 0


@pytest.mark.parametrize(("spread", "worse"), [(1.0, False), (64.0, True)])
def test_uneven_scales_are_worth_a_warning(spread: float, worse: bool) -> None:
    w, numbers = np.ones((6, 4, 3, 3), np.float32), statistics(6)
    numbers["var"][:] = 1
    numbers["scale"] = np.geomspace(1, spread, 6).astype(np.float32)
    (one,) = measured(conv(w, numbers))
    assert one.before is not None
    assert (one.before.bits_lost, one.worse) == (0, worse)
    # five equal steps from 0 to log2(spread), the largest channel losing nothing
    assert one.extra_bits == pytest.approx(math.log2(spread) / 2, abs=1e-4)


def test_weights_that_the_fold_makes_subnormal_are_counted() -> None:
    w = np.full((2, 4, 3, 3), 2.0**-12, np.float16)
    numbers = statistics(2, dtype=np.float16)
    numbers |= {"var": np.ones(2, np.float16), "scale": np.array([1, 0.125], np.float16)}
    model = build(
        f"g (float16[2,4,5,5] x) => (float16[2,2,3,3] y) {{ c = Conv(x, w) y = {_BN} }}", {"w": w, **numbers}
    )
    (one,) = measured(model)
    assert one.before is not None
    assert (one.type, one.before.subnormals, one.after.subnormals) == ("float16", 0, 4 * 9)


def test_a_merged_convolution_has_no_weight_before() -> None:
    numbers = statistics(4, prefix="a_") | statistics(4, seed=1, prefix="b_")
    model = build(
        "g (float[2,4,5,5] x) => (float[2,4,5,5] y) {"
        " a = Conv<pads=[1,1,1,1]>(x, u) p = BatchNormalization(a, a_scale, a_bias, a_mean, a_var)"
        " b = Conv(x, v) q = BatchNormalization(b, b_scale, b_bias, b_mean, b_var) y = Add(p, q) }",
        {"u": weight(4, 4, 3, 3), "v": weight(4, 4, 1, 1, seed=2), **numbers},
    )
    for number, node in enumerate(model.graph.node):
        node.name = f"n{number}"
    (one,) = measured(model)
    assert one.before is None
    assert (one.extra_bits, one.worse) == (None, False)
    assert [node.before is None for node in measured(model, merge=False)] == [False, False]


def test_what_took_nothing_is_not_measured() -> None:
    model = build("g (float[2,4,5,5] x) => (float[2,6,3,3] y) { y = Conv(x, w) }", {"w": weight(6, 4, 3, 3)})
    assert measured(model) == ()


def test_a_quantised_weight_is_left_out() -> None:
    rng = np.random.default_rng(0)
    model = build(
        f"g (float[2,4,5,5] x) => (float[2,6,3,3] y) {{ w = DequantizeLinear<axis=0>(q, s)"
        f" c = Conv(x, w) y = {_BN} }}",
        {
            "q": rng.integers(-90, 90, (6, 4, 3, 3)).astype(np.int8),
            "s": rng.uniform(0.01, 0.1, 6).astype(np.float32),
            **statistics(6),
        },
    )
    assert bnfold.fold(model).folded
    assert measured(model) == ()


def test_losses_are_named_the_worst_first() -> None:
    first, second = weight(6, 3, 1, 1), weight(6, 6, 1, 1)
    for array, largest in ((first, 4), (second, 64), (third := weight(6, 6, 1, 1), 1)):
        array /= np.abs(array).max(axis=1, keepdims=True)
        array[0] *= largest
    model = build(
        "g (float[1,3,4,4] x) => (float[1,6,4,4] y) { [one] a = Conv (x, w) [two] b = Conv (a, v)"
        " [three] y = Conv (b, u) }",
        {"w": first, "v": second, "u": third},
    )
    found = losses(Facts(ir.from_proto(model)), least=1.0)
    assert [one.layer for one in found] == ["two", "one"]
    assert [one.bits for one in found] == pytest.approx([5.0, 10 / 6], abs=1e-6)
    assert found[0].channels == 6
    assert losses(Facts(ir.from_proto(model)), least=5.5) == ()
