"""Where nodes ran, from a profile; on the CPU for real, for CUDA from a profile as it is written there."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from bnfold.errors import ModelError, ProviderError
from bnfold.runtime.placement import PlacedNode, check, elsewhere, parse, placements, sentence
from tests.graphs import build, statistics, weight

HAS_CUDA = "CUDAExecutionProvider" in ort.get_available_providers()
CONV = "g (float[1,2,5,5] x) => (float[1,4,3,3] y) { [c] m = Conv(x, w) [r] y = Relu(m) }"
X = {"x": np.random.default_rng(0).normal(size=(1, 2, 5, 5)).astype(np.float32)}


def event(name: str, op: str, provider: str, kinds: tuple[str, ...] = ("float",)) -> dict[str, Any]:
    """One kernel's event, as ONNX Runtime 1.31 writes it; what is not read is left out."""
    details = {
        "op_name": op,
        "provider": f"{provider}ExecutionProvider",
        "input_type_shape": [{kind: [1, 4]} for kind in kinds],
        "node_index": "0",
    }
    return {"cat": "Node", "dur": 7, "ts": 1, "ph": "X", "name": f"{name}_kernel_time", "args": details}


PROFILE = [
    {"cat": "Session", "dur": 9, "ts": 0, "ph": "X", "name": "model_run", "args": {}},
    event("stem", "Conv", "CUDA", ("float", "float")),
    event("shape", "Shape", "CPU"),
    event("rows", "MatMul", "CPU", ("int64", "int64")),
    event("body/relu", "Relu", "CUDA"),
    event("body/relu", "Relu", "CUDA"),
    event("ending_kernel_time", "Gemm", "Tensorrt"),
]


def test_a_profile_is_read_provider_by_provider() -> None:
    placed = parse(PROFILE)
    assert placed == {
        "cuda": (PlacedNode("stem", "Conv", True), PlacedNode("body/relu", "Relu", True)),
        "cpu": (PlacedNode("shape", "Shape", True), PlacedNode("rows", "MatMul", False)),
        "tensorrt": (PlacedNode("ending_kernel_time", "Gemm", True),),
    }


def test_shapes_and_integers_may_stay_on_the_cpu() -> None:
    placed = parse(PROFILE[:-1])
    check(placed, "cuda")
    assert [node.name for node in elsewhere(placed, "cuda")] == ["shape", "rows"]
    assert sentence(placed, "cuda") == (
        "2 nodes ran on cuda, and 2 nodes elsewhere: shape (Shape), rows (MatMul)."
    )


@pytest.mark.parametrize("operator", ["Conv", "FusedMatMul", "BatchNormalization", "MaxPool"])
def test_work_on_the_cpu_is_an_error(operator: str) -> None:
    for kind in ("float", "float16", "double"):
        placed = parse([*PROFILE[:-1], event("late", operator, "CPU", (kind,))])
        with pytest.raises(ProviderError, match=rf"on cpu instead of cuda: late \({operator}\)"):
            check(placed, "cuda")


def test_a_long_list_is_cut() -> None:
    placed = parse([event("n", "Relu", "CUDA"), *(event(f"n{i}", "Conv", "CPU") for i in range(5))])
    assert sentence(placed, "cuda").endswith("n2 (Conv) and 2 more.")
    with pytest.raises(ProviderError, match="5 nodes"):
        check(placed, "cuda")


def subgraph(number: int) -> dict[str, Any]:
    """The event of a subgraph of OpenVINO, as ONNX Runtime 1.24 writes it."""
    operator = f"OpenVINO-EP-subgraph_{number}"
    return event(f"OpenVINOExecutionProvider_{operator}_{number - 1}", operator, "OpenVINO")


def test_a_subgraph_is_one_node() -> None:
    whole = parse([subgraph(1)])
    check(whole, "openvino")
    assert sentence(whole, "openvino") == "1 subgraph ran on openvino, and nothing elsewhere."
    parts = parse([subgraph(1), event("s", "Shape", "CPU", ("int64",)), subgraph(2)])
    check(parts, "openvino")
    assert sentence(parts, "openvino") == "2 subgraphs ran on openvino, and 1 node elsewhere: s (Shape)."


def test_work_that_a_subgraph_left_out_is_an_error() -> None:
    placed = parse([subgraph(1), event("late", "ConvTranspose", "CPU")])
    with pytest.raises(ProviderError, match=r"on cpu instead of openvino: late \(ConvTranspose\)"):
        check(placed, "openvino")


def test_a_provider_that_ran_nothing_was_not_measured() -> None:
    with pytest.raises(ProviderError, match="No node of the model ran on azure, all did on cpu"):
        check(parse([event("a", "Add", "CPU")]), "azure")
    check(parse([event("s", "Shape", "CPU", ("int64",))]), "azure")  # nothing is computed with floats at all
    check(parse([]), "azure")


def test_the_installed_azure_provider_runs_no_model() -> None:
    if "AzureExecutionProvider" not in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has no Azure provider")
    placed = placements(build(CONV, {"w": weight(4, 2, 3, 3)}), X, provider="azure")
    assert set(placed) == {"cpu"}
    with pytest.raises(ProviderError, match="No node of the model ran on azure"):
        check(placed, "azure")


def test_every_node_of_a_cpu_session_runs_on_the_cpu() -> None:
    placed = placements(build(CONV, {"w": weight(4, 2, 3, 3)}), X, optimized="off")
    assert placed == {"cpu": (PlacedNode("c", "Conv", True), PlacedNode("r", "Relu", True))}
    assert sentence(placed, "cpu") == "2 nodes ran on cpu, and nothing elsewhere."
    check(placed, "cpu")


def test_the_optimizer_shows_in_what_ran() -> None:
    text = CONV.replace("Relu(m)", "BatchNormalization(m, scale, bias, mean, var)")
    model = build(text, {"w": weight(4, 2, 3, 3), **statistics(4)})
    off = placements(model, X, optimized="off")["cpu"]
    default = placements(model, X)["cpu"]
    assert "BatchNormalization" in {node.op_type for node in off}
    assert "BatchNormalization" not in {node.op_type for node in default}


def test_the_branch_that_ran_and_a_loop_once() -> None:
    model = build(
        """g (float[2] x) => (float[2] y) {
            [times] n = Constant <value = int64 {3}> ()
            [always] t = Constant <value = bool {1}> ()
            [loop] y = Loop (n, t, x) <body = step (int64 i, bool c, float[2] a) => (bool d, float[2] b) {
                [d] d = Identity (c)
                [twice] b = Add (a, a)
            }>
        }"""
    )
    placed = placements(model, {"x": np.ones(2, np.float32)}, optimized="off")
    assert [node.op_type for node in placed["cpu"]].count("Add") == 1


def test_a_run_that_fails_is_an_error_of_the_model() -> None:
    with pytest.raises(ModelError, match="could not run"):
        placements(build(CONV, {"w": weight(4, 2, 3, 3)}), {"x": np.zeros((1, 3, 5, 5), np.float32)})


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_CUDA, reason="needs onnxruntime-gpu and a GPU")
def test_a_convolution_runs_on_the_gpu() -> None:
    placed = placements(build(CONV, {"w": weight(4, 2, 3, 3)}), X, provider="cuda")
    check(placed, "cuda")
    assert any(node.op_type in ("Conv", "FusedConv") for node in placed["cuda"])
