"""Parallel linear branches: what becomes one convolution, what must not, and what the report says of it."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest

import bnfold
from bnfold.result import FoldResult
from tests.graphs import assert_same, build, fold_and_compare, kept_codes, operators, statistics, weight

POOL: dict[str, np.ndarray] = {
    "k1": weight(4, 4, 1, 1),
    "k2": weight(4, 4, 2, 2, seed=2),
    "k3": weight(4, 4, 3, 3, seed=3),
    "l3": weight(4, 4, 3, 3, seed=4),
    "k5": weight(4, 4, 5, 5, seed=5),
    "k13": weight(4, 4, 1, 3, seed=6),
    "k31": weight(4, 4, 3, 1, seed=7),
    "g1": weight(4, 2, 1, 1, seed=8),
    "g3": weight(4, 2, 3, 3, seed=9),
    "d1": weight(4, 1, 1, 1, seed=10),
    "d3": weight(4, 1, 3, 3, seed=11),
    "e3": weight(4, 1, 3, 3, seed=12),
    "f3": weight(4, 1, 3, 3, seed=13),
    "h3": weight(4, 1, 3, 3, seed=14),
    "one": weight(1, 4, 1, 1, seed=15),
    "s1": weight(4, 4, 1, seed=16),
    "s2": weight(4, 4, 2, seed=17),
    "t2": weight(4, 4, 2, seed=18),
    "s3": weight(4, 4, 3, seed=19),
    "v1": weight(4, 4, 1, 1, 1, seed=20),
    "v3": weight(4, 4, 3, 3, 3, seed=21),
    "b": weight(4, seed=22),
    "b2": weight(4, seed=23),
    "gamma": weight(4, 1, 1, seed=24),
    "col": weight(4, 1, 1, seed=26),
    "plane": weight(8, 8, seed=25),
    **statistics(4, 1, "n"),
    **statistics(4, 2, "m"),
    **statistics(4, 3, "o"),
}
NAMES = {norm: f"{norm}scale, {norm}bias, {norm}mean, {norm}var" for norm in "nmo"}
P1 = "pads=[1,1,1,1]"
X = "float[2,4,8,8] x"


def region(body: str, x: str = X, y: str = "float[a,b,c,d] y", **options: int) -> onnx.ModelProto:
    """A model with those constants of the pool that its nodes read; `Norm n` is a BatchNormalization."""
    body = re.sub(r"auto_pad=(\w+)", r'auto_pad="\1"', body)
    body = re.sub(
        r"Norm (\w)\((\w+)\)", lambda m: f"BatchNormalization({m.group(2)}, {NAMES[m.group(1)]})", body
    )
    declared = re.findall(r"\] (\w+)", x)
    named = [name for name in POOL if re.search(rf"\b{name}\b", body) and name not in declared]
    return build(f"g ({x}) => ({y}) {{ {body} }}", {name: POOL[name] for name in named}, **options)


def conv_count(model: onnx.ModelProto) -> int:
    return operators(model).count("Conv")


MERGED = {
    "two of one size": f"c = Conv<{P1}>(x, k3) d = Conv<{P1}>(x, l3) y = Add(c, d)",
    "RepVGG": f"c = Conv<{P1}>(x, k3) cn = Norm n(c) d = Conv(x, k1) dn = Norm m(d) i = Norm o(x) "
    "s = Add(cn, dn) y = Add(s, i)",
    "residual": f"c = Conv<{P1}>(x, k3, b) y = Add(c, x)",
    "residual before": f"c = Conv<{P1}>(x, k3, b) y = Add(x, c)",
    "stride 2": f"c = Conv<{P1}, strides=[2,2]>(x, k3, b) d = Conv<strides=[2,2]>(x, k1) y = Add(c, d)",
    "grouped": f"c = Conv<group=2, {P1}>(x, g3) d = Conv<group=2>(x, g1, b) y = Add(c, d)",
    "fewer groups": f"c = Conv<group=2, {P1}>(x, g3) d = Conv<group=4>(x, d1) y = Add(c, d)",
    "MobileOne, depthwise": f"c = Conv<group=4, {P1}>(x, d3) d = Conv<group=4, {P1}>(x, e3) "
    f"e = Conv<group=4, {P1}>(x, f3) f = Conv<group=4, {P1}>(x, h3) g = Conv<group=4>(x, d1) i = Norm n(x) "
    "p = Add(c, d) q = Add(p, e) r = Add(q, f) s = Add(r, g) y = Add(s, i)",
    "MobileOne, pointwise": "c = Conv(x, k1, b) d = Conv(x, k1, b2) i = Norm n(x) s = Add(c, d) "
    "y = Add(i, s)",
    "5×5 and 3×3": f"c = Conv<pads=[2,2,2,2]>(x, k5) d = Conv<{P1}>(x, k3, b) y = Add(c, d)",
    "ACNet": f"c = Conv<pads=[0,1,0,1]>(x, k13) d = Conv<pads=[1,0,1,0]>(x, k31) e = Conv<{P1}>(x, k3) "
    "s = Add(c, d) y = Add(s, e)",
    "dilated around a centre": "c = Conv<pads=[2,2,2,2], dilations=[2,2]>(x, k3) d = Conv(x, k1) "
    "y = Add(c, d)",
    "dilated alike": "c = Conv<pads=[2,2,2,2], dilations=[2,2]>(x, k3) "
    "d = Conv<pads=[2,2,2,2], dilations=[2,2]>(x, l3) y = Add(c, d)",
    "subtraction": f"c = Conv<{P1}>(x, k3, b) d = Conv<{P1}>(x, l3, b2) y = Sub(c, d)",
    "subtraction of a subtraction": f"c = Conv<{P1}>(x, k3, b) d = Conv(x, k1, b2) s = Sub(x, c) "
    "y = Sub(d, s)",
    "Sum of three": f"c = Conv<{P1}>(x, k3, b) d = Conv(x, k1, b2) y = Sum(c, x, d)",
    "FastViT's mixer": f"c = Conv<group=4, {P1}>(x, d3, b) d = Conv<group=4>(x, d1, b2) i = Norm n(x) "
    "p = Add(c, d) q = Add(p, i) j = Norm m(x) r = Sub(q, j) s = Mul(gamma, r) y = Add(x, s)",
    "scales behind branches": f"c = Conv<{P1}>(x, k3, b) i = Mul(x, gamma) s = Add(c, i) t = Div(s, gamma) "
    "d = Conv(x, k1) y = Sub(t, d)",
    "a mean": "c = Conv(x, k3, b) d = AveragePool<kernel_shape=[3,3]>(x) y = Add(c, d)",
    "a mean that counts zeros": f"c = Conv<{P1}>(x, k3) "
    f"d = AveragePool<kernel_shape=[3,3], {P1}, count_include_pad=1>(x) e = Norm n(d) y = Add(c, e)",
    "a mean with a stride": "c = Conv<strides=[2,2]>(x, k3) "
    "d = AveragePool<kernel_shape=[3,3], strides=[2,2]>(x) y = Add(c, d)",
    "auto_pad": "c = Conv<auto_pad=SAME_UPPER>(x, k2) d = Conv(x, k1) y = Add(c, d)",
    "auto_pad below": "c = Conv<auto_pad=SAME_LOWER>(x, k2) d = Conv<auto_pad=VALID>(x, k1) y = Add(c, d)",
    "auto_pad with a stride": "c = Conv<auto_pad=SAME_UPPER, strides=[2,2]>(x, k3) "
    "d = Conv<auto_pad=SAME_LOWER, strides=[2,2]>(x, k1) y = Add(c, d)",
    "shared weights": f"c = Conv<{P1}>(x, k3, b) d = Conv<{P1}>(x, k3, b) y = Add(c, d)",
    "one weight that stays": f"c = Conv<{P1}>(x, k3) d = Conv<{P1}>(x, l3) s = Add(c, d) "
    f"y = Conv<{P1}>(s, k3)",
    "pointwise, then 3×3": f"h = Conv(x, k1) c = Conv<{P1}>(h, k3, b) d = Conv<{P1}>(x, l3) y = Add(c, d)",
    "pointwise with a bias, then 3×3": "h = Conv(x, k1, b2) c = Conv(h, k3) d = Conv(x, l3, b) y = Add(c, d)",
    "pointwise, then a mean": "h = Conv(x, k1) n = Norm n(h) c = AveragePool<kernel_shape=[3,3]>(n) "
    "d = Conv(x, k3) y = Add(c, d)",
    "between activations": f"h = Relu(x) c = Conv<{P1}>(h, k3) t = Add(c, h) y = Relu(t)",
}  # fmt: skip
LEFT = {"one weight that stays": ["Conv", "Conv"], "between activations": ["Relu", "Conv", "Relu"]}


@pytest.mark.parametrize("case", MERGED)
def test_branches_become_one(case):
    model = region(MERGED[case])
    result = fold_and_compare(model)
    assert operators(result.model) == LEFT.get(case, ["Conv"])
    assert result.merges
    assert not result.kept


@pytest.mark.parametrize("case", MERGED)
def test_nothing_is_merged_when_it_is_not_wanted(case):
    model = region(MERGED[case])
    result = bnfold.fold(model, merge=False)
    assert conv_count(result.model) == conv_count(model)
    assert result.merges == ()
    assert {site.status for site in result.sites} <= {"folded", "kept"}
    assert_same(model, result.model)


KEPT = {
    "another stride": "c = Conv<strides=[2,2]>(z, k3) d = Conv<strides=[4,4]>(z, k1) y = Add(c, d)",
    "other sizes by the padding": "c = Conv(w, k1) d = Conv(w, k3) y = Add(c, d)",
    "cheaper apart: depthwise and dense": f"c = Conv<group=4, {P1}>(x, d3) d = Conv(x, k1) y = Add(c, d)",
    "cheaper apart: 1×3 and 3×1": "c = Conv<pads=[0,1,0,1]>(x, k13) d = Conv<pads=[1,0,1,0]>(x, k31) "
    "y = Add(c, d)",
    "cheaper apart: misaligned": "c = Conv<pads=[1,1,0,0]>(x, k2) d = Conv<pads=[0,0,1,1]>(x, k2) "
    "y = Add(c, d)",
    "cheaper apart: dilated": "c = Conv<pads=[1,1,1,1], dilations=[2,2]>(x, k2) d = Conv(x, k1) "
    "y = Add(c, d)",
    "cheaper apart: residual of a grouped one": "c = Conv<pads=[3,3,3,3], dilations=[2,2], group=4>(x, p4) "
    "y = Add(c, x)",
    "two sources": f"r = Relu(x) c = Conv<{P1}>(x, k3) d = Conv(r, k1) y = Add(c, d)",
    "an affine before padding": f"r = Relu(x) i = Norm n(r) c = Conv<{P1}>(i, k3) y = Add(c, r)",
    "not linear": f"c = Conv<{P1}>(x, k3) d = Conv(x, k1) e = Relu(d) y = Add(c, e)",
    "a scale for each element": f"c = Conv<{P1}>(x, k3) d = Mul(x, plane) y = Add(c, d)",
    "zeros that a mean leaves out": f"c = Conv<{P1}>(x, k3) d = AveragePool<kernel_shape=[3,3], {P1}>(x) "
    "y = Add(c, d)",
    "a mean that may hang over": "c = Conv<strides=[2,2], pads=[0,0,1,1]>(x, k3) "
    "d = AveragePool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1>(x) y = Add(c, d)",
    "a mean with words for pads": f"c = Conv<{P1}>(x, k3) "
    "d = AveragePool<kernel_shape=[3,3], auto_pad=SAME_UPPER, count_include_pad=1>(x) y = Add(c, d)",
    "means alone": "c = AveragePool<kernel_shape=[3,3]>(x) d = AveragePool<kernel_shape=[3,3]>(x) "
    "y = Add(c, d)",
    "one channel and all": "c = Conv(x, one) d = Conv(x, k1) y = Add(c, d)",
    "one channel and the source": "c = Conv(x, one) y = Add(c, x)",
    "one source channel and all": "c = Conv(v, m1) y = Add(c, v)",
    "a bias before padding": f"h = Conv(x, k1, b2) c = Conv<{P1}>(h, k3, b) d = Conv<{P1}>(x, l3) "
    "y = Add(c, d)",
    "pointwise that others read": f"h = Conv(x, k1) c = Conv<{P1}>(h, k3, b) d = Conv<{P1}>(x, l3) "
    "s = Add(c, d) "
    "r = Relu(h) t = Relu(s) y = Add(r, t)",
    "pointwise that pays as it is": f"h = Conv(x, down) c = Conv<{P1}>(h, up) d = Conv(x, k1) y = Add(c, d)",
    "once only": f"h = Conv(x, k1, b) c = Conv<{P1}>(h, k3, b) r = Relu(x) y = Add(c, r)",
    "numbers that are none": f"c = Conv<{P1}>(x, k3) d = Conv(x, huge) y = Add(c, d)",
    "a product": f"c = Conv<{P1}>(x, k3) d = Conv(x, k1) y = Mul(c, d)",
    "transposed": f"c = ConvTranspose<{P1}>(x, k3) d = Conv(x, k1) y = Add(c, d)",
}  # fmt: skip
POOL |= {
    "p4": weight(4, 1, 4, 4, seed=30),
    "m1": weight(4, 1, 1, 1, seed=31),
    "down": weight(1, 4, 1, 1, seed=32),
    "up": weight(4, 1, 3, 3, seed=33),
    "huge": np.full((4, 4, 1, 1), np.inf, np.float32),
}
INPUTS = {
    "another stride": "float[2,4,5,5] z",
    "other sizes by the padding": "float[2,4,3,3] w",
    "one source channel and all": "float[2,1,8,8] v",
}


@pytest.mark.parametrize("case", KEPT)
def test_branches_stay(case):
    model = region(KEPT[case], INPUTS.get(case, X))
    with np.errstate(invalid="ignore"):
        result = bnfold.fold(model) if case == "numbers that are none" else fold_and_compare(model)
    assert operators(result.model) == operators(model)
    assert result.merges == ()


@pytest.mark.parametrize(
    ("x", "body"),
    [
        ("float[2,4,9] x", "c = Conv<pads=[1,1]>(x, s3, b) d = Conv(x, s1) s = Add(c, d) y = Add(s, x)"),
        ("float[2,4,9] x", "c = Conv<pads=[1,0]>(x, s2, b) d = Conv<pads=[0,1]>(x, t2) y = Sub(c, d)"),
        ("float[2,4,4,3,5] x", "c = Conv<pads=[1,1,1,1,1,1]>(x, v3, b) d = Conv(x, v1) y = Sum(c, d, x)"),
        ("float[N,4,H,W] x", MERGED["RepVGG"]),
        ("float[N,4,H,W] x", MERGED["stride 2"]),
        ("float[N,4,H,W] x", MERGED["auto_pad"]),
        ("float[?,4,?,?] x", MERGED["MobileOne, depthwise"]),
        ("float[2,4,7,6] x", MERGED["auto_pad with a stride"]),
    ],
)
def test_any_number_of_axes_and_sizes_that_are_not_known(x, body):
    result = fold_and_compare(region(body, x, f"float[{','.join('?' * (x.count(',') + 1))}] y"))
    assert operators(result.model) == ["Conv"]


@pytest.mark.parametrize(
    "body",
    [
        MERGED["auto_pad with a stride"],  # its padding depends on the sizes
        "c = Conv<strides=[3,3]>(x, k3) d = Conv<strides=[2,2]>(x, k1) y = Add(c, d)",
        "c = Conv<pads=[0,1,0,2]>(x, k13) d = Conv(x, k13) y = Add(c, d)",  # one may repeat the other
    ],
)
def test_what_depends_on_a_size_needs_it(body):
    model = region(body, "float[N,4,H,W] x")
    assert operators(bnfold.fold(model).model) == operators(model)


def test_sizes_that_agree_by_striding_need_to_be_known():
    body = "c = Conv<strides=[2,2], pads=[0,0,1,1]>(x, k2) d = Conv<strides=[2,2]>(x, k1) y = Add(c, d)"
    other = "c = Conv<strides=[2,2]>(x, k2) d = Conv<strides=[2,2]>(x, k1) y = Add(c, d)"
    assert operators(fold_and_compare(region(body, "float[2,4,H,W] x")).model) == ["Conv"]
    assert operators(fold_and_compare(region(other)).model) == ["Conv"]  # 4 of 8, either way
    unknown = region(other, "float[2,4,H,W] x")
    assert operators(bnfold.fold(unknown).model) == operators(unknown)
    odd = region(
        "c = Conv<strides=[2,2]>(x, k2) d = Conv<strides=[2,2]>(x, k1) y = Add(c, d)", "float[2,4,3,3] x"
    )
    # of 3 elements the one gives 1 and the other 2: the sum repeats the one
    assert operators(fold_and_compare(odd).model) == operators(odd)


def test_half_precision_is_rounded_once():
    names = ("k3", "k1", "b", "b2")
    text = f"c = Conv<{P1}>(x, k3, b) d = Conv(x, k1, b2) s = Add(c, d) y = Sub(s, x)"
    model = build(
        f"g (float16[2,4,8,8] x) => (float16[a,b,c,d] y) {{ {text} }}",
        {name: POOL[name].astype(np.float16) for name in names},
    )
    result = fold_and_compare(model, tolerance=2e-3)
    [merged, bias] = [onnx.numpy_helper.to_array(tensor) for tensor in result.model.graph.initializer]
    exact = POOL["k3"].astype(np.float16).astype(np.float64)
    exact[:, :, 1, 1] += POOL["k1"].astype(np.float16).astype(np.float64)[:, :, 0, 0] - np.eye(4)
    assert merged.dtype == bias.dtype == np.float16
    assert np.array_equal(merged, exact.astype(np.float16))


def test_what_is_too_large_for_its_type_stays_apart():
    large = np.full((4, 4, 1, 1), 4e4, np.float16)
    model = build(
        "g (float16[2,4,8,8] x) => (float16[a,b,c,d] y) { c = Conv(x, w) d = Conv(x, v) y = Add(c, d) }",
        {"w": large, "v": large + np.float16(32)},
    )
    assert operators(bnfold.fold(model).model) == ["Conv", "Conv", "Add"]


@pytest.mark.parametrize("inner", ["c", "d", "s"])
def test_an_inner_value_that_is_an_output_stays(inner):
    body = f"c = Conv<{P1}>(x, k3) d = Conv(x, k1) s = Add(c, d) y = Sub(s, x)"
    model = region(body, y=f"float[a,b,c,d] y, float[e,f,g,h] {inner}")
    result = fold_and_compare(model)
    # what a sum that is read gives may still be one convolution; a branch that is read may not be one of it
    assert (
        operators(result.model)
        == {"c": ["Conv", "Conv", "Add"], "d": ["Conv", "Conv", "Add"], "s": ["Conv", "Sub"]}[inner]
    )


def test_an_inner_value_that_a_subgraph_reads_stays():
    body = (
        f"c = Conv<{P1}>(x, k3) d = Conv(x, k1) y = Add(c, d) "
        "z = If(p) <then_branch = t () => (float[a,b,c,d] q) { q = Relu(c) }, "
        "else_branch = f () => (float[a,b,c,d] r) { r = Identity(x) }>"
    )
    model = region(body, f"{X}, bool p", "float[a,b,c,d] y, float[e,f,g,h] z")
    result = fold_and_compare(model)
    assert operators(result.model) == ["Conv", "Conv", "Add", "If"]


def test_branches_in_a_subgraph_become_one():
    body = (
        f"y = If(p) <then_branch = t () => (float[a,b,c,d] q) {{ c = Conv<{P1}>(x, k3) d = Conv(x, k1) "
        "q = Add(c, d) }, else_branch = f () => (float[a,b,c,d] r) { e = Conv(x, k1) r = Add(e, x) }>"
    )
    result = fold_and_compare(region(body, f"{X}, bool p"))
    [node] = result.model.graph.node
    assert [[n.op_type for n in a.g.node] for a in node.attribute] == [["Conv"], ["Conv"]]


def constant(name: str, array: np.ndarray) -> str:
    """A `Constant` node in ONNX's text form."""
    shape, numbers = ",".join(map(str, array.shape)), ", ".join(map(str, array.reshape(-1)))
    return f"{name} = Constant<value = float[{shape}] {{{numbers}}}>()"


@pytest.mark.parametrize(("pads", "nodes"), [("pads = [1,1,1,1]", ["Conv"]), ("pads: ints = @p", None)])
def test_branches_in_a_function_become_one_if_it_states_their_settings(pads, nodes):
    model = build(
        f"g ({X}) => (float[a,b,c,d] y) {{ y = local.Block<p = [1,1,1,1]>(x) }}\n"
        f'<domain: "local", opset_import: ["": 18]> Block <p> (x) => (y) {{ {constant("w", POOL["k3"])} '
        f"{constant('v', POOL['k1'])} c = Conv<{pads}>(x, w) d = Conv(x, v) y = Add(c, d) }}"
    )
    result = bnfold.fold(model)
    assert_same(model, result.model)
    left = [node.op_type for node in result.model.functions[0].node if node.op_type != "Constant"]
    assert left == (nodes or ["Conv", "Conv", "Add"])


def test_quantised_weights_keep_their_integers():
    integers = np.random.default_rng(0).integers(-9, 9, (4, 4, 3, 3)).astype(np.int8)
    model = build(
        f"g ({X}) => (float[a,b,c,d] y) {{ w = DequantizeLinear(i, scale) c = Conv<{P1}>(x, w) "
        "d = Conv(x, k1) e = Conv(x, k1) s = Add(c, d) y = Add(s, e) }",
        {"i": integers, "scale": np.float32(0.1), "k1": POOL["k1"]},
    )
    result = fold_and_compare(model)
    assert sorted(operators(result.model)) == ["Add", "Conv", "Conv", "DequantizeLinear"]


@pytest.mark.parametrize("name", ["k1", "b"])
def test_weights_that_a_caller_may_replace_stay(name):
    model = region(f"c = Conv<{P1}>(x, k3) d = Conv(x, k1, b) y = Add(c, d)")
    shape = POOL[name].shape
    model.graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
    result = fold_and_compare(model)
    assert operators(result.model) == ["Conv", "Conv", "Add"]


def test_weights_that_are_computed_stay():
    model = region(f"c = Conv<{P1}>(x, w) d = Conv(x, k1) y = Add(c, d)", f"{X}, float[4,4,3,3] w")
    assert operators(fold_and_compare(model).model) == ["Conv", "Conv", "Add"]


@pytest.mark.parametrize(
    ("body", "left"),
    [
        # those of one stride, source or price are one; the others stay beside them
        (
            "c = Conv<strides=[2,2]>(z, k3) d = Conv<strides=[4,4]>(z, k1) e = Conv<strides=[2,2]>(z, l3) "
            "s = Add(c, d) y = Add(s, e)",
            ["Conv", "Conv", "Add"],
        ),
        (
            f"c = Conv<group=4, {P1}>(z, d3) d = Conv(z, k1) e = Conv<group=4, {P1}>(z, e3) s = Add(c, d) "
            "t = Add(s, e) y = Add(t, z)",
            ["Conv", "Conv", "Add"],
        ),
        (
            f"r = Relu(z) c = Conv<{P1}>(z, k3) d = Conv<{P1}>(r, k3) e = Conv(z, k1) f = Conv(r, k1) "
            "s = Add(c, d) t = Sub(s, e) y = Add(t, f)",
            ["Relu", "Conv", "Conv", "Add"],
        ),
        (f"r = Relu(z) c = Conv<{P1}>(z, k3) s = Sub(r, c) y = Sub(s, z)", ["Relu", "Conv", "Add"]),
        (f"r = Relu(z) c = Conv<{P1}>(z, k3) s = Add(c, z) y = Sub(s, r)", ["Relu", "Conv", "Sub"]),
        (
            f"r = Relu(z) q = Sigmoid(z) c = Conv<{P1}>(z, k3) y = Sum(c, r, z, q)",
            ["Relu", "Sigmoid", "Conv", "Sum"],
        ),
        (
            f"r = Relu(z) q = Sigmoid(z) p = Tanh(z) c = Conv<{P1}>(z, k3) t = Sum(q, r, p) s = Sub(c, t) "
            "y = Add(z, s)",
            ["Relu", "Sigmoid", "Tanh", "Conv", "Sum", "Sub"],
        ),
    ],
)
def test_what_matches_is_one_beside_what_does_not(body, left):
    result = fold_and_compare(region(body, "float[2,4,5,5] z"))
    assert operators(result.model) == left


def test_terms_that_are_repeated_are_repeated_behind_a_merge():
    body = f"c = Conv<{P1}>(x, k3) s = Add(c, x) y = Add(s, k)"
    for shape in ((1, 4, 1, 1), (2, 4, 1, 8), (3, 2, 4, 8, 8), (8,)):
        rank = max(4, len(shape))
        model = region(body, f"{X}, float[{','.join(map(str, shape))}] k", f"float[{','.join('?' * rank)}] y")
        assert operators(fold_and_compare(model).model) == ["Conv", "Add"]


def test_what_is_left_is_added_up_in_its_order():
    """A runtime lets one convolution add what another has given, as long as nothing else comes in between."""
    body = f"q = Sigmoid(z) a = Conv(q, k1) c = Conv<{P1}>(x, k3) d = Conv(x, k1) s = Add(a, c) t = Add(s, d)"
    model = region(f"{body} y = Add(t, z)", f"{X}, float[2,4,8,8] z")
    result = fold_and_compare(model)
    assert operators(result.model).count("Conv") == 2
    assert "z" in result.model.graph.node[-1].input


@pytest.mark.parametrize(
    ("behind", "left"),
    [
        ("y = Norm n(s)", ["Conv"]),
        ("t = Mul(s, gamma) y = Relu(t)", ["Conv", "Relu"]),
        ("t = Norm n(s) d = Conv(x, k1) y = Sub(t, d)", ["Conv"]),
        ("y = Conv(s, k1)", ["Conv"]),  # which is a matter of two layers in a row
    ],
)
def test_what_follows_a_merge_goes_into_it(behind, left):
    # the identity takes no scale, so nothing can fold before the branches are one
    model = region(f"c = Conv<{P1}>(x, k3, b) s = Add(c, x) {behind}")
    assert operators(fold_and_compare(model).model) == left


@pytest.mark.parametrize(
    ("body", "left"),
    [
        # the shift has gone into the constant of a term that stays
        (
            f"r = Relu(x) i = Sub(col, r) c = Conv<{P1}>(x, k3) d = Conv(x, k1) s = Add(c, d) t = Add(i, s) "
            "y = Add(t, gamma)",
            ["Relu", "Conv", "Sub"],
        ),
        # a scale has gone into two constants, which must not be added up as they were before
        (
            f"v = Conv(x, k1) e = Add(v, col) f = Add(e, gamma) p = Conv<{P1}>(v, k3) r = Relu(x) "
            "q = Conv(r, k1) m = Sub(q, f) t = Mul(m, gamma) y = Add(p, t)",
            ["Relu", "Conv", "Conv", "Add"],  # and v, which p alone reads now, goes into p
        ),
    ],
)
def test_constants_that_folds_have_changed_are_carried_over(body, left):
    assert operators(fold_and_compare(region(body)).model) == left


def test_an_output_keeps_its_name_and_its_module():
    model = region(f"c = Conv<{P1}>(x, k3) d = Conv(x, k1) y = Add(c, d)", y="float[2,4,8,8] y")
    model.graph.node[0].name = "stage.big"
    model.graph.node[1].name = "stage.small"
    scopes = "['', 'stage', 'stage.big', 'conv2d']"
    model.graph.node[0].metadata_props.add(key="pkg.torch.onnx.name_scopes", value=scopes)
    result = fold_and_compare(model)
    [node] = result.model.graph.node
    assert list(node.output) == ["y"]
    assert result.model.graph.output == model.graph.output
    assert node.name == "stage.big"
    assert result.merges[0].into == "stage.big"


def test_a_merge_says_what_it_saved():
    model = region(
        f"c = Conv<{P1}>(x, k3) cn = Norm n(c) d = Conv(x, k1) i = Norm m(x) s = Add(cn, d) y = Add(s, i)"
    )
    for node in model.graph.node:
        node.name = f"block.{node.output[0]}"
    result = fold_and_compare(model)
    [merge] = result.merges
    assert set(merge.branches) == {"block.c", "block.d", "block.i"}
    assert (merge.multiply_adds_before, merge.multiply_adds_after) == (144 + 16 + 4, 144)
    assert {site.name: (site.status, site.into) for site in result.sites} == {
        "block.cn": ("folded", (merge.into,)),
        "block.i": ("merged", (merge.into,)),
    }
    assert len(result.folded) == 2


def test_an_identity_is_called_one():
    [merge] = bnfold.fold(region(MERGED["residual"])).merges
    assert merge.branches == ("c", "identity")
    assert merge.multiply_adds_before == merge.multiply_adds_after == 144


def test_arithmetic_that_was_a_branch_is_merged():
    result = fold_and_compare(region(f"c = Conv<{P1}>(x, k3) i = Mul(x, gamma) y = Add(c, i)"))
    [site] = result.sites
    assert (site.name, site.op_type, site.status) == ("i", "Mul", "merged")
    assert site.into == (result.merges[0].into,)


def test_no_bias_is_written_that_says_nothing():
    [node] = fold_and_compare(region(MERGED["two of one size"])).model.graph.node
    assert len(node.input) == 2


def test_a_branch_that_does_not_match_says_so():
    # BN307: one channel beside all of them
    model = region("i = Norm n(x) c = Conv(x, one) y = Add(c, i)")
    result = fold_and_compare(model)
    assert "BN307" in kept_codes(result)
    assert result.kept[0].reason_after.facts["node"] == "y"


def test_a_branch_that_would_cost_more_says_so():
    # BN308: a centre between taps that stand two apart
    model = region("i = Norm n(x) c = Conv<pads=[1,1,1,1], dilations=[2,2]>(x, k2) y = Add(c, i)")
    result = fold_and_compare(model)
    assert "BN308" in kept_codes(result)
    facts = result.kept[0].reason_after.facts
    assert (facts["before"], facts["after"]) == ("68", "144")


def test_reasons_of_branches_are_not_given_when_merging_is_not_wanted():
    model = region("i = Norm n(x) c = Conv(x, one) y = Add(c, i)")
    assert not kept_codes(bnfold.fold(model, merge=False)) & {"BN307", "BN308"}


def figures(result: FoldResult[onnx.ModelProto]) -> list[tuple[int, int]]:
    return [(merge.multiply_adds_before, merge.multiply_adds_after) for merge in result.merges]


def test_pointwise_convolutions_are_composed_only_where_that_pays():
    assert figures(bnfold.fold(region(MERGED["pointwise, then 3×3"]))) == [(16 + 144 + 144, 144)]
    assert figures(bnfold.fold(region(MERGED["pointwise, then a mean"]))) == [(16 + 36 + 144, 144)]
