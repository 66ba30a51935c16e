"""ONNX's own 2,024 models: those of its node tests, generated, and those that its package holds as files."""

from __future__ import annotations

import functools
import importlib
import pkgutil
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.backend.test

from bnfold.oracle.evaluator import NotEvaluableError
from bnfold.oracle.ops.call import NARROW
from bnfold.oracle.oracle import Oracle

FOLDERS = ("simple", "pytorch-converted", "pytorch-operator")
EXCEPTIONS = {
    "test_dynamicquantizelinear",  # float32 rounds a number to a half, and that to the other side
    "test_dynamicquantizelinear_expanded",
    "test_resize_downsample_scales_cubic_align_corners",  # ONNX Runtime aligns the last whole element
    "test_resize_downsample_scales_linear_align_corners",
}
REFUSED = {
    "Adagrad Adam Gradient Momentum": "training",
    "Bernoulli Dropout RandomUniformLike": "random",
}


@dataclass(frozen=True)
class Case:
    """A model, and pairs of inputs and the outputs that ONNX expects."""

    name: str
    model: onnx.ModelProto
    data_sets: list[tuple[list[Any], list[Any]]]


@functools.cache
def cases() -> list[Case]:
    package = importlib.import_module("onnx.backend.test.case.node")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some overflow on purpose
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    made = [Case(case.name, case.model, case.data_sets) for case in package._NodeTestCases]
    data = Path(onnx.backend.test.__file__).with_name("data")
    made += [stored(path) for name in FOLDERS for path in sorted((data / name).iterdir())]
    return [case for case in made if case.name not in EXCEPTIONS]


def stored(folder: Path) -> Case:
    model = onnx.load(folder / "model.onnx")
    graph = model.graph
    sets = [
        (read(path, "input", graph.input), read(path, "output", graph.output))
        for path in sorted(folder.glob("test_data_set_*"))
    ]
    return Case(folder.name, model, sets)


def read(folder: Path, kind: str, values: Any) -> list[Any]:
    paths = [folder / f"{kind}_{number}.pb" for number in range(len(list(folder.glob(f"{kind}_*.pb"))))]
    return [content(path.read_bytes(), value) for path, value in zip(paths, values, strict=False)]


def content(stored: bytes, value: onnx.ValueInfoProto) -> Any:
    if value.type.HasField("sequence_type"):
        return onnx.numpy_helper.to_list(onnx.SequenceProto.FromString(stored))
    return onnx.numpy_helper.to_array(onnx.TensorProto.FromString(stored))


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
    # Some expected outputs are written by hand, to four digits.
    error = 2e-2 if expected.dtype.itemsize == 2 and expected.dtype in NARROW else 1e-4
    wide = [value.astype(np.float64) for value in (expected, actual)]
    return expected.shape == actual.shape and np.allclose(*wide, rtol=error, atol=error, equal_nan=True)


def test_lifted_models_compute_what_onnx_expects() -> None:
    wrong, narrow, refused, good = [], [], set(), 0
    for case in cases():
        for given, expected in case.data_sets:
            try:
                actual = Oracle(case.model).run(feeds(case, given))
            except NotEvaluableError as error:
                refused.update(re.findall(r"cannot evaluate (\w+)", error.problem))
                continue
            right = all(map(close, expected, actual))
            wrong += [] if right else [case.name]
            good += right
            narrow += [case.name for value in actual if getattr(value, "dtype", None) in NARROW]
    assert not wrong
    assert not narrow
    assert refused <= set(" ".join(REFUSED).split())
    assert good > 2000 or onnx.__version__ < "1.23"
