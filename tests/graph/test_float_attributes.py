"""`round_float_attributes` gives a model in memory the numbers that its file would have."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper

from bnfold.graph.float_attributes import round_float_attributes


def test_every_scope_holds_what_a_file_would() -> None:
    inside = helper.make_node("LeakyRelu", ["x"], ["z"], alpha=0.1)
    branch = helper.make_graph(
        [inside], "b", [], [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1])]
    )
    nodes = [
        helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch),
        helper.make_node("Upsample", ["y"], ["u"], scales=[1.1], mode="nearest"),
    ]
    condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xu"]
    model = ir.serde.deserialize_model(
        helper.make_model(
            helper.make_graph(nodes, "g", [condition, values[0]], values[1:]),
            opset_imports=[helper.make_opsetid("", 8)],
        )
    )
    stored = ir.serde.serialize_model(model)
    outer, sized = model.graph
    for graph in (outer.attributes["then_branch"].as_graph(), outer.attributes["else_branch"].as_graph()):
        graph.node(0).attributes["alpha"] = ir.AttrFloat32("alpha", 0.1)
    sized.attributes["scales"] = ir.AttrFloat32s("scales", [1.1])

    round_float_attributes(model)

    alpha = outer.attributes["then_branch"].as_graph().node(0).attributes["alpha"].as_float()
    assert alpha == float(np.float32(0.1)) != 0.1
    assert list(sized.attributes["scales"].as_floats()) == [float(np.float32(1.1))]
    assert ir.serde.serialize_model(model) == stored
    onnx.checker.check_model(stored)
