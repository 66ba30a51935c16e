"""The result does not depend on how many threads there are."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.graphs import statistics

ROWS = 100_000  # long enough that linear algebra libraries share a sum among threads


@pytest.fixture
def tall(tmp_path: Path) -> Path:
    """BatchNormalization → Gemm in float64: the shift goes through a long sum into the bias."""
    rng = np.random.default_rng(0)
    names = {name: array.astype(np.float64) for name, array in statistics(ROWS).items()}
    constants = {**names, "w": rng.normal(size=(ROWS, 1)), "c": rng.normal(size=1)}
    graph = helper.make_graph(
        [
            helper.make_node("BatchNormalization", ["x", *names], ["h"]),
            helper.make_node("Gemm", ["h", "w", "c"], ["y"]),
        ],
        "tall",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, [1, ROWS])],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, [1, 1])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    path = tmp_path / "tall.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_the_bytes_are_the_same_with_one_thread_and_with_several(tall: Path, tmp_path: Path) -> None:
    digests = set()
    for threads in (1, 2, 3):
        target = tmp_path / f"{threads}.onnx"
        several = {"OPENBLAS_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
        words = [sys.executable, "-m", "bnfold", "fold", str(tall), "-o", str(target), "--quiet"]
        subprocess.run(words, env={**os.environ, **several}, check=True, timeout=600)
        assert [node.op_type for node in onnx.load(target).graph.node] == ["Gemm"]
        digests.add(hashlib.sha256(target.read_bytes()).hexdigest())
    assert len(digests) == 1
