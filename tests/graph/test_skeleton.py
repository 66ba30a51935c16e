"""Shape inference on a sketch says what it says of the whole model, and reads no weight to say it."""

from __future__ import annotations

import random

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_ir.passes.common import ShapeInferencePass

from bnfold.graph.constants import Constants
from bnfold.graph.scopes import scopes
from bnfold.graph.shape_inference import infer
from bnfold.graph.skeleton import skeleton_of
from tests.graphs import build
from tests.random_graphs import random_model


class Unread(ir.Tensor):
    """A weight that may be looked at from outside only."""

    def numpy(self):
        raise AssertionError(f"{self.name} was read")

    tobytes = __array__ = numpy


def shapes(model: onnx.ModelProto | ir.Model) -> dict[str, tuple]:
    model = ir.from_proto(model) if isinstance(model, onnx.ModelProto) else model
    found, _ = infer(model, tuple(scopes(model)))
    return {value.name or "": shape for value, shape in found.items()}


def forget_shapes(model: onnx.ModelProto) -> ir.Model:
    """The model with all shapes inferred by ONNX from its inputs' alone."""
    whole = ir.from_proto(model)
    for scope in scopes(whole):
        for node in scope.graph:
            for value in node.outputs:
                value.shape = None
    ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(whole)
    return whole


@pytest.mark.parametrize("seed", range(40))
def test_it_infers_what_the_whole_model_would(seed) -> None:
    rng = random.Random(seed)
    model = random_model(lambda count: rng.randrange(count))
    known = shapes(model)
    whole = forget_shapes(model)
    for value in (value for node in whole.graph for value in node.outputs if value.shape is not None):
        own = known[value.name or ""]
        assert len(own) == len(value.shape)
        for mine, theirs in zip(own, value.shape, strict=True):
            assert mine == theirs or not isinstance(theirs, int)


def test_weights_are_not_read() -> None:
    model = ir.from_proto(
        build(
            "g (float[1,64,8,8] x) => (float[1,64,?,?] y) { c = Constant() z = Conv(x, w) y = Conv(z, c) }",
            {"w": np.ones((64, 64, 3, 3), np.float32)},
        )
    )
    weight = model.graph.initializers["w"]
    weight.const_value = Unread(np.ones((64, 64, 3, 3), np.float32), name="w")
    held = ir.AttrTensor("value", Unread(np.ones((64, 64, 1, 1), np.float32), name="c"))
    model.graph[0].attributes["value"] = held
    known = shapes(model)
    assert known["z"] == known["y"] == (1, 64, 6, 6)
    assert known["w"] == (64, 64, 3, 3)
    assert known["c"] == (64, 64, 1, 1)


def test_small_weights_that_hold_no_sizes_are_left_out() -> None:
    model = ir.from_proto(
        build(
            "g (float[1,2,4,4] x) => (y, r) { z = Conv(x, w) y = Reshape(z, s) r = Resize(z, , f) }",
            {
                "w": np.ones((2, 2, 1, 1), np.float32),
                "s": np.asarray([2, -1]),
                "f": np.asarray([1, 1, 2, 2], np.float32),
            },
        )
    )
    drawn = skeleton_of(model, Constants(9, lambda _: None, lambda _: 18))
    assert [tensor.name for tensor in drawn.graph.initializer] == ["s", "f"]
    assert shapes(model)["y"] == (2, 16)
    assert shapes(model)["r"] == (1, 2, 8, 8)


def test_stale_shapes_are_inferred_anew() -> None:
    model = build("g (float[8,3] x) => (float[8,3] y) <float[1,3] z> { z = Relu(x) y = Relu(z) }")
    assert shapes(model)["z"] == (8, 3)


def test_a_negative_size_is_an_open_one() -> None:
    model = build("g (float[5,3,7] x) => (float[N] y) { r = Relu(x) s = Size(r) y = Cast<to = 1>(s) }")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    for name in ("x", "r"):
        dims = shapes(model)[name]
        assert not isinstance(dims[0], int)
        assert dims[1:] == (3, 7)


def test_two_sizes_named_with_a_question_mark_are_not_known_to_be_equal() -> None:
    model = build("g (float[N,3,H,W] x) => (float[N,3,H,W] y) { y = Relu(x) }")
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_param = "?"
    height, width = shapes(model)["x"][2:]
    assert height is None or height != width


def test_of_what_is_recorded_only_the_rank_is_known() -> None:
    model = build("g (float[8,3] x) => (float[8,3] y) <float[8,5] z> { z = local.Own(x) y = Relu(z) }")
    for name in ("z", "y"):
        dims = shapes(model)[name]
        assert len(dims) == 2
        assert not any(isinstance(dim, int) for dim in dims)


@pytest.mark.parametrize("shape", ["2,3", "7,7"])
def test_a_loop_may_carry_other_sizes_than_its_body_declares(shape: str) -> None:
    model = build(
        f"""
        g (float[2,3] x, int64 n, bool c) => (y) {{
            y = Loop (n, c, x) <body = step (int64 i, bool go, float[{shape}] v) => (on, w)
                {{ on = Identity(go) u = Relu(v) w = Concat<axis = 0>(u, u) }}>
        }}
        """
    )
    known = shapes(model)
    assert not any(isinstance(known[name][0], int) for name in ("v", "u", "w") if name in known)


def test_sizes_that_are_computed_from_constants_are_known() -> None:
    model = build(
        "g (float[2,3,4] x) => (y) { s = Constant<value_ints = [6, 4]>() t = Identity(s) y = Reshape(x, t) }"
    )
    assert shapes(model)["y"] == (6, 4)


def test_branches_and_functions() -> None:
    model = build(
        """
        g (float[2,3] x, bool b) => (y) {
            f = local.Double(x)
            y = If <then_branch = t () => (p) { q = Relu(f) p = Identity(q) },
                    else_branch = e () => (p2) { p2 = Identity(x) }> (b)
        }
        <opset_import: ["" : 18], domain: "local">
        Double (a) => (c) { c = Add(a, a) }
        """
    )
    known = shapes(model)
    assert known["f"] == known["q"] == known["p"] == known["p2"] == known["y"] == (2, 3)
    assert "c" not in known


def test_inference_that_fails_leaves_shapes_unknown() -> None:
    model = build("g (float[2,3] x, float[5,4] w) => (float[2,4] y) { z = MatMul(x, w) y = Relu(z) }")
    known = shapes(model)
    assert "z" not in known
    assert not any(isinstance(dim, int) for dim in known["y"])
