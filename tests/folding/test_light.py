"""The four networks with BatchNorms that the onnx package ships for its own tests.

They are as Caffe2 left them: IR version 3, every initializer also an input, weights made by
`ConstantOfShape`, and scale layers of Mul and Add behind `Unsqueeze`. Their weights are the same number
everywhere, so that the outputs that are shipped beside them hold whatever happens to the channels; hence the
second test, with random numbers in their place.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import bnfold
from tests.graphs import run

FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
LEFT = {"light_densenet121": 62, "light_inception_v2": 0, "light_resnet50": 0, "light_shufflenet": 0}


@pytest.fixture(params=LEFT)
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    if not (FOLDER / f"{found}.onnx").is_file() or not (FOLDER / f"{found}_output_0.pb").is_file():
        pytest.skip(f"this version of onnx ships no {found}")
    return found


def feeds(model: onnx.ModelProto, seed: int) -> dict[str, np.ndarray]:
    stored = {tensor.name for tensor in model.graph.initializer}
    (image,) = (value for value in model.graph.input if value.name not in stored)
    shape = [dim.dim_value for dim in image.type.tensor_type.shape.dim]
    return {image.name: np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)}


def randomise(model: onnx.ModelProto) -> None:
    """Give every weight that `ConstantOfShape` makes random numbers, in the place where it stands.

    A variance gets positive ones, a scale mostly so, and a kernel such as keep the size of what it reads.
    """
    rng = np.random.default_rng(0)
    shapes = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    variances = {node.input[4] for node in model.graph.node if node.op_type == "BatchNormalization"}
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape":
            continue
        shape = shapes[node.input[0]]
        fan_in = float(np.prod(shape[1:])) if len(shape) > 1 else 0
        array = (
            rng.uniform(0.5, 2, shape)
            if node.output[0] in variances
            else rng.normal(0, fan_in**-0.5, shape)
            if fan_in
            else rng.uniform(-0.3, 1.2, shape)
        )
        tensor = onnx.numpy_helper.from_array(array.astype(np.float32))
        node.CopyFrom(onnx.helper.make_node("Constant", [], node.output, name=node.name, value=tensor))


def batchnorms(model: onnx.ModelProto) -> int:
    return sum(node.op_type == "BatchNormalization" for node in model.graph.node)


def test_the_shipped_output_is_met(name: str) -> None:
    model = onnx.load(FOLDER / f"{name}.onnx")
    result = bnfold.fold(model)
    onnx.checker.check_model(result.model, full_check=True)
    assert batchnorms(result.model) == LEFT[name]
    assert result.nodes_after < result.nodes_before
    shipped = onnx.numpy_helper.to_array(onnx.load_tensor(FOLDER / f"{name}_output_0.pb"))
    for seed in range(2):
        (actual,) = run(result.model, feeds(model, seed))
        assert actual.shape == shipped.shape
        np.testing.assert_allclose(actual, shipped, rtol=1e-3, atol=1e-7)  # what onnx's own runner demands


def test_random_weights_give_the_same_output(name: str) -> None:
    model = onnx.load(FOLDER / f"{name}.onnx")
    randomise(model)
    result = bnfold.fold(model)
    assert batchnorms(result.model) == LEFT[name]
    (expected,) = run(model, feeds(model, 0))
    (actual,) = run(result.model, feeds(model, 0))
    assert np.ptp(expected) > 0.1 * np.abs(expected).max(), "an output that is flat proves nothing"
    assert np.abs(expected - actual).max() <= 5e-5 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["light_inception_v2"], indirect=True)
def test_the_scale_layers_go_with_the_batchnorms(name: str) -> None:
    result = bnfold.fold(onnx.load(FOLDER / f"{name}.onnx"))
    left = {node.op_type for node in result.model.graph.node}
    assert not left & {"BatchNormalization", "Mul", "Add", "Unsqueeze"}


@pytest.mark.parametrize("name", ["light_densenet121"], indirect=True)
def test_what_is_read_by_several_concats_stays_for_that_reason(name: str) -> None:
    result = bnfold.fold(onnx.load(FOLDER / f"{name}.onnx"))
    assert {site.reason.code for site in result.kept if site.reason} == {"BN301"}
