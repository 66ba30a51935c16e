"""The interface is what the model declares, and a difference is a sentence."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper, parser

from bnfold.errors import ModelError
from bnfold.runtime.interface import Port, as_ir, differences, interface


def ports(signature: str, initializer: str = ""):
    head = '<ir_version: 9, opset_import: ["": 18]>'
    return interface(as_ir(parser.parse_model(f"{head} g {signature} {initializer} {{ y = Identity(x) }}")))


BASE = "(float[N, 3] x) => (float[N, 3] y)"


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
    kind = helper.make_map_type_proto(
        TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    )
    graph = helper.make_graph([], "g", [helper.make_value_info("x", kind)], [])
    with pytest.raises(ModelError, match="cannot be read as an ONNX graph"):
        as_ir(helper.make_model(graph))


def test_a_path_is_read(tmp_path):
    onnx.save(
        parser.parse_model(
            '<ir_version: 9, opset_import: ["": 18]> g (float[2] x) => (float[2] y) { y = Abs(x) }'
        ),
        tmp_path / "m.onnx",
    )
    assert interface(as_ir(tmp_path / "m.onnx")).outputs == (Port("y", "float32", (2,)),)


@pytest.mark.parametrize(
    "signature",
    [BASE, "(float[batch, 3] x) => (float[?, 3] y)"],
    ids=["equal", "another symbol"],
)
def test_no_difference(signature: str):
    assert differences(ports(BASE), ports(signature)) == ()


@pytest.mark.parametrize(
    ("signature", "said"),
    [
        ("(float[N, 4] x) => (float[N, 3] y)", "input 'x' has the shape [N, 4] instead of [N, 3]"),
        ("(float[1, 3] x) => (float[N, 3] y)", "input 'x' has the shape [1, 3]"),
        ("(float[N, 3] x) => (float[1, 3] y)", "output 'y' has the shape [1, 3]"),
        ("(float[N, 3] x) => (float[N, 3, 1] y)", "output 'y' has the shape"),
        ("(float[N, 3] x) => (float[] y)", "output 'y' has the shape of unknown rank"),
        ("(float[N, 3] x) => (double[N, 3] y)", "output 'y' has the type float64 instead of float32"),
        ("(float[N, 3] x, float z) => (float[N, 3] y)", "inputs are named 'x', 'z' instead of 'x'"),
        ("(float[N, 3] x) => (float[N, 3] x, float[N, 3] y)", "outputs are named 'x', 'y' instead of 'y'"),
    ],
)
def test_a_difference_is_a_sentence(signature: str, said: str):
    (sentence,) = differences(ports(BASE), ports(signature))
    assert said in sentence
    assert sentence.endswith(".")


def test_a_shape_that_only_the_folded_model_declares():
    assert differences(ports("(float[N, 3] x) => (float[] y)"), ports(BASE)) == ()
