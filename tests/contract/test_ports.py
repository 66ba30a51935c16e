"""Other outputs and other names."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import parser

from bnfold.contract.ports import cut, renamed
from bnfold.errors import InputError
from bnfold.files.load import from_proto
from tests.contract.nets import model
from tests.graphs import build, operators, run, weight

TWO = """g (float[N,3] a, float[N,3] b, int64[2] c) => (float[N,3] y, float[N,3] z) {
    h = Relu(a) y = Sigmoid(h) d = Cast<to=1>(c) s = ReduceSum(d) k = Mul(b, s) z = Tanh(k)
}"""


def test_an_inner_value_becomes_the_output_and_the_rest_goes() -> None:
    before = model()
    changed = cut(before, ("r",))
    proto = ir.to_proto(changed.model)
    assert operators(proto) == ["Conv", "BatchNormalization", "Relu"]
    assert {one.name for one in proto.graph.initializer} == {"w", "scale", "bias", "mean", "var"}
    assert changed.sentence == "Cut to the output 'r': 3 nodes fewer."
    feeds = {"x": np.random.default_rng(0).normal(0, 1, (1, 3, 5, 5)).astype(np.float32)}
    (found,), (expected,) = run(proto, feeds), run(ir.to_proto(changed.reference), feeds)
    assert np.array_equal(found, expected)
    (value,) = changed.model.graph.outputs
    assert (value.dtype, str(value.shape)) == (ir.DataType.FLOAT, "[N,4,None,None]")
    assert [value.name for value in before.graph.outputs] == ["y"]


def test_inputs_that_nothing_needs_go_too_and_the_proof_draws_them() -> None:
    changed = cut(from_proto(build(TWO)), ("y",))
    assert [value.name for value in changed.model.graph.inputs] == ["a"]
    assert changed.sentence == "Cut to the output 'y': 4 nodes fewer, and without the inputs 'b', 'c'."
    feeds = changed.back({"a": np.ones((2, 3), np.float32)})
    assert {name: array.shape for name, array in feeds.items()} == {"a": (2, 3), "b": (2, 3), "c": (2,)}
    (found,), (expected,) = (
        run(ir.to_proto(changed.model), {"a": feeds["a"]}),
        run(ir.to_proto(changed.reference), feeds),
    )
    assert np.array_equal(found, expected)


def test_outputs_in_another_order() -> None:
    changed = cut(from_proto(build(TWO)), ("z", "y"))
    assert [value.name for value in changed.model.graph.outputs] == ["z", "y"]
    assert changed.details == {"outputs": ["z", "y"], "removed_nodes": 0, "removed_inputs": []}


@pytest.mark.parametrize(
    ("names", "problem"),
    [(("q",), "computes no 'q'"), (("y", "y"), "given twice"), (("a",), "computes no 'a'")],
)
def test_what_is_not_there_to_give(names: tuple[str, ...], problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        cut(from_proto(build(TWO)), names)
    assert caught.value.fix


def test_names_may_be_exchanged() -> None:
    changed = renamed(from_proto(build(TWO)), {"a": "b", "b": "a", "z": "prediction"})
    assert [value.name for value in changed.model.graph.inputs] == ["b", "a", "c"]
    assert [value.name for value in changed.model.graph.outputs] == ["y", "prediction"]
    draw = np.random.default_rng(0)
    feeds = {
        "a": draw.random((1, 3), np.float32),
        "b": draw.random((1, 3), np.float32),
        "c": np.array([1, 2]),
    }
    for found, expected in zip(
        run(ir.to_proto(changed.model), feeds), run(build(TWO), dict(changed.back(feeds))), strict=True
    ):
        assert np.array_equal(found, expected)
    assert changed.sentence == "Renamed 'a' to 'b', 'b' to 'a', 'z' to 'prediction'."


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ({"q": "p"}, "neither an input nor an output 'q'"),
        ({"a": "h"}, "a value has that name"),
        ({"a": "b"}, "a value has that name"),
        ({"a": "p", "b": "p"}, "a value has that name"),
        ({"a": ""}, "a name has letters"),
    ],
)
def test_names_that_cannot_be(names: dict[str, str], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        renamed(from_proto(build(TWO)), names)


def test_an_input_with_a_default_is_renamed_with_it() -> None:
    proto = build(
        "g (float[2,3] x, float[3,2] w) => (float[2,2] y) { y = MatMul(x, w) }", {"w": weight(3, 2)}
    )
    changed = renamed(from_proto(proto), {"w": "kernel"})
    made = ir.to_proto(changed.model)
    assert [one.name for one in made.graph.initializer] == ["kernel"]
    assert [one.name for one in made.graph.input] == ["x", "kernel"]
    feeds = {"x": np.ones((2, 3), np.float32)}
    assert np.array_equal(run(made, feeds)[0], run(proto, feeds)[0])


def test_a_new_name_is_none_of_a_graph_within() -> None:
    """`x` may not become `y` even where the output `y` gets another name: a branch has its own `y`."""
    text = """<ir_version: 8, opset_import: ["": 17]> g (bool b, float[2] x) => (float[2] y) {
        y = If (b) <then_branch = t () => (float[2] v) { y = Relu(x) v = Neg(y) },
                    else_branch = e () => (float[2] w) { w = Identity(x) }> }"""
    with pytest.raises(InputError, match="'x' cannot be renamed to 'y': a value has that name"):
        renamed(from_proto(parser.parse_model(text)), {"x": "y", "y": "z"})


@pytest.mark.parametrize(
    ("change", "fix"),
    [
        (lambda net: cut(net, ("yy",)), "Did you mean y?"),
        (lambda net: cut(net, ("prediction",)), "There are: "),
        (lambda net: renamed(net, {"aa": "image"}), "Did you mean a?"),
        (lambda net: renamed(net, {"image": "picture"}), "There are: a, b, c, y, z."),
    ],
    ids=["an output", "no output", "an input", "no input"],
)
def test_a_name_that_is_nearly_right_is_corrected(change, fix: str) -> None:
    with pytest.raises(InputError) as caught:
        change(from_proto(build(TWO)))
    assert caught.value.fix.startswith(fix)
