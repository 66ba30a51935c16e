"""LSTM, GRU and RNN take an affine of their sequence into W and the input half of B."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

import bnfold
from tests.graphs import build, feeds, fold_and_compare, kept_codes, operators, statistics, weight
from tests.ops.sandwich import gone, stays
from tests.pairwise import pairwise

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
HIDDEN, CIN = 5, 4
NORM = "BatchNormalization(s, scale, bias, mean, var)"


def layer(
    op: str,
    *,
    directions: int = 1,
    bias: bool = True,
    attributes: str = "",
    inputs: str = "",
    opset: int = 18,
    more: dict[str, np.ndarray] | None = None,
    stats: dict[str, np.ndarray] | None = None,
    start: str = "s = Sigmoid(x)",
) -> onnx.ModelProto:
    """A BatchNorm of a sequence that cannot go up, a Transpose to time, batch, channels, and a layer."""
    rows = GATES[op] * HIDDEN
    held = {
        "w": weight(directions, rows, CIN, seed=3),
        "r": weight(directions, rows, HIDDEN, seed=4),
        **({"b": weight(directions, 2 * rows, seed=5)} if bias else {}),
        **(more or {}),
        **(stats or statistics(CIN)),
    }
    given = f"t, w, r, {'b' if bias else ''}{inputs}".rstrip(", ")
    text = (
        f"g (float[N,{CIN},6] x) => (float[6,{directions},N,{HIDDEN}] y, float[{directions},N,{HIDDEN}] h) "
        f"{{ {start} n = {NORM} t = Transpose<perm=[2,0,1]>(n) "
        f"y, h = {op}<hidden_size={HIDDEN}{attributes}>({given}) }}"
    )
    return build(text, held, opset=opset)


@pairwise(
    op=["LSTM", "GRU", "RNN"],
    direction=["forward", "reverse", "bidirectional"],
    bias=[True, False],
    opset=[7, 14, 22],
)
def test_every_direction_takes_the_affine(op, direction, bias, opset):
    directions = 2 if direction == "bidirectional" else 1
    if opset == 7 and op != "LSTM":
        opset = 13
    model = layer(op, directions=directions, bias=bias, attributes=f', direction="{direction}"', opset=opset)
    result = gone(model)
    assert operators(result.model) == ["Sigmoid", "Transpose", op]
    node = result.model.graph.node[-1]
    assert len(node.input) == 4, "a bias is made where there was none"
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in result.model.graph.initializer}
    half = GATES[op] * HIDDEN
    assert arrays[node.input[3]].shape == (directions, 2 * half)
    recurrent = weight(directions, 2 * half, seed=5)[:, half:] if bias else 0.0
    assert np.array_equal(arrays[node.input[3]][:, half:], np.zeros((directions, half)) + recurrent)


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("bias", [True, False])
def test_a_gru_of_either_kind(before: int, bias: bool) -> None:
    gone(layer("GRU", bias=bias, attributes=f", linear_before_reset={before}"))


def test_a_scale_alone_makes_no_bias() -> None:
    zero = {name: np.zeros(CIN, np.float32) for name in ("bias", "mean")}
    result = gone(layer("GRU", bias=False, stats={**statistics(CIN), **zero}))
    assert len(result.model.graph.node[-1].input) == 3


def test_peepholes_initial_states_and_a_clip_are_left_alone() -> None:
    more = {
        "h0": weight(1, 3, HIDDEN, seed=6),
        "c0": weight(1, 3, HIDDEN, seed=7),
        "p": weight(1, 3 * HIDDEN, seed=8),
    }
    gone(layer("LSTM", inputs=", , h0, c0, p", attributes=", clip=0.9, input_forget=1", more=more))


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_padded_sequences(op: str, direction: str) -> None:
    more = {"lengths": np.array([6, 2, 4], np.int32)}
    gone(layer(op, inputs=", lengths", attributes=f', direction="{direction}"', more=more))


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_a_layout_with_the_batch_first(op: str) -> None:
    """ONNX Runtime has none on a CPU, so ONNX's own implementation is asked."""
    rows = GATES[op] * HIDDEN
    held = {"w": weight(1, rows, CIN, seed=3), "r": weight(1, rows, HIDDEN, seed=4), **statistics(CIN)}
    model = build(
        f"g (float[3,{CIN},6] x) => (float[3,6,1,{HIDDEN}] y) {{ s = Sigmoid(x) n = {NORM} "
        f"t = Transpose<perm=[0,2,1]>(n) y = {op}<hidden_size={HIDDEN}, layout=1>(t, w, r) }}",
        held,
    )
    result = bnfold.fold(model)
    assert operators(result.model) == ["Sigmoid", "Transpose", op]
    for seed in range(3):
        inputs = feeds(model, seed)
        expected, actual = (ReferenceEvaluator(one).run(None, inputs)[0] for one in (model, result.model))
        assert np.abs(expected - actual).max() <= 2e-5 * np.abs(expected).max()


def test_rows_of_a_sequence_are_not_its_channels() -> None:
    """Time, batch and channels agree in size; the BatchNorm is along the batch."""
    model = build(
        f"g (float[4,4,4] x) => (float[4,1,4,{HIDDEN}] y) {{ s = Sigmoid(x) n = {NORM} "
        f"y = LSTM<hidden_size={HIDDEN}>(n, w, r) }}",
        {"w": weight(1, 20, 4), "r": weight(1, 20, HIDDEN), **statistics(4)},
    )
    stays(model, "BN204")


def test_what_a_layer_gives_takes_nothing() -> None:
    text = (
        f"g (float[6,3,{CIN}] x) => (float[6,{HIDDEN},3] y) {{ l = LSTM<hidden_size={HIDDEN}>(x, w, r) "
        "q = Squeeze(l, one) s = Transpose<perm=[0,2,1]>(q) y = " + NORM + " }"
    )
    held = {"w": weight(1, 20, CIN), "r": weight(1, 20, HIDDEN), "one": np.array([1]), **statistics(HIDDEN)}
    result = stays(build(text, held), "BN201")
    assert "LSTM" in str(result.kept[0].reason)


def test_an_initial_state_takes_nothing() -> None:
    text = (
        f"g (float[6,3,{CIN}] x, float[1,{HIDDEN},{HIDDEN}] z) => (float[6,1,{HIDDEN},{HIDDEN}] y) "
        f"{{ s = Sigmoid(z) h = {NORM} y = RNN<hidden_size={HIDDEN}>(x, w, r, b, , h) }}"
    ).replace("[6,3,", f"[6,{HIDDEN},")
    held = {
        "w": weight(1, 5, CIN), "r": weight(1, 5, HIDDEN), "b": weight(1, 10), **statistics(HIDDEN)
    }  # fmt: skip
    assert "BN215" in kept_codes(fold_and_compare(build(text, held)))


@pytest.mark.parametrize(("which", "code"), [("w", "BN202"), ("b", "BN211")])
def test_weights_and_biases_have_to_be_constant(which: str, code: str) -> None:
    model = layer("RNN")
    stored = next(tensor for tensor in model.graph.initializer if tensor.name == which)
    model.graph.initializer.remove(stored)
    model.graph.input.append(helper.make_tensor_value_info(which, onnx.TensorProto.FLOAT, stored.dims))
    stays(model, code)
    zero = {name: np.zeros(CIN, np.float32) for name in ("bias", "mean")}
    for tensor in model.graph.initializer:
        if tensor.name in zero:
            tensor.CopyFrom(onnx.numpy_helper.from_array(zero[tensor.name], tensor.name))
    stays(model, code) if which == "w" else gone(model)


def test_two_layers_of_one_weight() -> None:
    """One of them reads the BatchNorm: the other keeps its weight."""
    rows = 3 * HIDDEN
    text = (
        f"g (float[6,{CIN},3] x) => (float[6,1,3,{HIDDEN}] y, float[6,1,3,{HIDDEN}] z) {{ s = Sigmoid(x) "
        f"n = {NORM} t = Transpose<perm=[0,2,1]>(n) u = Transpose<perm=[0,2,1]>(s) "
        f"y = GRU<hidden_size={HIDDEN}>(t, w, r, b) z = GRU<hidden_size={HIDDEN}>(u, w, r, b) }}"
    )
    held: dict[str, Any] = {"w": weight(1, rows, CIN), "r": weight(1, rows, HIDDEN), "b": weight(1, 2 * rows)}
    gone(build(text, {**held, **statistics(CIN)}))


def test_quantised_weights_keep_their_integers() -> None:
    rng = np.random.default_rng(0)
    more = {"q": rng.integers(-90, 90, (1, 15, CIN)).astype(np.int8), "step": np.float32(0.01)}
    model = layer("GRU", start="w = DequantizeLinear(q, step) s = Sigmoid(x)", more=more)
    model.graph.initializer.remove(next(tensor for tensor in model.graph.initializer if tensor.name == "w"))
    result = gone(model)
    assert onnx.TensorProto.INT8 in {tensor.data_type for tensor in result.model.graph.initializer}


def test_a_shape_that_is_read_does_not_matter() -> None:
    """PyTorch's exporter makes the initial states of the shape of the sequence."""
    text = (
        f"g (float[N,{CIN},6] x) => (float[6,1,N,{HIDDEN}] y) {{ s = Sigmoid(x) n = {NORM} "
        "t = Transpose<perm=[2,0,1]>(n) f = Shape(t) e = Gather(f, one) k = Concat<axis=0>(one, e, five) "
        f"h = Expand(zero, k) y = RNN<hidden_size={HIDDEN}>(t, w, r, , , h) }}"
    )
    held = {
        "w": weight(1, HIDDEN, CIN),
        "r": weight(1, HIDDEN, HIDDEN),
        "one": np.array([1]),
        "five": np.array([HIDDEN]),
        "zero": np.float32(0),
    }
    gone(build(text, {**held, **statistics(CIN)}))
