"""The comparison of running times."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from benchmarks.processor_time import processor_ratios
from tests.graphs import build, weight

LARGE = """g (float[1, 64, 64] x) => (float[1, 64, 64] y) {
    a = MatMul(x, w) b = MatMul(a, w) c = MatMul(b, w) y = MatMul(c, w)
}"""
SMALL = "g (float[1, 64, 64] x) => (float[1, 64, 64] y) { y = MatMul(x, w) }"


def test_a_file_with_more_to_do_takes_longer(tmp_path: Path) -> None:
    files = {"small": tmp_path / "small.onnx", "large": tmp_path / "large.onnx"}
    for name, text in (("small", SMALL), ("large", LARGE)):
        onnx.save(build(text, {"w": weight(64, 64)}), files[name])
    feeds = {"x": np.ones((1, 64, 64), np.float32)}
    milliseconds, ratios = processor_ratios(files, feeds, loads=3, rounds=5)
    assert milliseconds > 0
    assert [len(ratios[name]) for name in ratios] == [3], "one for each load, and none for the first file"
    assert np.median(ratios["large"]) > 1.5
