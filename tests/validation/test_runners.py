"""How both models are run at a setting, without a GPU: what CUDA would do stands in for itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from bnfold.errors import ModelError, ProviderError
from bnfold.runtime import placement, sessions
from bnfold.runtime.interface import Interface, Port
from bnfold.runtime.placement import PlacedNode
from bnfold.runtime.sessions import Written
from bnfold.validation import runners
from bnfold.validation.output_check import OutputCheck
from bnfold.validation.pairing import pair
from bnfold.validation.runners import Original, Runner, Setting, demand_original, nodes_elsewhere
from tests.graphs import build, weight

HAS_CUDA = "CUDAExecutionProvider" in ort.get_available_providers()
MODEL = build("g (float[N,4] x) => (float[N,8] y) { y = MatMul (x, w) }", {"w": weight(4, 8)})
FEEDS = {"x": np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)}
PORTS = (Port("y", "float32", ("N", 8)),)
SAME = pair(
    Interface((Port("x", "float32", ("N", 8)),), PORTS), Interface((Port("x", "float32", ("N", 8)),), PORTS)
)
TF32 = Setting("cuda", "default", tf32=True)


class Desk:
    """Stands in for `sessions`: a session is its setting, whose outputs a function gives."""

    def __init__(self, outputs: Callable[[Setting], list[Any]], broken: tuple[Setting, ...] = ()) -> None:
        self.outputs, self.broken, self.opened = outputs, broken, list[Setting]()

    def session(
        self,
        _model: object,
        *,
        provider: str,
        optimized: Any,
        threads: int,
        provider_options: str,
        configure: Callable[[ort.SessionOptions], None],
    ) -> Setting:
        assert threads == 2
        options = ort.SessionOptions()
        configure(options)
        assert not options.enable_cpu_mem_arena
        setting = Setting(provider, optimized, provider_options == "tf32")
        self.opened.append(setting)
        if setting in self.broken:
            raise ModelError(f"No kernel at {setting}.")
        return setting

    def run(self, session: Setting, _feeds: object) -> list[Any]:
        return self.outputs(session)


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Desk]:
    def install(outputs: Callable[[Setting], list[Any]], *broken: Setting) -> Desk:
        made = Desk(outputs, broken)
        monkeypatch.setattr(sessions, "session", made.session)
        monkeypatch.setattr(sessions, "run", made.run)
        monkeypatch.setattr(sessions, "demand_arrays", lambda _session: None)
        return made

    return install


def half_rounded(setting: Setting) -> list[Any]:
    """Outputs as TF32 leaves them: factors of 11 bits."""
    y = np.array([[1.0, 0.1, -0.7]], np.float32)
    return [y.astype(np.float16).astype(np.float32) if setting.tf32 else y]


def output_check() -> OutputCheck:
    return OutputCheck(5e-5, 2.0**-24, None)


def test_a_setting_in_words() -> None:
    assert list(map(str, (Setting("cpu", "off"), TF32))) == [
        "cpu, optimizer off",
        "cuda, optimizer default, TF32",
    ]


def test_a_session_is_asked_for_as_the_setting_says(desk: Callable[..., Desk]) -> None:
    made = desk(half_rounded)
    for setting in (Setting("cpu", "off"), Setting("cuda", "default"), TF32):
        assert setting.of(Written("m.onnx"), 2).start() == setting
    assert [setting.tf32 for setting in made.opened] == [False, False, True]


def test_a_real_session_takes_the_setting() -> None:
    options = Setting("cpu", "default").of(Written(MODEL), 2).start().get_session_options()
    assert options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    assert options.intra_op_num_threads == 2


def test_the_original_is_opened_once_a_setting(desk: Callable[..., Desk]) -> None:
    made = desk(half_rounded)
    original = Original("m.onnx", 2)
    for _ in range(3):
        expected = original.expected({})
        assert original.run(Setting("cpu", "off"), {}, expected) is expected
        (y,) = original.run(TF32, {}, expected)
        assert y[0, 1] != expected[0][0, 1]
    assert made.opened == [Setting("cpu", "off"), TF32]


def test_where_the_original_does_not_run_there_is_no_noise(desk: Callable[..., Desk]) -> None:
    made = desk(half_rounded, TF32)
    original = Original("m.onnx", 2)
    expected = original.expected({})
    assert original.run(TF32, {}, expected) is expected
    assert original.run(TF32, {}, expected) is expected
    assert made.opened.count(TF32) == 1


def test_an_original_that_loads_and_does_not_run_elsewhere(desk: Callable[..., Desk]) -> None:
    def outputs(setting: Setting) -> list[Any]:
        if setting.provider == "cuda":
            raise ModelError("Out of memory.")
        return half_rounded(setting)

    desk(outputs)
    original = Original("m.onnx", 2)
    assert original.run(Setting("cuda", "off"), {}, expected := original.expected({})) is expected
    assert dict(original.repeatability((Setting("cpu", "off"), Setting("cuda", "off")), {})) == {"cpu": 0.0}


def test_an_original_that_does_not_load_is_an_error(desk: Callable[..., Desk]) -> None:
    desk(half_rounded, Setting("cpu", "off"))
    with pytest.raises(ModelError, match="No kernel"):
        Original("m.onnx", 2)


def test_the_floor_is_the_difference_of_a_second_run(desk: Callable[..., Desk]) -> None:
    count = iter(range(100))

    def outputs(setting: Setting) -> list[Any]:
        return [np.array([4.0, 1.0 + (setting.provider == "cuda") * 0.01 * next(count)]), np.array([3])]

    desk(outputs)
    original = Original("m.onnx", 2)
    floors = dict(original.repeatability((Setting("cpu", "off"), Setting("cuda", "off")), {}))
    assert floors == {"cpu": 0.0, "cuda": pytest.approx(0.01 / 4)}
    assert dict(Original(MODEL, 2).repeatability((), {})) == {}


def test_a_real_run_repeats_on_the_cpu() -> None:
    assert dict(Original(MODEL, 1).repeatability((Setting("cpu", "off"),), FEEDS)) == {"cpu": 0.0}


def test_a_folded_model_that_does_not_load_is_an_outcome(desk: Callable[..., Desk]) -> None:
    desk(half_rounded, TF32)
    runner = Runner.of(Written("f.onnx"), SAME, TF32, [output_check()], 2)
    assert runner.run({}) is None
    assert runner.problem == (
        "The other model does not load (cuda, optimizer default, TF32). "
        "No kernel at cuda, optimizer default, TF32."
    )
    runner.compare({}, [None], half_rounded(TF32), Original("m.onnx", 2))
    assert (list(runner.checks(PORTS)), runner.outputs[0].runs) == ([], [])


def test_a_folded_model_that_stops_running_is_an_outcome() -> None:
    runner = Runner.of(Written(MODEL), SAME, Setting("cpu", "off"), [output_check()], 1)
    original = Original(MODEL, 1)
    runner.compare(FEEDS, [None], original.expected(FEEDS), original)
    assert [check.passed for check in runner.checks(PORTS)] == [True]
    runner.compare({"x": np.zeros((3, 5), np.float32)}, [None], original.expected(FEEDS), original)
    assert (runner.problem or "").startswith("The other model does not run (cpu, optimizer off). ")
    assert list(runner.checks(PORTS)) == []


def test_the_row_with_tf32_is_measured_against_the_original_with_tf32(desk: Callable[..., Desk]) -> None:
    made = desk(half_rounded)
    original = Original("m.onnx", 2)
    true = [half_rounded(Setting("cpu", "off"))[0].astype(np.float64)]
    checks = []
    for setting in (Setting("cuda", "default"), TF32):
        runner = Runner.of(Written("f.onnx"), SAME, setting, [output_check()], 2)
        runner.compare(FEEDS, true, original.expected(FEEDS), original)
        checks += runner.checks(PORTS)
    plain, row = checks
    assert (plain.row, row.row) == ("", "tf32")
    assert (plain.error, plain.passed) == (0.0, True)
    assert row.error == row.original_error > 1e-5
    assert row.ratio == pytest.approx(1.0)
    assert not row.fails
    assert {setting.tf32 for setting in made.opened if setting.provider == "cpu"} == {False}


CONV, SHAPE = PlacedNode("stem", "Conv", True), PlacedNode("size", "Shape", True)


@pytest.fixture
def placed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    def install(found: placement.Placements | ModelError) -> list[dict[str, Any]]:
        asked: list[dict[str, Any]] = []

        def placements(_model: object, feeds: object, **how: Any) -> placement.Placements:
            asked.append({"feeds": feeds, **how})
            if isinstance(found, ModelError):
                raise found
            return found

        monkeypatch.setattr(runners.placement, "placements", placements)
        return asked

    return install


def test_nodes_that_may_run_elsewhere_are_named(placed: Callable[..., list[dict[str, Any]]]) -> None:
    asked = placed({"cuda": (CONV,), "cpu": (SHAPE,)})
    assert list(nodes_elsewhere(MODEL, SAME, ("cpu", "cuda"), FEEDS, 2)) == [("cuda", ("size",))]
    assert asked == [{"feeds": FEEDS, "provider": "cuda", "optimized": "off", "threads": 2}]


def test_a_convolution_elsewhere_is_an_error(placed: Callable[..., list[dict[str, Any]]]) -> None:
    placed({"cuda": (SHAPE,), "cpu": (CONV,)})
    with pytest.raises(ProviderError, match=r"on cpu instead of cuda: stem \(Conv\)"):
        list(nodes_elsewhere(MODEL, SAME, ("cuda",), FEEDS, 2))


@pytest.mark.parametrize(("provider", "accused"), [("openvino", False), ("cpu", True)])
def test_a_provider_that_runs_neither_model_accuses_nobody(
    desk: Callable[..., Desk], provider: str, accused: bool
) -> None:
    setting = Setting(provider, "default")
    desk(lambda _setting: [np.ones(3, np.float32)], setting)
    original = Original(MODEL, 2)
    runner = Runner.of(Written(MODEL), SAME, setting, [output_check()], 2)
    assert runner.run(FEEDS) is None
    assert "does not load" in (runner.problem or "")
    if accused:
        demand_original(original, [runner], FEEDS)
    else:
        with pytest.raises(ProviderError, match="openvino provider does not run the original either"):
            demand_original(original, [runner], FEEDS)


def test_a_fold_alone_that_does_not_run_is_accused(desk: Callable[..., Desk]) -> None:
    setting = Setting("openvino", "default")
    desk(lambda _setting: [np.ones(3, np.float32)])
    runner = Runner.of(Written(MODEL), SAME, setting, [output_check()], 2)
    runner.problem = "The other model does not run."
    demand_original(Original(MODEL, 2), [runner], FEEDS)


def test_a_model_that_does_not_run_has_no_places(placed: Callable[..., list[dict[str, Any]]]) -> None:
    asked = placed(ModelError("It does not run."))
    assert list(nodes_elsewhere(MODEL, SAME, ("cuda",), FEEDS, 2)) == []
    assert len(asked) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_CUDA, reason="needs onnxruntime-gpu and a GPU")
def test_tf32_is_coarser_than_float32_on_a_gpu() -> None:
    w, x = weight(256, 256), np.random.default_rng(0).normal(size=(64, 256)).astype(np.float32)
    model = build("g (float[N,256] x) => (float[N,256] y) { y = MatMul (x, w) }", {"w": w})
    true = [x.astype(np.float64) @ w]
    original = Original(model, 1)
    errors = []
    for setting in (Setting("cuda", "default"), TF32):
        runner = Runner.of(Written(model), SAME, setting, [output_check()], 1)
        runner.compare({"x": x}, true, original.expected({"x": x}), original)
        (check,) = runner.checks(PORTS)
        errors.append(check.error)
    assert errors[0] < 1e-6
    assert errors[1] > 10 * errors[0]  # on a GPU before Ampere there is no TF32
    assert list(nodes_elsewhere(model, SAME, ("cuda",), {"x": x}, 1)) == [("cuda", ())]
