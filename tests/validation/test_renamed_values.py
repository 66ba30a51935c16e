"""A convolution that keeps its name when it swallows a BatchNorm is no fault; one that is wrong still is."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

import bnfold
from bnfold.validation import renamed_values
from bnfold.validation.results import Layer
from tests.graphs import build, feeds, statistics, weight

UNIT = 2.0**-24
NETWORK = """g (float[N,3,6,6] x) => (float[N,4,6,6] y) {
    [conv1] a = Conv <pads = [1,1,1,1]> (x, w1)
    [bn1] b = BatchNormalization (a, ascale, abias, amean, avar)
    [relu1] c = Relu (b)
    [conv2] d = Conv <pads = [1,1,1,1]> (c, w2)
    [bn2] e = BatchNormalization (d, bscale, bbias, bmean, bvar)
    [sum] y = Add (b, e)
}"""


def network() -> onnx.ModelProto:
    constants = {"w1": weight(4, 3, 3, 3), "w2": weight(4, 4, 3, 3, seed=2)}
    return build(NETWORK, constants | statistics(4, 0, "a") | statistics(4, 1, "b"))


def keeping_names(wrong: str = "") -> onnx.ModelProto:
    """The folded network as onnxsim and onnxoptimizer write it: what was `b` and `e` is `a` and `d`."""
    made = bnfold.fold(network()).model
    renamed = {"b": "a", "e": "d"}
    for node in made.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
        if node.name == wrong:
            held = next(tensor for tensor in made.graph.initializer if tensor.name == node.input[1])
            held.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(held) * np.float32(1.01), held.name))
    onnx.checker.check_model(made)
    return made


def proved(folded: onnx.ModelProto) -> tuple[dict[str, Layer], ir.Model]:
    layers, model = renamed_values.proved(
        ir.from_proto(network()), ir.from_proto(folded), feeds(network()), UNIT
    )
    return {layer.name: layer for layer in layers}, model


def test_a_name_that_moved_is_followed() -> None:
    layers, model = proved(keeping_names())
    assert list(layers) == ["b", "c", "e", "y"]
    assert all(layer.agrees for layer in layers.values())
    assert (layers["b"].site, layers["b"].nodes) == ("bn1", ("conv1",))
    assert [node.outputs[0].name for node in model.graph] == ["b", "c", "e", "y"]


@pytest.mark.parametrize(("wrong", "where"), [("conv1", "a"), ("conv2", "d")])
def test_a_fault_is_found_at_its_convolution(wrong: str, where: str) -> None:
    layers, _ = proved(keeping_names(wrong))
    assert next(name for name, layer in layers.items() if not layer.agrees) == where
    assert layers[where].nodes == (wrong,)


def test_names_that_stay_are_compared_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    folded = ir.from_proto(bnfold.fold(network()).model)
    monkeypatch.setattr(renamed_values, "_renamed", None)  # would be called
    layers, model = renamed_values.proved(ir.from_proto(network()), folded, feeds(network()), UNIT)
    assert model is folded
    assert all(layer.agrees for layer in layers)


def test_a_fold_towards_a_reader_moves_no_name() -> None:
    """Here the reader of a value is that of the BatchNorm that is gone, and the value is still itself."""
    one = build(
        """g (float[N,3,6,6] x) => (float[N,4,?,?] y) {
            [relu] a = Relu (x)
            [bn] b = BatchNormalization (a, scale, bias, mean, var)
            [conv] y = Conv (b, w)
        }""",
        {"w": weight(4, 3, 3, 3), **statistics(3)},
    )
    other = bnfold.fold(one).model
    assert renamed_values._moved(ir.from_proto(one), ir.from_proto(other)) == {"a": "b"}
    layers, _ = renamed_values.proved(ir.from_proto(one), ir.from_proto(other), feeds(one), UNIT)
    assert [(layer.name, layer.agrees) for layer in layers] == [("a", True), ("y", True)]
    other.graph.node[0].op_type = "Abs"
    layers, _ = renamed_values.proved(ir.from_proto(one), ir.from_proto(other), feeds(one), UNIT)
    assert [(layer.name, layer.agrees) for layer in layers] == [("a", False), ("y", True)]


def test_a_wrong_value_before_a_fold_is_not_taken_for_what_the_fold_removed() -> None:
    """Its reader writes now what its reader's reader wrote, and what was between had another shape."""
    one = build(
        """g (float[N,3,6,6] x) => (float[N,4,4,4] y) {
            high = Constant <value_float = 0.5> ()
            [relu] a = Relu (x)
            [clip] b = Clip (a, , high)
            [conv] c = Conv (b, w)
            [bn] y = BatchNormalization (c, scale, bias, mean, var)
        }""",
        {"w": weight(4, 3, 3, 3), **statistics(4)},
    )
    other = bnfold.fold(one).model
    next(node for node in other.graph.node if node.op_type == "Constant").attribute[0].f = 0.6
    layers, model = renamed_values.proved(ir.from_proto(one), ir.from_proto(other), feeds(one), UNIT)
    assert [layer.name for layer in layers if not layer.agrees] == ["b"]
    assert {value.name for node in model.graph for value in node.outputs} >= {"b", "y"}
