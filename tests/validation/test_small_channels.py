"""A fault in one channel of an output is caught, however much larger the other channels are."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import bnfold
from tests.graphs import build, weight

RATIOS = (1e3, 1e5, 1e7)
FAULTS = {"zeroed": 0.0, "5 % off": 1.05, "1 % off": 1.01}
SMALL = 2  # the channel
BODY = "[first] a = Conv <pads = [1,1,1,1]> (x, v) [relu] r = Relu (a) "
OUTPUTS = {
    "map": BODY + "[last] y = Conv (r, w, b)",
    "head": BODY + "c = Conv (r, w, b) q = Reshape (c, shape) y = Transpose <perm = [0,2,1]> (q)",
    "vector": BODY + "p = GlobalAveragePool (r) f = Flatten (p) y = Gemm <transB = 1> (f, m, b)",
}


def network(output: str, ratio: float, fault: float = 1.0) -> onnx.ModelProto:
    """An output of six channels, of which one is smaller by a ratio and off by a factor."""
    scales = np.full(6, ratio, np.float32)
    scales[SMALL] = fault
    kernel = weight(6, 8, 1, 1, seed=1) * scales[:, None, None, None]
    constants = {"v": weight(8, 3, 3, 3), "w": kernel, "m": kernel[:, :, 0, 0].copy()}
    constants |= {"b": weight(6, seed=2) * scales, "shape": np.array([0, 6, -1])}
    shape = {"map": "N,6,8,8", "head": "N,64,6", "vector": "N,6"}[output]
    used = {name: array for name, array in constants.items() if f", {name}" in OUTPUTS[output]}
    return build(f"g (float[N,3,8,8] x) => (float[{shape}] y) {{ {OUTPUTS[output]} }}", used)


@pytest.mark.parametrize("oracle", ["auto", "off"])
@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("output", OUTPUTS)
def test_a_fault_next_to_large_channels_is_caught(output: str, ratio: float, oracle: str) -> None:
    original = network(output, ratio)
    assert bnfold.validate(original, original, threads=1, oracle=oracle).passed
    for name, factor in FAULTS.items():
        found = bnfold.validate(original, network(output, ratio, factor), threads=1, oracle=oracle)
        assert not found.passed, name
        assert (
            any(f"channel {SMALL} along axis" in failure for failure in found.failures) or ratio == RATIOS[0]
        )


@pytest.mark.parametrize("output", OUTPUTS)
def test_other_roundings_of_a_small_channel_are_not_accused(output: str) -> None:
    original = network(output, 1e6)
    rounded = onnx.ModelProto()
    rounded.CopyFrom(original)
    rng = np.random.default_rng(3)
    for tensor in rounded.graph.initializer:
        if tensor.name in "vwmb":
            array = onnx.numpy_helper.to_array(tensor)
            nearby = np.nextafter(
                array, np.where(rng.random(array.shape) < 0.5, -np.inf, np.inf).astype("f4")
            )
            tensor.CopyFrom(onnx.numpy_helper.from_array(nearby, tensor.name))
    found = bnfold.validate(original, rounded, threads=1)
    assert found.passed, found.failures
