"""The estimates that equalisation goes by: signal and noise of every layer, without data."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from bnfold.edge.channels import Channels
from bnfold.edge.measure import Activity, Measured, activity
from bnfold.graph.facts import Facts
from tests.graphs import build, weight

RHO = 0.95


def known(model: onnx.ModelProto) -> tuple[list[Measured], Activity]:
    channels = Channels(Facts(ir.from_proto(model)))
    measured = [Measured.of(layer, channels) for layer in channels.layers]
    return measured, activity(channels, measured)


@pytest.mark.parametrize(
    ("kernel", "dilations", "group"),
    [
        ((3,), (1,), 1),
        ((3, 2), (1, 1), 1),
        ((2, 3), (3, 2), 2),
        ((2, 2, 3), (1, 2, 1), 1),
        ((1, 1), (1, 1), 1),
    ],
)
def test_power_is_the_sum_over_all_pairs_of_taps(
    kernel: tuple[int, ...], dilations: tuple[int, ...], group: int
) -> None:
    sizes = ",".join(["9"] * len(kernel))
    array = weight(4, 6 // group, *kernel)
    model = build(
        f"g (float[1,6,{sizes}] x) => (float[?,?,{','.join('?' * len(kernel))}] y) {{"
        f" y = Conv <dilations = {list(dilations)}, group = {group}> (x, w) }}",
        {"w": array},
    )
    (one,), _ = known(model)
    taps = list(np.ndindex(*kernel))
    wanted = np.zeros(array.shape[:2])
    for first in taps:
        for second in taps:
            far = sum(d * abs(a - b) for d, a, b in zip(dilations, first, second, strict=True))
            wanted += array[(..., *first)].astype(float) * array[(..., *second)] * RHO**far
    np.testing.assert_allclose(one.power.reshape(array.shape[:2]), wanted, rtol=1e-9)


def test_the_taps_of_a_transposed_layer_reach_different_outputs() -> None:
    (one,), _ = known(
        build(
            "g (float[1,3,5,5] x) => (float[1,4,10,10] y) {"
            " y = ConvTranspose <strides = [2, 2], kernel_shape = [2, 2]> (x, w) }",
            {"w": weight(3, 4, 2, 2)},
        )
    )
    np.testing.assert_array_equal(one.power, one.energy)


def test_the_estimate_of_an_edge_filter_is_that_of_correlated_values() -> None:
    """Rows of a first-order process with the assumed correlation, filtered, have the estimated power."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 400))
    for at in range(1, 400):
        rows[:, at] = RHO * rows[:, at - 1] + np.sqrt(1 - RHO**2) * rows[:, at]
    kernels = np.array([[-1, 0, 1], [1, -2, 1], [1, 1, 1]], np.float32)
    model = build("g (float[1,1,40] x) => (float[1,3,38] y) { y = Conv (x, w) }", {"w": kernels[:, None]})
    (one,), _ = known(model)
    measured = [np.square(np.array([np.convolve(row, k, "valid") for row in rows])).mean() for k in kernels]
    np.testing.assert_allclose(one.power.reshape(-1), measured, rtol=0.05)


STREAM = """g (float[2,3,6,6] x) => (float[2,4,6,6] y) {
    s = Conv (x, w0) a = Conv (s, w1) r = Relu (a) b = Conv (r, w2) t = Add (s, b)
    c = Conv (t, w3) d = Relu (c) e = Conv (d, w4) u = Add (t, e) y = Conv (u, w5) }"""
WEIGHTS = {
    "w0": weight(6, 3, 1, 1),
    "w1": weight(8, 6, 1, 1, seed=2),
    "w2": 10 * weight(6, 8, 1, 1, seed=3),
    "w3": weight(8, 6, 1, 1, seed=4),
    "w4": 10 * weight(6, 8, 1, 1, seed=5),
    "w5": weight(4, 6, 1, 1, seed=6),
}


def test_a_reader_of_a_stream_sees_what_is_in_it_so_far() -> None:
    measured, found = known(build(STREAM, WEIGHTS))
    one = {layer.layer.node.inputs[1].name: found.layers[layer.layer.node] for layer in measured}
    square = {name: np.square(array[:, :, 0, 0].astype(float)) for name, array in WEIGHTS.items()}
    first = square["w0"].sum(axis=1)
    second = first + square["w2"] @ square["w1"] @ first
    third = second + square["w4"] @ square["w3"] @ second
    for name, wanted in (("w1", first), ("w3", second), ("w5", third)):
        np.testing.assert_allclose(one[name].square.reshape(-1), wanted, rtol=1e-6)


def test_noise_counts_by_what_it_reaches() -> None:
    """The noise of a layer on a stream passes the layers after it; none comes back to those before."""
    measured, found = known(build(STREAM, WEIGHTS))
    one = {layer.layer.node.inputs[1].name: found.layers[layer.layer.node] for layer in measured}
    square = {name: np.square(array[:, :, 0, 0].astype(float)) for name, array in WEIGHTS.items()}
    last = one["w5"].weight.reshape(-1) @ square["w5"]
    np.testing.assert_allclose(one["w4"].weight.reshape(-1), last, rtol=1e-6)
    before = last + last @ square["w4"] @ square["w3"]
    np.testing.assert_allclose(one["w2"].weight.reshape(-1), before, rtol=1e-6)
    np.testing.assert_allclose(
        one["w0"].weight.reshape(-1), before + before @ square["w2"] @ square["w1"], rtol=1e-6
    )


def test_layers_that_compute_nothing_count_nothing() -> None:
    measured, found = known(build(STREAM, {**WEIGHTS, "w5": 0 * WEIGHTS["w5"]}))
    for layer in measured:
        seen = found.layers[layer.layer.node]
        assert np.isfinite(seen.weight).all()
    assert not found.layers[measured[-1].layer.node].weight.any()
