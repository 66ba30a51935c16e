"""Which constants are weights, and how far one rounding moves them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from bnfold.oracle.oracle import Oracle
from bnfold.oracle.perturb import perturb
from bnfold.oracle.prepare import take_apart
from bnfold.oracle.weights import Weight
from bnfold.tensors.file_tensor import File, FileTensor
from tests.graphs import build, statistics, weight
from tests.oracle.ops.nodes import floats

ROUNDOFFS = [
    (np.float64, 2.0**-53),
    (np.float32, 2.0**-24),
    (np.float16, 2.0**-11),
    (ml_dtypes.bfloat16, 2.0**-8),
]


@pytest.mark.parametrize(("kind", "roundoff"), ROUNDOFFS)
def test_every_element_moves_by_at_most_one_rounding(kind: type, roundoff: float) -> None:
    values = floats(50, 20).astype(kind)
    values[0] = 0
    wide = values.astype(np.float64)
    moved = Weight(ir.Tensor(values, name="w"), 1)()
    assert not moved[0].any()
    relative = (moved[1:] - wide[1:]) / wide[1:]
    slack = 2.0**-52  # what float64 rounds of 1 + d and of the product
    assert np.abs(relative).max() <= roundoff + slack
    assert np.abs(relative).max() > 0.9 * roundoff
    assert np.abs(relative.mean()) < 0.1 * roundoff + slack


def test_seed_and_name_decide() -> None:
    values = floats(30)
    once, again, elsewhere = (Weight(ir.Tensor(values, name=name), 3)() for name in ("w", "w", "v"))
    assert np.array_equal(once, again)
    assert not np.array_equal(once, elsewhere)
    assert not np.array_equal(once, Weight(ir.Tensor(values, name="w"), 4)())
    integers = ir.Tensor(np.arange(5), name="w")
    assert np.array_equal(Weight(integers, 3)(), np.arange(5))


@pytest.mark.parametrize(("kind", "roundoff"), ROUNDOFFS)
def test_blocks_move_as_a_whole_tensor_would(kind: type, roundoff: float, tmp_path: Path) -> None:
    values = floats(300, 1000).astype(kind)
    unmoved = values.copy()
    rng = np.random.default_rng([5, zlib.crc32(b"w")])
    wide = values.astype(np.float64)
    chance = rng.random(values.shape, np.float32).astype(np.float64)
    expected = wide * ((1 - roundoff) + 2 * roundoff * chance)
    assert np.array_equal(Weight(ir.Tensor(values, name="w"), 5)(), expected)
    assert np.array_equal(values, unmoved)
    path = tmp_path / "w.bin"
    path.write_bytes(values.tobytes())
    dtype = ir.DataType.from_numpy(values.dtype)
    stored = FileTensor(File(path), 0, dtype, values.shape, name="w")
    assert np.array_equal(Weight(stored)(), wide)
    assert np.array_equal(Weight(stored, 5)(), expected)
    turned = ir.Tensor(values.T, name="w")
    assert np.array_equal(Weight(turned)(), wide.T)
    assert np.abs(Weight(turned, 5)() - wide.T).max() > 0


def moved(text: str, constants: Mapping[str, np.ndarray]) -> set[str]:
    """The constants of a model that a perturbation changes, by the names of their values."""
    model = build(text, constants)
    before, _ = take_apart(model)
    after, stored = take_apart(model)
    found = set(perturb(after, stored, 0))

    def compare(one: object, other: object) -> None:
        for first, second in zip(one.initializer, other.initializer, strict=True):
            found.update({first.name} if first != second else ())
        for first, second in zip(one.node, other.node, strict=True):
            for a, b in zip(first.attribute, second.attribute, strict=True):
                if a.HasField("t") and a != b:
                    found.add(first.output[0])
                if a.HasField("g"):
                    compare(a.g, b.g)

    compare(before.graph, after.graph)
    return found


def test_layers() -> None:
    assert moved(
        """g (float[2,3,6,6] x) => (float y) {
             a = Conv(x, w, c)
             b = BatchNormalization(a, scale, bias, mean, var)
             p = PRelu(b, slope)
             y = Mul(p, factor) }""",
        {
            "w": weight(64, 3, 3, 3),
            "c": weight(64),
            **statistics(64),
            "slope": weight(64, 1, 1),
            "factor": weight(1),
        },
    ) == {"w", "c", "scale", "bias", "mean", "var", "slope", "factor"}


def test_through_operators_that_lay_out() -> None:
    text = """g (float[2,30] x) => (float z) {
      shape = Constant <value = int64[2] {30, 30}> ()
      k = Constant <value = float[2] {0.5, 0.25}> ()
      half = Cast <to = 10> (flat)
      full = Cast <to = 1> (half)
      w = Reshape(full, shape)
      t = Transpose(w)
      m = MatMul(x, t)
      both = Concat <axis = 0> (one, k)
      z = Add(m, both) }"""
    assert moved(text, {"flat": weight(900), "one": weight(28)}) == {"flat", "one", "k"}


def test_what_steers_is_left_alone() -> None:
    text = """g (float[1,3,6,6] x) => (float y, float r, float e, float k, float n, float z) {
      c = Clip(x, low, high)
      y = Resize(c, , scales)
      p = Pad(c, pads, fill)
      r = Pow(p, exponent)
      size = Shape(x)
      sizes = Cast <to = 1> (size)
      grown = Mul(sizes, growth)
      g = Cast <to = 7> (grown)
      e = Resize(c, , , g)
      q = QuantizeLinear(x, step)
      k = DequantizeLinear(q, step)
      n = Add(x, both)
      m = Greater(x, both)
      z = Cast <to = 1> (m) }"""
    constants = {
        "low": np.array(-1, np.float32),
        "high": np.array(1, np.float32),
        "scales": np.array([1, 1, 2, 2], np.float32),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        "fill": np.array(0.5, np.float32),
        "exponent": np.array(2, np.float32),
        "growth": np.array([1, 1, 2, 2], np.float32),
        "step": np.array(0.1, np.float32),
        "both": weight(6),
    }
    assert moved(text, constants) == set()
    Oracle(build(text, constants), perturbed=0).run({"x": floats(1, 3, 6, 6)})


def test_scales_of_quantized_weights_move_and_integers_do_not() -> None:
    text = """g (float[2,30] x) => (float y) {
      w = DequantizeLinear(q, s, z)
      y = MatMul(x, w) }"""
    q = np.random.default_rng(0).integers(-100, 100, (30, 40)).astype(np.int8)
    constants = {"q": q, "s": np.abs(weight(40)), "z": np.zeros(40, np.int8)}
    assert moved(text, constants) == {"s"}


def test_scales_of_quantized_data_move() -> None:
    text = """g (float[2,30] x) => (float y) {
      q = QuantizeLinear(x, s)
      y = DequantizeLinear(q, t) }"""
    assert moved(text, {"s": np.array(0.1, np.float32), "t": np.array(0.1, np.float32)}) == {"t"}


def test_a_constant_that_becomes_an_integer_is_no_weight() -> None:
    text = """g (int64[30] x) => (int64 y) {
      i = Cast <to = 7> (f)
      y = Add(x, i) }"""
    assert moved(text, {"f": weight(30)}) == set()


def test_constants_of_branches_move_and_an_output_does_not() -> None:
    text = """g (float[2] x, bool c) => (float y, float[2] w) {
      y = If (c) <
        then_branch = t () => (float a) { k = Constant <value = float[2] {0.5, 0.25}> ()
 a = Mul(x, k) },
        else_branch = e () => (float b) { b = Add(x, w) } > }"""
    assert moved(text, {"w": weight(2)}) == {"k"}


def test_the_outputs_move_by_about_one_rounding_and_stay_in_place_without() -> None:
    text = "g (float[4,300] x) => (float y) { y = MatMul(x, w) }"
    model, x = build(text, {"w": weight(300, 200)}), {"x": floats(4, 300)}
    truth, first, again, other = (Oracle(model, perturbed=seed).run(x)[0] for seed in (None, 5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    moved_by = np.abs(first - truth).max() / np.abs(truth).max()
    assert 2.0**-28 < moved_by < 2.0**-23
