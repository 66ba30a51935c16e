"""The interface is what the model declares."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, parser

from bnfold.errors import ModelError
from bnfold.runtime.interface import Port, as_ir, interface
from tests.graphs import build


def ports(signature: str, initializer: str = ""):
    head = '<ir_version: 9, opset_import: ["": 18]>'
    return interface(as_ir(parser.parse_model(f"{head} g {signature} {initializer} {{ y = Identity(x) }}")))


def test_names_types_and_shapes():
    found = ports("(float16[N, 3, ?] x) => (double y)")
    assert found.inputs == (Port("x", "float16", ("N", 3, None)),)
    assert str(found.inputs[0]) == "x: float16 [N, 3, ?]"
    assert found.outputs[0].type == "float64"


def test_an_input_with_a_default_need_not_be_given():
    assert [
        p.name for p in ports("(float[3] x, float[1] s) => (float[3] y)", "<float[1] s = {1}>").inputs
    ] == ["x"]


def test_sequences_and_optionals_are_named():
    sequence = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    optional = helper.make_optional_type_proto(sequence)
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_value_info("x", optional)],
        [helper.make_value_info("y", sequence)],
    )
    found = interface(as_ir(helper.make_model(graph)))
    assert (found.inputs[0].type, found.outputs[0].type) == (
        "optional(sequence(float32))",
        "sequence(float32)",
    )
    assert "unknown rank" in str(found.outputs[0])


def test_a_proto_that_cannot_be_converted_is_a_model_error():
    graph = helper.make_graph([], "g", [], [], [TensorProto(name="x", data_type=99)])
    with pytest.raises(ModelError, match="cannot be read as an ONNX graph"):
        as_ir(helper.make_model(graph))


def test_nodes_that_stand_before_what_they_read_are_put_in_order():
    text = """<ir_version: 9, opset_import: ["": 18]> g (bool c, float[2] x) => (float[2] y) {
        y = If(c) <then_branch = t () => (float[2] u) { u = Neg(b) }, else_branch = e () => (float[2] v)
            { v = Abs(a) }>
        b = Exp(a)
        a = Abs(x)
    }"""
    made = as_ir(parser.parse_model(text))
    assert [node.op_type for node in made.graph] == ["Abs", "Exp", "If"]
    assert as_ir(made) is made


def test_a_path_is_read(tmp_path):
    onnx.save(
        parser.parse_model(
            '<ir_version: 9, opset_import: ["": 18]> g (float[2] x) => (float[2] y) { y = Abs(x) }'
        ),
        tmp_path / "m.onnx",
    )
    assert interface(as_ir(tmp_path / "m.onnx")).outputs == (Port("y", "float32", (2,)),)


def test_two_sizes_named_with_a_question_mark_need_not_be_equal() -> None:
    model = build("g (float[N,?,?] x) => (float[N,?,?] y) { y = Relu (x) }")
    for value in (model.graph.input[0], model.graph.output[0]):
        for dim in value.type.tensor_type.shape.dim[1:]:
            dim.dim_param = "?"
    seen = interface(ir.from_proto(model))
    assert seen.inputs[0].shape == seen.outputs[0].shape == ("N", None, None)
