"""What a model weighs: counted, and measured in a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from bnfold.latency import footprint as module
from bnfold.latency.footprint import footprint
from bnfold.runtime.sessions import on_disk
from tests.graphs import build, weight

MEGABYTES = 16


def product(megabytes: int = 0) -> onnx.ModelProto:
    """A matrix product with a weight of that size, or of two numbers."""
    columns = max(1, megabytes * 2**20 // 8)
    return build(
        f"""g (float[N, 2] x) => (float[N, {columns}] y)
        {{ k = Constant<value_float = 1.0>() h = MatMul(x, w) y = Add(h, k) }}""",
        {"w": weight(2, columns)},
    )


def weigh(model: onnx.ModelProto, batch: int = 3):
    with on_disk(model) as file:
        return footprint(file, {"x": np.ones((batch, 2), np.float32)}, "cpu", 1)


def test_what_can_be_counted() -> None:
    weighs = weigh(product())
    assert weighs.bytes == product().ByteSize()
    assert weighs.nodes == 2, "a constant is storage"
    assert weighs.multiply_adds == 3 * 2
    assert 2 <= weighs.parameters <= 3


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell")
def test_peak_memory_grows_with_the_weights_and_not_with_this_process() -> None:
    ballast = np.ones(200 * 2**20, np.uint8)  # a child would inherit this in ru_maxrss
    small, large = (weigh(product(size)).peak_memory for size in (0, MEGABYTES))
    assert small is not None
    assert large is not None
    assert 0 <= small < 100 * 2**20 <= ballast.nbytes
    assert large - small >= MEGABYTES * 2**20


def test_a_process_that_dies_gives_no_figure(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    assert module._peak_memory(broken, {}, "cpu", 1) is None


def test_strings_reach_the_process() -> None:
    with on_disk(build("g (string[2] x) => (string[2] y) { y = Identity(x) }")) as file:
        assert module._peak_memory(file, {"x": np.array(["a", "b"], object)}, "cpu", 1) is not None


def test_what_cannot_be_counted_is_none() -> None:
    model = build("g (float[N, 2] x) => (float[N, 2] y) { h = local.Thing(x) y = MatMul(h, h) }")
    with on_disk(model) as file:
        weighs = footprint(file, {"x": np.ones((2, 2), np.float32)}, "cpu", 1)
    assert (weighs.nodes, weighs.multiply_adds, weighs.peak_memory) == (2, None, None)


def test_a_path_is_its_own_file_and_external_data_count(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    ir.save(ir.from_proto(product(1)), path, external_data="weights.bin")
    with on_disk(path) as file:
        assert file == path
        weighs = footprint(file, {"x": np.ones((1, 2), np.float32)}, "cpu", 1)
    assert weighs.bytes == path.stat().st_size + (tmp_path / "weights.bin").stat().st_size > 2**20


def test_a_model_in_memory_becomes_a_file_that_goes_again() -> None:
    with on_disk(ir.from_proto(product())) as file:
        assert onnx.load(file).graph.node[1].op_type == "MatMul"
    assert not file.exists()
