"""Every session runs under stated conditions, on the provider asked for, and fails in one clear line."""

from __future__ import annotations

import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import numpy_helper, parser

from bnfold.errors import InputError, MissingExtraError, ModelError, ProviderError
from bnfold.runtime import bounded_run, providers, sessions

HAS_CUDA = "CUDAExecutionProvider" in ort.get_available_providers()
X = {"x": np.arange(8, dtype=np.float32).reshape(2, 4)}


def weighted() -> onnx.ModelProto:
    """`y = x·w` with a weight that is large enough to be stored as external data."""
    model = parser.parse_model(
        '<ir_version: 9, opset_import: ["": 18]> g (float[N, 4] x) => (float[N, 80] y) { y = MatMul(x, w) }'
    )
    weight = np.random.default_rng(0).standard_normal((4, 80)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    return model


def expected() -> np.ndarray:
    return X["x"] @ numpy_helper.to_array(weighted().graph.initializer[0])


def test_proto_ir_model_and_path_run_alike(tmp_path: Path):
    onnx.save(weighted(), tmp_path / "m.onnx")
    for model in (weighted(), ir.from_proto(weighted()), tmp_path / "m.onnx", str(tmp_path / "m.onnx")):
        made = sessions.session(model, optimized="off", threads=1)
        np.testing.assert_allclose(sessions.run(made, X)[0], expected(), rtol=1e-5)


def test_external_data_by_path_and_in_an_ir_model(tmp_path: Path):
    ir.save(ir.from_proto(weighted()), tmp_path / "m.onnx", external_data="m.data")
    assert (tmp_path / "m.data").stat().st_size >= 4 * 80 * 4
    for model in (tmp_path / "m.onnx", ir.load(tmp_path / "m.onnx")):
        made = sessions.session(model, optimized="off", threads=1)
        np.testing.assert_allclose(sessions.run(made, X)[0], expected(), rtol=1e-5)


def test_a_model_too_large_for_memory_goes_through_a_file(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sessions, "_IN_MEMORY_LIMIT", 100)
    model = weighted()
    before = model.SerializeToString()
    made = sessions.session(model, optimized="default", threads=1)
    np.testing.assert_allclose(sessions.run(made, X)[0], expected(), rtol=1e-5)
    assert model.SerializeToString() == before


def test_a_proto_whose_external_data_is_not_there(tmp_path: Path):
    ir.save(ir.from_proto(weighted()), tmp_path / "m.onnx", external_data="m.data")
    model = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    with pytest.raises(ModelError, match="Give a model with external data by its path"):
        sessions.session(model, optimized="off")


@pytest.mark.parametrize("limit", [100, sessions._IN_MEMORY_LIMIT])
def test_external_data_in_an_attribute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int):
    """A Constant may keep its value in a file too, beside one that is an initializer."""
    monkeypatch.setattr(sessions, "_IN_MEMORY_LIMIT", limit)
    values = np.arange(80, dtype=np.float32)
    (tmp_path / "c.data").write_bytes(values.tobytes())
    tensor = ir.ExternalTensor(
        "c.data", 0, 320, ir.DataType.FLOAT, shape=ir.Shape([80]), name="c", base_dir=str(tmp_path)
    )
    model = ir.from_proto(weighted())
    (product,) = model.graph
    product.outputs[0].name = "m"
    constant = ir.node("Constant", [], attributes={"value": tensor})
    total = ir.node("Add", [product.outputs[0], constant.outputs[0]])
    model.graph.extend([constant, total])
    model.graph.outputs[0] = total.outputs[0]
    total.outputs[0].name, constant.outputs[0].name = "y", "c"
    total.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    total.outputs[0].shape = ir.Shape([None, 80])
    made = sessions.session(model, optimized="off", threads=1)
    np.testing.assert_allclose(sessions.run(made, X)[0], expected() + values, rtol=1e-5)
    assert isinstance(constant.attributes["value"].as_tensor(), ir.ExternalTensor)


def test_conditions_are_pinned():
    levels = {"off": "ORT_DISABLE_ALL", "basic": "ORT_ENABLE_BASIC", "default": "ORT_ENABLE_ALL"}
    for optimized, level in levels.items():
        options = sessions.session(weighted(), optimized=optimized, threads=2).get_session_options()
        assert options.graph_optimization_level == getattr(ort.GraphOptimizationLevel, level)
        assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
        assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    options = sessions.session(weighted(), optimized="default").get_session_options()
    assert options.intra_op_num_threads == sessions.usable_cpus() >= 1


def identity() -> onnx.ModelProto:
    """A model with a node that the optimizer takes out."""
    return parser.parse_model(
        """<ir_version: 9, opset_import: ["": 18]> g (float[2] x) => (float[2] y)
        { i = Identity(x) y = Relu(i) }"""
    )


def test_options_can_be_changed_at_last_and_optimizers_left_out():
    seen: list[int] = []

    def configure(options: ort.SessionOptions) -> None:
        seen.append(options.intra_op_num_threads)
        options.logid = "mine"

    for disabled in ((), ["EliminateIdentity"]):
        made = sessions.session(
            identity(), optimized="default", threads=2, configure=configure, disabled=disabled
        )
        assert made.get_session_options().logid == "mine"
        assert sessions.run(made, {"x": np.array([-1, 2], np.float32)})[0].tolist() == [0, 2]
    assert seen == [2, 2]  # the conditions are set by then


def test_an_optimizer_that_is_left_out_does_nothing(tmp_path: Path):

    def nodes(disabled: list[str]) -> list[str]:
        written = tmp_path / f"{len(disabled)}.onnx"

        def configure(options: ort.SessionOptions) -> None:
            options.optimized_model_filepath = str(written)

        sessions.session(identity(), optimized="basic", configure=configure, disabled=disabled)
        return [node.op_type for node in onnx.load(written).graph.node]

    assert nodes([]) == ["Relu"]
    assert nodes(["EliminateIdentity"]) == ["Identity", "Relu"]


def test_a_call_on_the_host_and_one_on_the_device_give_what_run_gives():
    made = sessions.session(weighted(), optimized="off", threads=1)
    np.testing.assert_allclose(sessions.on_host(made, X)()[0], expected(), rtol=1e-5)
    binding = made.io_binding()
    made.io_binding = lambda: binding  # to look at what the call leaves behind
    call = sessions.on_device(made, X, "cpu")
    binding.clear_binding_outputs()
    binding.bind_output("y", "cpu")
    call()
    np.testing.assert_allclose(binding.copy_outputs_to_cpu()[0], expected(), rtol=1e-5)


def test_outputs_stay_where_they_are_on_a_device():
    """A captured graph is replayed on the addresses of its first run."""
    made = sessions.session(weighted(), optimized="off", threads=1)
    binding = made.io_binding()
    made.io_binding = lambda: binding
    call = sessions.on_device(made, X, "cpu")
    addresses = []
    for _ in range(3):
        call()
        addresses.append([value.data_ptr() for value in binding.get_outputs()])
    assert addresses[0] == addresses[1] == addresses[2]
    np.testing.assert_allclose(binding.get_outputs()[0].numpy(), expected(), rtol=1e-5)


def test_a_message_of_a_provider_is_without_its_places_in_cpp(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_arguments, **_options):
        raise RuntimeError(
            "[ONNXRuntimeError] : 1 : FAIL : During initialization: /onnxruntime/core/backend.cc:136 "
            "Backend::Backend(std::unique_ptr<Proto>&) /onnxruntime/core/interface.cc:28 auto B(Func&&) "
            "[with bool typed = false] [OpenVINO-EP] Exception while Reading network: Check failed\nand more"
        )

    monkeypatch.setattr(ort, "InferenceSession", refuse)
    with pytest.raises(
        ModelError, match="model: During initialization: Exception while Reading network: Check"
    ):
        sessions.session(weighted(), optimized="off")


def test_outputs_that_are_no_numbers_stay_on_the_host():
    made = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["": 18]> g (float[2] x) => (string[2] y) { y = Cast<to = 8>(x) }"""
    )
    sessions.on_device(sessions.session(made, optimized="off"), {"x": np.ones(2, np.float32)}, "cpu")()


def test_strings_cannot_lie_on_a_device():
    made = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["": 18]> g (string[2] x) => (string[2] y) { y = Identity(x) }"""
    )
    with pytest.raises(ModelError, match="non-string"):
        sessions.on_device(
            sessions.session(made, optimized="off"), {"x": np.array(["a", "b"], object)}, "cpu"
        )


@pytest.mark.parametrize("call", [sessions.on_host, lambda *given: sessions.on_device(*given, "cpu")])
def test_inputs_that_do_not_fit_are_told_before_anything_is_timed(call):
    made = sessions.session(weighted(), optimized="off", threads=1)
    with pytest.raises(ModelError, match="could not run the model"):
        call(made, {"x": np.ones((1, 2, 3), np.float32)})


def test_no_thread_is_no_session():
    with pytest.raises(InputError, match="0 threads"):
        sessions.session(weighted(), optimized="off", threads=0)


def test_silent_replacement_by_the_cpu_is_an_error(monkeypatch: pytest.MonkeyPatch):
    """An ONNX Runtime that lists CUDA and then cannot load its libraries makes a CPU session."""
    asked: list[object] = []
    real = ort.InferenceSession

    def only_cpu(source, options, providers, **rest):
        asked.append(providers)
        return real(source, options, providers=["CPUExecutionProvider"], **rest)

    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(ort, "InferenceSession", only_cpu)
    with pytest.raises(ProviderError, match="silently run on CPUExecutionProvider"):
        sessions.session(weighted(), provider="cuda", optimized="off")
    assert asked[0][0] == ("CUDAExecutionProvider", providers.options("cuda"))
    assert asked[0][1] == ("CPUExecutionProvider", {})


def test_a_failure_of_cuda_itself_is_no_fault_of_the_model(monkeypatch: pytest.MonkeyPatch):
    def broken(*_args, **_options):
        raise RuntimeError("CUDA failure 35: driver version is insufficient for runtime version")

    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(ort, "InferenceSession", broken)
    with pytest.raises(ProviderError, match="driver version is insufficient"):
        sessions.session(weighted(), provider="cuda", optimized="off")


def test_a_model_that_cannot_be_captured_is_said(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_arguments, **_options):
        raise RuntimeError("This session cannot use the CUDA Graph feature as requested by the user")

    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(ort, "InferenceSession", refuse)
    with pytest.raises(ProviderError, match="cannot capture the model") as caught:
        sessions.session(weighted(), provider="cuda", optimized="default", provider_options="graph")
    assert "pip" not in caught.value.fix


def test_missing_onnxruntime(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"bnfold\[cpu\]"):
        sessions.session(weighted(), optimized="off")


def test_unsupported_operator_is_one_clear_line(capfd: pytest.CaptureFixture[str]):
    model = parser.parse_model(
        '<ir_version: 9, opset_import: ["": 18]> g (float[N] x) => (float[N] y) { y = Nope(x) }'
    )
    with pytest.raises(ModelError, match="No Op registered for Nope") as caught:
        sessions.session(model, optimized="off")
    assert "\n" not in caught.value.problem
    assert "ONNXRuntimeError" not in caught.value.problem
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("content", [b"", b"this is no model"])
def test_a_file_that_is_no_model_is_named(tmp_path: Path, content: bytes):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"m\.onnx"):
        sessions.session(tmp_path / "m.onnx", optimized="off")


def test_inputs_that_the_model_rejects(capfd: pytest.CaptureFixture[str]):
    made = sessions.session(weighted(), optimized="off", threads=1)
    for feeds in ({"x": np.zeros((2, 5), np.float32)}, {"x": np.zeros((2, 4))}, {}):
        with pytest.raises(ModelError, match="could not run the model"):
            sessions.run(made, feeds)
    assert capfd.readouterr().err == ""


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_CUDA, reason="needs onnxruntime-gpu and a GPU")
def test_cuda_really_runs_and_without_tf32():
    made = sessions.session(weighted(), provider="cuda", optimized="off")
    assert made.get_provider_options()["CUDAExecutionProvider"]["use_tf32"] == "0"
    np.testing.assert_allclose(sessions.run(made, X)[0], expected(), rtol=1e-5)


def chained() -> onnx.ModelProto:
    """40 products of matrices with themselves: of constants when it is loaded, else when it runs."""
    text = (
        '<ir_version: 9, opset_import: ["": 18]> g (float[1] x) => (float[N, M] y) <int64[2] s = {600, 600}> '
    )
    steps = " ".join(f"c{at + 1} = MatMul(c{at}, c{at})" for at in range(40))
    return parser.parse_model(
        f"{text} {{ c0 = ConstantOfShape <value = float[1] {{0.001}}> (s) {steps} y = Add(x, c40) }}"
    )


@pytest.mark.parametrize("runs", [False, True], ids=["loading", "running"])
def test_loading_and_running_can_be_interrupted(runs: bool) -> None:
    """Both are single calls, in which Python sees no signal."""
    call = partial(sessions.session, chained(), optimized="default", threads=1)
    if runs:
        made = sessions.session(chained(), optimized="off", threads=1)
        call = partial(sessions.run, made, {"x": np.ones(1, np.float32)})
    begun = time.monotonic()
    threading.Timer(0.1, signal.raise_signal, [signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        call()
    interrupted = time.monotonic()
    assert bounded_run.is_left()
    while bounded_run.is_left():
        time.sleep(0.02)
    assert interrupted - begun < time.monotonic() - interrupted + 1


def test_what_takes_too_long_is_an_error_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(function, *_, **__):
        del function
        raise bounded_run.TooLongError("it did not end within 600 seconds")

    made = sessions.session(weighted(), optimized="off")
    monkeypatch.setattr(bounded_run, "run", run)
    with pytest.raises(ModelError, match="could not run the model: it did not end within 600 seconds"):
        sessions.run(made, X)
    with pytest.raises(ModelError, match="cannot load the model: it did not end within 600 seconds"):
        sessions.session(weighted(), optimized="off")


def test_a_tensor_beyond_memory_is_an_error_of_the_model() -> None:
    text = '<ir_version: 9, opset_import: ["": 18]> g (int64[1] x) => (float[N] y) { y = ConstantOfShape(x) }'
    made = sessions.session(parser.parse_model(text), optimized="off", threads=1)
    with pytest.raises(ModelError, match=r"memory|alloc"):
        sessions.run(made, {"x": np.array([1 << 40])})
