"""Small models written as ONNX text, with random statistics, and the check that every fold has to pass.

Identity statistics hide every mistake, and an optimised session cannot be the reference: neither occurs here.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort

import bnfold
from bnfold.result import FoldResult

AFFINE_OPERATORS = ("BatchNormalization", "Mul", "Div", "Sub", "Add")


def build(
    text: str, constants: Mapping[str, np.ndarray] | None = None, *, opset: int = 18, ir_version: int = 9
) -> onnx.ModelProto:
    """Parse a graph in ONNX's text form and give it initializers.

    Args:
        text: A graph, as in `g (float[2,3] x) => (float[2,3] y) { y = Relu(x) }`; functions may follow it.
        constants: Initializers by name.
        opset: Version of ONNX's operator set.
        ir_version: Version of the file format.
    """
    header = f'<ir_version: {ir_version}, opset_import: ["" : {opset}, "local" : 1]>'
    model = onnx.parser.parse_model(f"{header}\n{text}")
    for name, array in (constants or {}).items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return model


def statistics(
    channels: int, seed: int = 0, prefix: str = "", dtype: type = np.float32
) -> dict[str, np.ndarray]:
    """Random scale, bias, mean and variance of a BatchNormalization, with at least one negative scale.

    Returns:
        Arrays of shape `(channels,)` named `scale`, `bias`, `mean` and `var` after the prefix.
    """
    rng = np.random.default_rng(seed)
    signs = np.where(rng.random(channels) < 0.4, -1, 1)
    signs[rng.integers(channels)] = -1
    arrays = {
        "scale": rng.uniform(0.5, 1.8, channels) * signs,
        "bias": rng.normal(0, 0.7, channels),
        "mean": rng.normal(0, 0.8, channels),
        "var": rng.uniform(0.2, 2.5, channels),
    }
    return {prefix + name: array.astype(dtype) for name, array in arrays.items()}


def positive(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same statistics with no scale below zero."""
    return {name: np.abs(array) if name.endswith("scale") else array for name, array in arrays.items()}


def weight(*shape: int, seed: int = 1, dtype: type = np.float32) -> np.ndarray:
    """Random numbers of a layer's usual size."""
    return np.random.default_rng(seed).normal(0, 0.5, shape).astype(dtype)


def run(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """All outputs of a model in ONNX Runtime with its optimizer off."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(feeds))


def feeds(model: onnx.ModelProto, seed: int = 0, free: int = 3) -> dict[str, np.ndarray]:
    """Random inputs; a dimension without a size gets `free`."""
    rng = np.random.default_rng(seed)
    stored = {tensor.name for tensor in model.graph.initializer}
    made = {}
    for value in model.graph.input:
        if value.name in stored:
            continue
        tensor = value.type.tensor_type
        shape = [dim.dim_value if dim.HasField("dim_value") else free for dim in tensor.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        made[value.name] = (
            rng.integers(0, 2, shape).astype(dtype)
            if dtype.kind in "bi"
            else rng.normal(0, 1, shape).astype(dtype)
        )
    return made


def assert_same(original: onnx.ModelProto, folded: onnx.ModelProto, tolerance: float = 2e-5) -> None:
    """Both compute the same for a few inputs, with one interface, and the folded one is a valid model."""
    onnx.checker.check_model(folded, full_check=True)
    assert [v.name for v in folded.graph.output] == [v.name for v in original.graph.output]
    required = [
        {v.name for v in m.graph.input} - {t.name for t in m.graph.initializer} for m in (original, folded)
    ]
    assert required[0] == required[1]
    before, after = exposing_shared(original, folded)
    for seed in range(3):
        inputs = feeds(original, seed)
        for expected, actual in zip(run(before, inputs), run(after, inputs), strict=True):
            assert expected.shape == actual.shape
            assert expected.dtype == actual.dtype
            if expected.dtype.kind == "f":
                wide, other = expected.astype(np.float64), actual.astype(np.float64)
                finite = np.isfinite(wide)
                assert np.array_equal(wide[~finite], other[~finite], equal_nan=True)
                scale = np.abs(wide[finite]).max(initial=0) or 1.0
                error = np.abs(wide[finite] - other[finite]).max(initial=0) / scale
                assert error <= tolerance, f"relative error {error:.2e}"
            else:
                assert np.array_equal(expected, actual)


def exposing_shared(
    original: onnx.ModelProto, folded: onnx.ModelProto
) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Both models with every computed value as an output whose name both have; it must agree in both."""
    made = [
        {
            name: None
            for node in model.graph.node
            if node.op_type != "Constant"
            for name in node.output
            if name
        }
        for model in (original, folded)
    ]
    outputs = {value.name for value in original.graph.output}
    shared = [name for name in made[0] if name in made[1] and name not in outputs]
    exposed = []
    for model in (original, folded):
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in shared)
        exposed.append(copy)
    return exposed[0], exposed[1]


def operators(model: onnx.ModelProto) -> list[str]:
    """The operators of the main graph in order, constants left out."""
    return [node.op_type for node in model.graph.node if node.op_type != "Constant"]


def fold_and_compare(model: onnx.ModelProto, tolerance: float = 2e-5) -> FoldResult[onnx.ModelProto]:
    """Fold; demand that nothing changed, that a second fold does nothing and that no node was added."""
    before = model.SerializeToString(deterministic=True)
    result = bnfold.fold(model)
    assert model.SerializeToString(deterministic=True) == before, "the argument was modified"
    assert_same(model, result.model, tolerance)
    assert result.nodes_after <= result.nodes_before
    again = bnfold.fold(result.model)
    assert again.model.SerializeToString(deterministic=True) == result.model.SerializeToString(
        deterministic=True
    )
    return result


def kept_codes(result: FoldResult[onnx.ModelProto]) -> set[str]:
    """The codes of all reasons, in both directions, of what stays."""
    found = [reason for site in result.kept for reason in (site.reason, site.reason_after)]
    return {reason.code for reason in found if reason is not None}
