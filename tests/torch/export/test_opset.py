"""Opsets and IR versions: met, or refused with the operator's name."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

pytest.importorskip("torch")

from bnfold.errors import InputError, ModelError
from bnfold.torch.export import opset


def model(
    *nodes: onnx.NodeProto, version: int = 18, inputs: int = 1, out: tuple[int, ...] = (2, 4)
) -> ir.Model:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 4]) for name in "xyz"[:inputs]],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, out)],
        [helper.make_tensor("axes", TensorProto.INT64, [1], [1])],
    )
    return ir.from_proto(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)], ir_version=10)
    )


@pytest.mark.parametrize(
    ("versions", "problem"),
    [
        ((6, None), "Opset 6 cannot"),
        ((99, None), "Opset 99 cannot"),
        ((None, 3), "IR version 3 cannot"),
        ((None, 99), "IR version 99 cannot"),
    ],
)
def test_what_does_not_exist(versions: tuple[int | None, int | None], problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        opset.check(*versions)
    assert "Take one from" in caught.value.fix
    opset.check(None, None)
    opset.check(opset.OLDEST, opset.OLDEST_IR)


def test_an_ir_version_that_the_opset_is_newer_than() -> None:
    made = model(helper.make_node("Relu", ["x"], ["out"]), version=18)
    opset.set_ir_version(made, 8)
    assert made.ir_version == 8
    with pytest.raises(InputError, match="Opset 18 needs IR version 8") as caught:
        opset.set_ir_version(made, 7)
    assert "--opset 14" in caught.value.fix


@pytest.mark.parametrize("operator", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize("target", [7, 13])
def test_arithmetic_goes_back_and_keeps_its_metadata(operator: str, target: int) -> None:
    made = model(helper.make_node(operator, ["x", "y"], ["out"]), inputs=2)
    made.graph[0].metadata_props["where"] = "there"
    converted = opset.convert(made, target)
    assert dict(converted.graph.opset_imports) == {"": target}
    (node,) = (node for node in converted.graph if node.op_type == operator)
    assert (node.domain, dict(node.metadata_props)) == ("", {"where": "there"})
    onnx.checker.check_model(ir.to_proto(converted))


def test_defaults_of_newer_opsets_are_left_out() -> None:
    node = helper.make_node("ReduceMean", ["x", "axes"], ["out"], keepdims=0)
    converted = opset.convert(model(node, out=(2,)), 17)
    (reduce,) = (node for node in converted.graph if node.op_type == "ReduceMean")
    assert "noop_with_empty_axes" not in reduce.attributes
    assert reduce.attributes["axes"].as_ints() == (1,)


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("GridSample", ["x", "y"], ["out"]),  # named by the converter
        helper.make_node("ScatterElements", ["x", "i", "y"], ["out"], reduction="add"),  # not named
    ],
    ids=lambda node: node.op_type,
)
def test_what_cannot_go_back_names_the_operator(node: onnx.NodeProto) -> None:
    made = model(node, inputs=2)
    if "i" in node.input:
        indices = ir.Value(name="i", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([2, 4]))
        proto = ir.to_proto(made)
        proto.graph.input.append(ir.to_proto(indices))
        made = ir.from_proto(proto)
    with pytest.raises(ModelError, match=rf"opset 13: .*{node.op_type}") as caught:
        opset.convert(made, 13)
    assert "\n" not in caught.value.problem


def test_above_what_the_exporter_writes_nothing_may_have_changed() -> None:
    made = opset.convert(model(helper.make_node("Relu", ["x"], ["out"]), version=25), 26)
    assert dict(made.graph.opset_imports) == {"": 26}
    onnx.checker.check_model(ir.to_proto(made))
    newest = onnx.defs.onnx_opset_version()
    changed = next(
        (s for s in onnx.defs.get_all_schemas() if s.since_version > 25 and onnx.defs.has(s.name, 25)), None
    )
    if changed is None:
        pytest.skip("this version of onnx has changed no operator since opset 25")
    inputs = ["x"] * changed.min_input
    with pytest.raises(ModelError, match=f"{changed.name} changed in opset {changed.since_version}"):
        opset.convert(model(helper.make_node(changed.name, inputs, ["out"]), version=25), newest)
