"""BatchNorms that stay become other operators, for targets that have none."""

from __future__ import annotations

import os

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

import bnfold
from bnfold.result import FoldResult
from tests.folding.test_property import worst
from tests.graphs import (
    assert_same,
    build,
    exposing_shared,
    operators,
    positive,
    run,
    statistics,
    weight,
)
from tests.random_graphs import random_feeds, random_model
from tests.random_streams import stream_model

EXAMPLES = int(os.environ.get("BNFOLD_PROPERTY_EXAMPLES", "120"))
NORM = "BatchNormalization({0}, scale, bias, mean, var)"


def without(model: onnx.ModelProto, tolerance: float = 2e-5, **options) -> FoldResult[onnx.ModelProto]:
    """Fold without a BatchNorm; demand that nothing changed, and that it is the same in half the steps."""
    result = bnfold.fold(model, no_batchnorm=True, **options)
    assert_same(model, result.model, tolerance)
    return result


def before_a_convolution(
    convolution: str, kernel: tuple[int, ...], size: str = "9,8", *, between: str = "", signs: bool = True
) -> onnx.ModelProto:
    """Sigmoid, BatchNorm, possibly a Relu, and a Conv."""
    numbers = statistics(4, seed=3)
    read = f"r = {between}(n) " if between else ""
    return build(
        f"g (float[N,4,{size}] x) => (float[N,M,H,W] y) {{ s = Sigmoid(x) n = {NORM.format('s')} {read}"
        f"y = {convolution.format('r' if between else 'n')} }}",
        {**(numbers if signs else positive(numbers)), "w": weight(*kernel), "b": weight(kernel[0], seed=5)},
    )


def test_with_a_relu_it_becomes_the_larger_of_two_numbers():
    model = before_a_convolution("Conv({}, w, b)", (3, 4, 1, 1), between="Relu", signs=False)
    assert operators(bnfold.fold(model).model) == ["Sigmoid", "BatchNormalization", "Relu", "Conv"]
    result = without(model)
    assert operators(result.model) == ["Sigmoid", "Max", "Conv"]
    [site] = result.sites
    assert site.status == "decomposed"
    assert site.reason is not None
    assert site.into == ("n.max", "y")
    assert (result.folded, result.kept) == ((), ())
    assert result.decomposed == (site,)


def test_a_relu_after_scales_of_both_signs_stays():
    model = before_a_convolution("Conv({}, w, b)", (3, 4, 1, 1), between="Relu")
    assert operators(without(model).model) == ["Sigmoid", "Mul", "Add", "Relu", "Conv"]


def test_a_relu_before_a_padded_convolution_leaves_an_add():
    model = before_a_convolution("Conv<pads=[1,1,1,1]>({}, w)", (3, 4, 3, 3), between="Relu", signs=False)
    assert operators(without(model).model) == ["Sigmoid", "Add", "Relu", "Conv"]


def test_a_relu_that_others_read_is_replaced_only_where_all_of_them_can_take_it():
    numbers = positive(statistics(4, seed=3)) | {"w": weight(3, 4, 1, 1), "v": weight(2, 4, 1, 1, seed=7)}
    text = (
        "g (float[N,4,9,8] x) => (float[N,3,9,8] y, float[N,M,9,8] z) {{ "
        "s = Sigmoid(x) n = {} r = Relu(n) y = Conv(r, w) z = {} }}"
    )
    both = build(text.format(NORM.format("s"), "Conv(r, v)"), numbers)
    assert operators(without(both).model) == ["Sigmoid", "Max", "Conv", "Conv"]
    del numbers["v"]
    other = build(text.format(NORM.format("s"), "Sigmoid(r)"), numbers)
    assert operators(without(other).model) == ["Sigmoid", "Mul", "Add", "Relu", "Conv", "Sigmoid"]
    output = build(text.format(NORM.format("s"), "Identity(r)"), numbers)
    assert operators(without(output).model)[:3] == ["Sigmoid", "Mul", "Add"]


def test_a_shift_that_would_cost_digits_stays_before_the_relu():
    model = before_a_convolution("Conv({}, w, b)", (3, 4, 1, 1), between="Relu", signs=False)
    for tensor in model.graph.initializer:
        if tensor.name == "bias":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(4, -900.0, np.float32), "bias"))
    assert operators(without(model).model) == ["Sigmoid", "Add", "Relu", "Conv"]


@pytest.mark.parametrize(
    ("attributes", "kernel"),
    [
        ("pads=[1,1,1,1]", (6, 4, 3, 3)),  # more is written than read
        ("pads=[1,1,1,1], strides=[1,1]", (4, 4, 3, 3)),  # as much
    ],
)
def test_the_shift_is_added_before_a_padded_convolution_that_makes_no_less(attributes, kernel):
    model = before_a_convolution(f"Conv<{attributes}>({{}}, w, b)", kernel)
    assert operators(without(model).model) == ["Sigmoid", "Add", "Conv"]


@pytest.mark.parametrize(
    ("attributes", "kernel"),
    [
        ("pads=[1,1,1,1], strides=[2,2]", (6, 4, 3, 3)),
        ("pads=[2,0,1,3], strides=[2,3]", (6, 4, 3, 2)),
        ("pads=[2,2,2,2], dilations=[2,2]", (3, 4, 3, 3)),
        ("pads=[1,1,1,1], strides=[3,2], group=2", (6, 2, 3, 3)),
        ("pads=[1,1,1,1], strides=[2,2], group=4", (8, 1, 3, 3)),
        ('auto_pad="SAME_UPPER", strides=[2,2]', (5, 4, 3, 3)),
        ('auto_pad="SAME_LOWER", strides=[2,2]', (5, 4, 2, 2)),
    ],
)
@pytest.mark.parametrize("bias", ["", ", b"])
def test_the_shift_is_added_after_a_padded_convolution_that_makes_less(attributes, kernel, bias):
    result = without(before_a_convolution(f"Conv<{attributes}>({{}}, w{bias})", kernel))
    assert operators(result.model) == ["Sigmoid", "Conv", "Add"]
    assert result.decomposed[0].into == ("y.bias_add", "y")


def test_the_shift_is_added_before_where_sizes_are_open():
    model = before_a_convolution("Conv<pads=[1,1,1,1], strides=[2,2]>({}, w)", (4, 4, 3, 3), size="H1,W1")
    assert operators(without(model).model) == ["Sigmoid", "Add", "Conv"]


def test_between_nonlinear_operators_it_becomes_a_mul_and_an_add():
    for rank, shape in (("", "4"), ("", "4,7"), ("", "4,5,6,7")):
        model = build(
            f"g (float[N,{shape}] x) => (float[N,{shape}] y) {{ s = Sigmoid(x) n = {NORM.format('s')} "
            f"y = Sigmoid(n) }} {rank}",
            statistics(4, seed=1),
        )
        result = without(model)
        assert operators(result.model) == ["Sigmoid", "Mul", "Add", "Sigmoid"]
        assert result.decomposed[0].into == ("n.mul", "n.add")
        again = bnfold.fold(result.model, no_batchnorm=True).model
        assert operators(again) == operators(result.model)


def test_at_an_output_its_name_and_values_stay():
    model = build(f"g (float[N,4,6] x) => (float[N,4,6] y) {{ y = {NORM.format('x')} }}", statistics(4))
    assert operators(without(model).model) == ["Mul", "Add"]


def test_what_a_module_was_asked_to_keep_stays():
    model = build(
        f"g (float[N,4,6] x) => (float[N,4,6] y) {{ s = Sigmoid(x) y = {NORM.format('s')} }}", statistics(4)
    )
    assert operators(without(model, keep=["y"]).model) == ["Sigmoid", "BatchNormalization"]


def test_in_training_it_stays_with_its_reason():
    model = build(
        "g (float[3,4,6] x) => (float[3,4,6] y) { "
        "y, m, v = BatchNormalization<training_mode=1>(x, scale, bias, mean, var) }",
        statistics(4),
    )
    result = without(model)
    assert operators(result.model) == ["BatchNormalization"]
    assert [site.reason.code for site in result.kept] == ["BN101"]


def test_an_unknown_rank_is_said():
    model = build(
        f"g (float x, int64[M] k) => (float y) {{ s = Reshape(x, k) t = Sigmoid(s) y = {NORM.format('t')} }}",
        statistics(4),
    )
    result = bnfold.fold(model, no_batchnorm=True)
    assert operators(result.model) == ["Reshape", "Sigmoid", "BatchNormalization"]
    assert [site.reason.code for site in result.kept] == ["BN208"]


def test_in_functions_and_branches():
    body = f"s = Sigmoid(a) n = {NORM.format('s')} c = Sigmoid(n)"
    branch = body.replace("(a)", "(z)").replace("s =", "u =").replace("(s", "(u").replace("n =", "m =")
    constants = " ".join(
        f"{name} = Constant<value = float[2] {{{array[0]:.4f}, {array[1]:.4f}}}>()"
        for name, array in statistics(2, seed=4).items()
    )
    model = build(
        "g (float[N,2,6] x, bool k) => (float[N,2,6] y) { z = local.f(x) "
        f"y = If(k) <then_branch = t () => (float[N,2,6] c) {{ {branch.replace('(n)', '(m)')} }}, "
        "else_branch = e () => (float[N,2,6] d) { d = Sigmoid(z) }> }\n"
        f'<domain: "local", opset_import: ["" : 18]> f (a) => (c) {{ {constants} {body} }}',
        statistics(2, seed=5),
    )
    sites = without(model).sites
    assert [site.status for site in sites] == ["decomposed", "kept"]
    assert sites[1].reason.code == "BN208"  # the rank in a function is that of its callers' arguments
    result = without(model, inline_functions=True)
    assert [site.status for site in result.sites] == ["decomposed", "decomposed"]
    assert 'op_type: "BatchNormalization"' not in str(result.model)


@pytest.mark.parametrize("seed", range(6))
def test_in_half_precision_nothing_on_the_way_overflows(seed):
    rng = np.random.default_rng(seed)
    scale = (10.0 ** rng.uniform(-3, 3, 8)).astype(np.float16)
    numbers = {
        "scale": scale,
        "bias": rng.normal(0, 1, 8).astype(np.float16),
        "mean": rng.uniform(-30000, 30000, 8).astype(np.float16),
        "var": np.ones(8, np.float16),
    }
    model = build(f"g (float16[1,8,40] x) => (float16[1,8,40] y) {{ y = {NORM.format('x')} }}", numbers)
    result = bnfold.fold(model, no_batchnorm=True)
    assert operators(result.model) == ["Add", "Mul", "Add"]
    near = rng.normal(0, 1, (1, 8, 40)) * 16 + numbers["mean"][None, :, None].astype(np.float64)
    x = near.astype(np.float16)
    wide = [numbers[name].astype(np.float64)[None, :, None] for name in ("scale", "bias", "mean", "var")]
    exact = wide[0] * (x.astype(np.float64) - wide[2]) / np.sqrt(wide[3] + 1e-5) + wide[1]
    [actual] = run(result.model, {"x": x})
    assert np.all(np.isfinite(actual))
    room = np.abs(wide[0]) * np.abs(wide[2]) + np.abs(exact)  # what the subtraction of the mean may cost
    assert np.all(np.abs(actual - exact) <= 4 * 2.0**-11 * room + 1e-3)


@settings(
    max_examples=EXAMPLES // 2, derandomize=EXAMPLES == 120, deadline=None, database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)  # fmt: skip
@given(data=st.data())
def test_it_changes_no_function(data: st.DataObject) -> None:
    make = data.draw(st.sampled_from((random_model, stream_model)))
    model = make(lambda n: data.draw(st.integers(0, n - 1)) if n > 1 else 0, np.float32)
    if not model.graph.output:
        return
    result = bnfold.fold(model, no_batchnorm=True)
    onnx.checker.check_model(result.model, full_check=True)
    kept = [site for site in result.kept if "BatchNormalization" in site.op_type]
    left = str(result.model).count('op_type: "BatchNormalization"')
    assert left <= len(kept)
    again = bnfold.fold(result.model, no_batchnorm=True).model
    assert again.SerializeToString(deterministic=True) == result.model.SerializeToString(deterministic=True)
    before, after = exposing_shared(model, result.model)
    for seed in range(2):
        given_ = random_feeds(model, seed)
        assert worst(run(before, given_), run(after, given_)) < 1e-3


@pytest.mark.parametrize("place", ["graph", "branch"])
def test_a_constant_that_says_how_many_channels_there_are_is_heeded_at_once(place):
    """A BatchNorm tells inference no size, but a Mul by four numbers does: so the Sub can take the Add."""
    nodes = f"n = {NORM.format('x')} d = Sub(n, shift) y = Sigmoid(d)"
    if place == "branch":
        nodes = (
            f"y = If (c) <then_branch = t () => (float[N,C,5] p) {{ {nodes.replace('y =', 'p =')} }}, "
            "else_branch = e () => (float[N,C,5] q) { q = Identity(x) }>"
        )
    inputs = "bool c, float[N,C,5] x" if place == "branch" else "float[N,C,5] x"
    model = build(
        f"g ({inputs}) => (float[N,C,5] y) {{ {nodes} }}",
        {**statistics(4, seed=3), "shift": weight(4, 1, seed=9)},
    )
    once = bnfold.fold(model, no_batchnorm=True).model
    twice = bnfold.fold(once, no_batchnorm=True).model
    assert twice.SerializeToString(deterministic=True) == once.SerializeToString(deterministic=True)
    feeds = {"x": weight(2, 4, 5, seed=11)} | ({"c": np.array(True)} if place == "branch" else {})
    assert worst(run(model, feeds), run(once, feeds)) < 2e-5
    [*made] = once.graph.node if place == "graph" else once.graph.node[0].attribute[0].g.node
    assert [node.op_type for node in made] == ["Mul", "Sub", "Sigmoid"]


def test_a_site_whose_last_node_is_a_new_one_keeps_its_place_in_the_report():
    """The division by row joins what stands for the BatchNorm, and the new Mul and Add take it."""
    model = build(
        "g (float[N,1,3,4] x) => (float[N,1,3,4] y) "
        f"{{ s = Sigmoid(x) n = {NORM.format('s')} y = Div(n, row) }}",
        {**positive(statistics(1)), "row": np.array([2, 3, 0.5, 1.5], np.float32)},
    )
    result = without(model)
    assert operators(result.model) == ["Sigmoid", "Mul", "Add"]
    assert [(site.name, site.status) for site in result.sites] == [("n", "decomposed"), ("y", "kept")]


def test_what_a_float16_batchnorm_becomes_stays_so_in_a_second_fold():
    model = build(
        f"g (float16[N,4,5] x) => (float16[N,4,5] y) {{ s = Sigmoid(x) n = {NORM.format('s')} y = Abs(n) }}",
        {
            "scale": np.array([700, 0.3, -900, 2], np.float16),
            "bias": np.array([1, -2, 3, 0.5], np.float16),
            "mean": np.array([0.5, 0.2, 0.7, 0.1], np.float16),
            "var": np.ones(4, np.float16),
        },
    )
    result = without(model, 2e-2)
    assert operators(result.model) == ["Sigmoid", "Add", "Mul", "Add", "Abs"]
    assert operators(bnfold.fold(result.model).model) == operators(result.model)


def test_a_product_that_float16_cannot_hold_is_not_made():
    numbers = {"m": [600, 610, 500, 300], "s": [100, 105, 120, 200], "t": [1, 2, 3, 4]}
    model = build(
        "g (float16[2,4] x) => (float16[2,4] y) { r = Relu(x) d = Sub(r, m) p = Mul(d, s) y = Add(p, t) }",
        {name: np.array(array, np.float16) for name, array in numbers.items()},
    )
    folded = bnfold.fold(model).model
    given = {"x": np.array([[700, 650, 640, 400], [0, 600, 500, 500]], np.float16)}
    expected, actual = (ReferenceEvaluator(one).run(None, given)[0] for one in (model, folded))
    assert np.all(np.isfinite(expected))
    np.testing.assert_allclose(actual, expected, rtol=2e-3)


def test_a_chain_in_float16_gets_shorter_where_nothing_grows():
    numbers = {"k": [30, 20, 10, 40], "m": [6, 6, 5, 3], "t": [1, 2, 3, 4]}
    model = build(
        "g (float16[2,4] x) => (float16[2,4] y) { r = Relu(x) p = Mul(r, k) d = Sub(p, m) y = Add(d, t) }",
        {name: np.array(array, np.float16) for name, array in numbers.items()},
    )
    assert operators(bnfold.fold(model).model) == ["Relu", "Mul", "Add"]


def test_a_shift_goes_into_the_bias_where_no_window_meets_padding():
    """The stride passes over the padding at the end."""
    model = before_a_convolution("Conv<pads=[0,0,1,1], strides=[3,3]>({}, w, b)", (3, 4, 3, 3), size="9,9")
    assert operators(bnfold.fold(model).model) == ["Sigmoid", "BatchNormalization", "Conv"]
    result = without(model)
    assert operators(result.model) == ["Sigmoid", "Conv"]
    [site] = result.sites
    assert (site.status, site.into) == ("folded", ("y",))


@pytest.mark.parametrize(("weights", "shift"), [(1e-20, 1e-20), (1e20, 1e20)])
def test_a_border_that_does_not_fit_its_type_is_not_written(weights, shift):
    model = before_a_convolution("Conv<pads=[1,1,1,1], strides=[2,2]>({}, w)", (3, 4, 3, 3))
    for tensor in model.graph.initializer:
        factor = {"w": weights, "bias": shift, "scale": shift, "mean": 0.0}.get(tensor.name, 1.0)
        array = onnx.numpy_helper.to_array(tensor) * np.float32(factor)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    result = bnfold.fold(model, no_batchnorm=True)
    assert operators(result.model) == ["Sigmoid", "Mul", "Add", "Conv"]


def test_what_stands_for_one_batchnorm_takes_what_stands_for_another():
    numbers = statistics(4, seed=3) | {f"later_{k}": v for k, v in positive(statistics(4, seed=4)).items()}
    model = build(
        f"g (float[N,4,9,8] x) => (float[N,3,9,8] y) {{ s = Sigmoid(x) n = {NORM.format('s')} a = Add(n, s) "
        "m = BatchNormalization(a, later_scale, later_bias, later_mean, later_var) r = Relu(m) "
        "y = Conv<pads=[1,1,1,1]>(r, w) }",
        {
            **numbers,
            "w": weight(3, 4, 3, 3),
            "later_bias": np.full(4, 900, np.float32),
        },  # no stream carries it
    )
    result = without(model)
    assert operators(result.model) == ["Sigmoid", "Mul", "Add", "Add", "Relu", "Conv"]
    assert operators(bnfold.fold(result.model).model) == operators(result.model)


@pytest.mark.parametrize(
    ("scale", "expected"), [(0.01, ["Mul", "Add"]), (-0.5, ["Mul", "Add"]), (2.0, ["Add"])]
)
def test_a_shift_is_added_alone_in_float16_only_where_that_is_no_larger(
    scale: float, expected: list[str]
) -> None:
    """`0.01·x + 400` as `x + 40000` before a padded Conv, of an x of 40000."""
    numbers = {"scale": scale * np.array([1, 1.01]), "bias": 40000 * scale * np.array([0.99, 0.98])}
    numbers |= {"mean": np.zeros(2), "var": np.ones(2), "w": 0.01 * weight(3, 2, 3, 3)}
    numbers["bias"] = np.clip(numbers["bias"], -30000, 30000)
    model = build(
        f"""g (float16[1,2,4,4] x) => (float16[1,3,4,4] y) {{
            n = {NORM.format("x")} y = Conv<pads=[1,1,1,1]>(n, w)
        }}""",
        {name: array.astype(np.float16) for name, array in numbers.items()},
    )
    folded = bnfold.fold(model, no_batchnorm=True).model
    assert operators(folded) == [*expected, "Conv"]
    given = {"x": np.full((1, 2, 4, 4), 15000 if scale > 1 else 40000, np.float16)}
    [before], [after] = (ReferenceEvaluator(one).run(None, given) for one in (model, folded))
    assert np.isfinite(before).all()
    np.testing.assert_allclose(after.astype(float), before.astype(float), rtol=0.01, atol=1)
