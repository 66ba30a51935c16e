"""The whole job: what is written, and that nothing is written when anything goes wrong."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bnfold.errors import DisagreementError, InputError, ModelError, SaveError
from bnfold.files.atomic import check_destination
from bnfold.folding.fold import fold
from bnfold.latency import benchmark as timing
from bnfold.latency.results import Benchmark, Row
from bnfold.options import Checking
from bnfold.pipeline import export as module
from bnfold.pipeline.export import export
from bnfold.pipeline.exported import ExportDisagreementError, NotFasterError
from bnfold.pipeline.fold_file import fold_file
from bnfold.validation import compare as comparing
from bnfold.validation.validate import Validation


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Conv → BatchNormalization with random statistics."""
    draw = np.random.default_rng(0)
    constants = {
        "w": draw.normal(size=(4, 3, 3, 3)),
        "scale": draw.uniform(0.5, 2, 4),
        "bias": draw.normal(size=4),
        "mean": draw.normal(size=4),
        "var": draw.uniform(0.5, 2, 4),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["h"], name="conv"),
            helper.make_node("BatchNormalization", ["h", "scale", "bias", "mean", "var"], ["y"], name="bn"),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4, 6, 6])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    return path


def test_export_does_the_whole_job(model: Path, tmp_path: Path) -> None:
    stages: list[str] = []

    def note(stage: str, done: int, total: int) -> None:
        assert f"{stage}" == str(stage) == stage
        assert 0 <= done <= max(total, done)
        if stage not in stages:
            stages.append(stage)

    done = export(model, tmp_path / "out.onnx", seconds=0.1, progress=note)
    assert done.destination == tmp_path / "out.onnx"
    assert [node.op_type for node in onnx.load(tmp_path / "out.onnx").graph.node] == ["Conv"]
    assert [site.status for site in done.fold.sites] == ["folded"]
    assert done.validation is not None
    assert done.validation.passed
    assert [benchmark.provider for benchmark in done.benchmarks] == ["cpu"]
    assert stages == ["load", "fold", "validate", "time", "save"]


def test_validation_and_timing_can_be_left_out(model: Path, tmp_path: Path) -> None:
    done = export(model, tmp_path / "out.onnx", validate=False, bench=False)
    assert (done.validation, done.benchmarks) == (None, ())
    assert (tmp_path / "out.onnx").exists()


def test_the_options_reach_the_validation_and_the_timing(model, tmp_path, monkeypatch) -> None:
    given: list[Any] = []

    def compare(_: Any, __: Any, checking: Checking, inputs: Any, on_progress: Any) -> Validation:
        del on_progress
        given.extend((checking, inputs))
        return Validation((), ("stop here",))

    monkeypatch.setattr(comparing, "compare", compare)
    with pytest.raises(DisagreementError):
        export(
            model,
            tmp_path / "out.onnx",
            samples=7,
            seed=5,
            tolerance=0.25,
            providers=["cpu"],
            oracle="on",
            per_layer=True,
        )
    expected = Checking(samples=7, seed=5, tolerance=0.25, oracle="on", per_layer=True, strict=True)
    assert given == [expected, None]


def test_what_is_to_be_kept_is_kept_by_both_ways_to_a_file(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    for done in (
        fold_file(model, out, keep=["bn"]),
        export(model, out, keep=["bn"], validate=False, bench=False),
    ):
        assert [site.reason.code for site in done.fold.kept if site.reason] == ["BN108"]
        assert (done.fold.folded, done.rolled_back) == ((), ())
        assert [node.op_type for node in onnx.load(out).graph.node] == ["Conv", "BatchNormalization"]
    out.unlink()
    for way in (fold_file, export):
        with pytest.raises(InputError, match="no node named bm, which was to be kept"):
            way(model, out, keep=["bn", "bm"])
        assert not out.exists()


def test_a_disagreement_leaves_the_old_file(model, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(comparing, "compare", lambda *_: Validation((), ("It differs.",)))
    out = tmp_path / "out.onnx"
    out.write_text("old")
    with pytest.raises(ExportDisagreementError, match=r"out\.onnx was not written") as caught:
        export(model, out)
    assert caught.value.exit_code == 1
    assert caught.value.export.validation.failures == ("It differs.",)
    assert out.read_text() == "old"


@pytest.mark.parametrize("stage", ["load", "fold", "validate", "time", "save"])
def test_an_interrupt_at_any_stage_leaves_nothing(model, tmp_path, stage: str) -> None:
    def interrupt(now: str, done: int, total: int) -> None:
        del done, total
        if now == stage:
            raise KeyboardInterrupt

    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(KeyboardInterrupt):
        export(model, folder / "out.onnx", seconds=0.1, progress=interrupt)
    assert list(folder.iterdir()) == []


def test_nothing_is_saved_before_everything_else_is_done(model, tmp_path, monkeypatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ModelError("The timing failed.")

    monkeypatch.setattr(timing, "benchmark", fail)
    with pytest.raises(ModelError, match="The timing failed"):
        export(model, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def timed(ratio: float, *, off: float = 2.0, **changes: Any) -> Benchmark:
    """A benchmark that found this ratio at ONNX Runtime's default, and another with the optimizer off."""
    rows = [
        Row(name, 50, 3, 1.0, 1.1, 1 / found, 1.2, found, found * 0.98, found * 1.02, **changes)
        for name, found in (("default", ratio), ("off", off))
    ]
    return Benchmark("cpu", 1, 0, {"x": (1, 3, 8, 8)}, tuple(rows))


FASTER, SAME, SLOWER = timed(1.2), timed(1.0), timed(0.8)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"cpu": SAME}, "on cpu, no measurable difference (ratio 1.00, 0.98 to 1.02)."),
        ({"cpu": SLOWER}, "on cpu, the folded model takes 1.25 times as long (1.23 to 1.28)."),
        ({"cpu": timed(1.1, control_low=0.8, control_high=1.3)}, "on cpu, too noisy to say (ratio 1.10,"),
        ({"cpu": FASTER, "cuda": SAME}, "on cuda, no measurable difference (ratio 1.00, 0.98 to 1.02)."),
        ({"cpu": SLOWER, "cuda": SAME}, "1.28); on cuda, no measurable difference (ratio 1.00,"),
    ],
)
def test_what_is_not_faster_everywhere_is_not_written_if_so_asked(
    model: Path, tmp_path: Path, monkeypatch, found: dict[str, Benchmark], words: str
) -> None:
    """The setting off, where the folded model is faster in every case, does not count."""
    monkeypatch.setattr(
        timing, "benchmark", lambda *_, provider, **__: replace(found[provider], provider=provider)
    )
    out = tmp_path / "out.onnx"
    out.write_text("old")
    options: dict[str, Any] = {"providers": list(found), "validate": False}
    with pytest.raises(NotFasterError) as caught:
        export(model, out, only_if_faster=True, **options)
    assert caught.value.exit_code == 1
    assert caught.value.problem.startswith(f"{out} was not written, since it would not be faster: on c")
    assert words in caught.value.problem
    assert "times as fast" not in caught.value.problem
    assert [one.provider for one in caught.value.export.benchmarks] == list(found)
    assert caught.value.export.destination is None
    assert out.read_text() == "old"
    assert sorted(tmp_path.iterdir()) == [model, out]
    assert export(model, out, **options).destination == out, "without the option it is written"
    assert onnx.load(out).graph.node[0].op_type == "Conv"


def test_what_is_faster_is_written(model: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(timing, "benchmark", lambda *_, **__: timed(1.2, off=0.5))
    done = export(model, tmp_path / "out.onnx", only_if_faster=True, validate=False)
    assert done.destination == tmp_path / "out.onnx"
    assert [node.op_type for node in onnx.load(done.destination).graph.node] == ["Conv"]


def test_every_kind_of_measurement_has_to_be_faster(model: Path, tmp_path: Path, monkeypatch) -> None:
    both = replace(FASTER, rows=(*FASTER.rows, *timed(1.0, measures="on the device").rows))
    monkeypatch.setattr(timing, "benchmark", lambda *_, **__: both)
    with pytest.raises(NotFasterError, match="on cpu, on the device, no measurable difference"):
        export(model, tmp_path / "out.onnx", only_if_faster=True, validate=False)
    assert not (tmp_path / "out.onnx").exists()


def test_only_if_faster_needs_the_latency(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "read_model", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(InputError, match="needs the latency"):
        export(tmp_path / "model.onnx", tmp_path / "out.onnx", only_if_faster=True, bench=False)


def test_fold_file_runs_nothing(model, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    done = fold_file(model, tmp_path / "out.onnx")
    assert (done.validation, done.benchmarks) == (None, ())
    assert [node.op_type for node in onnx.load(tmp_path / "out.onnx").graph.node] == ["Conv"]


def test_a_destination_is_checked_before_the_model_is_read(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "read_model", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(SaveError, match="does not exist"):
        export(tmp_path / "model.onnx", tmp_path / "nowhere" / "out.onnx")


def test_a_model_that_is_read_is_no_destination(model: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.onnx"
    link.symlink_to(model)
    for place in (model, link, tmp_path / "." / "model.onnx"):
        with pytest.raises(SaveError, match="an input or an output of this command already"):
            check_destination(place, model)
    with pytest.raises(SaveError, match="is a folder"):
        check_destination(tmp_path, model)
    check_destination(tmp_path / "other.onnx", model)


def chain_of_two(tmp_path: Path, size: int, dtype: type = np.float32, scale: float = 1.5) -> Path:
    """MatMul → BatchNormalization twice, with weights of `size` × `size`."""
    draw = np.random.default_rng(0)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    row = draw.uniform(0.5, 1, (1, size))
    numbers = {"scale": np.full(size, scale), "bias": draw.normal(size=size), "mean": draw.normal(size=size)}
    constants = {"w": np.repeat(row, size, 0), "v": np.repeat(row[:, ::-1], size, 0), "var": np.ones(size)}
    norm = ["scale", "bias", "mean", "var"]
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w"], ["h"], name="first"),
            helper.make_node("BatchNormalization", ["h", *norm], ["n"], name="norm1"),
            helper.make_node("Relu", ["n"], ["r"], name="relu"),
            helper.make_node("Gemm", ["r", "v"], ["k"], name="second"),
            helper.make_node("BatchNormalization", ["k", *norm], ["y"], name="norm2"),
        ],
        "g",
        [helper.make_tensor_value_info("x", kind, ["N", size])],
        [helper.make_tensor_value_info("y", kind, ["N", size])],
        [numpy_helper.from_array(a.astype(dtype), name) for name, a in (numbers | constants).items()],
    )
    path = tmp_path / f"chain{size}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    return path


def test_both_ways_to_a_file_give_the_same_bytes(tmp_path: Path) -> None:
    source = chain_of_two(tmp_path, 300)
    fold_file(source, tmp_path / "file.onnx")
    export(source, tmp_path / "export.onnx", validate=False, bench=False)
    assert (tmp_path / "file.onnx").read_bytes() == (tmp_path / "export.onnx").read_bytes()


@pytest.mark.parametrize(("scale", "code"), [(60000.0, "BN401"), (2.0**-24, "BN402")])
def test_a_weight_that_does_not_fit_is_found_while_it_is_written(tmp_path: Path, scale, code) -> None:
    source = chain_of_two(tmp_path, 64, np.float16, scale)
    model = onnx.load(source)
    for tensor in model.graph.initializer:
        if tensor.name in ("bias", "mean"):
            tensor.raw_data = bytes(len(tensor.raw_data))
        if tensor.name in ("w", "v"):
            array = numpy_helper.to_array(tensor)
            tensor.raw_data = (array * (np.float16(2) if scale > 1 else np.float16(0.5))).tobytes()
    onnx.save(model, source)
    stages: list[str] = []
    done = fold_file(source, tmp_path / "out.onnx", progress=lambda stage, *_: stages.append(stage))
    assert [site.reason.code for site in done.fold.kept if site.reason] == [code, code]
    assert stages.count("save") == 2  # both are taken back at once
    assert [path.name for path in tmp_path.glob("*out*")] == ["out.onnx"]
    assert done.fold.sites == fold(source).sites
    assert onnx.load(tmp_path / "out.onnx").graph.node == model.graph.node


_FOLD = """
import sys
from bnfold.pipeline.fold_file import fold_file
def peak():
    [line] = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    return int(line.split()[1]) // 1024
fold_file(sys.argv[1], sys.argv[3])
before = peak()
done = fold_file(sys.argv[2], sys.argv[3])
print(len(done.fold.folded), peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_folding_large_weights_takes_the_memory_of_blocks(tmp_path: Path) -> None:
    small, large = chain_of_two(tmp_path, 64), chain_of_two(tmp_path, 3072)
    out = tmp_path / "out.onnx"
    done = subprocess.run(
        [sys.executable, "-c", _FOLD, small, large, out], capture_output=True, text=True, check=True
    )
    folded, megabytes = map(int, done.stdout.split())
    print(f"{megabytes} MiB more for {large.stat().st_size >> 20} MiB of weights")
    assert folded == 2
    assert out.stat().st_size > 2**26
    assert megabytes < 24
    for path in (large, out):
        path.unlink()
