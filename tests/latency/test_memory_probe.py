"""The program that measures its own memory."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import numpy as np
import pytest

from bnfold.latency import memory_probe
from tests.graphs import build


def test_it_imports_nothing_of_bnfold() -> None:
    tree = ast.parse(Path(memory_probe.__file__).read_text())
    imported = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not any("bnfold" in ast.unparse(node) for node in imported)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell")
def test_the_peak_never_falls() -> None:
    before = memory_probe.peak_memory()
    block = np.ones(2**26, np.uint8)
    assert memory_probe.peak_memory() >= before > 2**20
    del block
    assert memory_probe.peak_memory() >= before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell")
def test_growth_is_what_running_the_model_adds(tmp_path: Path) -> None:
    model, feeds = tmp_path / "model.onnx", tmp_path / "feeds.npz"
    model.write_bytes(build("g (float[N] file) => (float[N] y) { y = Relu(file) }").SerializeToString())
    np.savez(feeds, np.ones(3, np.float32))
    asked = {
        "model": str(model), "feeds": str(feeds), "names": ["file"], "level": "ORT_DISABLE_ALL",
        "threads": 1, "config": {}, "providers": [("CPUExecutionProvider", {})],
    }  # fmt: skip
    assert 0 <= memory_probe.growth(asked) < 2**28
