"""PyTorch's sequence networks, as both of its exporters write them, lose every BatchNorm."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

import bnfold
from models.batchnorms import seeded_statistics
from tests.graphs import operators, run
from tests.sequence_networks import NETWORKS

OPEN: dict[str, Any] = {"nothing": {}, "batch": {0: "n"}, "batch and length": {0: "n", 3: "t"}}


def exported(name: str, what: str, *, dynamo: bool) -> tuple[onnx.ModelProto, tuple[int, ...]]:
    """A network with random statistics, and the shape of an input; some sizes are left open."""
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    module = seeded_statistics(make()).eval()
    x, sizes = torch.zeros(shape), {"x": OPEN[what]} if OPEN[what] else None
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of deprecation, and of what a trace does not see
        if dynamo:
            dims = {"x": dict.fromkeys(OPEN[what], torch.export.Dim.DYNAMIC)} if sizes else None
            program = torch.onnx.export(
                module, (x,), dynamo=True, dynamic_shapes=dims, verbose=False, input_names=["x"]
            )
            return program.model_proto, shape
        torch.onnx.export(
            module, (x,), buffer, dynamo=False, opset_version=17, input_names=["x"], dynamic_axes=sizes
        )
    return onnx.load_from_string(buffer.getvalue()), shape


def optimised_nodes(model: onnx.ModelProto, folder: Path) -> int:
    """How many nodes ONNX Runtime's own graph has."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return len(onnx.load(options.optimized_model_filepath).graph.node)


@pytest.mark.parametrize(
    ("name", "what", "dynamo"),
    [
        ("CRNN", "nothing", False),
        ("CRNN", "batch and length", False),
        ("CRNN", "nothing", True),
        ("DeepSpeech", "nothing", False),
        ("DeepSpeech", "batch and length", False),
        ("DeepSpeech", "nothing", True),
        ("DeepSpeech", "batch", True),
    ],
)
def test_no_batchnorm_stays(name: str, what: str, dynamo: bool, tmp_path: Path) -> None:
    model, shape = exported(name, what, dynamo=dynamo)
    result = bnfold.fold(model)
    assert "BatchNormalization" in operators(model)
    assert "BatchNormalization" not in operators(result.model), [site.reason for site in result.kept]
    assert optimised_nodes(result.model, tmp_path) < optimised_nodes(model, tmp_path)
    sizes = [
        shape,
        *([(3, *shape[1:])] if 0 in OPEN[what] else []),
        *([(1, *shape[1:3], 23)] if 3 in OPEN[what] else []),
    ]
    for seed, size in enumerate(sizes):
        x = np.random.default_rng(seed).normal(size=size).astype(np.float32)
        [expected], [actual] = run(model, {"x": x}), run(result.model, {"x": x})
        assert np.abs(expected - actual).max() <= 1e-6 * np.abs(expected).max()
