"""What would end the process in onnx's inference: it is asked where it can answer, and nowhere else."""

from __future__ import annotations

import subprocess
import sys

import onnx
import pytest
from onnx import parser

from bnfold.graph.harmless import GUARDED, harmless

NEGATIVE = """<ir_version: 8, opset_import: ["": 17]> g (float[1,4,3,3] x, float[6,4,5,5] w) => (y, z)
<int64[1] one = {1}, int64[1] two = {2}, int64[1] back = {-1}, int64[1] far = {-9}>
{ c = Conv(x, w) y = Slice(c, back, far, two, back) z = Relu(x) }"""
KEPT = """<ir_version: 8, opset_import: ["": 17]> g (float[2,N,8] x) => (y, z)
<int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] eight = {8}>
{ s = Shape(x) t = Slice(s, zero, two) u = Concat<axis=0>(t, two, eight) v = Slice(x, one, eight, two)
  y = Reshape(x, u) z = Relu(v) }"""
WITHIN = """<ir_version: 8, opset_import: ["": 17]> g (bool b, float[1,4,3,3] x, float[6,4,5,5] w) => (y)
{ s = Shape(x) y = If(b) <
  then_branch = t () => (float p) <int64[1] one = {1}> { s = Conv(x, w) p = Slice(s, one, one) },
  else_branch = e () => (int64 q) <int64[1] one = {1}> { q = Slice(s, one, one) }> }"""


def _sizes(proto: onnx.ModelProto) -> dict[str, list[int | str]]:
    inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    shapes = {value.name: value.type.tensor_type.shape.dim for value in inferred.graph.output}
    return {name: [size.dim_param or size.dim_value for size in dims] for name, dims in shapes.items()}


def test_a_slice_of_what_is_smaller_than_nothing_is_not_asked() -> None:
    """Without it, onnx 1.23 ends the process: C++'s clamp between 0 and a negative size."""
    found = _sizes(harmless(parser.parse_model(NEGATIVE)))
    assert found == {"y": [], "z": [1, 4, 3, 3]}


@pytest.mark.skipif(onnx.__version__ != "1.23.2", reason="of that version it is known")
def test_the_case_is_one() -> None:
    code = f"import onnx; onnx.shape_inference.infer_shapes(onnx.parser.parse_model({NEGATIVE!r}))"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert done.returncode < 0, done.stderr


def test_slices_of_shapes_and_of_known_sizes_are_inferred_as_before() -> None:
    found = _sizes(harmless(parser.parse_model(KEPT)))
    assert found == _sizes(parser.parse_model(KEPT)) == {"y": [2, "N", 2, 8], "z": [2, "N", 7]}


def test_each_graph_has_its_own_names() -> None:
    """The slice of the branch's own `s` is guarded, that of the outer one is not."""
    proto = harmless(parser.parse_model(WITHIN))
    [branch] = [node for node in proto.graph.node if node.op_type == "If"]
    domains = {
        node.output[0]: node.domain
        for one in branch.attribute
        for node in one.g.node
        if node.op_type.endswith("Slice")
    }
    assert domains == {"p": GUARDED, "q": ""}
    assert _sizes(proto) is not None


@pytest.mark.parametrize("version", [1, 9, 10, 11, 12, 13, 24])
def test_every_version(version: int) -> None:
    more = ["one", "two"]
    node = (
        onnx.helper.make_node("Slice", ["x"], ["y"], starts=[1], ends=[3])
        if version < 10
        else onnx.helper.make_node("Slice", ["x", *more], ["y"])
    )
    held = [
        onnx.helper.make_tensor(name, onnx.TensorProto.INT64, [1], [at])
        for name, at in zip(more, (1, 3), strict=True)
    ]
    ports = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("x", [5, 2]), ("y", None))
    ]
    graph = onnx.helper.make_graph([node], "g", ports[:1], ports[1:], held)
    model = onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", version)])
    assert _sizes(harmless(model)) == {"y": [2, 2]}
