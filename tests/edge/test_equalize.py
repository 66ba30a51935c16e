"""Equalisation: outputs stay equal bit for bit, whatever stands between the layers, and ranges get closer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import bnfold
from bnfold.edge.balance import Equalized
from bnfold.edge.channels import Channels
from bnfold.edge.equalize import equalize
from bnfold.errors import InputError
from bnfold.graph.facts import Facts
from tests import graphs
from tests.graphs import build, weight
from tests.random_graphs import random_feeds, random_model

EXAMPLES = int(os.environ.get("BNFOLD_EQUALIZE_EXAMPLES", "60"))
LEVELS = (ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL)


def outputs(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray], level: object) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(feeds))


def equalized(model: onnx.ModelProto, feeds: list[dict[str, np.ndarray]] | None = None) -> Equalized:
    """Equalise a model and demand all that it promises."""
    given_model = ir.from_proto(model)
    before = ir.to_proto(given_model).SerializeToString(deterministic=True)
    done = equalize(given_model)
    assert ir.to_proto(given_model).SerializeToString(deterministic=True) == before
    after = ir.to_proto(done.model)
    onnx.checker.check_model(after)
    assert len(after.graph.node) == len(model.graph.node)
    for inputs in feeds or [graphs.feeds(model, seed) for seed in range(2)]:
        for level in LEVELS:
            for one, other in zip(outputs(model, inputs, level), outputs(after, inputs, level), strict=True):
                assert one.dtype == other.dtype
                assert one.shape == other.shape
                assert one.tobytes() == other.tobytes()
    again = equalize(done.model)
    assert again.moved == 0, [one for one in again.layers if one.moved]
    return done


def uneven(*shape: int, axis: int = 0, seed: int = 1, dtype: type = np.float32) -> np.ndarray:
    """Random numbers whose channels along an axis differ by factors that are no powers of two."""
    factors = np.exp(np.random.default_rng(seed + 100).uniform(-4, 4, shape[axis]))
    laid = [-1 if at == axis else 1 for at in range(len(shape))]
    return (weight(*shape, seed=seed).astype(float) * factors.reshape(laid)).astype(dtype)


PASSING = {
    "nothing": "h = Identity (a)",
    "Relu": "h = Relu (a)",
    "LeakyRelu": "h = LeakyRelu <alpha = 0.3> (a)",
    "PRelu": "h = PRelu (a, slope)",
    "Abs": "n = Neg (a) h = Abs (n)",
    "Clip that is a Relu": "h = Clip (a, zero)",
    "Dropout": "h = Dropout (a)",
    "MaxPool": "h = MaxPool <kernel_shape = [2, 2], pads = [1, 1, 0, 0]> (a)",
    "AveragePool": "h = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1> (a)",
    "average with auto_pad": 'h = AveragePool <kernel_shape = [2, 2], auto_pad = "SAME_UPPER"> (a)',
    "zero Pad": "h = Pad (a, pads)",
    "reflected Pad": 'h = Pad <mode = "reflect"> (a, pads)',
    "nearest": 'h = Resize <mode = "nearest"> (a, none, scales)',
    "linear": 'h = Resize <mode = "linear"> (a, none, scales)',
    "cubic": 'h = Resize <mode = "cubic"> (a, none, scales)',
    "a constant factor": "h = Mul (a, slope)",
    "a divisor": "h = Div (a, slope)",
    "a constant term": "h = Add (a, slope)",
    "a gate": "g = Sigmoid (x) one = ReduceMean <keepdims = 1> (g) h = Mul (a, one)",
    "a residual Add": "r = Relu (a) s = Neg (a) h = Add (r, s)",
    "Sub and Max": "r = Relu (a) s = Sub (a, r) h = Max (a, s)",
    "Sum of three": "r = Relu (a) s = Neg (a) h = Sum (r, s, a)",
    "Transpose and back": "t = Transpose <perm = [0, 2, 3, 1]> (a) r = Relu (t)"
    " h = Transpose <perm = [0, 3, 1, 2]> (r)",
    "Reshape and back": "t = Reshape (a, flat) r = Relu (t) h = Reshape (r, square)",
    "Concat of itself": "r = Relu (a) c = Concat <axis = 2> (a, r)"
    " h = AveragePool <kernel_shape = [2, 1]> (c)",
    "Split elsewhere": "u, v = Split <axis = 2> (a, halves) h = Concat <axis = 2> (v, u)",
    "Split and Concat of channels": "u, v = Split <axis = 1> (a, parts) r = Relu (u)"
    " h = Concat <axis = 1> (r, v)",
    "Squeeze": "q = Unsqueeze (a, two) h = Squeeze (q, two)",
    "a depthwise layer": "h = Conv <group = 6, pads = [1, 1, 1, 1]> (a, wd, bd)",
    "a grouped layer": "h = Conv <group = 2, pads = [1, 1, 1, 1]> (a, wg, bd)",
    "a transposed layer": "h = ConvTranspose <group = 3, strides = [2, 2]> (a, wt, bd)",
}
CONSTANTS = {
    "slope": np.linspace(0.1, 0.7, 6, dtype=np.float32).reshape(6, 1, 1),
    "zero": np.array(0, np.float32),
    "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
    "none": np.zeros(0, np.float32),
    "scales": np.array([1, 1, 2, 1.5], np.float32),
    "flat": np.array([0, 6, -1], np.int64),
    "square": np.array([0, 6, 6, 6], np.int64),
    "halves": np.array([3, 3], np.int64),
    "parts": np.array([2, 4], np.int64),
    "two": np.array([2], np.int64),
    "wd": uneven(6, 1, 3, 3, seed=5),
    "wg": uneven(6, 3, 3, 3, seed=6),
    "wt": uneven(6, 2, 2, 2, axis=1, seed=7),
    "bd": weight(6, seed=8),
}


def between(middle: str, opset: int = 18, **constants: np.ndarray) -> onnx.ModelProto:
    """Two uneven layers with something between them."""
    used = {
        name: array for name, array in (CONSTANTS | constants).items() if name in middle.replace(",", " ")
    }
    return build(
        f"""g (float[2,3,6,6] x) => (float[?,?,?,?] y) {{
            a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1) {middle} y = Conv (h, w2, b2) }}""",
        {
            "w1": uneven(6, 3, 3, 3),
            "b1": weight(6, seed=3),
            "w2": uneven(5, 6, 1, 1, axis=1, seed=2),
            "b2": weight(5, seed=4),
            **used,
        },
        opset=opset,
    )


@pytest.mark.parametrize("middle", PASSING.values(), ids=PASSING)
def test_scales_pass(middle: str) -> None:
    done = equalized(between(middle))
    assert done.layers[0].moved > 0
    assert not done.layers[0].stopped


STOPPING = {
    "Sigmoid": "h = Sigmoid (a)",
    "Clip": "h = Clip (a, low, high)",
    "Softmax": "h = Softmax <axis = 1> (a)",
    "Add": "h = Add (a, full)",
    "Mul": "h = Mul (a, a)",
    "Div": "h = Div (slope, a)",
    "Pad": "h = Pad (a, pads, half)",
    "Resize": 'h = Resize <coordinate_transformation_mode = "tf_crop_and_resize",'
    " extrapolation_value = 1.0> (a, roi, scales)",
    "GlobalLpPool": "h = GlobalLpPool (a)",
    "InstanceNormalization": "h = InstanceNormalization (a, six, six)",
}
STOPS = {
    "low": np.array(0, np.float32),
    "high": np.array(6, np.float32),
    "half": np.array(0.5, np.float32),
    "full": weight(1, 6, 6, 6, seed=9),
    "six": weight(6, seed=10),
    "roi": np.array([0, 0, -0.5, 0, 1, 1, 1.5, 1], np.float32),
}


@pytest.mark.parametrize(("operator", "middle"), STOPPING.items(), ids=STOPPING)
def test_other_operators_stop_scales_and_are_named(operator: str, middle: str) -> None:
    done = equalized(between(middle, **STOPS))
    assert done.layers[0].moved == 0
    assert operator in done.layers[0].stopped


def test_a_padding_of_channels_and_a_stretch_of_channels_stop() -> None:
    constants = {
        "more": np.array([0, 1, 0, 0, 0, 0, 0, 0], np.int64),
        "wide": np.array([1, 1.1, 1, 1], np.float32),
        "axes": np.array([1, 0, 2, 3], np.int64),
        "some": np.array([0, 1, 0, 0, 0, 0, 0, 0], np.int64),
    }
    for middle, channels in (
        ("h = Pad (a, more)", 7),
        ('h = Resize <mode = "linear"> (a, none, wide)', 6),
        ("h = Pad (a, some, , axes)", 6),
    ):
        model = between(middle, **constants)
        for tensor in model.graph.initializer:
            if tensor.name == "w2":
                tensor.CopyFrom(onnx.numpy_helper.from_array(uneven(5, channels, 1, 1, axis=1), "w2"))
        assert equalized(model).layers[0].moved == 0, middle


@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22])
def test_every_opset(opset: int) -> None:
    done = equalized(between("r = Relu (a) h = MaxPool <kernel_shape = [2, 2]> (r)", opset=opset))
    assert done.layers[0].moved > 0


@pytest.mark.parametrize("opset", [7, 10, 11])
def test_attributes_of_old_opsets(opset: int) -> None:
    for middle, moves in (
        ("h = Clip <min = 0.0> (a)", opset < 11),
        ("h = Clip <min = 0.0, max = 6.0> (a)", False),
        ("h = Pad <pads = [0, 0, 1, 1, 0, 0, 1, 1]> (a)", opset < 11),
        ("h = Pad <pads = [0, 0, 1, 1, 0, 0, 1, 1], value = 0.5> (a)", False),
    ):
        if opset < 11:
            assert (equalized(between(middle, opset=opset)).layers[0].moved > 0) == moves, middle


@pytest.mark.parametrize("trans", [0, 1])
def test_gemms(trans: int) -> None:
    shapes = ((6, 4), (5, 6)) if trans else ((4, 6), (6, 5))
    model = build(
        f"""g (float[2,4] x) => (float[2,5] y) {{
            a = Gemm <transB = {trans}, alpha = 0.7, beta = 1.3> (x, w1, b1) r = Relu (a)
            y = Gemm <transB = {trans}, alpha = 1.5> (r, w2) }}""",
        {
            "w1": uneven(*shapes[0], axis=1 - trans), "b1": weight(1, 6, seed=2),
            "w2": uneven(*shapes[1], axis=trans, seed=3),
        },
    )  # fmt: skip
    assert equalized(model).layers[0].moved > 0


def test_products_of_rank_three_with_a_bias_in_an_add() -> None:
    model = build(
        """g (float[2,5,4] x) => (float[2,5,3] y) {
            a = MatMul (x, w1) c = Add (b1, a) r = Relu (c) y = MatMul (r, w2) }""",
        {"w1": uneven(4, 6, axis=1), "b1": weight(6), "w2": uneven(6, 3, seed=3)},
    )
    assert equalized(model).layers[0].moved > 0


def test_a_flattened_map_repeats_its_channels() -> None:
    model = build(
        """g (float[N,3,6,6] x) => (float[N,5] y) {
            a = Conv (x, w1) r = Relu (a) f = Flatten (r) y = Gemm (f, w2, b2) }""",
        {"w1": uneven(6, 3, 3, 3), "w2": uneven(96, 5, seed=3), "b2": weight(5)},
    )
    assert equalized(model).layers[0].moved > 0


def test_a_mean_over_the_map() -> None:
    model = build(
        """g (float[N,3,6,6] x) => (float[N,5] y) {
            a = Conv (x, w1) r = ReduceMean <axes = [2, 3], keepdims = 0> (a) y = Gemm (r, w2, b2) }""",
        {"w1": uneven(6, 3, 3, 3), "w2": uneven(6, 5, seed=3), "b2": weight(5)},
        opset=13,
    )
    assert equalized(model).layers[0].moved > 0


def test_a_stream_is_scaled_alike_everywhere() -> None:
    model = build(
        """g (float[2,3,6,6] x) => (float[2,4,6,6] y) {
            s = Conv (x, w0) a = Conv (s, w1) r = Relu (a) b = Conv (r, w2) t = Add (s, b)
            c = Conv (t, w3) d = Relu (c) e = Conv (d, w2b) u = Add (t, e) y = Conv (u, w4) }""",
        {
            "w0": uneven(6, 3, 1, 1),
            "w1": uneven(8, 6, 1, 1, seed=2),
            "w2": uneven(6, 8, 1, 1, seed=3),
            "w3": uneven(8, 6, 1, 1, seed=4),
            "w2b": uneven(6, 8, 1, 1, seed=5),
            "w4": uneven(4, 6, 1, 1, axis=1, seed=6),
        },
    )
    assert equalized(model).layers[0].moved > 0


def test_a_layer_that_reads_what_it_writes_to() -> None:
    model = build(
        """g (float[2,3,6,6] x) => (float[2,4,6,6] y) {
            s = Conv (x, w0) b = Conv (s, w1) t = Add (s, b) y = Conv (t, w4) }""",
        {"w0": uneven(6, 3, 1, 1), "w1": uneven(6, 6, 1, 1, seed=2), "w4": uneven(4, 6, 1, 1, axis=1)},
    )
    equalized(model)


def test_a_gate_of_its_own_is_held_and_what_it_multiplies_passes() -> None:
    done = equalized(
        build(
            """g (float[2,3,6,6] x) => (float[2,4,6,6] y) {
                a = Conv (x, w1) p = GlobalAveragePool (x) c = Conv (p, ws) g = Sigmoid (c) m = Mul (a, g)
                y = Conv (m, w2) }""",
            {"w1": uneven(6, 3, 1, 1), "ws": uneven(6, 3, 1, 1, seed=2), "w2": uneven(4, 6, 1, 1, axis=1)},
        )
    )
    assert [one.moved > 0 for one in done.layers] == [True, False, False]
    assert "Sigmoid" in done.layers[1].stopped


def test_channels_next_to_an_input_in_a_concat() -> None:
    done = equalized(
        build(
            """g (float[2,3,6,6] x) => (float[2,4,6,6] y) {
                a = Conv (x, w1) c = Concat <axis = 1> (x, a) y = Conv (c, w2) }""",
            {"w1": uneven(6, 3, 1, 1), "w2": uneven(4, 9, 1, 1, axis=1)},
        )
    )
    assert done.layers[0].moved > 0


PAIR = "a = Conv (x, w1) r = Relu (a) y = Conv (r, w2)"
WEIGHTS = {"w1": uneven(6, 6, 1, 1), "w2": uneven(6, 6, 1, 1, axis=1, seed=2)}


def pair(
    text: str = PAIR, constants: Mapping[str, np.ndarray] = WEIGHTS, dtype: str = "float"
) -> onnx.ModelProto:
    return build(f"g ({dtype}[2,6,3,3] x) => ({dtype}[2,6,3,3] y) {{ {text} }}", constants)


def test_what_holds_a_weight_is_said() -> None:
    shared = equalized(pair("a = Conv (x, w1) r = Relu (a) y = Conv (r, w1)", {"w1": WEIGHTS["w1"]}))
    assert shared.moved == 0
    assert set(shared.refused.values()) == {"the weight is read by other nodes too"}

    computed = equalized(pair("v = Neg (w1) a = Conv (x, v) r = Relu (a) y = Conv (r, w2)"))
    assert computed.moved == 0
    assert "the weight is computed" in computed.refused.values()

    model = pair()
    model.graph.input.append(onnx.helper.make_tensor_value_info("w1", onnx.TensorProto.FLOAT, [6, 6, 1, 1]))
    overridable = equalized(model, [{"x": weight(2, 6, 3, 3)}])
    assert overridable.moved == 0
    assert "the weight may be set by callers" in overridable.refused.values()

    half = {name: array.astype(np.float16) for name, array in WEIGHTS.items()}
    narrow = equalized(pair(constants=half, dtype="float16"))
    assert narrow.moved == 0
    assert all("float16" in why for why in narrow.refused.values())
    assert len(narrow.refused) == 2


def test_a_quantised_weight_stops() -> None:
    constants = {
        "q": np.arange(-18, 18, dtype=np.int8).reshape(6, 6, 1, 1),
        "step": np.array(0.1, np.float32),
        "w2": WEIGHTS["w2"],
    }
    done = equalized(
        pair("v = DequantizeLinear (q, step) a = Conv (x, v) r = Relu (a) y = Conv (r, w2)", constants)
    )
    assert done.moved == 0
    assert list(done.refused.values()) == ["the weight is computed"]


def test_weights_in_constant_nodes_and_shared_biases() -> None:
    model = pair("a = Conv (x, w1, b) r = Relu (a) y = Conv (r, w2, b)", {**WEIGHTS, "b": weight(6)})
    kept = []
    for tensor in model.graph.initializer:
        maker = onnx.helper.make_node("Constant", [], [tensor.name], value=tensor)
        model.graph.node.insert(0, maker)
        kept.append(tensor.name)
    del model.graph.initializer[:]
    given_model = ir.from_proto(model)
    done = equalize(given_model)
    assert done.layers[0].moved > 0
    after, inputs = ir.to_proto(done.model), graphs.feeds(model)
    for level in LEVELS:
        assert outputs(model, inputs, level)[0].tobytes() == outputs(after, inputs, level)[0].tobytes()


def test_float64_takes_part() -> None:
    model = build(
        "g (double[2,6] x) => (double[2,6] y) { a = MatMul (x, w1) r = Relu (a) y = MatMul (r, w2) }",
        {name: array[:, :, 0, 0].T.astype(np.float64) for name, array in WEIGHTS.items()},
    )
    assert equalized(model).layers[0].moved > 0


@pytest.mark.parametrize("odd", [1e-40, 1e-37, 3e38, 0.0])
def test_extreme_weights_stay_exact(odd: float) -> None:
    """A weight near either end of the range holds its channels; zeros hold nothing."""
    first = WEIGHTS["w1"].copy()
    first[2, 3] = odd
    done = equalized(pair(constants={**WEIGHTS, "w1": first}), [{"x": weight(2, 6, 3, 3)}])
    assert done.layers[0].moved > 0
    if odd:
        stored = {value.name: value.const_value.numpy() for value in done.model.graph.initializers.values()}
        changed = next(array for name, array in stored.items() if name.startswith("w1"))
        assert np.array_equal(changed[2], first[2])


def test_channels_of_zeros() -> None:
    first, second = WEIGHTS["w1"].copy(), WEIGHTS["w2"].copy()
    first[1], second[:, 4] = 0, 0
    done = equalized(pair(constants={"w1": first, "w2": second}))
    assert done.layers[0].moved > 0
    assert equalized(pair(constants={"w1": 0 * first, "w2": 0 * second})).moved == 0


def test_a_channel_that_nothing_writes_does_not_move_at_every_run() -> None:
    """Its readers would shrink without end; `equalized` demands that a second run moves nothing."""
    first = uneven(6, 3, 1, 1)
    first[2] = 0
    model = graphs.build(
        """g (float[1, 3, 4, 4] x) => (float[1, 4, 4, 4] y) {
            a = Conv(x, w1)
            b, c = Split <axis = 1, num_outputs = 2> (a)
            d = Conv(b, w2)
            e = Conv(c, w3)
            y = Add(d, e)
        }""",
        {"w1": first, "w2": uneven(4, 3, 1, 1, axis=1, seed=2), "w3": uneven(4, 3, 1, 1, axis=1, seed=3)},
    )
    assert equalized(model).moved > 0


def far_apart(seed: int) -> np.ndarray:
    """Random numbers, each off by a factor of up to 2^40 either way."""
    by = np.exp2(np.random.default_rng(seed + 200).uniform(-40, 40, (6, 6)))
    return (weight(6, 6, 1, 1, seed=seed) * by[:, :, None, None]).astype(np.float32)


TWICE = {
    "a layer that nothing reads": "a = Conv (x, w1) y = Conv (x, w2)",
    "two of them": "a = Conv (x, w1) r = Relu (a) b = Conv (r, w2) y = Conv (x, w3)",
    "what is added to a stream and not read": "a = Conv (x, w1) y = Conv (a, w2) b = Conv (a, w3)"
    " s = Add (a, b)",
    "a reader of zeros": "a = Conv (x, w1) b = Conv (a, w2) c = Conv (b, zeros) y = Conv (c, w3)",
    "half of a Split": "a = Conv (x, w1) p, q = Split <axis = 1, num_outputs = 2> (a)"
    " c = Concat <axis = 1> (p, p) y = Conv (c, w2)",
    "layers that read what they are added to": "a = Conv (x, w1) b = Conv (a, w4) c = Conv (b, w2)"
    " s = Add (b, c) p, q = Split <axis = 1, num_outputs = 2> (s) d = Concat <axis = 1> (p, p)"
    " y = Sigmoid (d)",
}


@pytest.mark.parametrize("text", TWICE.values(), ids=TWICE)
def test_a_second_run_moves_nothing(text: str) -> None:
    """Also with channels so far apart that some count as nothing next to others."""
    for seed in range(2):
        constants = {f"w{at}": far_apart(seed * 8 + at) for at in (1, 2, 3, 4)}
        constants["zeros"] = np.zeros((6, 6, 1, 1), np.float32)
        words = set(text.replace(",", " ").replace(")", " ").split())
        equalized(pair(text, {name: array for name, array in constants.items() if name in words}))


def test_a_constant_that_is_a_weight_and_a_term_stays_both() -> None:
    """Were the term replaced, the weight would be free to move in a second run."""
    model = build(
        """g (float[2,6] x) => (float[2,6] y) {
            a = MatMul (x, w1) c = Add (a, one) p = MatMul (c, w2)
            k = MatMul (p, one) r = Relu (k) y = MatMul (r, w3) }""",
        {
            "w1": uneven(6, 6, axis=1), "w2": uneven(6, 1, seed=2), "w3": uneven(6, 6, seed=3),
            "one": uneven(1, 6, axis=1, seed=4),
        },
    )  # fmt: skip
    assert "the weight is read by other nodes too" in equalized(model).refused.values()


def test_moves_end_where_a_weight_would_lose_bits() -> None:
    """Channels that start within the range of the type move, no farther than its weights allow."""
    first, second = WEIGHTS["w1"].copy(), WEIGHTS["w2"].copy()
    first[:, 1] *= np.float32(2.0**-95)
    second[:, 3] *= np.float32(2.0**-95)
    done = equalized(pair(constants={"w1": first, "w2": second}))
    assert done.layers[0].moved > 0
    arrays = [value.const_value.numpy() for value in done.model.graph.initializers.values()]
    assert min(np.abs(array[array != 0]).min() for array in arrays) >= 2.0**-103


def test_values_that_may_overflow_are_held() -> None:
    """Estimated from the weights; powers of two would change which values overflow."""
    large = {"w1": WEIGHTS["w1"] * np.float32(2.0**98), "w2": WEIGHTS["w2"] * np.float32(2.0**-60)}
    done = equalized(pair(constants=large))
    assert done.moved == 0
    assert done.layers[0].stopped == "has values near an end of the range of float32, by estimate"


def test_what_a_branch_reads_is_held() -> None:
    model = build(
        """g (float[2,6,3,3] x, bool c) => (float[2,6,3,3] y) {
            a = Conv (x, w1) r = Relu (a)
            z = If (c) <then_branch = t () => (float[2,6,3,3] u) { u = Exp (r) },
                        else_branch = e () => (float[2,6,3,3] v) { v = Identity (r) }>
            s = Add (r, z) y = Conv (s, w2) }""",
        WEIGHTS,
    )
    assert equalized(model).moved == 0


def test_outputs_and_functions_hold() -> None:
    model = build(
        "g (float[2,6,3,3] x) => (float[2,6,3,3] y, float[2,6,3,3] r) { a = Conv (x, w1) r = Relu (a)"
        " y = Conv (r, w2) }",
        WEIGHTS,
    )
    assert equalized(model).moved == 0
    called = build(
        "g (float[2,6,3,3] x) => (float[2,6,3,3] y) { a = Conv (x, w1) r = local.Act (a) y = Conv (r, w2) }\n"
        '<domain: "local", opset_import: ["" : 18]> Act (i) => (o) { o = Sigmoid (i) }',
        WEIGHTS,
    )
    assert equalized(called).moved == 0


def test_nodes_out_of_order_are_held() -> None:
    model = ir.from_proto(
        pair("a = Conv (x, w1) r = Relu (a) s = Sigmoid (r) b = Conv (r, w2) y = Add (s, b)")
    )
    first, _, sigmoid, *_ = list(model.graph)
    model.graph.remove(sigmoid)
    model.graph.insert_before(first, sigmoid)
    channels = Channels(Facts(model))
    assert channels.classes.why_fixed(channels.layers[0].outputs) == ["is read before it is computed"] * 6


def test_a_path_a_proto_and_a_model_give_the_same(tmp_path: Path) -> None:
    model, path = pair(), tmp_path / "model.onnx"
    onnx.save(model, path)
    by_proto = bnfold.equalize(model)
    assert isinstance(by_proto.model, onnx.ModelProto)
    wanted = by_proto.model.SerializeToString(deterministic=True)
    for given_model in (path, ir.from_proto(model)):
        done = bnfold.equalize(given_model)
        assert ir.to_proto(done.model).SerializeToString(deterministic=True) == wanted
        assert done.layers == by_proto.layers
    with pytest.raises(bnfold.BnfoldError):
        bnfold.equalize(tmp_path / "nothing.onnx")


def test_a_network_gives_an_onnx_model_and_the_result_is_shown() -> None:
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3), torch.nn.ReLU(), torch.nn.Conv2d(6, 5, 1), torch.nn.Flatten()
    )
    with torch.no_grad():
        net[0].weight.copy_(torch.from_numpy(uneven(6, 3, 3, 3)))
        net[2].weight.copy_(torch.from_numpy(uneven(5, 6, 1, 1, axis=1, seed=2)))
    seen: list[str] = []
    x = torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    done = bnfold.equalize(net, x, progress=lambda stage, *_: seen.append(stage))
    assert seen[-1] == "equalize"
    assert isinstance(done.model, ir.Model)
    with torch.no_grad():
        (computed,) = outputs(
            ir.to_proto(done.model), {done.model.graph.inputs[0].name: x.numpy()}, LEVELS[0]
        )
        np.testing.assert_allclose(computed, net(x).numpy(), rtol=1e-4, atol=1e-4)
    assert done
    assert repr(done).startswith(
        f"<Equalized: {done.moved} of 11 channels in 2 layers scaled by powers of two."
    )
    assert [row["layer"] for row in done.records()] == ["0", "2"]
    assert "bits before" in done._repr_html_()
    assert [bar.value for bar in done.bars()][:2] == [done.layers[0].bits_before, done.layers[0].bits_after]
    with pytest.raises(InputError, match=r"such as torch\.randn"):
        bnfold.equalize(net)
    with pytest.raises(TypeError, match=r"no keyword 'opet'\. Did you mean opset"):
        bnfold.equalize(net, x, opet=18)


def test_where_nothing_is_moved_the_result_is_false() -> None:
    model = build(
        "g (float16[2,3] x) => (float16[2,4] y) { y = MatMul (x, w) }",
        {"w": weight(3, 4, dtype=np.float16)},
    )
    done = bnfold.equalize(model)
    assert not done
    assert repr(done) == "<Equalized: None of 0 channels in 0 layers was scaled. 1 layer took no part.>"
    (row,) = done.records()
    assert row["stopped"]
    assert row["moved"] is None


def test_new_numbers_get_new_names() -> None:
    model = pair()
    done = equalize(ir.from_proto(model))
    names = {value.name for node in done.model.graph for value in node.outputs}
    assert not {"a", "r"} & names
    assert "y" in names


def test_imbalance_of_channels_is_undone() -> None:
    """What was scaled by powers of two per channel loses no more bits afterwards than before that."""
    rng, factors = np.random.default_rng(0), np.exp2(np.random.default_rng(1).integers(-4, 5, 32))
    first, second = rng.normal(0, 1, (32, 8, 3, 3)), rng.normal(0, 1, (8, 32, 3, 3))
    text = "g (float[1,8,9,9] x) => (float[1,8,5,5] y) { a = Conv (x, w1) r = Relu (a) y = Conv (r, w2) }"
    even = build(text, {"w1": first.astype(np.float32), "w2": second.astype(np.float32)})
    apart = build(
        text,
        {
            "w1": (first * factors[:, None, None, None]).astype(np.float32),
            "w2": (second / factors[:, None, None]).astype(np.float32),
        },
    )
    good, done = equalized(even), equalized(apart)
    assert done.layers[0].bits_before > 2
    assert done.layers[0].bits_after < good.layers[0].bits_before + 0.3


@settings(
    max_examples=EXAMPLES, derandomize=EXAMPLES == 60, deadline=None, database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)  # fmt: skip
@given(data=st.data())
def test_random_graphs_keep_every_bit(data: st.DataObject) -> None:
    def choose(n: int) -> int:
        return data.draw(st.integers(0, n - 1)) if n > 1 else 0

    model = random_model(choose)
    if not model.graph.output:
        return
    for value in list(model.graph.output)[1:]:
        if choose(3) == 2:  # what computes it alone is read by nothing then
            model.graph.output.remove(value)
    rng, most = np.random.default_rng(len(model.graph.node)), (3, 14)[choose(2)]
    for tensor in model.graph.initializer:  # channels far apart, so that there is something to do
        array = onnx.numpy_helper.to_array(tensor)
        if array.dtype == np.float32 and array.ndim >= 2:
            factors = np.exp(rng.uniform(-most, most, array.shape[:2])).reshape(
                array.shape[:2] + (1,) * (array.ndim - 2)
            )
            tensor.CopyFrom(onnx.numpy_helper.from_array((array * factors).astype(np.float32), tensor.name))
    done = equalized(model, [random_feeds(model, seed) for seed in range(2)])
    figures["graphs"] += 1
    figures["moved"] += done.moved > 0


figures = {"graphs": 0, "moved": 0}


def test_random_graphs_were_moved() -> None:
    """Runs after the one above: a property of graphs in which nothing ever moves would prove nothing."""
    if figures["graphs"]:
        print(figures)
        assert figures["moved"] > 0.05 * figures["graphs"]
