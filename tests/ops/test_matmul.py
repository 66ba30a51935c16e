"""MatMul with a constant is a linear layer of any rank; its bias is the Add behind it."""

from __future__ import annotations

import numpy as np
import pytest

import bnfold
from tests.graphs import build, fold_and_compare, kept_codes, operators, statistics, weight
from tests.pairwise import pairwise

BIASES = ["", "y = Add(m, b)", "y = Add(b, m)", "y = Sub(m, b)", "y = Sub(b, m)"]


@pairwise(bias=BIASES, x=["5,3", "2,5,3", "2,4,5,3"], affine=["Mul", "Mul Add", "Add"])
def test_a_constant_on_the_right_takes_what_varies_along_the_last_axis(affine, x, bias):
    chain = {"Mul": "o = Mul(y, k)", "Mul Add": "s = Mul(y, k) o = Add(s, l)", "Add": "o = Add(y, l)"}[affine]
    body = f"m = MatMul(x, w) {bias or 'y = Identity(m)'} {chain}"
    model = build(
        f"g (float[{x}] x) => (float[{x[:-1]}4] o) {{ {body} }}",
        {"w": weight(3, 4), "b": weight(4), "k": weight(4, seed=3), "l": weight(4, seed=4)},
    )
    result = fold_and_compare(model)
    found = [op for op in operators(result.model) if op != "Identity"]
    shifted = bool(bias) or "Add" in affine
    assert found[0] == "MatMul"
    assert len(found) == 1 + shifted


@pytest.mark.parametrize("bias", ["", "Add", "Sub"])
def test_a_batchnorm_behind_a_linear_layer(bias):
    body = f"m = MatMul(x, w) a = {bias}(m, b)" if bias else "a = MatMul(x, w)"
    model = build(
        f"g (float[N,3] x) => (float[N,4] y) {{ {body} y = BatchNormalization(a, scale, bias, mean, var) }}",
        {"w": weight(3, 4), "b": weight(4), **statistics(4, 2)},
    )
    result = fold_and_compare(model)
    assert operators(result.model) == ["MatMul", "Add"]  # one Add for all, whatever stood there
    assert result.nodes_after <= result.nodes_before
    assert [site.status for site in result.sites] == ["folded"]


@pytest.mark.parametrize("bias", ["", "Add", "Sub"])
@pytest.mark.parametrize("start", ["x", "r"])
def test_a_batchnorm_before_a_linear_layer(start, bias):
    last = f"m = MatMul(n, w) y = {bias}(m, b)" if bias else "y = MatMul(n, w)"
    model = build(
        "g (float[N,3] x) => (float[N,4] y) "
        f"{{ r = Relu(x) n = BatchNormalization({start}, scale, bias, mean, var) {last} }}",
        {"w": weight(3, 4), "b": weight(4), **statistics(3)},
    )
    result = fold_and_compare(model)
    assert [op for op in operators(result.model) if op != "Relu"] == ["MatMul", bias or "Add"]


@pytest.mark.parametrize("c", [(5,), (1,), (), (4, 1), (1, 5), (4, 5), (2, 4, 5), (2, 1, 1)], ids=str)
@pytest.mark.parametrize("operator", ["Add", "Sub"])
def test_a_shift_joins_a_bias_of_any_shape(operator, c):
    model = build(
        "g (float[2,4,3] x) => (float[2,4,5] y) "
        f"{{ r = Relu(x) s = Mul(r, k) t = Add(s, l) m = MatMul(t, w) y = {operator}(m, c) }}",
        {"w": weight(3, 5), "c": weight(*c, seed=5), "k": weight(3, seed=3), "l": weight(3, seed=4)},
    )
    assert operators(fold_and_compare(model).model) == ["Relu", "MatMul", operator]


@pytest.mark.parametrize("x", ["3,5", "2,3,5", "2,4,3,5"])
@pytest.mark.parametrize("side", ["output", "input"])
def test_a_constant_on_the_left(side, x):
    size = 4 if side == "output" else 3
    chain = "s = Mul({0}, k) {1} = Add(s, l)"
    body = (
        "m = MatMul(w, x) " + chain.format("m", "y")
        if side == "output"
        else "r = Relu(x) " + chain.format("r", "t") + " y = MatMul(w, t)"
    )
    rank = x.count(",") + 1
    shape = ",".join([*x.split(",")[: rank - 2], "4", "5"])
    model = build(
        f"g (float[{x}] x) => (float[{shape}] y) {{ {body} }}",
        {"w": weight(4, 3), "k": weight(size, 1, seed=3), "l": weight(size, 1, seed=4)},
    )
    result = fold_and_compare(model)
    assert [op for op in operators(result.model) if op != "Relu"] == ["MatMul", "Add"]


@pytest.mark.parametrize("side", ["output", "input"])
@pytest.mark.parametrize("batch", [(2,), (1,), (1, 2), (3, 1), (3, 2), (1, 1)], ids=str)
def test_batched_constants(batch, side):
    size = 5 if side == "output" else 3
    body = (
        "m = MatMul(x, w) s = Mul(m, k) y = Add(s, l)"
        if side == "output"
        else "r = Relu(x) s = Mul(r, k) t = Add(s, l) y = MatMul(t, w)"
    )
    result_shape = [*np.broadcast_shapes((3, 2), batch), 4, 5]
    model = build(
        f"g (float[3,2,4,3] x) => (float[{','.join(map(str, result_shape))}] y) {{ {body} }}",
        {"w": weight(*batch, 3, 5), "k": weight(size, seed=3), "l": weight(size, seed=4)},
    )
    assert [op for op in operators(fold_and_compare(model).model) if op != "Relu"] == ["MatMul", "Add"]


@pytest.mark.parametrize("side", ["output", "input"])
@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize(
    ("batch", "k"), [((4,), (4, 1, 1)), ((3, 4), (4, 1, 1)), ((3, 1), (3, 1, 1, 1))], ids=str
)
def test_each_matrix_of_a_constant_takes_its_own(batch, k, right, side):
    """A scale and a shift that vary along a batch axis which the constant has; all sizes agree."""
    product = "MatMul({0}, w)" if right else "MatMul(w, {0})"
    body = (
        f"m = {product.format('x')} s = Mul(m, k) y = Add(s, l)"
        if side == "output"
        else f"r = Relu(x) s = Mul(r, k) t = Add(s, l) y = {product.format('t')}"
    )
    model = build(
        f"g (float[3,4,4,4] x) => (float[3,4,4,4] y) {{ {body} }}",
        {"w": weight(*batch, 4, 4), "k": weight(*k, seed=3), "l": weight(*k, seed=4)},
    )
    assert [op for op in operators(fold_and_compare(model).model) if op != "Relu"] == ["MatMul", "Add"]


@pytest.mark.parametrize("side", ["output", "input"])
@pytest.mark.parametrize("batch", [(), (1,), (3, 1)], ids=str)
def test_a_batch_axis_that_the_constant_does_not_have(batch, side):
    body = (
        "m = MatMul(x, w) y = Mul(m, k)" if side == "output" else "r = Relu(x) s = Mul(r, k) y = MatMul(s, w)"
    )
    model = build(
        f"g (float[3,4,4,4] x) => (float[3,4,4,4] y) {{ {body} }}",
        {"w": weight(*batch, 4, 4), "k": weight(4, 1, 1, seed=3)},
    )
    result = fold_and_compare(model)
    assert operators(result.model) == operators(model)
    assert "BN204" in kept_codes(result)


@pytest.mark.parametrize("side", ["output", "input"])
def test_a_batchnorm_of_heads(side):
    """(N, heads, tokens, channels), a matrix for each head, and a BatchNorm along the heads."""
    body = (
        "m = MatMul(x, w) y = BatchNormalization(m, scale, bias, mean, var)"
        if side == "output"
        else "r = Relu(x) n = BatchNormalization(r, scale, bias, mean, var) y = MatMul(n, w)"
    )
    model = build(
        f"g (float[N,4,5,3] x) => (float[N,4,5,6] y) {{ {body} }}", {"w": weight(4, 3, 6), **statistics(4, 2)}
    )
    assert [op for op in operators(fold_and_compare(model).model) if op != "Relu"] == ["MatMul", "Add"]


def test_a_constant_with_more_axes_and_an_affine_on_both_sides():
    model = build(
        "g (float[2,4,3] x) => (float[5,2,4,6] y) { r = Relu(x) s = Mul(r, k) t = Add(s, l) m = MatMul(t, w) "
        "u = Mul(m, o) y = Add(u, p) }",
        {
            "w": weight(5, 2, 3, 6),
            "k": weight(2, 1, 1, seed=3),
            "l": weight(2, 1, 1, seed=4),
            "o": weight(5, 1, 1, 1, seed=5),
            "p": weight(6, seed=6),
        },
    )
    assert operators(fold_and_compare(model).model) == ["Relu", "MatMul", "Add"]


def test_a_constant_with_more_axes_than_the_value():
    model = build(
        "g (float[4,3] x) => (float[2,4,5] y) { r = Relu(x) "
        "n = BatchNormalization(r, scale, bias, mean, var) m = MatMul(n, w) s = Mul(m, k) y = Add(s, l) }",
        {"w": weight(2, 3, 5), "k": weight(5), "l": weight(5), **statistics(3)},
    )
    assert operators(fold_and_compare(model).model) == ["Relu", "MatMul", "Add"]


@pytest.mark.parametrize(
    ("body", "k"),
    [
        ("m = MatMul(x, w) y = Mul(m, k)", (4, 1)),
        ("m = MatMul(w, x) y = Mul(m, k)", (4,)),
        ("r = Relu(x) s = Mul(r, k) y = MatMul(s, w)", (4, 1)),
        ("r = Relu(x) s = Mul(r, k) y = MatMul(w, s)", (4,)),
        ("m = MatMul(x, w) y = Mul(m, k)", (4, 1, 1)),
    ],
)
def test_equal_sizes_on_another_axis_prove_nothing(body, k):
    model = build(
        f"g (float[4,4,4] x) => (float[4,4,4] y) {{ {body} }}", {"w": weight(4, 4), "k": weight(*k, seed=3)}
    )
    result = fold_and_compare(model)
    assert operators(result.model) == operators(model)
    assert "BN204" in kept_codes(result)


@pytest.mark.parametrize(
    "body",
    [
        "n = BatchNormalization(x, scale, bias, mean, var) y = MatMul(n, v)",
        "n = MatMul(x, w) y = BatchNormalization(n, scale, bias, mean, var)",
    ],
)
def test_a_batchnorm_of_three_axes_is_along_the_middle_one(body):
    """(N, C, L) with C = L: the weight has only the last axis."""
    model = build(
        f"g (float[2,4,4] x) => (float[2,4,4] y) {{ {body} }}",
        {"w": weight(4, 4), "v": weight(4, 4), **statistics(4, 2)},
    )
    result = fold_and_compare(model)
    assert operators(result.model) == operators(model)
    assert "BN204" in kept_codes(result)


def test_a_batchnorm_between_transposes_is_along_the_last_axis():
    model = build(
        "g (float[2,4,3] x) => (float[2,4,4] y) { m = MatMul(x, w) t = Transpose<perm=[0,2,1]>(m) "
        "n = BatchNormalization(t, scale, bias, mean, var) y = Transpose<perm=[0,2,1]>(n) }",
        {"w": weight(3, 4), **statistics(4, 2)},
    )
    result = fold_and_compare(model)
    assert "BatchNormalization" not in operators(result.model)


@pytest.mark.parametrize("body", ["m = MatMul(x, w)", "m = MatMul(w, x)"])
def test_a_vector_has_no_free_axis(body):
    model = build(
        f"g (float[4,4] x) => (float[4] y) {{ {body} s = Mul(m, k) y = Add(s, l) }}",
        {"w": weight(4), "k": weight(4), "l": weight(4)},
    )
    result = fold_and_compare(model)
    assert operators(result.model)[0] == "MatMul"
    assert result.kept[0].reason.code == "BN210"


@pytest.mark.parametrize(
    ("body", "output", "code"),
    [
        ("m = MatMul(x, w) y = BatchNormalization(m, scale, bias, mean, var) z = Relu(m)", "z", "BN301"),
        ("m = MatMul(x, w) y = BatchNormalization(m, scale, bias, mean, var)", "m", "BN302"),
    ],
)
def test_another_need_for_the_product(body, output, code):
    model = build(
        f"g (float[2,3] x) => (float[2,4] y, float[2,4] {output}) {{ {body} }}",
        {"w": weight(3, 4), **statistics(4, 2)},
    )
    result = fold_and_compare(model)
    assert operators(result.model) == operators(model)
    assert result.kept[0].reason.code == code


def test_a_bias_that_is_read_twice_is_not_the_bias_of_the_product():
    model = build(
        "g (float[2,3] x) => (float[2,4] y, float[2,4] z) "
        "{ r = Relu(x) n = BatchNormalization(r, scale, bias, mean, var) m = MatMul(n, w) "
        "y = Add(m, b) z = Sub(b, m) }",
        {"w": weight(3, 4), "b": weight(4), **statistics(3)},
    )
    result = fold_and_compare(model)
    assert "BatchNormalization" not in operators(result.model)
    assert result.nodes_after == result.nodes_before


def test_two_products_share_their_weight_and_their_bias():
    model = build(
        "g (float[2,3] x) => (float[2,4] y, float[2,4] z) { m = MatMul(x, w) a = Add(m, b) "
        "y = BatchNormalization(a, scale, bias, mean, var) r = Relu(x) o = MatMul(r, w) z = Add(o, b) }",
        {"w": weight(3, 4), "b": weight(4), **statistics(4, 2)},
    )
    result = fold_and_compare(model)
    assert operators(result.model) == ["MatMul", "Add", "Relu", "MatMul", "Add"]
    assert {tensor.name for tensor in result.model.graph.initializer} > {"w", "b"}


def test_no_node_more_than_before():
    """One shift into two products without a bias would add two nodes for one."""
    model = build(
        "g (float[2,3] x) => (float[2,4] y, float[2,4] z) "
        "{ r = Relu(x) n = BatchNormalization(r, scale, bias, mean, var) y = MatMul(n, w) z = MatMul(n, v) }",
        {"w": weight(3, 4), "v": weight(3, 4, seed=6), **statistics(3)},
    )
    result = fold_and_compare(model)
    assert result.nodes_after <= result.nodes_before
    assert "BN305" in kept_codes(result)


def test_versions_that_cannot_add_a_bias_by_themselves():
    """Before version 7 an Add broadcasts only where an attribute says so: the shift stays, a scale goes."""
    text = (
        "g (float[2,3] x) => (float[2,4] y) "
        "{ m = MatMul(x, w) y = BatchNormalization<is_test=1>(m, scale, bias, mean, var) }"
    )
    shifted = bnfold.fold(build(text, {"w": weight(3, 4), **statistics(4, 2)}, opset=6))
    assert operators(shifted.model) == ["MatMul", "BatchNormalization"]
    assert shifted.kept[0].reason.code == "BN210"
    arrays = statistics(4, 2) | {name: np.zeros(4, np.float32) for name in ("bias", "mean")}
    scaled = bnfold.fold(build(text, {"w": weight(3, 4), **arrays}, opset=6))
    assert operators(scaled.model) == ["MatMul"]


def test_an_old_bias_with_its_own_broadcasting_is_not_touched():
    model = build(
        "g (float[2,3] x) => (float[2,4] y) { m = MatMul(x, w) a = Add<broadcast=1>(m, b) "
        "y = BatchNormalization<is_test=1>(a, scale, bias, mean, var) }",
        {"w": weight(3, 4), "b": weight(4), **statistics(4, 2)},
        opset=6,
    )
    assert operators(bnfold.fold(model).model) == operators(model)


@pytest.mark.parametrize("softmax", ["Softmax<axis=-1>", "Softmax"])
def test_a_mean_over_values_lets_a_shift_pass(softmax):
    """Attention: rows that sum to one, times values with a scale and a shift for each channel."""
    text = (
        "g (float[2,4,4] a, float[2,4,3] x) => (float[2,4,5] y) {{ p = {0}(a) v = MatMul(x, w) b = Add(v, c) "
        "m = MatMul(p, b) s = Mul(m, k) y = Add(s, l) }}"
    )
    constants = {"w": weight(3, 5), "c": weight(5), "k": weight(5, seed=3), "l": weight(5, seed=4)}
    result = fold_and_compare(build(text.format(softmax), constants))
    assert operators(result.model) == [softmax.split("<")[0], "MatMul", "Add", "MatMul"]
    for other in ("Sigmoid", "Softmax<axis=1>"):
        kept = fold_and_compare(build(text.format(other), constants))
        assert operators(kept.model).count("Add") == 2
