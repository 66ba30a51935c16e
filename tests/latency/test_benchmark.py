"""A clear difference is found, an absent one is not claimed, and the sentence fits the figures."""

from __future__ import annotations

import gc
import math
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper, parser

from bnfold.errors import InputError, ModelError, ProviderError
from bnfold.latency import benchmark as module
from bnfold.latency import footprint, interleave, prepare
from bnfold.latency.benchmark import benchmark
from bnfold.latency.interleave import MAX_LOADS, Contest, Setting
from bnfold.latency.prepare import OPTIMIZERS
from bnfold.latency.results import Benchmark, Row
from bnfold.options import Timing

HAS_CUDA = "CUDAExecutionProvider" in ort.get_available_providers()
SIZE = 256
OFF = Setting("off", "end to end", "cpu", 1)


@pytest.fixture(autouse=True)
def quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other process is started to measure memory, where that is not what the test is about."""
    if "weigh" not in request.node.name:
        monkeypatch.setattr(footprint, "_peak_memory", lambda *_: None)


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


def measured(original: onnx.ModelProto, other: onnx.ModelProto, verdict: str) -> Benchmark:
    """A benchmark with one verdict at every setting; on a busy machine that can take a longer look."""
    for seconds in (1.0, 2.0, 4.0, 8.0):
        result = benchmark(original, other, seconds=seconds)
        verdicts = {row.verdict for row in result.rows}
        assert verdicts <= {verdict, "too noisy to say"}, "ten times the work is nothing else"
        if verdicts == {verdict}:
            return result
    pytest.skip("other work on this machine makes it too noisy to say, four times")


def test_less_work_is_faster_and_more_is_slower():
    result = measured(chain(40), chain(4), "faster")
    assert [row.optimizer for row in result.rows] == ["default", "basic", "off"]
    assert (result.provider, result.threads, result.shapes) == ("cpu", 1, {"v0": (1, SIZE)})
    for row in result.rows:
        assert 1 < row.low <= row.ratio <= row.high
        assert row.ratio > 2  # ten times the work; the machine may be busy
        assert row.ratio == pytest.approx(row.original_ms / row.folded_ms)
        assert row.control_ratio == pytest.approx(row.original_ms / row.control_ms)
        assert 0 < row.folded_ms <= row.folded_p90_ms <= row.folded_p99_ms
        assert row.original_ms <= row.original_p90_ms <= row.original_p99_ms
        assert row.original_load_ms > 0 < row.folded_load_ms
        assert row.rounds >= module.MIN_ROUNDS
        times = (row.original_times_ms, row.folded_times_ms, row.control_times_ms)
        assert [len(each) for each in times] == [row.rounds] * 3
        assert np.median(row.folded_times_ms) == row.folded_ms
    measured(chain(4), chain(40), "slower")


def test_what_both_models_weigh_stands_beside_it():
    result = benchmark(chain(3), chain(2), rounds=2)
    assert result.original is not None
    assert result.folded is not None
    assert (result.original.nodes, result.folded.nodes) == (3, 2)
    assert (result.original.multiply_adds, result.folded.multiply_adds) == (3 * SIZE**2, 2 * SIZE**2)
    assert result.cpus is not None
    assert result.cpus >= 1


def test_the_same_model_twice_is_about_as_fast():
    for row in benchmark(chain(8), chain(8), seconds=2.0).rows:
        assert row.verdict in ("no measurable difference", "too noisy to say")


def test_rounds_are_what_was_asked_for():
    result = benchmark(chain(1), chain(1), rounds=9)
    assert [(row.rounds, row.loads) for row in result.rows] == [(16, 8)] * 3  # two on each of eight loads
    assert [row.rounds for row in benchmark(chain(1), chain(1), rounds=2).rows] == [2, 2, 2]


def test_given_inputs_are_used():
    x = np.zeros((5, SIZE), np.float32)
    assert benchmark(chain(1), chain(1), rounds=2, inputs={"v0": x}).shapes == {"v0": (5, SIZE)}
    with pytest.raises(InputError, match="named x"):
        benchmark(chain(1), chain(1), rounds=2, inputs={"x": x})


def test_several_batch_sizes_are_timed():
    result = benchmark(chain(1), chain(1), rounds=2, batches=(1, 8))
    assert [(row.batch, row.optimizer) for row in result.rows] == [
        (batch, optimizer) for batch in (1, 8) for optimizer in OPTIMIZERS
    ]
    assert result.shapes == {"v0": (1, SIZE)}
    assert result.sentence.startswith("End to end, batch 1: ")
    assert " End to end, batch 8: " in result.sentence


def test_sets_of_options_that_set_the_same_are_timed_once():
    result = benchmark(chain(1), chain(1), rounds=2, provider_options=("graph", "defaults", "bnfold"))
    assert [(row.provider_options, row.optimizer) for row in result.rows] == [
        ("defaults", optimizer) for optimizer in OPTIMIZERS
    ]
    assert result.place(result.rows[0]) == "cpu, options defaults"


def test_options_that_the_provider_does_not_have_are_refused():
    with pytest.raises(InputError, match="cpu provider cannot be timed with the options graph"):
        benchmark(chain(1), chain(1), rounds=2, provider_options=("graph",))


def test_a_captured_graph_is_timed_on_the_device_alone():
    timing = Timing(provider_options=("graph", "defaults"))
    settings = prepare._settings("cuda", {None: {"x": np.ones(2)}}, timing)
    found = [(setting.provider_options, setting.measures) for setting in settings]
    assert list(dict.fromkeys(found)) == [
        ("graph", "on the device"),
        ("defaults", "end to end"),
        ("defaults", "on the device"),
    ]
    with pytest.raises(InputError, match="options graph"):  # strings stay with the host
        prepare._settings("cuda", {None: {"x": np.array(["a"], object)}}, Timing(provider_options=("graph",)))


@pytest.mark.skipif(
    "AzureExecutionProvider" not in ort.get_available_providers(), reason="has no Azure provider"
)
def test_what_another_provider_runs_is_not_timed():
    with pytest.raises(ProviderError, match="No node of the model ran on azure, all did on cpu"):
        benchmark(chain(1), chain(1), rounds=2, provider="azure")


def test_where_the_nodes_ran_is_a_note():
    result = Benchmark("cuda", 1, 0, {}, (row("off", 1.0, 0.99, 1.01),), placement=("a ran.", "b ran."))
    assert result.notes[:2] == ("Of the original, a ran.", "Of the folded model, b ran.")


def test_progress_and_garbage_collection():
    seen: list[tuple[int, int]] = []
    benchmark(chain(1), chain(1), rounds=4, on_progress=lambda *step: seen.append(step))
    assert [done for done, _ in seen] == [
        done for start in (0, 8, 16) for done in range(start + 2, start + 9, 2)
    ]
    assert {total for _, total in seen} == {3 * MAX_LOADS}
    assert gc.isenabled()


def test_two_models_with_other_inputs_are_not_timed():
    other = chain(1)
    other.graph.input[0].name = other.graph.node[0].input[0] = "image"
    with pytest.raises(ModelError, match="The input 'v0' is named 'image'") as caught:
        benchmark(chain(1), other, rounds=4)
    assert "folded from it" in caught.value.fix


def test_a_random_input_that_is_rejected_asks_for_real_ones():
    made = parser.parse_model(
        """<ir_version: 9, opset_import: ["": 18]> g (float[64] x) => (float[64] y)
            <float[1] table = {3}> { place = Cast<to=7>(x) y = Gather(table, place) }"""
    )
    with pytest.raises(InputError, match="rejects a random input") as caught:
        benchmark(made, made, rounds=4)
    assert "--inputs FILE.npz" in caught.value.fix


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), -1.0])
def test_time_is_finite_and_positive(seconds: float):
    with pytest.raises(InputError) as caught:
        benchmark(chain(1), chain(1), seconds=seconds)
    assert caught.value.fix == "Give a finite, positive number."


@pytest.mark.parametrize(
    "wrong", [{"rounds": 1}, {"seconds": 0.0}, {"seconds": float("nan")}, {"batches": (0,)}]
)
def test_nonsense_is_refused(wrong: dict):
    with pytest.raises(InputError):
        benchmark(chain(1), chain(1), **wrong)


@pytest.mark.parametrize(
    ("threads", "problem"),
    [
        (0, "0 is not a number of threads"),
        ((1, -2), "-2 is not"),
        ((), "No number of threads was given"),
        ("2", "'2' is not"),
        (1.5, "1.5 is not"),
        ((1, None), "None is not"),
        (True, "True is not"),
    ],
)
def test_a_number_of_threads_is_a_positive_whole_one(threads: object, problem: str):
    with pytest.raises(InputError, match=problem) as caught:
        benchmark(chain(1), chain(1), rounds=2, threads=threads)
    assert caught.value.fix == "Give 1 or more with --threads."


def test_several_numbers_of_threads_are_timed():
    result = benchmark(chain(1), chain(1), rounds=2, threads=(2, 1, 2))
    assert [(row.threads, row.optimizer) for row in result.rows] == [
        (threads, optimizer) for threads in (2, 1) for optimizer in OPTIMIZERS
    ]
    assert result.threads == 2
    assert [row.threads for row in result.defaults] == [2, 1]
    assert [row.threads for row in result.first] == [2]
    assert result.sentence.startswith("End to end, 2 threads: ")
    assert " End to end, 1 thread: " in result.sentence
    assert result.place(result.rows[3]) == "cpu, 1 thread"
    assert [record["threads"] for record in result.records()] == [2, 2, 2, 1, 1, 1]


def test_slower_on_any_number_of_threads_is_said():
    rows = (row("default", 1.0, 0.99, 1.01), replace(row("default", 0.5, 0.4, 0.6), threads=4))
    result = Benchmark("cpu", 1, 0, {}, rows)
    assert result.slower == (
        "Slower: the folded model takes 2.00 times as long (1.67 to 2.50) on cpu, 4 threads.",
    )
    assert result.headline == result.slower[0]
    assert not result


def test_without_a_time_it_ends_when_the_answer_is_clear(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(interleave, "may_end", lambda times, _: len(times) == 2)
    monkeypatch.setattr(module, "SECONDS", 0.3)
    result = benchmark(chain(1), chain(1))
    assert [(timed.loads, timed.stopped_early) for timed in result.rows] == [(2, True)] * 3
    assert (
        result.notes[-1] == "The timing ended early, since the answer was clear; --seconds N takes N seconds."
    )
    some = replace(result, rows=(*result.rows[:2], replace(result.rows[2], stopped_early=False)))
    assert some.notes[-1].startswith("2 of 3 timings ended early")


@pytest.mark.parametrize("given", [{"seconds": 0.1}, {"rounds": 4}])
def test_a_given_time_is_filled(given: dict, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(interleave, "may_end", lambda *_: True)
    result = benchmark(chain(1), chain(1), **given)
    assert [(timed.loads, timed.stopped_early) for timed in result.rows] == [(4, False)] * 3


@pytest.mark.skipif(HAS_CUDA, reason="this ONNX Runtime has CUDA")
def test_an_absent_provider():
    with pytest.raises(ProviderError):
        benchmark(chain(1), chain(1), provider="cuda")


# --- the verdict, on times from a known law -------------------------------------------------------------


def noisy(ratio: float, rng: np.random.Generator, busy: float = 0.3) -> Row:
    """A row of times as a busy machine gives them.

    Every session is off by its own 1 %, timings scatter by 3 %, and other work holds up a share of them,
    for up to twice their time, in bursts that last several rounds.
    """
    rounds = 30
    sessions = rng.normal(1.0, 0.01, (MAX_LOADS, 1, 3))
    burst = np.repeat(rng.random((MAX_LOADS, rounds // 5, 1)) < 2 * busy, 5, axis=1)
    held_up = burst & (rng.random((MAX_LOADS, rounds, 3)) < 0.5)
    scatter = rng.lognormal(0, 0.03, held_up.shape) * np.where(held_up, rng.uniform(1, 3, held_up.shape), 1)
    times = np.array([ratio, 1.0, ratio]) * sessions * scatter
    return module._row(Contest(times, (1, 1, 1), (1.0,) * 3, MAX_LOADS, True), OFF, rng)


def test_a_model_against_itself_is_hardly_ever_faster_or_slower():
    rng = np.random.default_rng(0)
    verdicts = [noisy(1.0, rng).verdict for _ in range(20)]
    assert sum(verdict in ("faster", "slower") for verdict in verdicts) <= 1


def test_ten_percent_are_found():
    rng = np.random.default_rng(1)
    assert [noisy(1.1, rng).verdict for _ in range(20)].count("faster") >= 18
    assert [noisy(1 / 1.1, rng).verdict for _ in range(20)].count("slower") >= 18


def test_where_most_timings_are_held_up_nothing_is_claimed():
    rng = np.random.default_rng(2)
    verdicts = {noisy(1.0, rng, busy=0.5).verdict for _ in range(10)}
    assert "too noisy to say" in verdicts
    assert not verdicts & {"faster", "slower"}


def test_an_original_that_is_slower_than_itself_makes_no_fold_faster():
    """The first session of the original is off by 8 %; the second one is as fast as the folded model."""
    rng = np.random.default_rng(3)
    times = np.array([1.08, 1.0, 1.0]) * rng.normal(1.0, 0.01, (MAX_LOADS, 20, 3))
    row = module._row(Contest(times, (1, 1, 1), (1.0,) * 3, 8, True), OFF, rng)
    assert row.low > 1.05
    assert row.verdict == "too noisy to say"


def row(optimizer: str, ratio: float, low: float, high: float, **control: float) -> Row:
    made = Row(optimizer, 100, 1, ratio, ratio, 1.0, 1.0, ratio, low, high)
    return replace(made, **control)


@pytest.mark.parametrize(
    ("ratio", "low", "high", "verdict"),
    [
        (1.5, 1.4, 1.6, "faster"),
        (1.5, 0.9, 2.0, "too noisy to say"),  # the interval holds 1, and much else
        (1.04, 0.99, 1.09, "no measurable difference"),  # it holds 1, and nothing beyond 10 %
        (1.01, 1.005, 1.02, "no measurable difference"),  # beyond doubt, and beneath notice
        (0.99, 0.98, 0.995, "no measurable difference"),
        (0.96, 0.90, 1.01, "too noisy to say"),
        (0.5, 0.4, 0.6, "slower"),
        (math.nan, math.nan, math.nan, "too noisy to say"),
    ],
)
def test_verdict(ratio: float, low: float, high: float, verdict: str):
    assert row("off", ratio, low, high).verdict == verdict


@pytest.mark.parametrize(
    ("control", "verdict"),
    [
        ((1.0, 0.97, 1.03), "faster"),
        ((1.0, 0.90, 1.09), "faster"),
        ((1.0, 0.90, 1.12), "too noisy to say"),  # the original may differ from itself by as much
        ((1.08, 0.99, 1.09), "too noisy to say"),  # only the original's first session is beaten by 3 %
        ((0.95, 0.94, 0.96), "faster"),  # both are beaten
    ],
)
def test_a_difference_stands_out_against_the_control(control: tuple[float, ...], verdict: str):
    names = ("control_ratio", "control_low", "control_high")
    assert row("off", 1.1, 1.05, 1.15, **dict(zip(names, control, strict=True))).verdict == verdict
    ratio, low, high = control
    mirrored = dict(zip(names, (1 / ratio, 1 / high, 1 / low), strict=True))
    swapped = row("off", 1 / 1.1, 1 / 1.15, 1 / 1.05, **mirrored).verdict
    assert swapped == {"faster": "slower"}.get(verdict, verdict)


def test_no_difference_is_claimed_beside_a_control_that_differs():
    assert row("off", 1.0, 0.99, 1.01, control_low=0.85).verdict == "too noisy to say"


def test_sentences():
    same, faster, slower, noise = (1.0, 0.99, 1.01), (1.25, 1.2, 1.3), (0.5, 0.4, 0.8), (1.2, 0.8, 1.5)

    def sentence(default: tuple[float, ...], off: tuple[float, ...]) -> str:
        return Benchmark("cpu", 1, 0, {}, (row("default", *default), row("off", *off))).sentence

    assert sentence(same, faster) == (
        "No measurable gain at ONNX Runtime's default; with its optimizer off, the folded model is 1.25 "
        "times as fast (1.20 to 1.30). The reason may be that its default session folds a BatchNorm after a "
        "convolution by itself."
    )
    assert "by itself" not in sentence(same, same)
    assert "No measurable gain" in sentence(same, slower)
    assert sentence(slower, same).startswith(
        "At ONNX Runtime's default, the folded model takes 2.00 times as long (1.25 to 2.50);"
    )
    assert "1.25 times as fast" in sentence(faster, faster)
    assert sentence(noise, faster).startswith(
        "At ONNX Runtime's default, too noisy to say (ratio 1.20, 0.80 to 1.50; original by itself 1.00,"
    )


def test_the_device_and_the_way_there_are_told_apart():
    rows = [
        replace(row(optimizer, 1.0, 0.99, 1.01), measures=measures)
        for measures in ("end to end", "on the device")
        for optimizer in OPTIMIZERS
    ]
    sentence = Benchmark("cuda", 1, 0, {}, tuple(rows)).sentence
    assert sentence.startswith("End to end: No measurable gain")
    assert "On the device: No measurable gain" in sentence


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cpu_quota": 1.5}, ("allows this process 1.5 CPUs' worth of time.",)),
        ({"cpu_quota": 1.5, "threads": 2}, ("1.5 CPUs' worth of time, too little for 2 threads",)),
        ({"cpus": 2, "threads": 4}, ("more threads than the 2 CPUs",)),
        ({"cpus": 2, "cpu_quota": None}, ()),
    ],
)
def test_conditions_are_told(changes: dict, words: tuple[str, ...]):
    calm = replace(row("default", 1.0, 0.99, 1.01), loads=8, pinned=8)
    notes = replace(Benchmark("cpu", 1, 0, {}, (calm,)), **changes).notes
    assert len(notes) == len(words)
    assert all(part in note for part, note in zip(words, notes, strict=True))


def test_what_went_less_well_is_told():
    hurried = replace(row("off", 1.0, 0.99, 1.01), loads=8, pinned=5, settled=False)
    notes = " ".join(Benchmark("cpu", 1, 0, {}, (hurried,)).notes)
    assert "pinned to free CPUs in 5 of 8 loads" in notes
    assert "(optimizer off) were still becoming faster" in notes


@pytest.mark.parametrize(
    ("provider", "x", "kinds"),
    [
        ("cpu", np.ones(2), ("end to end",)),
        ("cuda", np.ones(2), ("end to end", "on the device")),
        ("cuda", np.array(["a"], object), ("end to end",)),
    ],
)
def test_what_can_be_measured(provider: str, x: np.ndarray, kinds: tuple[str, ...]):
    assert prepare._kinds(provider, {"x": x}) == kinds


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_CUDA, reason="needs onnxruntime-gpu and a GPU")
def test_cuda():
    result = benchmark(chain(4), chain(4), provider="cuda", seconds=1.0)
    assert [row.measures for row in result.rows] == ["end to end"] * 3 + ["on the device"] * 3
