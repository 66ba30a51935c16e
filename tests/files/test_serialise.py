"""What is assembled from pieces is, byte for byte, what protobuf would have written."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from bnfold.files import serialise as module
from bnfold.files.external_data import tensors
from bnfold.files.load import load_onnx
from bnfold.files.serialise import pieces, size, write
from bnfold.tensors.block_tensor import BlockTensor
from tests.files.models import add_model

NUMBERS = np.random.default_rng(0)
FLOAT = TensorProto.FLOAT


def tensor(name: str, dtype: int, count: int, *, raw: bool = True) -> onnx.TensorProto:
    values = NUMBERS.integers(-7, 8, count).astype(helper.tensor_dtype_to_np_dtype(dtype))
    proto = TensorProto(name=name, data_type=dtype, dims=[count])
    if raw:
        proto.raw_data = ir.Tensor(values, ir.DataType(dtype)).tobytes()
    else:
        proto.float_data.extend(values.tolist())
    return proto


def constant(proto: onnx.TensorProto, output: str) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [output], value=proto, name=f"node_{output}", doc_string="why")


def rich_model() -> onnx.ModelProto:
    """Large and small tensors of every kind wherever a model can hold them."""
    types = ["FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE", "INT8", "INT4", "UINT4", "INT64", "BOOL", "COMPLEX64"]
    weights = [tensor(f"w{kind}", TensorProto.DataType.Value(kind), 9001) for kind in types]
    weights += [tensor(f"small{index}", FLOAT, index) for index in range(40)]
    weights += [tensor(f"border{count}", TensorProto.INT8, count) for count in range(4090, 4100)]
    weights += [tensor("listed", FLOAT, 3000, raw=False), helper.make_tensor("empty", FLOAT, [0, 5], [])]
    weights.append(helper.make_tensor("text", TensorProto.STRING, [600], [f"text {i}" for i in range(600)]))
    weights[0].doc_string = "a large one"
    weights[1].metadata_props.add(key="k", value="v")
    branch = helper.make_graph(
        [constant(tensor("inner", FLOAT, 5000), "c"), helper.make_node("Add", ["c", "wb"], ["yb"])],
        "branch",
        [],
        [helper.make_tensor_value_info("yb", FLOAT, [5000])],
        [tensor("wb", FLOAT, 5000)],
    )
    nodes = [
        constant(tensor("", FLOAT, 4000), "k"),
        helper.make_node("If", ["cond"], ["y"], then_branch=branch, else_branch=branch),
        helper.make_node("F", ["k"], ["z"], domain="own"),
        helper.make_node(
            "G", [], ["g"], domain="own", many=[tensor("a", FLOAT, 2000), tensor("b", FLOAT, 2)]
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("cond", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in ("y", "z", "g")],
        weights,
        doc_string="of the graph",
    )
    annotation = graph.quantization_annotation.add(tensor_name="wFLOAT")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="small1")
    function = helper.make_function(
        "own",
        "F",
        ["x"],
        ["y"],
        [constant(tensor("in function", FLOAT, 6000), "c"), helper.make_node("Add", ["x", "c"], ["y"])],
        [helper.make_opsetid("", 18)],
    )
    model = helper.make_model(
        graph,
        functions=[function],
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("own", 1)],
        ir_version=10,
        producer_name="someone",
    )
    model.metadata_props.add(key="b", value="2")
    model.metadata_props.add(key="a", value="1")
    return model


def written(row: list[module.Piece]) -> bytes:
    stream = io.BytesIO()
    for piece in row:
        write(piece, stream)
    assert size(row) == len(stream.getvalue())
    return stream.getvalue()


def plain(model: ir.Model) -> bytes:
    return ir.to_proto(model.clone()).SerializeToString(deterministic=True)


def test_a_rich_model_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    proto = rich_model()
    row = pieces(ir.from_proto(proto).clone())
    assert sum(not isinstance(piece, bytes) for piece in row) > 20
    assert written(row) == plain(ir.from_proto(proto))
    monkeypatch.setattr(module, "_SPLIT_FROM", 10**9)
    assert written(pieces(ir.from_proto(proto).clone())) == plain(ir.from_proto(proto))


def test_a_rich_model_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(rich_model().SerializeToString())
    row = pieces(load_onnx(path).clone())
    assert sum(isinstance(piece, BlockTensor) for piece in row) > 20
    assert written(row) == plain(load_onnx(path))


def test_arrays_and_lazy_tensors() -> None:
    model = ir.from_proto(rich_model())
    graph = model.graph
    values = NUMBERS.standard_normal((30, 100)).astype(np.float32)
    for name, made in {
        "array": ir.Tensor(values, doc_string="d", metadata_props={"b": "1", "a": "2"}),
        "lazy": ir.LazyTensor(lambda: ir.Tensor(values + 1), ir.DataType.FLOAT, ir.Shape([30, 100])),
    }.items():
        made.name = name
        graph.register_initializer(ir.Value(name=name, const_value=made))
    assert written(pieces(model.clone())) == plain(model)


BORDERS = [0, 1, 127, 128, 4095, 4096, 16_383, 16_384, 2_097_151, 2_097_152]


def test_lengths_of_every_number_of_digits() -> None:
    """Around each border where a length takes one byte more, of the tensor as of what is around it."""
    near = itertools.product([*range(1, 40), 60], BORDERS[2:-2])
    for count in (*BORDERS, *(max(border - slack, 0) for slack, border in near)):
        weight = tensor("w", TensorProto.INT8, count)
        graph = helper.make_graph([constant(weight, "c")], "g", [], [], [weight])
        model = ir.from_proto(helper.make_model(graph))
        assert written(pieces(model.clone())) == plain(model)


def test_more_than_two_megabytes_around_it() -> None:
    for count in range(2**21 - 60, 2**21 + 3, 3):
        model = ir.from_proto(
            helper.make_model(helper.make_graph([], "g", [], [], [tensor("w", TensorProto.INT8, count)]))
        )
        row = pieces(model.clone())
        assert len(row) == 3
        assert written(row) == plain(model)


@pytest.mark.parametrize("what", ["segment", "location", "unknown", "listed too"])
def test_a_tensor_that_holds_more_than_a_description(what: str) -> None:
    proto = add_model()
    weight = proto.graph.initializer[0]
    if what == "segment":
        weight.segment.begin = 1
    elif what == "location":
        weight.data_location = TensorProto.DEFAULT
    elif what == "unknown":
        weight.MergeFromString(b"\xf8\x01\x05")  # field 31
    else:
        weight.int32_data.append(1)
    row = pieces(ir.from_proto(proto).clone())
    assert written(row) == plain(ir.from_proto(proto))


def test_the_same_tensor_in_two_places() -> None:
    model = ir.from_proto(add_model())
    shared = model.graph.initializers["w"].const_value
    model.graph.register_initializer(ir.Value(name="v", const_value=shared))
    expected = plain(model)
    assert written(pieces(model.clone())) == expected


def test_content_that_looks_like_a_marker_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = itertools.count()
    monkeypatch.setattr(module.secrets, "token_bytes", lambda count: bytes([next(numbers)]) * count)
    weights = [tensor("w", FLOAT, 3000), tensor("v", FLOAT, 3000)]
    weights.append(TensorProto(name="0", data_type=TensorProto.UINT8, dims=[512], raw_data=bytes(512)))
    model = ir.from_proto(helper.make_model(helper.make_graph([], "g", [], [], weights)))
    assert written(pieces(model.clone())) == plain(model)


class Liar(BlockTensor):
    """One byte too few."""

    def blocks(self) -> Iterator[bytes]:
        yield bytes(self.nbytes - 1)


def test_a_tensor_that_gives_less_than_it_says_is_never_written() -> None:
    lazy = ir.LazyTensor(lambda: ir.Tensor(np.zeros(2999, np.float32)), ir.DataType.FLOAT, ir.Shape([3000]))
    for made in (Liar(ir.DataType.FLOAT, [3000]), lazy):
        model = ir.from_proto(add_model())
        model.graph.initializers["w"].const_value = made
        with pytest.raises(ValueError, match="12000 bytes but gave 1199"):
            written(pieces(model.clone()))


def test_nothing_large_is_read_before_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(add_model().SerializeToString())
    model = load_onnx(path)
    for name in ("numpy", "tobytes", "blocks"):
        monkeypatch.setattr(type(next(tensors(model))), name, lambda *_: pytest.fail("a tensor is read"))
    assert len(pieces(model.clone())) == 5
