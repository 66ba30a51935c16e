"""What contradicts itself is refused when it is read, by name, and nothing is allocated for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

import bnfold
from bnfold.errors import ModelError
from bnfold.files.consistency import demand_given
from bnfold.files.load import NOTES, load_onnx
from bnfold.files.repair import RENAMED
from bnfold.files.save import save_onnx
from tests.files.models import add_model
from tests.graphs import build, operators, statistics, weight


def _typed(dims: list[int], kind: int, **data: list[float]) -> Callable[[onnx.TensorProto], None]:
    def change(tensor: onnx.TensorProto) -> None:
        tensor.Clear()
        tensor.name, tensor.data_type = "w", kind
        tensor.dims.extend(dims)
        for field, numbers in data.items():
            getattr(tensor, field).extend(numbers)

    return change


def _dims(*dims: int) -> Callable[[onnx.TensorProto], None]:
    def change(tensor: onnx.TensorProto) -> None:
        del tensor.dims[:]
        tensor.dims.extend(dims)

    return change


def _kind(kind: int) -> Callable[[onnx.TensorProto], None]:
    def change(tensor: onnx.TensorProto) -> None:
        tensor.data_type = kind

    return change


WRONG = {
    "more elements": (_dims(64, 65), "has 16384 bytes where its type and the shape [64, 65] need 16640"),
    "a scalar": (_dims(), "has 16384 bytes"),
    "beyond memory": (_dims(2**31, 2**31), "has 16384 bytes"),
    "negative": (_dims(-64, -64), "has the shape [-64, -64]"),
    "another type": (_kind(TensorProto.FLOAT16), "has 16384 bytes"),
    "no type": (_kind(0), "has the type 0"),
    "an unknown type": (_kind(29), "29"),
    "raw strings": (_kind(TensorProto.STRING), "has 0 strings"),
    "few numbers": (_typed([3], TensorProto.FLOAT, float_data=[1, 2]), "has 2 numbers"),
    "in another field": (_typed([2], TensorProto.FLOAT, double_data=[1, 2]), "has 0 numbers"),
    "nothing": (_typed([2**40], TensorProto.FLOAT), "has 0 numbers"),
}


@pytest.mark.parametrize(("change", "expected"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("place", ["initializer", "attribute"])
def test_a_tensor_with_other_numbers_is_refused(
    tmp_path: Path, change: Callable[[onnx.TensorProto], None], expected: str, place: str
) -> None:
    model = add_model()
    tensor = model.graph.initializer[0] if place == "initializer" else model.graph.node[0].attribute[0].t
    change(tensor)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    for read in (load_onnx, bnfold.fold):
        with pytest.raises(ModelError) as caught:
            read(path)
        assert expected in caught.value.problem
        assert str(path) in caught.value.problem
    with pytest.raises(ModelError):
        bnfold.fold(model)


@pytest.mark.parametrize(
    "tensor",
    [
        helper.make_tensor("t", TensorProto.INT4, [3], [1, 2, 3]),
        helper.make_tensor("t", TensorProto.UINT4, [5], bytes(3), raw=True),
        helper.make_tensor("t", TensorProto.FLOAT16, [3], np.array([1, 2, 3], np.float16)),
        helper.make_tensor("t", TensorProto.BFLOAT16, [2], [1.0, 2.0]),
        helper.make_tensor("t", TensorProto.BOOL, [2], [True, False]),
        helper.make_tensor("t", TensorProto.COMPLEX64, [2], [1 + 2j, 3j]),
        helper.make_tensor("t", TensorProto.DOUBLE, [2], [1.0, 2.0]),
        helper.make_tensor("t", TensorProto.UINT32, [2], [1, 2]),
        helper.make_tensor("t", TensorProto.STRING, [2], [b"a", b"b"]),
        helper.make_tensor("t", TensorProto.FLOAT8E4M3FN, [2], [1.0, 2.0]),
        helper.make_tensor("t", TensorProto.FLOAT, [0, 4], []),
        helper.make_tensor("t", TensorProto.INT64, [], [7]),
    ],
    ids=lambda tensor: TensorProto.DataType.Name(tensor.data_type),
)
def test_tensors_by_the_book_are_read(tensor: onnx.TensorProto) -> None:
    model = add_model(ir_version=10)
    model.graph.initializer.append(tensor)
    assert tensor in bnfold.fold(model).model.graph.initializer


def test_an_attribute_without_a_type_is_refused() -> None:
    model = build("g (float[N,3] x) => (float[N,3] y) { y = Softmax <axis = 1> (x) }")
    model.graph.node[0].attribute[0].ClearField("type")
    with pytest.raises(ModelError, match="the attribute 'axis' of Softmax has no type"):
        bnfold.fold(model)


def test_a_value_that_nothing_gives_is_named(tmp_path: Path) -> None:
    model = add_model()
    model.graph.node[1].input[1] = "elsewhere"
    with pytest.raises(ModelError, match="Add reads 'elsewhere', which nothing gives"):
        demand_given(ir.from_proto(model), "it")
    path = tmp_path / "m.onnx"
    model.graph.initializer[0].ClearField("name")  # of which the checker says nothing
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="not a valid ONNX model"):
        bnfold.fold(path)


def test_texts_that_are_no_utf8_are_kept_escaped(tmp_path: Path) -> None:
    model = build(
        "g (float[N,3,6,6] x) => (float[N,4,6,6] y) { c = Conv(x, w) "
        "y = BatchNormalization(c, scale, bias, mean, var) }",
        {"w": weight(4, 3, 1, 1), **statistics(4)},
    )
    model.producer_name = model.doc_string = "PRODUCER"
    model.graph.node[0].doc_string = model.graph.input[0].doc_string = "PRODUCER"
    model.metadata_props.add(key="PRODUCER", value="PRODUCER")
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString().replace(b"PRODUCER", b"PRO\xff\xfeCER"))
    loaded = load_onnx(path)
    assert loaded.meta[NOTES] == (RENAMED,)
    result = bnfold.fold(path)
    save_onnx(result.model, tmp_path / "out.onnx")
    written = onnx.load(tmp_path / "out.onnx")
    assert operators(written) == ["Conv"]
    assert written.producer_name == written.doc_string == "PRO\\xff\\xfeCER"
    assert written.metadata_props[0].value == "PRO\\xff\\xfeCER"
