"""Names of providers, what they are set to, and what to do where one is not there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import onnxruntime as ort
import pytest

from bnfold.errors import InputError, MissingExtraError, ProviderError
from bnfold.runtime import providers
from bnfold.runtime.providers import different, full_name, options, provider_list, short_name


def build(*names: str) -> Any:
    """An ONNX Runtime with some providers."""
    full = [f"{name}ExecutionProvider" for name in (*names, "CPU")]
    return SimpleNamespace(get_available_providers=lambda: full, get_all_providers=ort.get_all_providers)


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("CUDAExecutionProvider", "cuda"),
        ("OpenVINO", "openvino"),
        ("cpu", "cpu"),
        ("CoreMLExecutionProvider", "coreml"),
        ("DirectML", "dml"),
        ("DmlExecutionProvider", "dml"),
    ],
)
def test_every_name_has_one_short_form(name: str, short: str) -> None:
    assert short_name(name) == short


def test_every_provider_of_an_installation_is_known_by_its_short_name() -> None:
    for full in ort.get_available_providers():
        assert full_name(ort, short_name(full)) == full
    assert full_name(build("FromTheFuture"), "fromthefuture") == "FromTheFutureExecutionProvider"


@pytest.mark.parametrize(
    ("provider", "fix"),
    [
        ("cuda", 'pip install "bnfold[gpu]"'),
        ("tensorrt", 'pip install "bnfold[gpu]"'),
        ("openvino", "pip install onnxruntime-openvino"),
        ("dml", "pip install onnxruntime-directml"),
        ("rocm", "pip install onnxruntime-rocm"),
        ("xnnpack", "https://onnxruntime.ai/docs/execution-providers/"),
    ],
)
def test_a_provider_that_this_build_lacks_says_how_to_get_it(provider: str, fix: str) -> None:
    with pytest.raises(ProviderError, match=rf"not have the requested {provider} .*azure, cpu") as caught:
        full_name(build("Azure"), provider)
    assert fix in caught.value.fix


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        *[("cuad", "cuda"), ("CUDA", "cuda"), ("opnvino", "openvino"), ("directml", "dml")],
        *[("gpu", "cuda"), ("GPU", "cuda"), ("nvidia", "cuda"), ("trt", "tensorrt"), ("intel", "openvino")],
    ],
)
def test_an_unknown_name_is_corrected(written: str, meant: str) -> None:
    with pytest.raises(ProviderError, match=f"'{written}' is not a provider") as caught:
        full_name(build("Azure"), written)
    assert caught.value.fix == f"Did you mean {meant}? The installed one has: azure, cpu."


def test_a_name_like_no_other_lists_what_there_is() -> None:
    with pytest.raises(ProviderError) as caught:
        full_name(build(), "zzzz")
    assert caught.value.fix == "The installed one has: cpu."


def test_what_cuda_is_set_to() -> None:
    assert options("cuda") == {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
    assert options("cuda", "defaults") == {}
    assert options("cuda", "tf32")["use_tf32"] == "1"
    assert options("cuda", "exhaustive") == {"use_tf32": "0", "cudnn_conv_algo_search": "EXHAUSTIVE"}
    assert options("cuda", "graph")["enable_cuda_graph"] == "1"
    assert different("cuda", providers.OPTIONS) == ("bnfold", "defaults", "tf32", "exhaustive", "graph")


def test_options_that_a_provider_does_not_have() -> None:
    with pytest.raises(InputError, match="cpu provider has no set of options 'graph'") as caught:
        options("cpu", "graph")
    assert caught.value.fix == "Choose from: bnfold, defaults."
    with pytest.raises(InputError, match="'fastest'") as caught:
        options("cuda", "fastest")
    assert caught.value.fix == "Choose from: bnfold, defaults, tf32, exhaustive, graph."
    assert different("cpu", ("graph", "defaults", "bnfold")) == ("defaults",)  # the CPU has none to set


def test_a_provider_with_threads_of_its_own_gets_their_number() -> None:
    assert options("openvino", threads=2) == {"precision": "ACCURACY", "num_of_threads": "2"}
    assert options("openvino", "defaults", threads=2) == {"num_of_threads": "2"}
    assert options("openvino") == {"precision": "ACCURACY"}
    assert options("cpu", threads=2) == {}


def test_who_takes_what_a_provider_leaves() -> None:
    assert provider_list(build(), "cpu") == [("CPUExecutionProvider", {})]
    names = [name for name, _ in provider_list(build("Tensorrt", "CUDA"), "tensorrt")]
    assert names == ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    assert [name for name, _ in provider_list(build("XNNPACK"), "xnnpack")] == [
        "XNNPACKExecutionProvider",
        "CPUExecutionProvider",
    ]


def test_cuda_libraries_are_loaded_for_cuda_alone(capsys: pytest.CaptureFixture[str]) -> None:
    runtime = build("CUDA", "OpenVINO")
    runtime.preload_dlls = lambda: print("not found: cudart")
    provider_list(runtime, "openvino")
    assert capsys.readouterr() == ("", "")
    provider_list(runtime, "cuda")
    assert capsys.readouterr() == ("", "not found: cudart\n")


@pytest.mark.parametrize("provider", ["cuda", "tensorrt", "openvino"])
def test_what_an_installed_provider_may_lack(provider: str) -> None:
    said = providers.how_to_start(provider)
    assert ("cuDNN" in said) == (provider != "openvino")
    assert ("execution-providers" in said) == (provider != "cuda")


def test_without_onnxruntime_there_is_no_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(providers.sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"bnfold\[cpu\]"):
        providers.import_runtime()
