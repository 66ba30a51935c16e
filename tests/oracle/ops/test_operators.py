"""ONNX's own tests of its operators, their floats lifted: some 1,500 models of a node or a function."""

from __future__ import annotations

import functools
import importlib
import pkgutil
import re
import warnings
from typing import Any

import numpy as np
import onnx

from bnfold.oracle.evaluator import NotEvaluableError
from bnfold.oracle.ops.call import NARROW
from bnfold.oracle.oracle import Oracle

# A second each to generate; test_pooling.py compares pools with ONNX Runtime.
SLOW = ("averagepool", "lppool", "maxpool")
EXCEPTIONS = {
    "test_dynamicquantizelinear",  # float32 rounds a number to a half, and that to the other side
    "test_dynamicquantizelinear_expanded",
    "test_if_opt",  # its optional is written without its shell
    "test_resize_downsample_scales_cubic_align_corners",  # ONNX Runtime aligns the last whole element
    "test_resize_downsample_scales_linear_align_corners",
}
REFUSED = {
    "Adagrad Adam Momentum": "training",
    "AffineGrid CausalConvWithState FlexAttention GridSample LinearAttention": "float32 inside",
    "MelWeightMatrix TfIdfVectorizer": "float32 inside",
    "Bernoulli Dropout RandomUniformLike": "random",
    "BitCast": "takes floats for bits",
    "Cast": "to powers of two in eight bits",
    "LSTM": "peepholes with lengths",
    "Scan": "before opset 9",
    "Scatter SequenceMap": "not in the reference",
}


@functools.cache
def cases() -> list[Any]:
    package = importlib.import_module("onnx.backend.test.case.node")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some overflow on purpose
        for module in pkgutil.iter_modules(package.__path__):
            if module.name not in SLOW and not module.name.startswith("_"):
                importlib.import_module(f"{package.__name__}.{module.name}")
    return [case for case in package._NodeTestCases if case.name not in EXCEPTIONS]


def feeds(case: Any, arrays: list[Any]) -> dict[str, Any]:
    return dict(zip((value.name for value in case.model.graph.input), map(array, arrays), strict=False))


def array(value: Any) -> Any:
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def close(expected: Any, actual: Any) -> bool:
    expected = array(expected)
    if isinstance(expected, list):
        return len(expected) == len(actual) and all(map(close, expected, actual))
    expected = np.asarray(expected)
    if expected.dtype.kind in "OSU":
        return expected.shape == actual.shape and bool((expected.astype(str) == actual.astype(str)).all())
    error = 2e-2 if expected.dtype.itemsize == 2 and expected.dtype in NARROW else 1e-4
    wide = [value.astype(np.float64) for value in (expected, actual)]
    return expected.shape == actual.shape and np.allclose(*wide, rtol=error, atol=error, equal_nan=True)


def test_lifted_models_compute_what_onnx_expects() -> None:
    wrong, narrow, refused, good = [], [], set(), 0
    for case in cases():
        for given, expected in case.data_sets:
            try:
                oracle = Oracle(case.model)
                actual = oracle.run(feeds(case, given))
            except NotEvaluableError as error:
                refused.update(re.findall(r"cannot evaluate (\w+)", error.problem))
                continue
            right = all(map(close, expected, actual))
            wrong += [] if right else [case.name]
            good += right
            values = oracle.values(feeds(case, given)).items()
            narrow += [(case.name, name) for name, value in values if getattr(value, "dtype", None) in NARROW]
    assert not wrong
    assert not narrow
    assert refused <= set(" ".join(REFUSED).split())
    assert good > 1400
