"""What a fold does not touch is in the file afterwards as it was before, or the file is refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper

import bnfold
from bnfold.errors import ModelError
from bnfold_cli import main
from tests.graphs import build, operators, statistics, weight


@pytest.fixture
def model() -> onnx.ModelProto:
    """A Conv and its BatchNorm, a custom operator, a weight of ConstantOfShape, and all there is to say."""
    made = build(
        "g (float[N,3,6,6] x) => (float[N,4,6,6] y, float[N,4,6,6] z) { c = Conv(x, w) "
        "b = BatchNormalization(c, scale, bias, mean, var) [own] r = mine.Swirl <depth = 3> (b) "
        "k = ConstantOfShape <value = float[1] {0.5}> (shape) s = Add(r, k) y = Relu(s) "
        "z = local.Twice(y) }\n"
        '<domain: "local", opset_import: ["" : 18]> Twice (a) => (b) { b = Add(a, a) }',
        {"w": weight(4, 3, 1, 1), "shape": np.array([4, 6, 6]), **statistics(4)},
        ir_version=10,
    )
    made.opset_import.extend([helper.make_opsetid("mine", 7), helper.make_opsetid("ai.onnx.ml", 3)])
    made.producer_name, made.producer_version = "converter", "1.2"
    made.domain, made.model_version, made.doc_string = "org.example", 12, "a model"
    made.metadata_props.add(key="classes", value='{"0": "cat"}')
    graph = made.graph
    graph.doc_string = "a graph"
    graph.metadata_props.add(key="of", value="the graph")
    for number, part in enumerate((*graph.input, *graph.output, *graph.node)):
        part.doc_string = f"part {number}"
        part.metadata_props.add(key="part", value=str(number))
    graph.input[0].type.denotation = "IMAGE"
    graph.input[0].type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    graph.initializer[1].doc_string = "sizes"
    note = graph.quantization_annotation.add(tensor_name="y")
    note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="scale")
    made.functions[0].doc_string = "doubles"
    made.functions[0].node[0].ClearField("domain")  # which the parser states, though it is empty
    return made


@pytest.mark.parametrize("command", ["fold", "export"])
def test_what_is_said_about_a_model_survives(model: onnx.ModelProto, command: str, tmp_path: Path) -> None:
    onnx.save(model, tmp_path / "model.onnx")
    further = ["--no-bench", "--no-validate"] if command == "export" else []
    words = [command, str(tmp_path / "model.onnx"), "-o", str(tmp_path / "out.onnx"), *further]
    ran = CliRunner().invoke(main, words)
    assert ran.exit_code == 0, ran.output
    after = onnx.load(tmp_path / "out.onnx")
    assert "BatchNormalization" not in operators(after)
    for field in ("ir_version", "producer_name", "producer_version", "domain", "model_version", "doc_string"):
        assert getattr(after, field) == getattr(model, field), field
    assert {(one.domain, one.version) for one in after.opset_import} == {
        (one.domain, one.version) for one in model.opset_import
    }
    kept = {entry.key: entry.value for entry in after.metadata_props}
    assert kept["classes"] == '{"0": "cat"}'
    assert list(after.functions) == list(model.functions)
    graph, old = after.graph, model.graph
    assert (graph.name, graph.doc_string) == (old.name, old.doc_string)
    assert list(graph.metadata_props) == list(old.metadata_props)
    assert list(graph.input) == list(old.input)
    assert list(graph.output) == list(old.output)
    assert list(graph.quantization_annotation) == list(old.quantization_annotation)
    before = {node.output[0]: node for node in old.node}
    for node in graph.node:
        if node.op_type in ("Swirl", "ConstantOfShape", "Add", "Relu", "Twice"):
            same = before[node.output[0]]
            assert (node.op_type, node.domain, node.attribute) == (same.op_type, same.domain, same.attribute)
            assert (node.doc_string, node.metadata_props) == (same.doc_string, same.metadata_props)


def test_a_weight_made_by_constant_of_shape_stays_so(model: onnx.ModelProto) -> None:
    folded = bnfold.fold(model).model
    assert operators(folded).count("ConstantOfShape") == 1
    shapes = [tensor for tensor in folded.graph.initializer if tensor.name == "shape"]
    assert shapes == [tensor for tensor in model.graph.initializer if tensor.name == "shape"]


def test_a_filter_made_by_constant_of_shape_stays_so_in_what_is_not_folded() -> None:
    model = build(
        "g (float[N,3,6,6] x) => (float[N,4,6,6] y, float[N,5,6,6] z) { c = Conv(x, w) "
        "y = BatchNormalization(c, scale, bias, mean, var) "
        "k = ConstantOfShape <value = float[1] {2.0}> (shape) z = Conv(x, k) }",
        {"w": weight(4, 3, 1, 1), "shape": np.array([5, 3, 1, 1]), **statistics(4)},
    )
    folded = bnfold.fold(model).model
    assert sorted(operators(folded)) == ["ConstantOfShape", "Conv", "Conv"]


@pytest.mark.parametrize("field", ["training_info", "sparse_initializer", "functions"])
def test_what_would_be_lost_is_refused_by_name(model: onnx.ModelProto, field: str, tmp_path: Path) -> None:
    if field == "training_info":
        model.training_info.add().algorithm.name = "sgd"
    elif field == "sparse_initializer":
        sparse = model.graph.sparse_initializer.add(dims=[4])
        sparse.values.CopyFrom(helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0]))
        sparse.indices.CopyFrom(helper.make_tensor("i", TensorProto.INT64, [1], [2]))
    else:
        model.functions[0].domain = ""
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError) as caught:
        bnfold.fold(path)
    words = {
        "training_info": "training_info",
        "sparse_initializer": "sparse",
        "functions": "redefines operators",
    }
    assert words[field] in str(caught.value)
