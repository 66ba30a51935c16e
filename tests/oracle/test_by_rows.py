"""Weights that the oracle reads some rows at a time: the same numbers as when it reads them whole."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from bnfold.oracle import by_rows
from bnfold.oracle.oracle import Oracle
from bnfold.oracle.weights import Weight

RNG = np.random.default_rng(5)


def _model(node: onnx.NodeProto, shape: list[int], *weights: np.ndarray) -> onnx.ModelProto:
    names = [name for name in node.input if name != "x"]
    held = [numpy_helper.from_array(array, name) for array, name in zip(weights, names, strict=True)]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    return helper.make_model(
        helper.make_graph([node], "g", [x], [y], held), opset_imports=[helper.make_opsetid("", 17)]
    )


def _normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


MODELS = {
    "gemm, transposed": (
        helper.make_node("Gemm", ["x", "w", "c"], ["y"], transB=1, alpha=0.5, beta=2.0),
        [3, 40],
        (_normal(70, 40), _normal(70)),
    ),
    "gemm": (
        helper.make_node("Gemm", ["x", "w", "c"], ["y"], transA=1, alpha=0.5, beta=2.0),
        [40, 3],
        (_normal(40, 70), _normal(3, 1)),
    ),
    "gemm without a bias": (helper.make_node("Gemm", ["x", "w"], ["y"]), [3, 40], (_normal(40, 70),)),
    "matmul": (helper.make_node("MatMul", ["x", "w"], ["y"]), [2, 3, 40], (_normal(40, 70),)),
    "matmul of a vector": (helper.make_node("MatMul", ["x", "w"], ["y"]), [40], (_normal(40, 70),)),
    "conv": (
        helper.make_node("Conv", ["x", "w", "c"], ["y"], pads=[1, 1, 1, 1]),
        [2, 5, 6, 7],
        (_normal(33, 5, 3, 3), _normal(33)),
    ),
}


@pytest.mark.parametrize("seed", [None, 1])
@pytest.mark.parametrize("name", MODELS)
def test_by_rows_as_whole(name: str, seed: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    node, shape, weights = MODELS[name]
    model, feeds = _model(node, shape, *weights), {"x": _normal(*shape)}
    whole = Oracle(model, seed).run(feeds)[0]
    monkeypatch.setattr(by_rows, "LARGE", 1000)
    monkeypatch.setattr(by_rows, "_PART", 1500)
    read = Weight.__call__
    monkeypatch.setattr(Weight, "__call__", lambda self: read(self) if self.tensor.name == "c" else None)
    assert np.allclose(Oracle(model, seed).run(feeds)[0], whole, rtol=1e-13, atol=1e-13)


def test_grouped_and_batched_are_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_rows, "LARGE", 1000)
    for node, shape, weight in (
        (helper.make_node("Conv", ["x", "w"], ["y"], group=2), [1, 10, 9, 9], _normal(32, 5, 3, 3)),
        (helper.make_node("MatMul", ["x", "w"], ["y"]), [2, 3, 20], _normal(2, 20, 40)),
    ):
        feeds = {"x": _normal(*shape)}
        model = _model(node, shape, weight)
        found = Oracle(model).run(feeds)[0]
        monkeypatch.setattr(by_rows, "LARGE", 1 << 30)
        assert np.array_equal(found, Oracle(model).run(feeds)[0])
        monkeypatch.setattr(by_rows, "LARGE", 1000)


def test_rows_are_the_elements_in_order() -> None:
    values = _normal(1000, 300)
    for tensor in (ir.Tensor(values, name="w"), ir.Tensor(np.asfortranarray(values), name="w")):
        for seed in (None, 4):
            weight = Weight(tensor, seed)
            parts = list(weight.rows(7))
            assert [len(part) for part in parts] == [7] * 142 + [6]
            assert np.array_equal(np.concatenate(parts), weight())
