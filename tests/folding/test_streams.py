"""Residual streams carry the shifts of the BatchNorms that read them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import bnfold
from bnfold.oracle.oracle import Oracle
from tests.graphs import assert_same, build, operators, statistics, weight

BLOCKS = 3
SHORTCUTS = {
    "identity": "",
    "pool": "p{0} = MaxPool<kernel_shape=[1,1], strides=[2,2]>(v{0}) ",
    "mean": "p{0} = AveragePool<kernel_shape=[2,2], strides=[2,2]>(v{0}) ",
    "convolution of the sum": "p{0} = Conv<strides=[2,2]>(v{0}, k{0}) ",
    "convolution behind the activation": "p{0} = Conv<strides=[2,2]>(r{0}, k{0}) ",
    "dropout": "p{0} = Dropout(v{0}) ",
}
ADDS = {
    "Add": "Add(p{0}, c{0})",
    "swapped": "Add(c{0}, p{0})",
    "Sum": "Sum(p{0}, c{0})",
    "Sub": "Sub(p{0}, c{0})",
}


def network(
    shortcut: str = "identity",
    add: str = "Add",
    *,
    signs: dict[int, np.ndarray] | None = None,
    more: str = "",
) -> onnx.ModelProto:
    """A pre-activation network of three blocks, whose convolutions have biases or not."""
    text = "v0 = Conv<pads=[1,1,1,1]>(x, stem) "
    constants = {"stem": weight(4, 3, 3, 3), "h": weight(5, 4, 1, 1, seed=9), "hb": weight(5, seed=8)}
    strides = "" if shortcut in ("identity", "dropout") else ", strides=[2,2]"
    for n in range(BLOCKS + 1):
        numbers = statistics(4, seed=n, prefix=f"b{n}_")
        numbers[f"b{n}_scale"] = np.abs(numbers[f"b{n}_scale"]) * (signs or {}).get(n, 1.0)
        constants |= {name: array.astype(np.float32) for name, array in numbers.items()}
        text += (
            f"n{n} = BatchNormalization(v{n}, b{n}_scale, b{n}_bias, b{n}_mean, b{n}_var) r{n} = Relu(n{n}) "
        )
        if n == BLOCKS:
            break
        constants |= {f"w{n}": weight(4, 4, 3, 3, seed=n + 1), f"k{n}": weight(4, 4, 1, 1, seed=n + 5)}
        bias = f", a{n}" if n % 2 else ""
        if n % 2:
            constants[f"a{n}"] = weight(4, seed=n + 20)
        source = f"p{n}" if SHORTCUTS[shortcut] else f"v{n}"
        text += f"c{n} = Conv<pads=[1,1,1,1]{strides}>(r{n}, w{n}{bias}) {SHORTCUTS[shortcut].format(n)}"
        text += f"v{n + 1} = {ADDS[add].format(n).replace(f'p{n}', source)} "
    text += f"g = GlobalAveragePool(r{BLOCKS}) y = Conv(g, h, hb) {more}"
    used = {name: array for name, array in constants.items() if f", {name}" in text}
    outputs = "float[N,5,1,1] y" + (", float[N,4,H,W] z" if more else "")
    return build(f"g (float[N,3,16,16] x) => ({outputs}) {{ {text} }}", used)


@pytest.mark.parametrize("add", ADDS)
@pytest.mark.parametrize("shortcut", SHORTCUTS)
def test_no_batchnorm_of_a_stream_stays(shortcut: str, add: str) -> None:
    model = network(shortcut, add)
    result = bnfold.fold(model, merge=False)
    assert "BatchNormalization" not in operators(result.model), [str(site.reason) for site in result.kept]
    assert result.nodes_after == result.nodes_before - BLOCKS - 1
    assert_same(model, result.model)
    again = bnfold.fold(result.model, merge=False).model
    assert again.SerializeToString(deterministic=True) == result.model.SerializeToString(deterministic=True)


def test_what_the_stream_carries_has_another_name() -> None:
    """Equal names are equal values: the proof of a fold rests on it."""
    model = network()
    folded = bnfold.fold(model).model
    feeds = {"x": np.random.default_rng(1).normal(size=(2, 3, 16, 16)).astype(np.float32)}
    before, after = Oracle(model).values(feeds), Oracle(folded).values(feeds)
    shared = {name for name in before.keys() & after.keys() if before[name].dtype == np.float64}
    assert {"y", "x"} <= shared
    for name in shared:
        np.testing.assert_allclose(
            after[name], before[name], rtol=1e-5, atol=1e-5 * np.abs(before[name]).max()
        )
    assert bnfold.validate(model, folded, threads=1).is_fold


@pytest.mark.parametrize("channel", [-1.0, 0.0])
def test_a_scale_that_is_not_positive_stays_and_only_that(channel: float) -> None:
    model = network(signs={2: np.array([1, channel, 1, 1], np.float32)})
    result = bnfold.fold(model)
    (site,) = result.kept
    assert (site.name, site.reason.code) == ("n2", "BN311")
    assert "1 scale" in site.reason.sentence
    assert_same(model, result.model)


def test_a_negative_scale_of_the_last_one_costs_the_others_nothing() -> None:
    """Its sign could go back through the whole stream, and would be in the way of all others."""
    model = network(signs={BLOCKS: np.array([1, -1, 1, 1], np.float32)})
    result = bnfold.fold(model)
    assert [site.name for site in result.kept] == [f"n{BLOCKS}"]
    assert_same(model, result.model)


def test_a_shift_far_beyond_the_values_stays() -> None:
    model = network()
    numbers = {t.name: t for t in model.graph.initializer}
    scale = onnx.numpy_helper.to_array(numbers["b1_scale"]).copy()
    scale[2] = 1e-4
    numbers["b1_scale"].CopyFrom(onnx.numpy_helper.from_array(scale, "b1_scale"))
    result = bnfold.fold(model)
    (site,) = result.kept
    assert (site.name, site.reason.code) == ("n1", "BN312")
    assert_same(model, result.model)


@pytest.mark.parametrize(
    ("reader", "left"),
    [
        ("z = Conv(v1, q)", 0),  # takes the shift back
        ("z = Conv<pads=[1,1,1,1]>(v1, w)", 1),  # it cannot where it meets zeros
        ("z = Sigmoid(v1)", 1),
        ("z = Identity(v1)", 1),
        ("s = Shape(v1) z = Expand(zero, s)", 0),  # looks at no number
        ("n = Identity(v1) z = BatchNormalization(n, b1_scale, b1_bias, b1_mean, b1_var)", 1),
    ],
)
def test_another_reader_decides_whether_the_stream_may_carry(reader: str, left: int) -> None:
    model = network(more=reader)
    more = {
        "q": weight(4, 4, 1, 1, seed=30),
        "w": weight(4, 4, 3, 3, seed=31),
        "zero": np.zeros((), np.float32),
    }
    for name, array in more.items():
        if f", {name})" in reader or f"({name}," in reader:
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    result = bnfold.fold(model)
    assert [site.name for site in result.kept if site.name != "z"] == ["n1"] * left
    assert_same(model, result.model)


def test_half_precision_has_no_room_for_what_a_stream_carries() -> None:
    model = network()
    result = bnfold.fold(model)
    assert not result.kept
    half = onnx.ModelProto()
    half.CopyFrom(model)
    for tensor in half.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    for value in (*half.graph.input, *half.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    assert {site.name for site in bnfold.fold(half).kept} == {"n0", "n1", "n2", "n3"}
