"""`bnfold export`, from whatever file to a checked ONNX model, and what it refuses."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import pytest

from tests.graphs import build, statistics

torch = pytest.importorskip("torch")
nn = torch.nn

SHAPE = "1x3x8x8"
QUICK = ("--seconds", "0.1")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A trained-like Conv → BatchNorm → ReLU, saved whole and in train mode."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    for _ in range(3):
        net(torch.randn(16, 3, 8, 8) * 2 + 1)  # moves the running statistics
    path = tmp_path_factory.mktemp("saved") / "net.pt"
    torch.save(net, path)
    return path


def operators(path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def test_a_module_becomes_a_checked_onnx_file(run, saved, tmp_path) -> None:
    out, report_path = tmp_path / "out.onnx", tmp_path / "report.json"
    result = run("export", saved, "-o", out, "--input-shape", SHAPE, "--json", report_path, *QUICK)
    assert result.exit_code == 0, result.stderr
    assert operators(out) == ["Conv", "Relu"]
    words = " ".join(result.stdout.split())
    agrees = "computes what the original computes"
    for part in ("saved in train mode", "1 of 1 site folded", agrees, "Latency", "Wrote"):
        assert part in words
    report = json.loads(report_path.read_text())
    assert report["source"]["was_training"] is True
    assert report["fold"]["summary"] == {"sites": 1, "folded": 1, "merged": 0, "decomposed": 0, "kept": 0}
    assert report["validation"]["passed"] is True
    assert len(report["benchmarks"]) == 1
    assert torch.load(saved, weights_only=False).training, "the file was changed"


def test_the_default_output_stands_beside_the_model_and_clobbers_nothing(run, model) -> None:
    result = run("export", model, "--no-bench")
    assert result.exit_code == 0, result.stderr
    assert operators(model.with_name("model.folded.onnx")) == ["Conv"]
    assert operators(model) == ["Conv", "BatchNormalization"]


def test_without_validation_and_bench_it_says_so(run, model, tmp_path) -> None:
    result = run("export", model, "-o", tmp_path / "out.onnx", "--no-validate", "--no-bench")
    assert result.exit_code == 0, result.stderr
    assert "not compared" in result.stdout
    assert "Latency" not in result.stdout


def test_a_missing_shape_is_asked_for(run, saved, tmp_path) -> None:
    result = run("export", saved, "-o", tmp_path / "out.onnx")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--input-shape" in result.stderr
    assert not (tmp_path / "out.onnx").exists()


class Bomb:
    """A pickle that writes a file when it is loaded blindly."""

    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


def hostile(tmp_path):
    torch.save(Bomb(str(tmp_path / "harm")), tmp_path / "bad.pt")


def plain_pickle(tmp_path):
    (tmp_path / "bad.pt").write_bytes(pickle.dumps(Bomb(str(tmp_path / "harm"))))


def text_file(tmp_path):
    (tmp_path / "bad.pt").write_text("not a model\n")


def state_dict(tmp_path):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "bad.pt")


def truncated(tmp_path):
    torch.save(nn.Linear(50, 50), tmp_path / "bad.pt")
    whole = (tmp_path / "bad.pt").read_bytes()
    (tmp_path / "bad.pt").write_bytes(whole[: len(whole) // 2])


@pytest.mark.parametrize("make", [hostile, plain_pickle, text_file, state_dict, truncated])
def test_a_bad_file_is_one_clear_line_and_leaves_nothing(run, tmp_path, make) -> None:
    make(tmp_path)
    out, report = tmp_path / "out.onnx", tmp_path / "report.json"
    result = run("export", tmp_path / "bad.pt", "-o", out, "--input-shape", "1x2", "--json", report)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("bnfold: ")
    assert "bad.pt" in result.stderr.splitlines()[0]
    assert "Traceback" not in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.pt"]


def external(tmp_path, location: str):
    """An ONNX model whose weight lies in another file, as its protobuf says."""
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 20]> g (float[1,2] x) => (float[1,2] y) { y = MatMul(x, w) }'
    )
    weight = onnx.numpy_helper.from_array(np.ones((2, 2), np.float32), "w")
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    model.graph.initializer.append(weight)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("location", ["missing.bin", "../outside.bin"])
def test_external_data_that_is_missing_or_elsewhere_is_refused(run, tmp_path, location: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "outside.bin").write_bytes(bytes(16))
    result = run("export", external(folder, location), "-o", tmp_path / "out.onnx")
    assert (result.exit_code, result.stdout) == (2, "")
    assert location in result.stderr
    assert not (tmp_path / "out.onnx").exists()


def test_a_disagreement_exits_1_writes_the_report_and_no_model(run, model, tmp_path, monkeypatch) -> None:
    import onnx_ir as ir

    from bnfold.pipeline import rollback

    honest = rollback.fold_into

    def wrong(write, given, **options):
        result = honest(write, given, **options)
        for value in result.model.graph.initializers.values():
            value.const_value = ir.tensor(value.const_value.numpy() * np.float32(1.5), name=value.name)
        return result

    monkeypatch.setattr(rollback, "fold_into", wrong)
    out, report = tmp_path / "out.onnx", tmp_path / "report.json"
    out.write_text("what was there before")
    result = run("export", model, "-o", out, "--json", report)
    assert result.exit_code == 1
    assert "was not written" in result.stderr
    assert out.read_text() == "what was there before"
    written = json.loads(report.read_text())
    assert (written["output"], written["validation"]["passed"]) == (None, False)


def test_an_interrupt_leaves_nothing_half_written(tmp_path, model) -> None:
    """A real process is interrupted wherever it happens to be."""
    out = tmp_path / "out" / "out.onnx"
    out.parent.mkdir()
    command = [sys.executable, "-m", "bnfold", "export", str(model), "-o", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=600)
    assert process.returncode in (0, 130)
    assert "Traceback" not in stderr
    if process.returncode == 130:
        assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize("name", [".", "..", "/", ""])
def test_a_folder_is_no_model(run, name: str) -> None:
    result = run("export", name)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"bnfold: {name or '.'} is a folder.\n  Give the model file that is in it.\n"


def test_a_report_that_fails_leaves_the_model_as_the_help_says(run, model, tmp_path, monkeypatch) -> None:
    from bnfold.errors import SaveError
    from bnfold.report import json as report

    def full(*_) -> None:
        raise SaveError("The disk is full.")

    monkeypatch.setattr(report, "write", full)
    for command in ("export", "fold"):
        assert "if that fails" in " ".join(run(command, "--help").stdout.split())
        out = tmp_path / f"{command}.onnx"
        given = ("--no-validate", "--no-bench") if command == "export" else ()
        assert run(command, model, "-o", out, "--json", tmp_path / "r.json", *given).exit_code == 2
        assert operators(out) == ["Conv"]


# --rollback and --keep


@pytest.fixture
def biased(monkeypatch):
    """A defect: every bias that a convolution takes is off by one hundredth in its first channel."""
    from bnfold.ops.conv import Conv

    honest = Conv.bias

    def bias(*given):
        array = honest(*given)
        array[0] += 0.01
        return array

    monkeypatch.setattr(Conv, "bias", bias)


@pytest.mark.usefixtures("biased")
def test_a_bad_fold_exits_1_or_is_undone(run, model, tmp_path) -> None:
    out, report = tmp_path / "out.onnx", tmp_path / "report.json"
    given = ("export", model, "-o", out, "--no-bench", "--json", report)
    result = run(*given)
    assert result.exit_code == 1
    assert "It comes from the fold of batchnormalization_1." in " ".join(result.stdout.split())
    assert "--rollback" in result.stderr
    assert not out.exists()
    result = run(*given, "--rollback")
    assert result.exit_code == 0, result.stderr
    assert operators(out) == ["Conv", "BatchNormalization"]
    assert "Rolled back, because the fold was wrong: batchnormalization_1" in result.stdout
    written = json.loads(report.read_text())
    assert "batchnormalization_1" in written["rolled_back"]
    assert written["fold"]["sites"][0]["reason"]["code"] == "BN108"
    assert run("validate", "--replay", report).exit_code == 0


def test_what_is_named_stays(run, saved, tmp_path) -> None:
    out = tmp_path / "out.onnx"
    given = ("--input-shape", SHAPE, "--no-bench", "--no-validate")
    assert run("export", saved, "-o", out, *given, "--keep", "1").exit_code == 0
    assert operators(out) == ["Conv", "BatchNormalization", "Relu"]


# --html


def test_the_page_is_written_beside_the_model(run, model, tmp_path) -> None:
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    out, page, report = (tmp_path / name for name in ("out.onnx", "page.html", "report.json"))
    result = run("export", model, "-o", out, "--html", page, "--json", report, *QUICK)
    assert result.exit_code == 0, result.stderr
    assert f"Wrote {page} (" in result.stdout
    html = page.read_text()
    assert html.startswith("<!DOCTYPE html>")
    assert html.rstrip().endswith("</html>")
    assert "batchnormalization_0" not in html
    assert "batchnormalization_1" in html
    record = json.loads(report.read_text())
    for model_record in (record["source"], record["output"]):
        assert model_record["sha256"] in html
    assert all(layer["folded_error"] is not None for layer in record["validation"]["layers"])


@pytest.mark.usefixtures("biased")
def test_the_page_and_the_report_are_written_when_validation_fails(run, model, tmp_path) -> None:
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    out, page, report = (tmp_path / name for name in ("out.onnx", "page.html", "report.json"))
    result = run("export", model, "-o", out, "--html", page, "--json", report, *QUICK)
    assert result.exit_code == 1
    assert not out.exists()
    record = json.loads(report.read_text())
    assert (record["output"], record["validation"]["passed"]) == (None, False)
    assert "It comes from the fold of batchnormalization_1." in page.read_text()


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_page_that_cannot_be_made_is_refused_before_any_work(
    run, model, tmp_path, monkeypatch, package: str
) -> None:
    from importlib import util

    from bnfold.pipeline import export

    honest = util.find_spec
    monkeypatch.setattr(
        util, "find_spec", lambda name, *more: None if name == package else honest(name, *more)
    )
    monkeypatch.setattr(export, "export", lambda *_, **__: pytest.fail("it was exported"))
    out, page = tmp_path / "out.onnx", tmp_path / "page.html"
    result = run("export", model, "-o", out, "--html", page)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"bnfold: {package} is needed to write the page, and is not installed.\n"
        '  Type: pip install "bnfold[report]"\n'
    )
    assert sorted(tmp_path.iterdir()) == [model]


def test_the_files_of_an_export_are_different_files(run, model, tmp_path, monkeypatch) -> None:
    from bnfold.pipeline import export

    monkeypatch.setattr(export, "export", lambda *_, **__: pytest.fail("it was exported"))
    before = model.read_bytes()
    out, report = tmp_path / "out.onnx", tmp_path / "report"
    for places in (
        ("--html", report, "--json", report),
        ("--html", report, "--json", tmp_path / "." / "report"),
        ("--html", out),
        ("--html", model),
        ("--json", model),
    ):
        result = run("export", model, "-o", out, *places)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "is an input or an output of this command already" in result.stderr
    for place, words in (("-", "- is not an ordinary file"), (tmp_path / "no" / "page.html", "mkdir -p")):
        result = run("export", model, "-o", out, "--html", place)
        assert (result.exit_code, result.stdout) == (2, "")
        assert words in result.stderr
    assert model.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == [model]


def test_a_shape_that_is_missing_is_guessed_and_called_a_guess(run, saved, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bnfold", "export", str(saved), "--no-bench"])
    result = run("export", saved, "--no-bench")
    assert result.exit_code == 2
    assert "does not contain the shape of its input" in result.stderr
    assert result.stderr.splitlines()[1:] == [
        f"  For example: bnfold export {saved} --no-bench --input-shape 1x3x224x224",
        "  This size is a guess: if the model was trained on another one, give that.",
    ]


def test_open_sizes_and_versions_reach_the_file(run, saved, tmp_path) -> None:
    out = tmp_path / "out.onnx"
    options = ("--dynamic", "batch", "--dynamic", "x:2=height", "--opset", "17", "--ir-version", "8")
    result = run("export", saved, "-o", out, "--input-shape", SHAPE, "--no-bench", *options)
    assert result.exit_code == 2
    assert "no input 'x'" in result.stderr
    result = run("export", saved, "-o", out, "--input-shape", SHAPE, "--no-bench", *options[:2], *options[4:])
    assert result.exit_code == 0, result.stderr
    model = onnx.load(out)
    assert (model.ir_version, model.opset_import[0].version) == (8, 17)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_batch_statistics_are_refused_by_name_and_nothing_is_written(run, tmp_path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False))
    torch.save(net, tmp_path / "net.pt")
    result = run("export", tmp_path / "net.pt", "--input-shape", SHAPE)
    assert result.exit_code == 2
    assert "A BatchNorm at 1 normalises by the statistics of the batch" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt"]


# what is slower, and --only-if-faster


@pytest.fixture
def timed(monkeypatch):
    """Let the folded model take that many times as long at ONNX Runtime's default."""
    from bnfold.latency import benchmark
    from bnfold.latency.results import Benchmark, Row

    def plant(longer: float) -> None:
        figures = (1 / longer, 0.96 / longer, 1.04 / longer)
        rows = (
            Row("default", 50, 3, 1.0, 1.1, longer, 1.2, *figures),
            Row("off", 50, 3, 2.0, 2.1, 1.0, 1.1, 2.0, 1.9, 2.1),
        )
        found = Benchmark("cpu", 1, 0, {"x": (1, 3, 8, 8)}, rows)
        monkeypatch.setattr(benchmark, "benchmark", lambda *_, **__: found)

    return plant


SLOWER = "Slower: the folded model takes 1.12 times as long (1.08 to 1.17) on cpu."


def test_slower_is_said_first_and_changes_no_exit_status(run, model, tmp_path, timed) -> None:
    out, report, page = (tmp_path / name for name in ("out.onnx", "report.json", "page.html"))
    timed(1.12)
    result = run("export", model, "-o", out, "--json", report, "--html", page)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[0] == SLOWER
    assert json.loads(report.read_text())["benchmarks"][0]["slower"] == [SLOWER]
    assert page.read_text().index(SLOWER) < page.read_text().index('id="verdict"')
    result = run("bench", model, out)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[0] == SLOWER
    timed(0.8)
    for command in (("export", model, "-o", out), ("bench", model, out)):
        result = run(*command)
        assert result.exit_code == 0, result.stderr
        assert "Slower" not in result.stdout


def test_what_is_not_faster_is_not_written_and_its_reports_are(run, model, tmp_path, timed) -> None:
    out, report, page = (tmp_path / name for name in ("out.onnx", "report.json", "page.html"))
    out.write_text("what was there before")
    command = ("export", model, "-o", out, "--json", report, "--html", page, "--only-if-faster")
    timed(1.12)
    result = run(*command)
    assert result.exit_code == 1
    assert result.stderr == (
        f"bnfold: {out} was not written, since it would not be faster:"
        " on cpu, the folded model takes 1.12 times as long (1.08 to 1.17).\n"
        "  To write it all the same, leave --only-if-faster out.\n"
    )
    assert result.stdout.splitlines()[0] == SLOWER
    assert "Wrote" not in result.stdout
    assert out.read_text() == "what was there before"
    document = json.loads(report.read_text())
    assert (document["output"], document["validation"]["passed"]) == (None, True)
    assert "nothing was written" in page.read_text()
    timed(0.8)
    result = run(*command)
    assert result.exit_code == 0, result.stderr
    assert operators(out) == ["Conv"]


@pytest.mark.parametrize("other", ["--no-bench", "--to=pt2"])
def test_only_if_faster_needs_the_latency(run, model, tmp_path, other: str) -> None:
    out = tmp_path / ("out.onnx" if other == "--no-bench" else "out.pt2")
    result = run("export", model, "-o", out, "--only-if-faster", other)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("bnfold: --only-if-faster ")
    assert ("needs the latency" if other == "--no-bench" else "has no meaning with") in result.stderr
    assert sorted(tmp_path.iterdir()) == [model]


def test_what_onnx_runtime_makes_of_both_models_is_shown(run, model, tmp_path) -> None:
    report = tmp_path / "report.json"
    result = run("export", model, "-o", tmp_path / "out.onnx", "--no-bench", "--json", report)
    assert result.exit_code == 0, result.stderr
    graphs = json.loads(report.read_text())["graphs"]
    assert graphs["original"]["multiply_adds"] == graphs["folded"]["multiply_adds"] == 4 * 36 * 27
    nodes = " → ".join(str(graphs[name]["nodes"]) for name in ("original", "folded"))
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("ONNX Runtime's own graph"))
    assert line.startswith(f"ONNX Runtime's own graph: {nodes} nodes, 1.8 → 1.8 kB read and written, 3,888 →")
    words = " ".join(run("export", "--help").stdout.split())
    assert "If ONNX Runtime is installed, the graphs that its optimizer makes of both models" in words
    assert "without running them" in words


def test_a_rollback_needs_the_comparison(run, model, tmp_path) -> None:
    result = run("export", model, "-o", tmp_path / "out.onnx", "--rollback", "--no-validate")
    assert result.exit_code == 2
    assert "--rollback needs the comparison of the outputs" in result.stderr
    assert not (tmp_path / "out.onnx").exists()


def test_labels_give_the_accuracy_in_the_report_and_on_the_page(run, tmp_path) -> None:
    pytest.importorskip("jinja2")
    draw = np.random.default_rng(0)
    weight, x = draw.normal(size=(3, 4)), draw.normal(size=(40, 3)).astype(np.float32)
    model = build(
        "g (float[N,3] x) => (float[N,4] y) "
        "{ p = MatMul(x, w) y = BatchNormalization(p, scale, bias, mean, var) }",
        {"w": weight, **statistics(4)},
    )
    onnx.save(model, tmp_path / "model.onnx")
    np.savez(tmp_path / "rows.npz", x=x, classes=draw.integers(0, 4, 40))
    rows, report, page = (tmp_path / name for name in ("rows.npz", "report.json", "report.html"))
    data = ("--inputs", rows, "--labels", rows, "--top", "2", "--json", report, "--html", page)
    result = run("export", tmp_path / "model.onnx", "-o", tmp_path / "out.onnx", "--no-bench", *data)
    assert result.exit_code == 0, result.stderr
    accuracy = json.loads(report.read_text())["validation"]["accuracy"]
    assert (accuracy["rows"], [score["k"] for score in accuracy["scores"]]) == (40, [1, 2])
    assert accuracy["sentence"] in " ".join(result.stdout.split())
    assert accuracy["sentence"] in page.read_text()
