"""Expand and Tile: along an axis that is repeated the affine has to repeat too."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import bnfold
from tests.graphs import build, feeds, run, weight
from tests.ops.sandwich import BATCHNORM, above, below, gone, ints, settled, statistics, stays

SHAPES = {
    "same": ints(2, 4, 4, 4), "ones": ints(1, 1, 1, 1), "more": ints(3, 1, 1, 1, 1), "wide": ints(4, 1, 5),
    "rows": ints(1, 1, 3, 1), "batch": ints(2, 1, 1, 2), "channels": ints(1, 3, 1, 1),
}  # fmt: skip


@pytest.mark.parametrize("shape", ["same", "ones"])
def test_an_expansion_that_changes_nothing(shape: str) -> None:
    gone(above(f"b = Expand(a, {shape})", SHAPES))
    gone(below(f"b = Expand(a, {shape})", SHAPES))


def test_an_expansion_off_the_channels() -> None:
    pool = "p = ReduceMean <keepdims=1> (a, last)\n b = Expand(p, wide)"
    gone(above(pool, {**SHAPES, "last": ints(3), "wide": ints(4, 1, 5)}))
    gone(below(pool, {**SHAPES, "last": ints(3), "wide": ints(4, 1, 5)}))


def test_a_new_axis_in_front() -> None:
    lines = "e = Expand(a, more)\n b = Reshape(e, flat)"
    gone(above(lines, {**SHAPES, "flat": ints(6, 4, 4, 4)}))
    gone(below(lines, {**SHAPES, "flat": ints(6, 4, 4, 4)}))


def test_expanded_channels_are_one_number() -> None:
    lines = "p = ReduceMean <keepdims=1> (a, one)\n b = Expand(p, wide)"
    stays(above(lines, {"one": ints(1), "wide": ints(4, 1, 1)}), "BN213")


def code(model: onnx.ModelProto) -> str:
    """Of the reason for which the one BatchNorm does not go up; what it computes depends on shapes."""
    [site] = bnfold.fold(model).kept
    assert site.reason is not None
    return site.reason.code


def test_a_shape_that_is_computed_expands_no_axis_with_more_than_one_element() -> None:
    text = "g (float[{0},3,6,6] x, int64[{1}] s) => (float[{2}] y) {{ a = Conv(x, w) b = Expand(a, s) {3} }}"
    held = {"w": weight(4, 3, 3, 3), **statistics(4)}
    model = build(text.format(2, 4, "A,B,C,D", BATCHNORM), held)
    result = bnfold.fold(model)
    assert not result.kept
    x = feeds(model)["x"]
    for shape in ((1, 1, 1, 1), (2, 4, 1, 4)):
        inputs = {"x": x, "s": ints(*shape)}
        [expected], [actual] = run(model, inputs), run(result.model, inputs)
        assert np.abs(expected - actual).max() <= 2e-5 * np.abs(expected).max()
    # with another rank the channels may stand elsewhere
    assert code(build(text.format(2, "K", "A,B,C,D,E", BATCHNORM), held)) == "BN208"


def test_channels_that_a_computed_shape_may_expand() -> None:
    model = build(
        "g (float[2,3,6,6] x, int64[4] s) => (float[A,B,C,D] y) { a = Conv(x, w) "
        f"p = ReduceMean <keepdims=1> (a, one) b = Expand(p, s) {BATCHNORM} }}",
        {"w": weight(4, 3, 3, 3), "one": ints(1), **statistics(4)},
    )
    assert code(model) == "BN213"


@pytest.mark.parametrize("repeats", ["ones", "rows", "batch"])
def test_a_tile_off_the_channels(repeats: str) -> None:
    gone(above(f"b = Tile(a, {repeats})", SHAPES))
    gone(below(f"b = Tile(a, {repeats})", SHAPES))


def test_tiled_channels() -> None:
    gone(below("b = Tile(a, channels)", SHAPES, w=weight(5, 12, 2, 2)))
    stays(above("b = Tile(a, channels)", SHAPES, bn=12), "BN210")
    again = {name: np.tile(array, 3) for name, array in statistics(4).items()}
    gone(above("b = Tile(a, channels)", SHAPES, stats=again))
    mixed = {name: np.repeat(array, 3) for name, array in statistics(4).items()}
    stays(above("b = Tile(a, channels)", SHAPES, stats=mixed), "BN210")


def test_repeats_that_are_computed_let_one_number_pass() -> None:
    text = "g (float[2,3,6,6] x, int64[4] s) => (float[A,B,C,D] y) {{ a = Conv(x, w) b = Tile(a, s) {0} }}"
    assert code(build(text.format(BATCHNORM), {"w": weight(4, 3, 3, 3), **statistics(4)})) == "BN208"
    scaled = build(text.format("y = Mul(b, k)"), {"w": weight(4, 3, 3, 3), "k": np.float32(1.7)})
    result = gone(scaled)
    assert "Mul" not in {node.op_type for node in result.model.graph.node}


def test_tile_of_its_first_version_stays() -> None:
    model = build(
        "g (float[2,3,6,6] x) => (float[2,4,8,4] y) { a = Conv(x, w) b = Tile(a, n, i) "
        "y = BatchNormalization <is_test=1> (b, scale, bias, mean, var) }",
        {"w": weight(4, 3, 3, 3), "n": np.float32(2), "i": np.float32(2), **statistics(4)},
        opset=5,
    )
    assert code(model) == "BN215"


def test_a_table_of_positions_that_is_expanded_for_the_batch() -> None:
    """A learned embedding of positions, the same for every sample, before a BatchNorm of their sum."""
    model = settled(
        build(
            "g (float[2,4,6] x, float[4,6] z) => (float y) { e = Conv(x, w) p = MatMul(k, z) "
            f"q = Expand(p, shape) b = Add(e, q) {BATCHNORM} }}",
            {"w": weight(4, 4, 1), "k": weight(4, 4), "shape": ints(2, 4, 6), **statistics(4)},
        )
    )
    gone(model)
