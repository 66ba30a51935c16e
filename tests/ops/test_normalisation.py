"""InstanceNormalization, LayerNormalization, GroupNormalization, RMSNormalization: into their own γ and β."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import bnfold
from tests.graphs import build, feeds, kept_codes, operators, run, weight
from tests.ops.sandwich import above, below, gone, ints, settled, statistics, stays

PAIR = {"g": weight(4, seed=6), "d": weight(4, seed=7)}


@pytest.mark.parametrize("opset", [9, 18, 22])
@pytest.mark.parametrize("lines", ["b = InstanceNormalization(a, g, d)"])
def test_an_instance_norm(lines: str, opset: int) -> None:
    result = gone(above(lines, PAIR, opset=opset))
    assert operators(result.model) == ["Conv", "InstanceNormalization"]


def grouped(
    groups: int, size: int, opset: int, stats: dict[str, np.ndarray] | None = None
) -> onnx.ModelProto:
    """A GroupNormalization, whose output ONNX's shape inference knows nothing of, and a BatchNorm."""
    return build(
        "g (float[2,3,6,6] x) => (float[2,4,4,4] y) <float[2,4,4,4] b> { a = Conv(x, w) "
        f"b = GroupNormalization <num_groups={groups}> (a, g, d) "
        "y = BatchNormalization(b, scale, bias, mean, var) }",
        {
            "w": weight(4, 3, 3, 3),
            "g": weight(size, seed=6),
            "d": weight(size, seed=7),
            **(stats or statistics(4)),
        },
        opset=opset,
    )


@pytest.mark.parametrize("opset", [21, 22])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_group_norm_with_a_scale_for_each_channel(groups: int, opset: int) -> None:
    assert operators(gone(grouped(groups, 4, opset)).model) == ["Conv", "GroupNormalization"]


@pytest.mark.parametrize(
    ("groups", "lay", "folds"),
    [(1, np.repeat, True), (2, np.repeat, True), (2, np.tile, False), (4, None, True)],
)
def test_a_group_norm_with_a_scale_for_each_group(groups: int, lay: Any, folds: bool) -> None:
    """Version 18 is deprecated, so that ONNX's checker refuses it; ONNX Runtime runs it."""
    stats = statistics(groups)
    stats = {name: lay(array, 4 // groups) for name, array in stats.items()} if lay else stats
    model = grouped(groups, groups, 18, stats)
    result = bnfold.fold(model)
    assert operators(result.model) == ["Conv", "GroupNormalization", *["BatchNormalization"][folds:]]
    assert kept_codes(result) >= (set() if folds else {"BN210"})
    for seed in range(3):
        inputs = feeds(model, seed)
        [expected], [actual] = run(model, inputs), run(result.model, inputs)
        assert np.abs(expected - actual).max() <= 2e-5 * np.abs(expected).max()


LAST = (
    "t = Transpose <perm=[0,2,3,1]> (a)\n l = LayerNormalization {0} (t, g{1})\n "
    "b = Transpose <perm=[0,3,1,2]> (l)"
)


@pytest.mark.parametrize("beta", ["", ", d"])
@pytest.mark.parametrize("axis", ["", "<axis=3>", "<axis=-1>"])
def test_a_layer_norm_of_the_channels(axis: str, beta: str) -> None:
    result = gone(above(LAST.format(axis, beta), PAIR))
    [node] = [node for node in result.model.graph.node if node.op_type == "LayerNormalization"]
    assert len(node.input) == 3, "a bias is made where there was none"


def test_a_scale_alone_makes_no_bias() -> None:
    zero = {name: np.zeros(4, np.float32) for name in ("bias", "mean")}
    result = gone(above(LAST.format("", ""), PAIR, stats={**statistics(4), **zero}))
    [node] = [node for node in result.model.graph.node if node.op_type == "LayerNormalization"]
    assert len(node.input) == 2


@pytest.mark.parametrize("axis", [1, -3])
def test_a_layer_norm_of_whole_images(axis: int) -> None:
    held = {"g": weight(4, 4, 4, seed=6), "d": weight(4, 4, 4, seed=7)}
    gone(above(f"b = LayerNormalization <axis={axis}> (a, g, d)", held))
    gone(above(f"b = LayerNormalization <axis={axis}> (a, g)", held))


def test_a_layer_norm_of_other_axes_than_the_channels() -> None:
    """All axes have the size 4: γ is along the last one, the BatchNorm along the second."""
    stays(above("b = LayerNormalization (a, g, d)", PAIR), "BN204")
    two = {"g": weight(4, 4, seed=6), "d": weight(4, 4, seed=7)}
    stays(above("b = LayerNormalization <axis=2> (a, g, d)", two), "BN204")


def test_a_scale_that_would_have_to_grow_stays() -> None:
    held = {"g": weight(1, seed=6), "d": weight(4, seed=7)}
    stays(above(LAST.format("", ", d"), held), "BN204")
    stays(above(LAST.format("", ", g"), held), "BN204")


def test_the_mean_and_the_deviation_stay_as_they_are() -> None:
    model = build(
        "g (float[5,3] x) => (float[5,4] y, float[5,1] m, float[5,1] i) { a = Gemm(x, w) "
        "l, m, i = LayerNormalization(a, g, d) y = BatchNormalization(l, scale, bias, mean, var) }",
        {"w": weight(3, 4), **PAIR, **statistics(4)},
    )
    gone(model)


def test_an_rms_norm_takes_a_scale_and_no_shift() -> None:
    lines = LAST.format("", "").replace("LayerNormalization", "RMSNormalization")
    stays(above(lines, PAIR, opset=23), "BN207")
    zero = {name: np.zeros(4, np.float32) for name in ("bias", "mean")}
    gone(above(lines, PAIR, stats={**statistics(4), **zero}, opset=23))


@pytest.mark.parametrize(
    ("lines", "opset"),
    [
        ("b = InstanceNormalization(a, g, d)", 18),
        ("b = LayerNormalization <axis=1> (a, k)", 18),
        ("b = LayerNormalization (a, g, d)", 18),
    ],
)
def test_nothing_passes_from_the_input(lines: str, opset: int) -> None:
    stays(below(lines, {**PAIR, "k": weight(4, 4, 4)}, opset=opset), "BN201")


@pytest.mark.parametrize(("which", "code"), [("g", "BN202"), ("d", "BN211")])
def test_both_have_to_be_constant(which: str, code: str) -> None:
    model = above("b = InstanceNormalization(a, g, d)", PAIR)
    stored = next(tensor for tensor in model.graph.initializer if tensor.name == which)
    model.graph.initializer.remove(stored)
    model.graph.input.append(helper.make_tensor_value_info(which, onnx.TensorProto.FLOAT, stored.dims))
    stays(model, code)


def test_two_norms_of_one_scale() -> None:
    text = (
        "g (float[2,3,6,6] x) => (float[2,4,4,4] y, float[2,4,4,4] z) { a = Conv(x, w) r = Relu(a) "
        "b = InstanceNormalization(a, g, d) y = BatchNormalization(b, scale, bias, mean, var) "
        "z = InstanceNormalization(r, g, d) }"
    )
    gone(build(text, {"w": weight(4, 3, 3, 3), **PAIR, **statistics(4)}))


def test_an_affine_on_both_sides_of_a_chain_is_rounded_once() -> None:
    model = build(
        "g (float[5,3] x) => (float[5,4] y) { a = Gemm(x, w) l = LayerNormalization(a, g) "
        "m = BatchNormalization(l, scale, bias, mean, var) u = Unsqueeze(m, one) v = Squeeze(u, one) "
        "k = Mul(v, f) y = Add(k, o) }",
        {
            "w": weight(3, 4), **PAIR, "f": weight(4, seed=8), "o": weight(4, seed=9), "one": ints(1),
            **statistics(4),
        },
    )  # fmt: skip
    assert set(operators(gone(settled(model)).model)) <= {
        "Gemm",
        "LayerNormalization",
        "Unsqueeze",
        "Squeeze",
    }
