"""Models of one node, and the check that the oracle agrees with ONNX Runtime on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from bnfold.oracle.oracle import Oracle
from tests.graphs import run

Arrays = Mapping[str, np.ndarray]


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    """Random float32 numbers of a layer's usual size."""
    return np.random.default_rng([seed, *shape]).normal(0, 1, shape).astype(np.float32)


def node(
    operator: str,
    feeds: Arrays,
    constants: Arrays | None = None,
    *,
    opset: int = 18,
    outputs: int = 1,
    domain: str = "",
    inputs: Sequence[str] | None = None,
    **attributes: Any,
) -> onnx.ModelProto:
    """A model of one node that reads the feeds, then the constants, unless `inputs` has another order."""
    constants = constants or {}
    names = list(inputs if inputs is not None else (*feeds, *constants))
    results = [f"y{number}" for number in range(outputs)]
    made = helper.make_node(operator, names, results, domain=domain, **attributes)
    graph = helper.make_graph(
        [made],
        "g",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in feeds.items()
        ],
        [helper.make_empty_tensor_value_info(name) for name in results],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def evaluated(operator: str, feeds: Arrays, *arguments: Any, **keywords: Any) -> Any:
    """The oracle's first output for one node."""
    return Oracle(node(operator, feeds, *arguments, **keywords)).run(feeds)[0]


def agrees(
    operator: str, feeds: Arrays, *arguments: Any, tolerance: float = 5e-6, **keywords: Any
) -> list[np.ndarray]:
    """The oracle's outputs for one node, after checking that ONNX Runtime's agree to float32's precision."""
    return agrees_on(node(operator, feeds, *arguments, **keywords), feeds, tolerance)


def agrees_on(model: onnx.ModelProto, feeds: Arrays, tolerance: float = 5e-6) -> list[np.ndarray]:
    """The oracle's outputs for a model, after the same check."""
    truth = Oracle(model).run(feeds)
    for expected, actual in zip(run(model, feeds), truth, strict=True):
        assert actual.shape == expected.shape
        if expected.dtype.kind != "f":
            assert actual.dtype == expected.dtype
            assert np.array_equal(actual, expected)
            continue
        assert actual.dtype == np.float64
        scale = np.abs(actual[np.isfinite(actual)]).max(initial=0) or 1.0
        assert np.allclose(actual, expected, rtol=0, atol=tolerance * scale, equal_nan=True)
    return truth
