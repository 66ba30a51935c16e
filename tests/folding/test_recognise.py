"""What is recognised as an affine map, along which axis, and what only looks like one."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

import bnfold
from bnfold.algebra.affine import Affine
from bnfold.folding.recognise import Chain, chains, data_norm, is_batchnorm, link_of
from bnfold.graph.facts import Facts
from bnfold.graph.nodes import module_name
from bnfold.graph.scopes import scopes
from bnfold.reasons import Reason
from tests.graphs import build, fold_and_compare, kept_codes, operators, statistics, weight

BN = "BatchNormalization"


def found(text: str, constants: dict[str, np.ndarray] | None = None, opset: int = 18) -> list[Chain]:
    """The chains of a model's main graph."""
    model = ir.from_proto(build(text, constants, opset=opset))
    return list(chains(next(iter(scopes(model))), Facts(model), ()))


def link(text: str, constants: dict[str, np.ndarray] | None = None, opset: int = 18):
    """What the last node of a model's main graph is."""
    model = ir.from_proto(build(text, constants, opset=opset))
    return link_of(list(model.graph)[-1], Facts(model))


def map_of(arrays: dict[str, np.ndarray], epsilon: float = float(np.float32(1e-5))) -> Affine:
    """A BatchNorm's map by its definition, in float64."""
    gamma, beta, mean, var = (arrays[name].astype(np.float64) for name in ("scale", "bias", "mean", "var"))
    return Affine.along(1, gamma / np.sqrt(var + epsilon), beta - mean * gamma / np.sqrt(var + epsilon))


def assert_map(actual: Affine, expected: Affine) -> None:
    assert actual.axes == expected.axes
    for mine, theirs in zip(actual.padded(5), expected.padded(5), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-13)


OLD = {1: "is_test=1, consumed_inputs=[0,0,0,1,1], momentum=0.8", 6: "is_test=1, momentum=0.8"}


@pytest.mark.parametrize("opset", [*range(1, 24)])
def test_a_batchnorm_of_every_version(opset):
    old = OLD[1] if opset < 6 else OLD[6] if opset < 7 else "momentum=0.8"
    arrays = statistics(4, 2)
    for shape in ("2,4", "2,4,3", "N,4,3,3", "N,4,H,W,2"):
        chain = found(
            f"g (float[{shape}] x) => (float[{shape}] y) {{ y = {BN}<{old}>(x, scale, bias, mean, var) }}",
            arrays,
            opset,
        )
        assert len(chain) == 1, shape
        assert_map(chain[0].affine, map_of(arrays))
        assert chain[0].normalises
        assert is_batchnorm(chain[0].nodes[0])


@pytest.mark.parametrize("epsilon", [0.0, 1e-3])
def test_epsilon_is_the_one_that_is_stored(epsilon):
    arrays = statistics(4, 2)
    text = f"g (float[2,4] x) => (float[2,4] y) {{ y = {BN}<epsilon={epsilon}>(x, scale, bias, mean, var) }}"
    assert_map(link(text, arrays).affine, map_of(arrays, float(np.float32(epsilon))))


@pytest.mark.parametrize("opset", [1, 6, 7, 8])
def test_statistics_for_each_element_before_version_9(opset):
    """`spatial=0`: parameters of shape (C, H, W), and so a map along three axes."""
    arrays = {name: weight(4, 2, 3, seed=i) for i, name in enumerate(("scale", "bias", "mean", "var"))}
    arrays["var"] = np.abs(arrays["var"]) + np.float32(0.1)
    test = "" if opset >= 7 else "is_test=1, "
    affine = link(
        f"g (float[2,4,2,3] x) => (float[2,4,2,3] y) {{ y = {BN}<{test}spatial=0>"
        "(x, scale, bias, mean, var) }",
        arrays,
        opset,
    ).affine
    assert affine.axes == {1, 2, 3}
    x = weight(2, 4, 2, 3, seed=9).astype(np.float64)
    gamma, beta, mean, var = (arrays[name].astype(np.float64) for name in ("scale", "bias", "mean", "var"))
    scale, shift = affine.padded(4)
    expected = gamma * (x - mean) / np.sqrt(var + np.float32(1e-5)) + beta
    np.testing.assert_allclose(scale * x + shift, expected, atol=1e-12)


@pytest.mark.parametrize("spatial", [0, 1])
def test_statistics_for_each_element_do_not_fit_a_conv(spatial):
    size = (4, 2, 2) if spatial == 0 else (4,)
    arrays = {name: np.abs(weight(*size, seed=i)) + np.float32(0.1) for i, name in enumerate("sbmv")}
    model = build(
        f"g (float[2,3,2,2] x) => (float[2,4,2,2] y) {{ c = Conv(x, w) "
        f"y = {BN}<is_test=1, spatial={spatial}>(c, s, b, m, v) }}",
        {"w": weight(4, 3, 1, 1), **arrays},
        opset=6,
    )
    result = bnfold.fold(model)
    assert operators(result.model) == ["Conv"] + [BN] * (1 - spatial)
    assert kept_codes(result) >= ({"BN204"} if spatial == 0 else set())


def test_mixed_types_since_version_15():
    arrays = statistics(4, 2)
    affine = link(
        f"g (float16[2,4] x) => (float16[2,4] y) {{ y = {BN}(x, scale, bias, mean, var) }}", arrays, 15
    ).affine
    assert_map(affine, map_of(arrays))


@pytest.mark.parametrize(
    ("call", "scale", "shift"),
    [
        ("Mul(x, c)", 2.0, 0.0),
        ("Mul(c, x)", 2.0, 0.0),
        ("Add(x, c)", 1.0, 2.0),
        ("Add(c, x)", 1.0, 2.0),
        ("Sub(x, c)", 1.0, -2.0),
        ("Sub(c, x)", -1.0, 2.0),
        ("Div(x, c)", 0.5, 0.0),
    ],
)
def test_a_number_on_either_side(call, scale, shift):
    for shape in ((), (1,), (1, 1, 1)):
        affine = link(
            f"g (float[N,4,5] x) => (float[N,4,5] y) {{ y = {call} }}", {"c": np.full(shape, 2, np.float32)}
        ).affine
        assert (float(affine.scale), float(affine.shift)) == (scale, shift)


def test_a_constant_divided_by_a_value_is_no_affine():
    assert link("g (float[N,4] x) => (float[N,4] y) { y = Div(c, x) }", {"c": weight(4)}) is None


@pytest.mark.parametrize("bad", [[1, 0, 1, 1], [1, np.nan, 1, 1], [1, np.inf, 1, 1]])
def test_a_division_by_what_cannot_be_divided_by(bad):
    constants = {"c": np.array(bad, np.float32)}
    assert link("g (float[N,4] x) => (float[N,4] y) { y = Div(x, c) }", constants) is None


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((4,), 3),
        ((1, 4), 3),
        ((4, 1), 2),
        ((4, 1, 1), 1),
        ((1, 4, 1, 1), 1),
        ((1, 1, 1, 4), 3),
    ],
    ids=str,
)
@pytest.mark.parametrize("call", ["Mul(x, c)", "Mul(c, x)", "Add(c, x)", "Sub(c, x)", "Div(x, c)"])
def test_a_constant_broadcasts_from_the_right(call, shape, axis):
    """All axes are of size 4: only ONNX's rule says which one is meant."""
    model = f"g (float[N,4,4,4] x) => (float[N,4,4,4] y) {{ y = {call} }}"
    assert link(model, {"c": weight(*shape, seed=2)}).affine.axes == {axis}


@pytest.mark.parametrize(
    ("x", "shape"),
    [
        ("4,4", (1, 4, 4)),  # one axis more
        ("4", (4, 1)),
        ("1,4", (3, 1)),  # an axis of size 1 grows
        ("N,1", (4,)),
        ("N,4", (3, 1)),  # N might be 1
        ("N,C", (4,)),  # C might be 1
        ("N,?", (4,)),
    ],
)
def test_a_constant_that_makes_the_value_larger_or_might(x, shape):
    text = f"g (float[{x}] x) => (float y) {{ y = Mul(x, c) }}"
    model = build(text.replace("(float y)", "(float[A,B,C0] y)"), {"c": weight(*shape)})
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    proto = ir.from_proto(model)
    assert link_of(list(proto.graph)[-1], Facts(proto)) is None


def test_a_constant_that_varies_along_two_axes_is_no_affine():
    assert link("g (float[N,4,4] x) => (float[N,4,4] y) { y = Mul(x, c) }", {"c": weight(4, 4)}) is None


def test_values_that_only_look_like_they_vary_along_two_axes():
    """A stored (4, 3) array whose rows are constant is per channel: what counts is values, not storage."""
    c = np.repeat(weight(4, 1), 3, axis=1)
    assert link("g (float[N,4,3] x) => (float[N,4,3] y) { y = Mul(x, c) }", {"c": c}).affine.axes == {1}


def test_a_value_without_a_shape_takes_a_number_and_nothing_else():
    """An operator of another domain has an output of which nothing is known."""
    text = "g (float[2,4] x) => (float[2,4] y) { v = local.Unknown(x) f = Cast<to=1>(v) y = Mul(f, c) }"
    assert link(text, {"c": np.float32(2)}).affine.axes == frozenset()
    assert link(text, {"c": weight(4)}) is None


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_integers_are_no_place_for_fractions(dtype):
    text = f"g ({dtype}[2,4] x) => ({dtype}[2,4] y) {{ y = Mul(x, c) }}"
    assert link(text, {"c": np.arange(4, dtype=dtype)}) is None


def test_two_values_and_two_constants_are_no_affine():
    assert link("g (float[2,4] x) => (float[2,4] y) { y = Mul(x, x) }") is None
    both = {"c": weight(2, 4), "d": weight(2, 4)}
    assert link("g (float[2,4] x) => (float[2,4] y) { y = Mul(c, d) }", both) is None


@pytest.mark.parametrize("attributes", ["broadcast=1", "broadcast=1, axis=1"])
def test_the_old_broadcasting_is_left_alone(attributes):
    constants = {"c": weight(4, 4)[:, 0]}
    text = f"g (float[2,4,4,4] x) => (float[2,4,4,4] y) {{ y = Mul<{attributes}>(x, c) }}"
    assert link(text, constants, 6) is None


def test_a_chain_is_one_map():
    constants = {"m": weight(4, 1, 1), "s": np.abs(weight(4, 1, 1, seed=2)) + np.float32(0.3)} | {
        "g": weight(4, 1, 1, seed=3),
        "b": weight(4, 1, 1, seed=4),
    }
    [chain] = found(
        "g (float[N,4,5,5] x) => (float[N,4,5,5] y) "
        "{ a = Sub(x, m) d = Div(a, s) e = Mul(g, d) y = Add(b, e) }",
        constants,
    )
    assert [node.op_type for node in chain.nodes] == ["Sub", "Div", "Mul", "Add"]
    assert (chain.source.name, chain.result.name) == ("x", "y")
    x = weight(2, 4, 5, 5, seed=8).astype(np.float64)
    scale, shift = chain.affine.padded(4)
    m, s, g, b = (constants[name].astype(np.float64) for name in "msgb")
    np.testing.assert_allclose(scale * x + shift, (x - m) / s * g + b, atol=1e-12)


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        ("a = Mul(x, k) y = Add(a, k) z = Relu(a)", [1, 1]),  # a second reader
        ("z = Mul(x, k) y = Add(z, k)", [1, 1]),  # a graph output
        ("a = Mul(x, k) r = Relu(a) y = Add(r, k) z = Neg(r)", [1, 1]),
        ("a = Mul(x, k) y = Add(a, k) z = Relu(x)", [2]),
    ],
)
def test_a_chain_ends_where_its_value_is_needed(text, lengths):
    chains_found = found(
        f"g (float[N,4] x) => (float[N,4] y, float[N,4] z) {{ {text} }}", {"k": np.full(4, 2, np.float32)}
    )
    assert [len(chain.nodes) for chain in chains_found] == lengths


def test_a_value_added_to_itself_is_no_link_of_a_chain():
    [chain] = found("g (float[N,4] x) => (float[N,4] y) { a = Mul(x, k) y = Add(a, a) }", {"k": weight(4)})
    assert len(chain.nodes) == 1


def test_a_uniform_chain_does_not_normalise():
    [chain] = found("g (float[N,4] x) => (float[N,4] y) { y = Mul(x, k) }", {"k": np.float32(0.5)})
    assert not chain.normalises
    [chain] = found("g (float[N,4] x) => (float[N,4] y) { y = Add(x, k) }", {"k": weight(4)})
    assert not chain.normalises


# affines that are not called BatchNorm, folded

FROZEN = (
    "e = Add(var, eps) q = Sqrt(e) s = Div(scale, q) t = Mul(mean, s) u = Sub(bias, t) "
    "sr = Reshape(s, per) ur = Reshape(u, per) m = Mul({0}, sr) {1} = Add(m, ur)"
)


def test_a_frozen_batchnorm_written_as_arithmetic_on_constants():
    """As torchvision's FrozenBatchNorm2d comes out of an exporter that does not fold constants."""
    model = build(
        f"g (float[N,3,6,6] x) => (float[N,4,4,4] y) {{ c = Conv(x, w) {FROZEN.format('c', 'y')} }}",
        {
            "w": weight(4, 3, 3, 3),
            "per": np.array([1, -1, 1, 1]),
            "eps": np.float32(1e-5),
            **statistics(4, 2),
        },
    )
    result = fold_and_compare(model)
    assert operators(result.model) == ["Conv"]
    assert len(result.model.graph.initializer) == 2
    assert result.folded[0].op_type == "Mul+Add"


@pytest.mark.parametrize("norm", ["Mul Add", "Sub Div Mul Add", "Mul Sub"])
def test_channels_last_between_transposes(norm):
    """What Keras exports: Conv between Transposes, the norm along the last axis."""
    chain, last = "", "t"
    for position, operator in enumerate(norm.split()):
        chain += f"v{position} = {operator}({last}, k{position}) "
        last = f"v{position}"
    constants = {f"k{i}": np.abs(weight(4, seed=i)) + np.float32(0.2) for i in range(4)}
    model = build(
        "g (float[N,6,6,3] x) => (float[N,4,4,4] y) { a = Transpose<perm=[0,3,1,2]>(x) c = Conv(a, w) "
        f"t = Transpose<perm=[0,2,3,1]>(c) {chain} y = Relu({last}) }}",
        {"w": weight(4, 3, 3, 3), **constants},
    )
    result = fold_and_compare(model)
    assert operators(result.model) == ["Transpose", "Conv", "Transpose", "Relu"]


def test_layer_scale_of_a_linear_layer():
    model = build(
        "g (float[N,5,3] x) => (float[N,5,3] y) { m = MatMul(x, w) a = Add(m, b) s = Mul(gamma, a) "
        "y = Add(x, s) }",
        {"w": weight(3, 3), "b": weight(3), "gamma": weight(3, seed=4)},
    )
    assert operators(fold_and_compare(model).model) == ["MatMul", "Add", "Add"]


def test_parameters_behind_unsqueeze():
    """As Caffe2 left its scale layers."""
    model = build(
        "g (float[N,3,6,6] x) => (float[N,4,4,4] y) { c = Conv(x, w) "
        f"n = {BN}(c, scale, bias, mean, var) ku = Unsqueeze<axes=[1,2]>(k) m = Mul(n, ku) "
        "bu = Unsqueeze<axes=[1,2]>(b) y = Add(m, bu) }",
        {"w": weight(4, 3, 3, 3), "k": weight(4, seed=4), "b": weight(4, seed=5), **statistics(4, 2)},
        opset=9,
        ir_version=4,
    )
    assert operators(fold_and_compare(model).model) == ["Conv"]


@pytest.mark.parametrize(
    "between", ["Identity(c)", "Dropout(c)", "Cast<to=1>(c)", "CastLike(c, x)", "Dropout(c, ratio, off)"]
)
def test_what_does_nothing_does_not_stand_in_the_way(between):
    model = build(
        "g (float[N,3,6,6] x) => (float[N,4,4,4] y) "
        f"{{ c = Conv(x, w) i = {between} y = {BN}(i, scale, bias, mean, var) }}",
        {"w": weight(4, 3, 3, 3), "ratio": np.float32(0.5), "off": np.array(False), **statistics(4, 2)},
    )
    result = fold_and_compare(model)
    assert operators(result.model) == ["Conv", between.split("(")[0].split("<")[0]]


def test_equal_sizes_on_other_axes_are_not_folded_into_a_conv():
    model = build(
        "g (float[N,3,4,4] x) => (float[N,4,4,4] y) { c = Conv(x, w) m = Mul(c, k) y = Add(m, b) }",
        {"w": weight(4, 3, 1, 1), "k": weight(4), "b": weight(4, seed=2)},
    )
    assert operators(fold_and_compare(model).model) == ["Conv", "Mul", "Add"]


# what the other functions say


@pytest.mark.parametrize(
    ("call", "operator"),
    [
        ("InstanceNormalization(x, s, b)", "InstanceNormalization"),
        ("LayerNormalization(x, l)", "LayerNormalization"),
        ("GroupNormalization<num_groups=2>(x, s, b)", "GroupNormalization"),
    ],
)
def test_statistics_from_the_data_are_listed(call, operator):
    constants = {"s": weight(4), "b": weight(4), "l": weight(3)}
    model = build(f"g (float[2,4,3] x) => (float[2,4,3] y) {{ y = {call} }}", constants, opset=21)
    reason = data_norm(ir.from_proto(model).graph[0])
    assert isinstance(reason, Reason)
    assert (reason.code, reason.facts["operator"]) == ("BN107", operator)
    assert data_norm(ir.from_proto(build("g (float[2] x) => (float[2] y) { y = Relu(x) }")).graph[0]) is None


@pytest.mark.parametrize(
    ("note", "name"),
    [
        ("['', 'features', 'features.1', 'batch_norm']", "features.1"),
        ("['', '']", "node"),
        ("['batch_norm']", "node"),
        ("not a list", "node"),
        ("'text'", "node"),
        (None, "node"),
    ],
)
def test_the_module_path_that_an_exporter_noted(note, name):
    node = ir.Node("", "Relu", [], name="node")
    if note is not None:
        node.metadata_props["pkg.torch.onnx.name_scopes"] = note
    assert module_name(node) == name
