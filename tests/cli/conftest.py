"""Small ONNX files and a way to run the command as a person would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper

from bnfold_cli import main

Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    """Run `bnfold` in this process, with standard output and error apart."""

    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="bnfold")

    return invoke


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Conv → BatchNormalization: one site, which folds."""
    return save(tmp_path / "model.onnx", ["Conv", "BatchNormalization"])


@pytest.fixture
def stubborn(tmp_path: Path) -> Path:
    """Conv → Tanh → BatchNormalization: one site, which stays."""
    return save(tmp_path / "stubborn.onnx", ["Conv", "Tanh", "BatchNormalization"])


def save(path: Path, operators: list[str], *, seed: int = 0) -> Path:
    """Save a chain of operators over 1×3×8×8 with random weights and non-trivial statistics."""
    draw = np.random.default_rng(seed)
    constants = {
        "w": draw.normal(size=(4, 3, 3, 3)),
        "scale": draw.uniform(0.5, 2, 4),
        "bias": draw.normal(size=4),
        "mean": draw.normal(size=4),
        "var": draw.uniform(0.5, 2, 4),
    }
    extra = {"Conv": ["w"], "BatchNormalization": ["scale", "bias", "mean", "var"]}
    names = ["x", *(f"v{i}" for i in range(len(operators) - 1)), "y"]
    nodes = [
        helper.make_node(op, [names[i], *extra.get(op, [])], [names[i + 1]], name=f"{op.lower()}_{i}")
        for i, op in enumerate(operators)
    ]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 6, 6])],
        [
            numpy_helper.from_array(value.astype(np.float32), name)
            for name, value in constants.items()
            if any(name in node.input for node in nodes)
        ],
    )
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return path


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[..., Path]:
    """Save a chain of operators under a name of the test's choice, as `save` does."""
    return lambda name, operators, **options: save(tmp_path / name, operators, **options)
