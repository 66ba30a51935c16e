"""What ONNX's checker says, at the cost of the graph alone."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest

from bnfold.gate.checker import complaint
from bnfold.gate.rules import RULES
from bnfold.gate.work import answer
from tests.gate.models import asked, job, layers, save
from tests.graphs import build

LARGE = 1 << 25  # floats: 128 MiB
RUN_NOTHING = tuple(code for code in RULES if code[:2] in ("M2", "M3") and code != "M206")


def refused(tmp_path: Path, model: onnx.ModelProto, data: str = "") -> str:
    (finding,) = answer(job(save(model, tmp_path / "net.onnx", data=data), "M302"))
    return finding.found.one


@pytest.mark.parametrize("data", ["", "net.bin"])
def test_a_model_that_the_checker_refuses_is_not_valid(tmp_path: Path, data: str) -> None:
    """Whether its weights are in the file or not: they are not what is looked at."""
    model = layers()
    assert asked(save(model, tmp_path / "good.onnx", data=data and "good.bin"), "M302") == []
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("colour", 3))
    said = refused(tmp_path, model, data)
    assert said == "ONNX's checker refuses the model: Unrecognized attribute: colour for operator Conv"
    model = layers()
    model.graph.output[0].type.tensor_type.ClearField("shape")
    assert refused(tmp_path, model, data).endswith("Field 'shape' of 'type' is required but missing")


def test_other_rules_are_asked_of_it_nevertheless(tmp_path: Path) -> None:
    model = layers()
    model.graph.output[0].type.tensor_type.ClearField("shape")
    assert asked(save(model, tmp_path / "net.onnx"), "M101", "M302") == ["M101", "M302"]


def test_nodes_that_are_not_sorted_are_the_matter_of_another_rule(tmp_path: Path) -> None:
    model = layers("b = Relu(a)  y = Neg(b)")
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    assert asked(save(model, tmp_path / "net.onnx"), "M302", "M303") == ["M303"]


@pytest.mark.parametrize(("opset", "version"), [(999, 8), (18, 999)])
def test_a_model_that_is_newer_than_the_checker_is_not_judged_by_it(
    tmp_path: Path, opset: int, version: int
) -> None:
    import onnx_ir as ir

    model = layers()
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("colour", 3))
    model.opset_import[0].version, model.ir_version = opset, version
    path = save(model, tmp_path / "net.onnx")
    assert complaint(path, ir.from_proto(model)) is None


def test_rules_that_run_nothing_take_no_memory_for_the_weights(tmp_path: Path) -> None:
    """The weight is a hole in its file, which costs no disk."""
    model = build("g (float[1,32768] x) => (float[1,1024] y) { y = MatMul(x, w) }", {}, opset=18)
    weight = model.graph.initializer.add(name="w", data_type=1, dims=[LARGE // 1024, 1024], data_location=1)
    for key, value in {"location": "net.bin", "offset": "0", "length": str(4 * LARGE)}.items():
        weight.external_data.add(key=key, value=value)
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    with (tmp_path / "net.bin").open("wb") as data:
        data.truncate(4 * LARGE)
        data.seek(4 * LARGE - 4)
        data.write(np.float32(np.nan).tobytes())
    assert asked(save(layers(), tmp_path / "other.onnx"), *RUN_NOTHING) == []  # which loads what is needed
    tracemalloc.start()
    try:
        assert asked(path, *RUN_NOTHING) == ["M201"]
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 16 * 2**20, f"{most:,} bytes"
