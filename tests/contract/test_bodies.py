"""The graphs within If, Loop and Scan are converted, with what they read of the outer ones."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from bnfold.contract.versions import with_opset
from bnfold.errors import ModelError
from bnfold.files.load import from_proto
from tests.graphs import run

X = np.random.default_rng(0).normal(0, 2, (2, 3, 4, 4)).astype(np.float32)
FLAGS = [np.array(True), np.array(False)]

CHOICE = """
    {outside} h = Add(x, x)
    y = If (flag) <
        then_branch = t () => (float[2,3,4,4] p) {{ {inside} m = {mean} p = Add(x, m) }},
        else_branch = e () => (float[2,3,4,4] q) {{
            k = Unsqueeze(h, i) n = ReduceSum(k, i) u = Squeeze(n, ) q = {activation}(h)
        }}
    >
"""


def parsed(body: str, opset: int, weights: str = "") -> onnx.ModelProto:
    return onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": {opset}]>'
        f" g (float[2,3,4,4] x, bool flag, int64 count) => (float[2,3,4,4] y) {weights} {{ {body} }}"
    )


def check(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    made = ir.to_proto(with_opset(from_proto(model), opset).model)
    onnx.checker.check_model(made, full_check=True)
    for flag in FLAGS:
        for count in (0, 3):
            given = {"x": X, "flag": flag, "count": np.array(count)}
            expected, found = run(model, given)[0], run(made, given)[0]
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    return made


@pytest.mark.parametrize(("before", "after"), [(18, 17), (18, 13), (18, 11), (16, 11), (13, 10), (21, 9)])
@pytest.mark.parametrize(
    "inside", ["", "j = Constant <value = int64[1] {2}> ()", "j = Constant <value_ints = [2]> ()"]
)
def test_the_branches_of_an_if(inside: str, before: int, after: int) -> None:
    mean = f"ReduceMean(h, {'j' if inside else 'i'})" if before >= 18 else "ReduceMean(h)"
    outside = "i = Constant <value = int64[1] {2}> ()"
    activation = "HardSwish" if before >= 14 else "Relu"
    body = CHOICE.format(outside=outside, inside=inside, mean=mean, activation=activation)
    check(parsed(body, before), after)


@pytest.mark.parametrize(("before", "after"), [(18, 17), (18, 11), (13, 9)])
def test_a_loop_with_an_if_in_it(before: int, after: int) -> None:
    """The innermost graph reads values of both around it, and adapters add values of the same names."""
    body = """
        i = Constant <value = int64[2] {0, -1}> () go = Constant <value = bool {1}> ()
        low = Constant <value = float {-1.5}> () start = Clip(x, low)
        y = Loop (count, go, start) <
            body = b (int64 step, bool on, float[2,3,4,4] a) => (bool still, float[2,3,4,4] c) {
            still = Identity(on)
            w = Unsqueeze(a, i)
            s = Squeeze(w, i)
            c = If (flag) <
                then_branch = t () => (float[2,3,4,4] p) { z = Clip(s, , low) p = Add(z, x) },
                else_branch = e () => (float[2,3,4,4] q) {
                    v = Unsqueeze(s, i) z = Squeeze(v, i) q = Sub(z, x)
                }
            >
        }>
    """
    check(parsed(body, before), after)


@pytest.mark.parametrize(("before", "after"), [(9, 13), (11, 18), (12, 21)])
def test_on_the_way_up(before: int, after: int) -> None:
    body = """
        y = If (flag) <
            then_branch = t () => (float[2,3,4,4] p) { m = ReduceSum <axes = [2]> (x) p = Add(x, m) },
            else_branch = e () => (float[2,3,4,4] q) {
                u = Unsqueeze <axes = [0]> (x) v = Squeeze <axes = [0]> (u) q = Softmax <axis = 1> (v)
            }
        >
    """
    check(parsed(body, before), after)


def test_a_weight_of_the_outer_graph_that_becomes_an_attribute() -> None:
    body = CHOICE.format(outside="", inside="", mean="ReduceMean(h, i)", activation="Relu")
    alone = body.replace("k = Unsqueeze(h, i) n = ReduceSum(k, i)", "n = ReduceSum(h)")  # of one reader
    for text in (body, alone):
        check(parsed(text, 18, "<int64[1] i = {2}>"), 11)


@pytest.mark.parametrize("number", range(3, 8))
def test_names_that_the_converter_gives_are_new_in_the_whole_model(number: int) -> None:
    """It numbers the values that it adds, and looks for that number in one graph only."""
    body = f"""
        n = Neg(x)
        _v_{number} = Squeeze(n)
        y = If (flag) <
            then_branch = t () => (float[2,3,4,4] p) {{ r = ReduceSum <axes = [2]> (x) p = Add(r, x) }},
            else_branch = e () => (float[2,3,4,4] q) {{
                u = Unsqueeze <axes = [0]> (_v_{number})
                v = Squeeze <axes = [0]> (u)
                q = Add(v, _v_{number})
            }}
        >
    """
    check(parsed(body, 11), 13)


def test_shapes_of_the_outer_graph() -> None:
    body = """
        y = If (flag) <
            then_branch = t () => (float[2,3,4,4] p) { p = PRelu(x, x) },
            else_branch = e () => (float[2,3,4,4] q) { q = Relu(x) }
        >
    """
    check(parsed(body, 9), 7)


def test_a_scan() -> None:
    body = """
        f = Constant <value = int64[1] {0}> () zero = ReduceSum <keepdims = 0> (x, f)
        last, y = Scan <num_scan_inputs = 1, body = b (float[3,4,4] a, float[3,4,4] n)
            => (float[3,4,4] c, float[3,4,4] o)
        { u = Unsqueeze(n, f) r = ReduceSum <keepdims = 0> (u, f) c = Add(a, r) o = Add(a, r) }> (zero, x)
    """
    check(parsed(body, 16), 11)


def test_what_stands_in_the_way_within_a_graph_is_named() -> None:
    body = """
        y = If (flag) <
            then_branch = t () => (float[2,3,4,4] p) { k = Shape(x) m = Min(k, k) p = Reshape(x, m) },
            else_branch = e () => (float[2,3,4,4] q) { q = Relu(x) }
        >
    """
    with pytest.raises(ModelError, match="Min 'm' takes int64, which opset 11 does not"):
        with_opset(from_proto(parsed(body, 13)), 11)
