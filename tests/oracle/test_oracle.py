"""The oracle against PyTorch in double and ONNX Runtime, on whole models of every float type."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

import bnfold
import models
from bnfold.errors import InputError
from bnfold.oracle.oracle import Oracle
from bnfold.torch import Loaded, load, to_onnx
from tests.graphs import build, run, statistics, weight
from tests.oracle.ops.nodes import floats

NETWORKS = [
    models.ConvNet,
    models.InvertedResidualNet,
    models.SequenceNet,
    models.MobileOneNet,
    models.PreActResNet,
    models.DenseNet,
    models.Generator,
]


@pytest.mark.parametrize("network_class", NETWORKS)
def test_the_oracle_is_pytorch_in_double(network_class: type[models.ConvNet]) -> None:
    torch.manual_seed(0)
    network = models.seeded_statistics(network_class()).eval()
    x = torch.randn(2, *network_class.input_shape)
    model = exported(network, x)
    with torch.no_grad():
        truth = widened(network)(x.double()).numpy()
    outputs = Oracle(model).run({model.graph.input[0].name: x.numpy()})
    assert outputs[0].dtype == np.float64
    assert np.abs(outputs[0] - truth).max() < 1e-13 * np.abs(truth).max()
    rounded = run(model, {model.graph.input[0].name: x.numpy()})[0]
    assert 0 < np.abs(rounded - truth).max() < 1e-5 * np.abs(truth).max()


def exported(network: torch.nn.Module, x: torch.Tensor) -> onnx.ModelProto:
    return ir.to_proto(to_onnx(Loaded(network, "module", was_training=False), (x,)))


def widened(network: torch.nn.Module) -> torch.nn.Module:
    """The network in double, with every ε at the float32 value that ONNX stores."""
    for layer in network.modules():
        if hasattr(layer, "eps"):
            layer.eps = float(np.float32(layer.eps))
    return network.double()


NARROW = """
g (%s[2,3,6,6] x) => (%s y) {
  a = Conv <pads = [1,1,1,1]> (x, w)
  b = BatchNormalization (a, scale, bias, mean, var)
  y = Relu(b) }"""


@pytest.mark.parametrize(("name", "kind"), [("float16", np.float16), ("bfloat16", ml_dtypes.bfloat16)])
def test_models_in_half_precision(name: str, kind: type) -> None:
    constants = {"w": weight(4, 3, 3, 3), **statistics(4)}
    halves = {key: array.astype(kind) for key, array in constants.items()}
    x = floats(2, 3, 6, 6).astype(kind)
    truth = Oracle(build(NARROW % (name, name), halves)).run({"x": x})[0]
    wide = {key: array.astype(np.float64) for key, array in halves.items()}
    expected = Oracle(build(NARROW % ("double", "double"), wide)).run({"x": x.astype(np.float64)})[0]
    assert np.array_equal(truth, expected)


def test_mixed_precision_is_computed_as_if_it_were_not_mixed() -> None:
    graph = """
    g (float[2,8] x) => (float y) {
      h = Cast <to = 10> (x)
      m = MatMul(h, w)
      y = Cast <to = 1> (m) }"""
    w, x = weight(8, 8, dtype=np.float16), floats(2, 8)
    y = Oracle(build(graph, {"w": w})).run({"x": x})[0]
    assert np.allclose(y, x.astype(np.float64) @ w.astype(np.float64), rtol=1e-14, atol=0)


def test_quantized_weights_between_their_scales() -> None:
    graph = """
    g (float[2,3,6,6] x) => (float y) {
      q = QuantizeLinear(x, xs, xz)
      d = DequantizeLinear(q, xs, xz)
      w = DequantizeLinear <axis = 0> (wq, ws)
      y = Conv(d, w) }"""
    rng = np.random.default_rng(0)
    constants = {
        "xs": np.array(0.04, np.float32),
        "xz": np.array(3, np.int8),
        "wq": rng.integers(-128, 128, (4, 3, 3, 3)).astype(np.int8),
        "ws": rng.uniform(0.001, 0.01, 4).astype(np.float32),
    }
    model, x = build(graph, constants), {"x": floats(2, 3, 6, 6)}
    expected, actual = run(model, x)[0], Oracle(model).run(x)[0]
    assert np.abs(actual - expected).max() < 1e-6 * np.abs(actual).max()
    assert Oracle(model).values(x)["q"].dtype == np.int8


def test_every_float_is_double_wherever_it_comes_from() -> None:
    graph = """
    g (float[2,3] x) => (float y) {
      s = Shape(x)
      zeros = ConstantOfShape(s)
      halves = ConstantOfShape <value = float[1] {0.5}> (s)
      one = Constant <value_float = 1.0> ()
      three = Constant <value_float = 3.0> ()
      zero = Constant <value_float = 0.0> ()
      r = Range(zero, three, one)
      i = Cast <to = 1> (s)
      k = Constant <value_int = 1> ()
      c = CumSum(x, k)
      m = ReduceMean <keepdims = 1> (c)
      e = EyeLike <dtype = 1> (x)
      depth = Constant <value_int = 3> ()
      pair = Constant <value = float[2] {0.0, 1.0}> ()
      ids = Constant <value_ints = [0, 2]> ()
      hot = OneHot(ids, depth, pair)
      p = Pad <mode = "constant"> (x, pads)
      t, ti = TopK(x, ones)
      y = Sum(zeros, halves, r, m, e, hot) }"""
    constants = {"pads": np.array([0, 0, 0, 1]), "ones": np.array([1])}
    values = Oracle(build(graph, constants)).values({"x": floats(2, 3)})
    floating = {name: value.dtype for name, value in values.items() if value.dtype.kind == "f"}
    assert set(values) - set(floating) == {"s", "k", "depth", "ids", "ti"}
    assert set(floating.values()) == {np.dtype(np.float64)}


def test_sequences_are_lifted_too() -> None:
    graph = """
    g (seq(float[2]) parts) => (seq(float[2]) turned) {
      k = Constant <value_int = 1> ()
      last = SequenceAt(parts, k)
      n = Neg(last)
      turned = SequenceInsert(parts, n) }"""
    parts = [floats(2), floats(2, seed=1)]
    turned: Any = Oracle(build(graph)).run({"parts": parts})[0]
    assert [element.dtype for element in turned] == [np.float64] * 3
    assert np.array_equal(turned[2], -parts[1])


def test_a_weight_that_is_an_input_can_be_fed() -> None:
    constants = {"w": weight(40, 40), "b": weight(40)}
    text = "g (float[2,40] x, float[40,40] w, float[40] b) => (float y) { m = MatMul(x, w)\n y = Add(m, b) }"
    oracle, x = Oracle(build(text, constants)), floats(2, 40)
    w, b = (array.astype(np.float64) for array in constants.values())
    assert np.allclose(oracle.run({"x": x})[0], x.astype(float) @ w + b)
    fed = {"x": x, "w": constants["w"] * 0, "b": constants["b"] * 2}
    assert np.array_equal(oracle.run(fed)[0], np.broadcast_to(2 * b, (2, 40)))
    assert set(oracle.values(fed)) == {"x", "w", "b", "m", "y"}


def test_a_missing_input_is_named() -> None:
    with pytest.raises(InputError, match="input z"):
        Oracle(build("g (float[2] x, float[2] z) => (float y) { y = Add(x, z) }")).run({"x": floats(2)})


def test_infinities_are_results() -> None:
    graph = "g (float[3] x) => (float[3] y, float[3] z) { y = Log(x)\n z = Div(x, x) }"
    y, z = Oracle(build(graph)).run({"x": np.array([0, 1, math.inf], np.float32)})
    assert y.tolist() == [-math.inf, 0, math.inf]
    assert np.isnan(z[[0, 2]]).all()


def test_a_trained_network_and_its_fold() -> None:
    """The measure that this package is for: a fold is about as far from the truth as the original is."""
    network = load(Path(models.__file__).with_name("convnet.pt")).source
    model = exported(network, torch.zeros(1, 1, 32, 32))
    folded = bnfold.fold(model).model
    feeds = {model.graph.input[0].name: floats(1, 1, 32, 32)}
    truth = Oracle(model).run(feeds)[0]
    errors = [np.abs(run(candidate, feeds)[0] - truth).max() for candidate in (model, folded)]
    assert errors[1] < 2 * errors[0] + 1e-6 * np.abs(truth).max()
    moved = np.abs(Oracle(model, perturbed=0).run(feeds)[0] - truth).max()
    assert 1e-9 < moved / np.abs(truth).max() < 1e-5
    assert np.abs(Oracle(folded).run(feeds)[0] - truth).max() < 8 * moved
