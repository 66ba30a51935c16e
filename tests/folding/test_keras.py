"""The patterns that Keras 3 leaves when it exports through its torch backend, as small graphs of our own.

Keras keeps channels last, so each convolution stands between two Transposes; writes a BatchNorm as
`(x − μ)·m + β` over constants of shape `[1, 1, 1, C]`; puts Casts from a type to itself between all layers;
adds biases by an Add of their own; flattens to a computed shape; and pads by computed amounts.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.graphs import build, fold_and_compare, kept_codes, operators, weight

CAST = "Cast<to = 1>"
Arrays = dict[str, np.ndarray]


def norm(prefix: str, source: str, result: str) -> str:
    """Keras's BatchNorm over the last axis, with the Casts around it."""
    return f"""
        {prefix}c = {CAST}({source})
        {prefix}d = Sub({prefix}c, {prefix}mean)
        {prefix}e = Mul({prefix}d, {prefix}m)
        {prefix}f = Add({prefix}e, {prefix}beta)
        {result} = {CAST}({prefix}f)"""


def parameters(prefix: str, channels: int, rank: int, seed: int) -> Arrays:
    """What `norm` reads: mean, factor and offset, of which some factors are negative."""
    rng = np.random.default_rng(seed)
    shape = (1,) * (rank - 1) + (channels,)
    arrays = {
        "mean": rng.normal(0, 0.8, shape),
        "m": rng.uniform(0.4, 1.9, shape) * np.where(rng.random(shape) < 0.3, -1, 1),
        "beta": rng.normal(0, 0.7, shape),
    }
    return {prefix + name: array.astype(np.float32) for name, array in arrays.items()}


def convolution(prefix: str, source: str, result: str, attributes: str = "") -> str:
    """A convolution over a channels-last value."""
    return f"""
        {prefix}t = Transpose<perm = [0, 3, 1, 2]>({source})
        {prefix}v = Conv{attributes}({prefix}t, {prefix}w)
        {result} = Transpose<perm = [0, 2, 3, 1]>({prefix}v)"""


def arithmetic(model: onnx.ModelProto) -> set[str]:
    return {"Mul", "Sub", "Div", "BatchNormalization"} & set(operators(model))


def test_the_small_network_keeps_nothing_but_bias_adds() -> None:
    body = (
        convolution("a", "x", "h1", "<pads = [1, 1, 1, 1]>")
        + "\nh2 = Add(h1, abias)"
        + norm("n", "h2", "h3")
        + f"""
        h4 = Relu(h3)
        h5 = {CAST}(h4)
        h6 = Transpose<perm = [0, 3, 1, 2]>(h5)
        h7 = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(h6)
        h8 = Transpose<perm = [0, 2, 3, 1]>(h7)
        size = Shape(h8)
        zero = Constant<value_int = 0>()
        batch = Gather<axis = 0>(size, zero)
        axes = Constant<value_ints = [0]>()
        first = Unsqueeze(batch, axes)
        rest = Constant<value_ints = [-1]>()
        target = Concat<axis = 0>(first, rest)
        h9 = Reshape(h8, target)
        p1 = MatMul(h9, dense1)
        p2 = {CAST}(p1)
        p3 = Add(p2, bias1)"""
        + norm("o", "p3", "p4")
        + """
        p5 = Relu(p4)
        p6 = MatMul(p5, dense2)
        p7 = Add(p6, bias2)
        y = Softmax(p7)"""
    )
    model = build(
        f"g (float[N, 8, 8, 3] x) => (float[N, 10] y) {{ {body} }}",
        {
            "aw": weight(6, 3, 3, 3),
            "abias": weight(1, 1, 1, 6, seed=2),
            "dense1": weight(96, 16, seed=3),
            "bias1": weight(16, seed=4),
            "dense2": weight(16, 10, seed=5),
            "bias2": weight(10, seed=6),
            **parameters("n", 6, 4, seed=7),
            **parameters("o", 16, 2, seed=8),
        },
        opset=20,
    )
    result = fold_and_compare(model)
    assert not result.kept
    assert not arithmetic(result.model)
    assert operators(result.model).count("Add") <= 2


def test_an_inverted_residual_block() -> None:
    body = (
        convolution("a", "x", "h1")
        + norm("n", "h1", "h2")
        + "\nh3 = Clip(h2, low, high)"
        + convolution("b", "h3", "h4", "<group = 8, pads = [1, 1, 1, 1]>")
        + norm("o", "h4", "h5")
        + "\nh6 = Clip(h5, low, high)"
        + convolution("c", "h6", "h7")
        + norm("p", "h7", "h8")
        + "\ny = Add(x, h8)"
    )
    model = build(
        f"g (float[N, 5, 5, 4] x) => (float[N, 5, 5, 4] y) {{ {body} }}",
        {
            "aw": weight(8, 4, 1, 1),
            "bw": weight(8, 1, 3, 3, seed=2),
            "cw": weight(4, 8, 1, 1, seed=3),
            "low": np.float32(0),
            "high": np.float32(6),
            **parameters("n", 8, 4, seed=4),
            **parameters("o", 8, 4, seed=5),
            **parameters("p", 4, 4, seed=6),
        },
    )
    result = fold_and_compare(model)
    assert len(result.folded) == 3
    assert not result.kept
    assert not arithmetic(result.model)


def test_a_gate_from_squeeze_and_excitation() -> None:
    body = (
        convolution("a", "x", "h1", "<group = 4>")
        + norm("n", "h1", "h2")
        + """
        g0 = Sigmoid(h2)
        h3 = Mul(h2, g0)
        axes = Constant<value_ints = [1, 2]>()
        g1 = ReduceMean<keepdims = 0>(h3, axes)
        shape = Constant<value_ints = [-1, 1, 1, 4]>()
        g2 = Reshape(g1, shape)"""
        + convolution("b", "g2", "g3")
        + """
        g4 = Add(g3, bbias)
        g5 = Sigmoid(g4)
        h4 = Mul(h3, g5)"""
        + convolution("c", "h4", "h5")
        + norm("o", "h5", "y")
    )
    model = build(
        f"g (float[N, 6, 6, 4] x) => (float[N, 4, 4, 3] y) {{ {body} }}",
        {
            "aw": weight(4, 1, 3, 3),
            "bw": weight(4, 4, 1, 1, seed=2),
            "bbias": weight(1, 1, 1, 4, seed=3),
            "cw": weight(3, 4, 1, 1, seed=4),
            **parameters("n", 4, 4, seed=5),
            **parameters("o", 3, 4, seed=6),
        },
    )
    result = fold_and_compare(model)
    assert not result.kept
    assert operators(result.model).count("Mul") == 2, "the two gates, which multiply values"
    assert not {"Sub", "Add"} & set(operators(result.model))


def test_padding_by_computed_amounts_before_a_convolution() -> None:
    body = (
        """
        given = Constant<value_ints = [0, 0, 1, 0]>()
        others = Constant<value_ints = [1, 1, 0, 0]>()
        both = Concat<axis = 0>(given, others)
        pairs = Constant<value_ints = [-1, 2]>()
        table = Reshape(both, pairs)
        start = Constant<value_ints = [-1]>()
        end = Constant<value_ints = [-9223372036854775807]>()
        axis = Constant<value_ints = [0]>()
        step = Constant<value_ints = [-1]>()
        turned = Slice(table, start, end, axis, step)
        columns = Transpose<perm = [1, 0]>(turned)
        flat = Constant<value_ints = [-1]>()
        row = Reshape(columns, flat)
        amounts = Cast<to = 7>(row)
        p = Pad<mode = "constant">(x, amounts)"""
        + convolution("a", "p", "h1")
        + norm("n", "h1", "y")
    )
    model = build(
        f"g (float[1, 5, 5, 3] x) => (float[a, b, c, d] y) {{ {body} }}",
        {"aw": weight(4, 3, 3, 3), **parameters("n", 4, 4, seed=2)},
    )
    result = fold_and_compare(model)
    assert not result.kept
    assert not arithmetic(result.model)


def rescaled(pads: str) -> onnx.ModelProto:
    """Keras's Rescaling and Normalization in front of the first convolution."""
    body = (
        """
        x1 = Mul(x, factor)
        x2 = Sub(x1, mean)
        x3 = Div(x2, deviation)"""
        + convolution("a", "x3", "h1", f"<pads = {pads}>")
        + norm("n", "h1", "y")
    )
    return build(
        f"g (float[1, 6, 6, 3] x) => (float[a, b, c, d] y) {{ {body} }}",
        {
            "factor": np.float32(1 / 255),
            "mean": np.float32([[[[0.3, -0.2, 0.5]]]]),
            "deviation": np.float32([[[[0.5, 0.25, 2]]]]),
            "aw": weight(4, 3, 3, 3),
            **parameters("n", 4, 4, seed=2),
        },
    )


def test_the_input_normalisation_goes_into_a_convolution_without_padding() -> None:
    result = fold_and_compare(rescaled("[0, 0, 0, 0]"))
    assert not result.kept
    assert operators(result.model) == ["Transpose", "Conv", "Transpose", "Cast", "Cast"]


def test_of_the_input_normalisation_the_shift_stays_before_zeros_that_it_would_shift() -> None:
    result = fold_and_compare(rescaled("[1, 1, 1, 1]"))
    assert kept_codes(result) == {"BN304", "BN205"}
    assert operators(result.model)[:3] == ["Sub", "Transpose", "Conv"]
    assert len(result.folded) == 1


def test_parameters_that_are_computed_and_reshaped() -> None:
    body = (
        convolution("a", "x", "h1")
        + """
        shape = Constant<value_ints = [1, 1, 1, 5]>()
        mean4 = Reshape(mean, shape)
        variance4 = Reshape(variance, shape)
        gamma4 = Reshape(gamma, shape)
        beta4 = Reshape(beta, shape)
        spread = Add(variance4, epsilon)
        root = Sqrt(spread)
        inverse = Reciprocal(root)
        factor = Mul(inverse, gamma4)
        down = Mul(mean4, factor)
        offset = Sub(beta4, down)
        h2 = Mul(h1, factor)
        y = Add(h2, offset)"""
    )
    rng = np.random.default_rng(0)
    model = build(
        f"g (float[N, 4, 4, 3] x) => (float[N, 4, 4, 5] y) {{ {body} }}",
        {
            "aw": weight(5, 3, 1, 1),
            "mean": weight(5, seed=2),
            "variance": rng.uniform(0.3, 2, 5).astype(np.float32),
            "gamma": weight(5, seed=3),
            "beta": weight(5, seed=4),
            "epsilon": np.float32(1e-3),
        },
    )
    result = fold_and_compare(model)
    assert operators(result.model) == ["Transpose", "Conv", "Transpose"]


@pytest.mark.parametrize("cast", ["Cast<to = 10>", "Cast<to = 11>"])
def test_a_cast_to_another_type_is_no_formality(cast: str) -> None:
    body = convolution("a", "x", "h1") + f"\nh2 = {cast}(h1)\nh3 = {CAST}(h2)" + norm("n", "h3", "y")
    model = build(
        f"g (float[N, 4, 4, 3] x) => (float[N, 4, 4, 5] y) {{ {body} }}",
        {"aw": weight(5, 3, 1, 1), **parameters("n", 5, 4, seed=2)},
    )
    result = fold_and_compare(model)
    assert [site.op_type for site in result.kept] == ["Sub+Mul+Add"]
    assert arithmetic(result.model) == {"Mul"}


def test_a_factor_along_another_axis_of_the_same_size_is_not_taken_for_channels() -> None:
    body = convolution("a", "x", "h1") + "\ny = Mul(h1, rows)"
    model = build(
        f"g (float[N, 4, 4, 3] x) => (float[N, 4, 4, 4] y) {{ {body} }}",
        {"aw": weight(4, 3, 1, 1), "rows": weight(4, 1, 1, seed=2)},
    )
    result = fold_and_compare(model)
    assert len(result.kept) == 1
    assert operators(result.model) == operators(model)


def test_a_dense_block_keeps_the_norm_of_a_value_that_others_read() -> None:
    body = (
        convolution("a", "x", "h1")
        + norm("n", "h1", "h2")
        + "\nh3 = Relu(h2)"
        + convolution("b", "h3", "h4")
        + "\nh5 = Concat<axis = 3>(h1, h4)"
        + norm("o", "h5", "h6")
        + "\nh7 = Relu(h6)\ny = Concat<axis = 3>(h5, h7)"
    )
    model = build(
        f"g (float[N, 4, 4, 3] x) => (float[N, 4, 4, 14] y) {{ {body} }}",
        {
            "aw": weight(4, 3, 1, 1),
            "bw": weight(3, 4, 1, 1, seed=2),
            **parameters("n", 4, 4, seed=3),
            **parameters("o", 7, 4, seed=4),
        },
    )
    result = fold_and_compare(model)
    assert not result.folded
    assert kept_codes(result) == {"BN301", "BN207"}
