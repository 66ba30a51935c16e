"""Weights are counted in every type of floats, however they are stored."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from bnfold.files.external_data import tensors
from bnfold.files.load import load_onnx
from bnfold.gate import numbers
from bnfold.gate.numbers import measure
from tests.gate.models import asked, layers, save

TYPES = (np.float16, np.float32, np.float64, ml_dtypes.bfloat16)


def special(dtype: type) -> np.ndarray:
    """Three thousand numbers with one subnormal, two NaN, and one infinity."""
    array = np.random.default_rng(0).normal(0, 1, (3, 1000)).astype(dtype)
    tiny = ml_dtypes.finfo(dtype).smallest_normal
    array[0, 5], array[2, 999], array[1, 1], array[1, 2], array[0, 0] = np.nan, np.nan, -np.inf, tiny / 4, 100
    return array


@pytest.mark.parametrize("dtype", TYPES)
def test_what_is_special_is_counted_over_all_parts(dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbers, "_STEP", 700)
    found = measure("w", ir.tensor(special(dtype)))
    assert (found.size, found.nan, found.infinite, found.subnormal, found.largest) == (3000, 2, 1, 1, 100)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("data", ["", "net.bin"])
def test_so_it_is_in_a_file_of_any_kind(dtype: type, data: str, tmp_path: Path) -> None:
    array = special(dtype)
    model = layers("b = Cast <to = 1> (extra)  y = Relu(a)")
    model.graph.initializer.append(ir.to_proto(ir.tensor(array, name="extra")))
    path = save(model, tmp_path / "net.onnx", data=data)
    (stored,) = (tensor for tensor in tensors(load_onnx(path)) if tensor.name == "extra")
    found = measure("extra", stored)
    assert (found.size, found.nan, found.infinite, found.subnormal, found.largest) == (3000, 2, 1, 1, 100)
    assert asked(path, "M201", "M203") == ["M201", "M203"]


def test_an_empty_weight_and_one_of_zeros_hold_nothing_special() -> None:
    for array in (np.zeros((0, 3), np.float32), np.zeros(5, np.float32), np.array(-0.0, np.float16)):
        found = measure("w", ir.tensor(array))
        assert (found.nan, found.infinite, found.subnormal, found.largest) == (0, 0, 0, 0.0)


def test_an_infinity_counts_where_a_layer_multiplies_with_it(tmp_path: Path) -> None:
    """As a bound, or in a mask that is added, it is meant."""
    bound = save(layers("y = Min(a, high)", high=np.array(np.inf, np.float32)), tmp_path / "bound.onnx")
    mask = np.where(np.tri(6) > 0, 0, -np.inf).astype(np.float32)
    masked = save(layers("b = Add(a, mask)  y = Softmax(b)", mask=mask), tmp_path / "masked.onnx")
    assert asked(bound, "M202") == asked(masked, "M202") == []


def test_integers_are_not_asked(tmp_path: Path) -> None:
    path = save(layers("y = Gather(a, i)", i=np.array([0, 2**40], np.int64)), tmp_path / "net.onnx")
    assert asked(path, "M201", "M202", "M203", "M204") == []
