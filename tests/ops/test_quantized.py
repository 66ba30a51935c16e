"""Float weights that are quantised in the model, as after training with quantisation: the integers stay."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest

import bnfold
from tests.graphs import build, fold_and_compare, kept_codes, operators, statistics, weight
from tests.ops.sandwich import settled

NORM = "y = BatchNormalization(c, scale, bias, mean, var)"
SYMMETRIC = "q = QuantizeLinear<axis={a}>(w, s, z)\n d = DequantizeLinear<axis={a}>(q, s, z)\n"


def initializers(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def model(lines: str, held: Mapping[str, np.ndarray], x: str = "N,3,8,8", opset: int = 17) -> onnx.ModelProto:
    constants = {**statistics(4), **held}
    used = {name: array for name, array in constants.items() if f"{name})" in lines or f"{name}," in lines}
    return settled(build(f"g (float[{x}] x) => (float y) {{ {lines} }}", used, opset=opset))


def steps(array: np.ndarray, axis: int | None, largest: int = 127) -> np.ndarray:
    """The step of the largest absolute value, for all or for each channel."""
    others = None if axis is None else tuple(i for i in range(array.ndim) if i != axis)
    return (np.abs(array).max(others) / largest).astype(np.float32)


def integers_and_steps(folded: onnx.ModelProto, name: str) -> tuple[np.ndarray, np.ndarray, int]:
    """What the DequantizeLinear that gives the second input of an operator reads, and its axis."""
    held = initializers(folded)
    linear = next(node for node in folded.graph.node if node.op_type == name)
    [maker] = [node for node in folded.graph.node if linear.input[1] in node.output]
    assert maker.op_type == "DequantizeLinear"
    axis = next((one.i for one in maker.attribute if one.name == "axis"), 1)
    return held[maker.input[0]], held[maker.input[1]], axis


LAYERS = {
    "Conv": ("c = Conv(x, d)", weight(4, 3, 3, 3), 0, "N,3,8,8"),
    "ConvTranspose": ("c = ConvTranspose(x, d)", weight(3, 4, 3, 3), 1, "N,3,8,8"),
    "Gemm": ("c = Gemm<transB=1>(x, d)", weight(4, 6), 0, "N,6"),
    "MatMul": ("t = MatMul(x, d)\n c = Add(t, b)", weight(6, 4), 1, "N,6"),
}


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_integers_stay_and_signs_go_into_them(name: str, per_channel: bool) -> None:
    layer, w, axis, x = LAYERS[name]
    s = steps(w, axis if per_channel else None)
    held = {"w": w, "s": s, "z": np.zeros(s.shape, np.int8), "b": weight(4, seed=5)}
    original = model(f"{SYMMETRIC.format(a=axis)}{layer}\n {NORM}", held, x)
    result = fold_and_compare(original, 1e-6)
    assert not result.kept
    assert not {"QuantizeLinear", "BatchNormalization"} & set(operators(result.model))
    integers, folded, along = integers_and_steps(result.model, name)
    assert along == axis
    stats = statistics(4)
    factor = stats["scale"].astype(np.float64) / np.sqrt(stats["var"].astype(np.float64) + np.float32(1e-5))
    channels = [1] * w.ndim
    channels[axis] = 4
    expected = np.rint(w / (s.reshape(channels) if per_channel else s)) * np.sign(factor).reshape(channels)
    np.testing.assert_array_equal(integers, expected)
    np.testing.assert_allclose(folded, s * np.abs(factor), rtol=1e-6)


def test_zero_points_and_the_weight_before_them() -> None:
    """Unsigned integers around a zero point, of a weight that is itself computed, with one scale for all."""
    w = weight(4, 3, 3, 3)
    lines = (
        "v = Mul(w, half)\n q = QuantizeLinear(v, s, z)\n d = DequantizeLinear(q, s, z)\n "
        f"n = Shape(d)\n c = Conv(x, d)\n {NORM}"
    )
    held = {"w": w, "half": np.float32(0.5), "s": steps(w / 2, None, 120), "z": np.uint8(125)}
    result = fold_and_compare(model(lines, held), 1e-6)
    assert operators(result.model) == ["DequantizeLinear", "Shape", "Conv"]
    assert integers_and_steps(result.model, "Conv")[0].dtype == np.uint8


def test_integers_that_a_sign_would_take_out_of_their_type() -> None:
    w = np.full((4, 3, 1, 1), -1, np.float32)
    held = {"w": w, "s": np.float32(1 / 128), "z": np.int8(0)}
    result = fold_and_compare(model(f"{SYMMETRIC.format(a=1)}c = Conv(x, d)\n {NORM}", held))
    assert "BN210" in kept_codes(result)
    assert "QuantizeLinear" in operators(result.model)  # what is not folded stays as it was
    positive = {**held, "scale": np.abs(statistics(4)["scale"])}
    assert not fold_and_compare(model(f"{SYMMETRIC.format(a=1)}c = Conv(x, d)\n {NORM}", positive), 1e-6).kept


@pytest.mark.parametrize("read", ["r = Relu(d)\n y2 = Add(y1, r)", "y2 = Conv(y1, d)"])
def test_a_quantised_weight_that_others_read_stays(read: str) -> None:
    held = {"w": weight(4, 4, 1, 1), "s": np.float32(0.01), "z": np.int8(0)}
    text = f"{SYMMETRIC.format(a=1)}c = Conv(x, d)\n {NORM.replace('y =', 'y1 =')}\n {read}\n y = Sigmoid(y2)"
    result = fold_and_compare(model(text, held, "4,4,1,1"))
    assert "BatchNormalization" in operators(result.model)


HALF = (
    "h = Cast<to=10>(w)\n t = Cast<to=10>(s)\n q = QuantizeLinear(h, t, z)\n e = DequantizeLinear(q, t, z)\n"
)


@pytest.mark.parametrize(
    "lines", ["q = QuantizeLinear(x, s, z)\n d = DequantizeLinear(q, s, z)", f"{HALF} d = Cast<to=1>(e)"]
)
def test_activations_and_what_runtimes_may_quantise_to_other_integers(lines: str) -> None:
    held = {"w": weight(4, 3, 1, 1), "s": np.float32(0.01), "z": np.int8(0), "v": weight(2, 3, 4, 4)}
    result = bnfold.fold(model(f"{lines}\n c = Conv(v, d)\n {NORM}", held, "4,3,1,1", opset=19))
    assert "BatchNormalization" in operators(result.model)
