"""Models whose weights are in a file next to them."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from tests.files.models import add_model


@pytest.fixture
def external(tmp_path: Path) -> Path:
    """A model whose initializer and Constant are in weights.bin next to it."""
    path = tmp_path / "model.onnx"
    onnx.save(
        add_model(),
        path,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
        convert_attribute=True,
    )
    return path
