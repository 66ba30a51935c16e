"""A bias that is missing, whatever stands in its place, and one that has not the operator's shape."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest

import bnfold
from tests.graphs import assert_same, build, fold_and_compare, kept_codes, operators, run, statistics, weight

NORM = "y = BatchNormalization(c, scale, bias, mean, var)"
MISSING = {
    "zeros": "b = Identity(zeros)",
    "Expand(CastLike(0, x))": "z = CastLike(zero, x)\n b = Expand(z, channels)",
    "ConstantOfShape": "b = ConstantOfShape(channels)",
    "ConstantOfShape of another's shape": "s = Shape<start=0, end=1>(scale)\n b = ConstantOfShape(s)",
    "computed at run time": "s = Shape<start=1, end=2>(a)\n z = CastLike(zero, x)\n b = Expand(z, s)",
    "cut from a shape": "s = Shape<start=1, end=2>(a)\n z = ConstantOfShape(s)\n b = Identity(z)",
}
LAYERS = {"Conv": ("Conv", (6, 3, 3, 3)), "ConvTranspose": ("ConvTranspose", (3, 6, 3, 3))}


def model(kind: str, lines: str, held: Mapping[str, np.ndarray] | None = None) -> onnx.ModelProto:
    """A Conv `a` without a bias, for its shape, and one with the bias `b` before a BatchNorm."""
    op, shape = LAYERS[kind]
    constants = {
        "w": weight(*shape),
        "zero": np.int64(0),
        "zeros": np.zeros(6, np.float32),
        "channels": np.array([6]),
        **statistics(6),
        **(held or {}),
    }
    before = f"{lines}\n c = {op}(x, w, b)\n {NORM}"
    if "(a)" in lines:
        before = f"r = Relu(x)\n a = {op}(r, w)\n {before}"
    used = {name: array for name, array in constants.items() if f"{name})" in before or f"{name}," in before}
    return build(f"g (float[N,3,8,8] x) => (float[N,6,P,Q] y) {{ {before} }}", used)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("lines", MISSING.values(), ids=MISSING)
def test_a_missing_bias_in_any_disguise(lines: str, kind: str) -> None:
    result = fold_and_compare(model(kind, lines))
    assert not result.kept
    assert "BatchNormalization" not in operators(result.model)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("shape", [(6, 2), (1,), (), (6, 1, 1), (5,), (0,)])
def test_zeros_of_another_shape_are_no_bias(shape: tuple[int, ...], kind: str) -> None:
    """Not every runtime takes such a model; the folded one is what the exporter meant."""
    held = {"b": np.zeros(shape, np.float32)}
    wrong = model(kind, "", held)
    result = bnfold.fold(wrong)
    assert operators(result.model) == [kind]
    meant = onnx.ModelProto()
    meant.CopyFrom(wrong)
    del meant.graph.node[0].input[2:]
    del meant.graph.initializer[:]
    meant.graph.initializer.extend(tensor for tensor in wrong.graph.initializer if tensor.name != "b")
    assert_same(meant, result.model)
    [new] = [t for t in result.model.graph.initializer if list(t.dims) == [6]]
    assert new.name == result.model.graph.node[0].input[2]


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("shape", [(6, 2), (1,), (), (6, 1, 1), (5,)])
def test_a_bias_of_another_shape_is_never_multiplied(shape: tuple[int, ...], kind: str) -> None:
    result = bnfold.fold(model(kind, "", {"b": np.full(shape, 0.5, np.float32)}))
    assert operators(result.model) == [kind, "BatchNormalization"]
    assert kept_codes(result) == {"BN216", "BN302"}
    assert f"a bias of shape {list(shape)} for 6 channels" in str(result.kept[0].reason)


@pytest.mark.parametrize(
    "lines",
    [
        "s = ReduceMean<keepdims=0>(x, others)\n z = Concat<axis=0>(s, s)\n b = Reshape(z, channels)",
        "z = Expand(half, channels)\n s = Shape<start=1, end=2>(a)\n b = Expand(z, s)",
        "s = Shape<start=1, end=2>(a)\n b = ConstantOfShape<value=float[1] {1.0}>(s)",
    ],
)
def test_a_bias_that_is_not_known_to_be_zero_stays(lines: str) -> None:
    held = {"others": np.array([0, 2, 3]), "half": np.float32(0.5)}
    result = bnfold.fold(model("Conv", lines, held))
    assert "BN211" in kept_codes(result)
    x = np.random.default_rng(3).normal(size=(2, 3, 8, 8)).astype(np.float32)
    before, after = (run(one, {"x": x})[0] for one in (model("Conv", lines, held), result.model))
    np.testing.assert_allclose(before, after, rtol=1e-6)


def test_zeros_that_a_caller_may_replace_are_a_bias() -> None:
    given = model("Conv", "", {"b": np.zeros(6, np.float32)})
    given.graph.input.append(onnx.helper.make_tensor_value_info("b", onnx.TensorProto.FLOAT, [6]))
    assert "BN211" in kept_codes(bnfold.fold(given))


@pytest.mark.parametrize(("kind", "shape"), [("Conv", (5, 3, 3, 3)), ("ConvTranspose", (3, 4, 3, 3))])
def test_channels_that_make_no_groups(kind: str, shape: tuple[int, ...]) -> None:
    text = f"g (float[N,6,8,8] x) => (float[N,M,P,Q] y) {{ c = {kind}<group=2>(x, w)\n {NORM} }}"
    result = bnfold.fold(build(text, {"w": weight(*shape), **statistics(5)}))
    assert "BN216" in kept_codes(result)
