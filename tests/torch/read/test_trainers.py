"""Files as public trainers write them are exported, and whatever a file lacks is asked for once."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("safetensors")

from click.testing import CliRunner  # noqa: E402

from bnfold_cli import main  # noqa: E402
from tests.torch import trainers  # noqa: E402
from tests.torch.trainer_nets import ARCH  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")

ASKED = re.compile(r"(?:[Aa]dd: |(?:Type|For example): bnfold )(?P<words>.+)")
NETWORKS = {"normed_weights": "WeightNormed", "with_observers": "Quantised"}
KEYS = {"timm": "state_dict_ema", "averaged_weights": "model_ema", "ema_wrapper": "ema_model"}
KEYS |= {"yolov5_unstripped": "ema"}


def answered(message: str, name: str) -> list[str]:
    """The options that a message asks for, with what only a person knows filled in."""
    found = ASKED.search(message)
    assert found, f"no line to type: {message}"
    lines = found["words"].split("; or: ")
    chosen = (
        next((line for line in lines if f"--key {KEYS[name]}" in line), None) if name in KEYS else lines[0]
    )
    assert chosen, f"none of {lines} is about {KEYS[name]}"
    chosen = chosen.replace("package.module:factory", f"{ARCH}:{NETWORKS.get(name, 'Net')}")
    chosen = chosen.replace("<height>x<width>", "16x16").replace("<channels>", "3")
    assert "<" not in chosen, f"not known to a person: {chosen}"
    return shlex.split(chosen)


def agrees(path: Path, network: torch.nn.Module) -> bool:
    """Whether an ONNX file computes what a network does, to the digits of the file's type."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    (port,) = session.get_inputs()
    half = port.type == "tensor(float16)"
    image = np.random.default_rng(0).normal(size=port.shape).astype(np.float16 if half else np.float32)
    (found,) = session.run(None, {port.name: image})
    with torch.no_grad():
        expected = network.eval()(torch.from_numpy(image).float()).numpy()
    return bool(np.abs(found - expected).max() <= (2e-2 if half else 2e-5) * np.abs(expected).max())


@pytest.mark.parametrize("make", trainers.MAKERS, ids=lambda make: make.__name__)
def test_a_file_is_exported_after_at_most_one_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: trainers.Maker
) -> None:
    path, network = make(tmp_path)
    out, name = tmp_path / "out.onnx", make.__name__
    arguments = ["export", str(path), "-o", str(out), "--no-bench"]
    monkeypatch.setattr(sys, "argv", ["bnfold", *arguments])
    done = CliRunner().invoke(main, arguments, prog_name="bnfold")
    if done.exit_code:
        assert done.exit_code == 2, done.output
        words = answered(done.stderr, name)
        done = CliRunner().invoke(
            main, words if words[0] == "export" else [*arguments, *words], prog_name="bnfold"
        )
    assert done.exit_code == 0, done.output
    left = [node.op_type for node in onnx.load(out).graph.node]
    assert "BatchNormalization" not in left or name == "with_observers"
    assert agrees(out, network)
