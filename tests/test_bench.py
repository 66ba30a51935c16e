"""A clear difference is found, an absent one is not claimed, and the sentence fits the figures."""

from __future__ import annotations

import gc

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper, parser

from bnfold import bench
from bnfold.bench import Benchmark, Row, benchmark
from bnfold.errors import InputError, ModelError, ProviderError

HAS_CUDA = "CUDAExecutionProvider" in ort.get_available_providers()
SIZE = 256


def chain(length: int) -> onnx.ModelProto:
    """`length` multiplications of a square matrix: work in proportion, nothing for an optimizer."""
    steps = " ".join(f"v{i + 1} = MatMul(v{i}, w)" for i in range(length - 1))
    made = parser.parse_model(
        f"""<ir_version: 9, opset_import: ["": 18]> g (float[N, {SIZE}] v0) => (float[N, {SIZE}] y)
        {{ {steps} y = MatMul(v{length - 1}, w) }}"""
    )
    weight = np.random.default_rng(0).standard_normal((SIZE, SIZE)) / np.sqrt(SIZE)
    made.graph.initializer.append(numpy_helper.from_array(weight.astype(np.float32), "w"))
    return made


def test_less_work_is_faster_and_more_is_slower():
    result = benchmark(chain(40), chain(4), seconds=1.0)
    assert [row.optimizer for row in result.rows] == ["default", "off"]
    assert (result.provider, result.threads, result.shapes) == ("cpu", 1, {"v0": (1, SIZE)})
    for row in result.rows:
        assert row.verdict == "faster"
        assert 1 < row.low <= row.ratio <= row.high
        assert row.ratio > 2  # ten times the work; the machine may be busy
        assert row.ratio == pytest.approx(row.original_ms / row.folded_ms)
        assert 0 < row.folded_ms <= row.folded_p90_ms
        assert row.original_ms <= row.original_p90_ms
        assert row.rounds >= bench.MIN_ROUNDS
    slower = benchmark(chain(4), chain(40), seconds=0.5)
    assert {row.verdict for row in slower.rows} == {"slower"}


def test_the_same_model_twice_is_about_as_fast():
    for row in benchmark(chain(8), chain(8), seconds=2.0).rows:
        assert 1 / 1.2 < row.ratio < 1.2


def test_rounds_are_what_was_asked_for():
    result = benchmark(chain(1), chain(1), rounds=9)
    assert [row.rounds for row in result.rows] == [12, 12]  # the same number on each of four loads


def test_given_inputs_are_used():
    x = np.zeros((5, SIZE), np.float32)
    assert benchmark(chain(1), chain(1), rounds=4, inputs={"v0": x}).shapes == {"v0": (5, SIZE)}
    with pytest.raises(InputError, match="named x"):
        benchmark(chain(1), chain(1), rounds=4, inputs={"x": x})


def test_progress_and_garbage_collection():
    seen: list[tuple[int, int]] = []
    benchmark(chain(1), chain(1), rounds=4, on_progress=lambda *step: seen.append(step))
    assert seen == [(done, 8) for done in range(1, 9)]
    assert gc.isenabled()


def test_two_models_with_other_inputs_are_not_timed():
    other = chain(1)
    other.graph.input[0].name = other.graph.node[0].input[0] = "image"
    with pytest.raises(ModelError, match="inputs are named 'image' instead of 'v0'") as caught:
        benchmark(chain(1), other, rounds=4)
    assert "folded from it" in caught.value.fix


def test_a_random_input_that_is_rejected_asks_for_real_ones():
    made = parser.parse_model(
        """<ir_version: 9, opset_import: ["": 18]> g (float[4] x) => (float[?] y)
        <int64[1] shape = {3}> { y = Reshape(x, shape) }"""
    )
    with pytest.raises(InputError, match="rejects a random input") as caught:
        benchmark(made, made, rounds=4)
    assert "--inputs FILE.npz" in caught.value.fix


@pytest.mark.parametrize(
    ("slow", "fast", "repeats"),
    [
        (0.5, 0.5, (6, 6)),
        (0.5, 0.1, (6, 30)),  # 3 ms each
        (2.1, 2.0, (2, 2)),  # hardly apart: the same number
        (100.0, 99.9, (1, 1)),
        (100.0, 20.0, (1, 5)),
    ],
)
def test_both_timings_last_about_equally_long(
    monkeypatch: pytest.MonkeyPatch, slow: float, fast: float, repeats: tuple[int, int]
):
    monkeypatch.setattr(bench, "_warm_up", lambda *_: None)
    monkeypatch.setattr(bench, "_time", lambda session, *_: session)  # a session is what a run of it takes
    assert bench._plan([slow, fast], {}, None, 4.0)[0] == repeats
    assert bench._plan([fast, slow], {}, None, 4.0)[0] == repeats[::-1]


def test_every_model_is_timed_with_its_own_repeats(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bench, "_warm_up", lambda *_: None)
    monkeypatch.setattr(bench, "_time", lambda session, _feeds, repeats: session * repeats)
    times = bench._measure([1.0, 100.0], {}, 4, (6, 2), np.random.default_rng(0))
    assert times.tolist() == [[6.0, 200.0]] * 4
    row = bench._row("off", np.ones((bench.LOADS, 4, 2)), (6, 2), np.random.default_rng(0))
    assert (row.repeats, row.folded_repeats) == (6, 2)


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), -1.0])
def test_time_is_finite_and_positive(seconds: float):
    with pytest.raises(InputError) as caught:
        benchmark(chain(1), chain(1), seconds=seconds)
    assert caught.value.fix == "Give a finite, positive number."


@pytest.mark.parametrize(
    "wrong", [{"rounds": 1}, {"seconds": 0.0}, {"seconds": float("nan")}, {"threads": 0}]
)
def test_nonsense_is_refused(wrong: dict):
    with pytest.raises(InputError):
        benchmark(chain(1), chain(1), **wrong)


@pytest.mark.skipif(HAS_CUDA, reason="this ONNX Runtime has CUDA")
def test_an_absent_provider():
    with pytest.raises(ProviderError):
        benchmark(chain(1), chain(1), provider="cuda")


def test_the_interval_covers_a_known_ratio_and_knows_about_loads():
    """Timings from a known law: rounds scatter by 5 %, and every load is off by 1 % of its own."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(40):
        loads = rng.normal(1.0, 0.01, (bench.LOADS, 1, 2))
        times = np.array([1.1, 1.0]) * loads * rng.normal(1.0, 0.05, (bench.LOADS, 50, 2))
        row = bench._row("off", times, (1, 1), rng)
        covered += row.low <= 1.1 <= row.high
    # Four loads are few, so the interval is a little short of 95 %; without them it would cover about half.
    assert covered >= 30


def test_medians_shrug_off_a_hiccup():
    times = np.ones((bench.LOADS, 25, 2))
    times[0, 3, 0] = 1000.0
    row = bench._row("off", times, (1, 1), np.random.default_rng(0))
    assert (row.ratio, row.low, row.high, row.verdict) == (1.0, 1.0, 1.0, "no measurable difference")


def row(optimizer: str, ratio: float, low: float, high: float) -> Row:
    return Row(optimizer, 100, 1, ratio, ratio, 1.0, 1.0, ratio, low, high)


@pytest.mark.parametrize(
    ("ratio", "low", "high", "verdict"),
    [
        (1.5, 1.4, 1.6, "faster"),
        (1.5, 0.9, 2.0, "no measurable difference"),  # the interval holds 1
        (1.01, 1.005, 1.02, "no measurable difference"),  # beyond doubt, and beneath notice
        (0.99, 0.98, 0.995, "no measurable difference"),
        (0.5, 0.4, 0.6, "slower"),
    ],
)
def test_verdict(ratio: float, low: float, high: float, verdict: str):
    assert row("off", ratio, low, high).verdict == verdict


def test_sentences():
    same, faster, slower = (1.0, 0.99, 1.01), (1.25, 1.2, 1.3), (0.5, 0.4, 0.8)

    def sentence(default: tuple[float, ...], off: tuple[float, ...]) -> str:
        return Benchmark("cpu", 1, 0, {}, (row("default", *default), row("off", *off))).sentence

    assert sentence(same, faster) == (
        "No measurable gain with ONNX Runtime as it comes; with its optimizer off, the folded model is 1.25 "
        "times as fast (1.20 to 1.30). Its default session folds a BatchNorm behind a convolution by itself, "
        "which may be why."
    )
    assert "by itself" not in sentence(same, same)
    assert "No measurable gain" in sentence(same, slower)
    assert sentence(slower, same).startswith(
        "With ONNX Runtime as it comes, the folded model takes 2.00 times as long (1.25 to 2.50);"
    )
    assert "1.25 times as fast" in sentence(faster, faster)


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_CUDA, reason="needs onnxruntime-gpu and a GPU")
def test_cuda():
    assert benchmark(chain(4), chain(4), provider="cuda", seconds=1.0).provider == "cuda"
