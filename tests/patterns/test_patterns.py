"""A formula that is written out stays whole next to a BatchNorm that folds; what resembles it does fold."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

import bnfold
from bnfold.files.load import from_proto
from bnfold.graph.facts import Facts
from bnfold.latency.optimized_graph import optimized_graph
from bnfold.patterns import PATTERNS, find
from tests.graphs import assert_same, build, operators, statistics, weight

NUMBERS = {
    "half": 0.5,
    "one": 1.0,
    "two": 2.0,
    "three": 3.0,
    "six": 6.0,
    "sixth": 1 / 6,
    "minus": -0.5,
    "zero": 0.0,
    "root2": math.sqrt(2),
    "inverse": math.sqrt(0.5),
    "k": 0.044715,
    "lift": 20.0,
    "w2pi": math.sqrt(2 / math.pi),
    "quick": 1.702,
    "eps": 1e-5,
    "eighth": 0.125,
    "other": 0.7,
    "tiny": 0.01,
}
POOL = {
    **{name: np.array(number, np.float32) for name, number in NUMBERS.items()},
    "w": weight(8, 4, 1, 1),
    "b": weight(8, seed=3),
    "w2": weight(4, 8, 1, 1, seed=4),
    "m": weight(8, 8, seed=5),
    "gamma": weight(8, seed=6),
    "beta": weight(8, seed=7),
    "ones": np.ones(2, np.float32),
    "none": np.zeros(2, np.float32),
    "slope": weight(8, 1, 1, seed=8),
    "g3": weight(8, 1, 1, seed=9),
    "b3": weight(8, 1, 1, seed=10),
    "last": np.array([-1]),
    "grouped": np.array([0, 2, -1]),
    "shape": np.array([2, 8, 4, 4]),
    "rows": np.array([2, 16, 8]),
    "cos": weight(16, 8, seed=11),
    "sin": weight(16, 8, seed=12),
    "n0": np.array([0]),
    "n4": np.array([4]),
    "n8": np.array([8]),
    **statistics(8, 2),
}
# from t, of shape [2, 8, 4, 4], to u; z is another value like it
MAP = "float[2,8,4,4]"
# from t, of shape [2, 16, 8], to u
ROWS = "float[2,16,8]"

ERF = "d = Div(t, root2) e = Erf(d) a = Add(e, one)"
MEAN = "mu = ReduceMean<axes = [-1]>(t) d = Sub(t, mu)"
SPREAD = "v = ReduceMean<axes = [-1]>(q) ve = Add(v, eps)"
OWN = "g = Mul(n, gamma) u = Add(g, beta)"
SQUARED = "q = Pow(t, two)"
WHOLE: dict[str, dict[str, list[str]]] = {
    "Gelu": {
        MAP: [
            f"{ERF} p = Mul(t, a) u = Mul(p, half)",
            f"{ERF} p = Mul(t, half) u = Mul(p, a)",
            f"{ERF} p = Mul(a, half) u = Mul(p, t)",
            f"{ERF} p = Mul(t, a) u = Div(p, two)",
            "d = Mul(t, inverse) e = Erf(d) a = Add(one, e) p = Mul(a, t) u = Mul(half, p)",
            "d = Mul(t, inverse) e = Erf(d) h = Mul(e, half) a = Add(h, half) u = Mul(t, a)",
        ]
    },
    "Gelu (tanh)": {
        MAP: [
            "c = Pow(t, three) k1 = Mul(c, k) s = Add(t, k1) i = Mul(s, w2pi) e = Tanh(i) a = Add(e, one) "
            "p = Mul(t, a) u = Mul(p, half)",
            "t2 = Mul(t, t) c = Mul(t2, t) k1 = Mul(k, c) s = Add(t, k1) i = Mul(w2pi, s) e = Tanh(i) "
            "a = Add(e, one) p = Mul(t, half) u = Mul(p, a)",
            "k1 = Mul(t, k) t2 = Mul(k1, t) s = Add(t2, one) o = Mul(t, w2pi) i = Mul(o, s) e = Tanh(i) "
            "a = Add(e, one) p = Mul(t, half) u = Mul(p, a)",
        ]
    },
    "SiLU": {
        MAP: [
            "s = Sigmoid(t) u = Mul(t, s)",
            "q = Mul(t, quick) s = Sigmoid(q) u = Mul(s, t)",
            "m1 = Neg(t) e = Exp(m1) a = Add(e, one) u = Div(t, a)",
        ]
    },
    "HardSwish": {
        MAP: [
            "a = Add(t, three) c = Clip(a, zero, six) p = Mul(t, c) u = Div(p, six)",
            "a = Add(t, three) c = Clip(a, zero, six) h = Mul(c, sixth) u = Mul(t, h)",
            "a = Add(t, three) r = Relu(a) c = Min(r, six) h = Mul(c, sixth) u = Mul(h, t)",
            "a = Add(t, three) r = Max(a, zero) c = Min(r, six) p = Mul(t, c) u = Mul(p, sixth)",
            "h = HardSigmoid<alpha = 0.16666667>(t) u = Mul(t, h)",
        ]
    },
    "HardSigmoid": {MAP: ["a = Add(t, three) c = Clip(a, zero, six) u = Div(c, six)"]},
    "Softplus": {MAP: ["e = Exp(t) a = Add(e, one) u = Log(a)"]},
    "Mish": {MAP: ["s = Softplus(t) h = Tanh(s) u = Mul(t, h)"]},
    "LeakyRelu": {MAP: ["s = Mul(t, tiny) u = Max(t, s)"]},
    "PRelu": {
        MAP: [
            "r = Relu(t) o = Neg(t) ro = Relu(o) no = Neg(ro) s = Mul(no, slope) u = Add(r, s)",
            "r = Relu(t) o = Neg(t) ro = Relu(o) s = Mul(ro, slope) u = Sub(r, s)",
        ]
    },
    "LayerNorm": {
        ROWS: [
            f"{MEAN} q = Pow(d, two) {SPREAD} sd = Sqrt(ve) n = Div(d, sd) {OWN}",
            f"{MEAN} q = Mul(d, d) {SPREAD} sd = Sqrt(ve) r = Reciprocal(sd) n = Mul(d, r) {OWN}",
            f"{MEAN} d2 = Sub(t, mu) q = Pow(d2, two) {SPREAD} sd = Sqrt(ve) n = Div(d, sd) {OWN}",
            f"{MEAN} q = Pow(d, two) {SPREAD} n0v = Pow(ve, minus) n = Mul(d, n0v) {OWN}",
        ]
    },
    "LayerNorm (TensorFlow)": {
        ROWS: [
            f"{MEAN} q = Mul(d, d) {SPREAD} sd = Sqrt(ve) r = Reciprocal(sd) f = Mul(r, gamma) o = Mul(t, f) "
            "mf = Mul(mu, f) sh = Sub(beta, mf) u = Add(o, sh)"
        ]
    },
    "RMSNorm": {
        ROWS: [
            f"{SQUARED} {SPREAD} sd = Sqrt(ve) n = Div(t, sd) u = Mul(n, gamma)",
            f"q = Mul(t, t) {SPREAD} sd = Sqrt(ve) r = Reciprocal(sd) n = Mul(t, r) u = Mul(gamma, n)",
            f"{SQUARED} {SPREAD} sd = Sqrt(ve) r = Div(one, sd) n = Mul(t, r) u = Mul(n, gamma)",
        ]
    },
    "GroupNorm": {
        MAP: [
            "r = Reshape(t, grouped) i = InstanceNormalization(r, ones, none) k2 = Reshape(i, shape) "
            "g = Mul(k2, g3) u = Add(g, b3)"
        ]
    },
    "L2 norm": {
        ROWS: [
            "l = ReduceL2<axes = [-1]>(t) c = Clip(l, tiny) u = Div(t, c)",
            "q = Mul(t, t) s = ReduceSum(q, last) c = Max(s, tiny) l = Sqrt(c) r = Reciprocal(l) u "
            "= Mul(t, r)",
        ]
    },
    "attention": {
        ROWS: [
            "kt = Transpose<perm = [0,2,1]>(z) s = MatMul(t, kt) sc = Mul(s, eighth) p = "
            "Softmax(sc) u = MatMul(p, t)",
            "q = Mul(t, eighth) kt = Transpose<perm = [0,2,1]>(z) s = MatMul(q, kt) p = Softmax(s) "
            "u = MatMul(p, t)",
            "kt = Transpose<perm = [0,2,1]>(z) s = MatMul(t, kt) sc = Div(s, two) ms = Add(sc, "
            "mask) p = Softmax(ms) "
            "u = MatMul(p, t)",
        ]
    },
    "Softmax": {ROWS: ["e = Exp(t) s = ReduceSum(e, last) u = Div(e, s)"]},
    "rotary embedding": {
        ROWS: [
            "a1 = Slice(t, n0, n4, last) a2 = Slice(t, n4, n8, last) o = Neg(a2) h = Concat<axis = "
            "-1>(o, a1) "
            "p1 = Mul(t, cos) p2 = Mul(h, sin) u = Add(p1, p2)"
        ]
    },
}
# the nearest structure that is not the pattern: arithmetic in it goes into the layer before
NEAREST: dict[str, tuple[str, str]] = {
    "Gelu": (MAP, f"{ERF} p = Mul(z, a) u = Mul(p, half)"),
    "Gelu (tanh)": (MAP, "i = Mul(t, w2pi) u = Tanh(i)"),
    "SiLU": (MAP, "q = Mul(t, quick) s = Sigmoid(q) u = Mul(z, s)"),
    "HardSwish": (MAP, "a = Add(t, three) c = Clip(a, zero, one) u = Mul(z, c)"),
    "HardSigmoid": (MAP, "a = Add(t, three) c = Clip(a, zero, one) u = Identity(c)"),
    "Softplus": (MAP, "s = Mul(t, two) e = Exp(s) u = Log(e)"),
    "Mish": (MAP, "o = Mul(t, two) s = Softplus(o) h = Tanh(s) u = Mul(z, h)"),
    "LeakyRelu": (MAP, "s = Mul(t, tiny) u = Max(z, s)"),
    "PRelu": (MAP, "s = Mul(t, slope) u = Relu(s)"),
    "LayerNorm": (ROWS, "s = Mul(t, gamma) n = Add(s, beta) g = Mul(n, gamma) u = Add(g, beta)"),
    "LayerNorm (TensorFlow)": (ROWS, "o = Mul(t, gamma) u = Add(o, beta)"),
    "RMSNorm": (ROWS, "n = Mul(t, gamma) u = Sqrt(n)"),
    "GroupNorm": (MAP, "g = Mul(t, g3) i = Add(g, b3) u = Relu(i)"),
    "L2 norm": (ROWS, "c = Mul(t, other) l = ReduceL2<axes = [-1]>(z) u = Div(c, l)"),
    "attention": (ROWS, "sc = Mul(t, eighth) u = Softmax(sc)"),
    "Softmax": (ROWS, "o = Mul(t, two) e = Exp(o) s = ReduceSum(z, last) u = Div(e, s)"),
    "rotary embedding": (ROWS, "p1 = Mul(t, gamma) p2 = Mul(z, sin) u = Add(p1, p2)"),
}
MAP_OUT = "float[2,4,4,4]"
MAP_NORM = "r9 = BatchNormalization(u, scale, bias, mean, var)"
ROWS_NORM = (
    "r7 = Transpose<perm = [0,2,1]>(u) r8 = BatchNormalization(r7, scale, bias, mean, var) "
    "r9 = Transpose<perm = [0,2,1]>(r8)"
)
ROWS_FIRST = ROWS_NORM.replace("(u)", "(t0)").replace("r9", "t").replace("r7", "t1").replace("r8", "t2n")
FORMS = [
    pytest.param(name, shape, body, id=f"{name} {number}")
    for name, shapes in WHOLE.items()
    for shape, bodies in shapes.items()
    for number, body in enumerate(bodies, 1)
]


def model(shape: str, body: str, *, norm: bool = True, after: bool = False) -> onnx.ModelProto:
    """A layer, a BatchNorm where one is wanted, then the formula, another BatchNorm, and another layer."""
    second = (MAP_NORM if shape == MAP else ROWS_NORM) if after else "r9 = Identity(u)"
    if shape == MAP:
        first = "t = BatchNormalization(t0, scale, bias, mean, var)" if norm else "t = Identity(t0)"
        inputs, output, layer, last = f"float[2,4,4,4] x, {MAP} z", MAP_OUT, "Conv(x, w, b)", "Conv(r9, w2)"
    else:
        first = ROWS_FIRST if norm else "t = Identity(t0)"
        inputs, output, layer, last = (
            f"{ROWS} x, {ROWS} z, float[2,1,16] mask",
            ROWS,
            "MatMul(x, m)",
            "MatMul(r9, m)",
        )
    return built(f"g ({inputs}) => ({output} y) {{ t0 = {layer} {first} {body} {second} y = {last} }}")


def built(text: str) -> onnx.ModelProto:
    """A model with those constants of the pool that its text names."""
    return build(text, {name: POOL[name] for name in POOL if re.search(rf"[(, ]{name}[,)]", text)}, opset=13)


def found(model: onnx.ModelProto) -> Counter[tuple[str, str]]:
    """The nodes of all patterns, by pattern and operator."""
    fixed = find(Facts(from_proto(model))).fixed
    return Counter((pattern.name, node.op_type) for node, pattern in fixed.items())


def nodes_at_run_time(model: onnx.ModelProto) -> int:
    return optimized_graph(model).extended_nodes


def test_every_pattern_is_written_here_in_its_forms_and_next_to_what_it_is_not() -> None:
    assert set(WHOLE) == set(NEAREST) == {pattern.name for pattern in PATTERNS}
    assert all(pattern.sources for pattern in PATTERNS)


@pytest.mark.parametrize(("name", "shape", "body"), FORMS)
def test_a_batchnorm_before_it_folds_and_it_stays_whole(name: str, shape: str, body: str) -> None:
    original = model(shape, body)
    patterns = found(original)
    assert name in {pattern for pattern, _ in patterns}
    result = bnfold.fold(original)
    assert "BatchNormalization" not in operators(result.model)
    assert found(result.model) == patterns
    assert_same(original, result.model)
    assert nodes_at_run_time(result.model) <= nodes_at_run_time(original)


@pytest.mark.parametrize(("name", "shape", "body"), FORMS)
def test_a_batchnorm_after_it_folds_and_it_stays_whole(name: str, shape: str, body: str) -> None:
    original = model(shape, body, norm=False, after=True)
    patterns = found(original)
    assert name in {pattern for pattern, _ in patterns}
    result = bnfold.fold(original)
    assert "BatchNormalization" not in operators(result.model)
    assert found(result.model) == patterns
    assert_same(original, result.model)
    assert nodes_at_run_time(result.model) <= nodes_at_run_time(original)


@pytest.mark.parametrize(("name", "shape", "body"), FORMS)
def test_alone_it_stays_as_it_is(name: str, shape: str, body: str) -> None:
    original = model(shape, body, norm=False)
    result = bnfold.fold(original)
    assert operators(result.model) == operators(original)
    assert name in {pattern for pattern, _ in found(result.model)}


@pytest.mark.parametrize(("name", "shape", "body"), [(name, *case) for name, case in NEAREST.items()])
def test_the_nearest_structure_that_is_not_the_pattern_folds(name: str, shape: str, body: str) -> None:
    original = model(shape, body, norm=False)
    assert name not in {pattern for pattern, _ in found(original)}
    result = bnfold.fold(original)
    assert len(operators(result.model)) < len(operators(original))
    assert_same(original, result.model)


def test_the_scale_and_shift_of_a_layer_norm_take_a_batchnorm() -> None:
    """With nothing after it that could take the BatchNorm, γ and β do, and keep their shape."""
    body = f"{MEAN} {SQUARED.replace('t,', 'd,')} {SPREAD} sd = Sqrt(ve) n = Div(d, sd) {OWN}"
    text = f"""g (float[2,16,8] x) => (float[2,16,8] y) {{ t = MatMul(x, m) {body}
        f = Transpose<perm = [0,2,1]>(u) o = BatchNormalization(f, scale, bias, mean, var)
        y = Transpose<perm = [0,2,1]>(o) }}"""
    original = built(text)
    result = bnfold.fold(original)
    assert "BatchNormalization" not in operators(result.model)
    assert found(result.model) == found(original)
    assert_same(original, result.model)
    assert optimized_graph(result.model).whole == {"LayerNormalization": 1}


@pytest.mark.parametrize("same", ["Identity", "Dropout"])
def test_what_changes_nothing_does_not_part_a_layer_norm_from_its_scale_and_shift(same: str) -> None:
    own = OWN.replace("(n,", "(n2,", 1)
    body = f"{MEAN} {SQUARED.replace('t,', 'd,')} {SPREAD} sd = Sqrt(ve) n = Div(d, sd) n2 = {same}(n) {own}"
    text = f"""g (float[2,16,8] x) => (float[2,16,8] y) {{ t = MatMul(x, m) {body} y = MatMul(u, m) }}"""
    original = built(text)
    result = bnfold.fold(original)
    assert operators(result.model) == operators(original)
    assert optimized_graph(result.model).whole == {"LayerNormalization": 1}


def test_the_page_lists_every_pattern_with_its_sources() -> None:
    rows = [f"| {pattern.name} | {'; '.join(pattern.sources)} |" for pattern in PATTERNS]
    page = (Path(__file__).parents[2] / "docs" / "patterns.md").read_text(encoding="utf-8")
    assert [row for row in page.splitlines() if row.startswith("| ") and "---" not in row][1:] == rows
