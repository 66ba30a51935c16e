"""`bnfold validate` compares two models and says so by its exit code."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import parser


@pytest.fixture
def folded(run, model, tmp_path):
    path = tmp_path / "folded.onnx"
    assert run("fold", model, "-o", path).exit_code == 0
    return path


def test_models_that_agree_exit_0(run, model, folded) -> None:
    result = run("validate", model, folded)
    assert result.exit_code == 0, result.stderr
    assert "computes what the original computes" in result.stdout


def test_models_that_disagree_exit_1_and_are_reported(run, model, tmp_path, make_model) -> None:
    other = make_model("other.onnx", ["Conv", "BatchNormalization"], seed=1)
    result = run("validate", model, other, "--json", tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    assert result.exit_code == 1
    assert result.stderr.startswith(f"bnfold: {other} does not compute what {model} computes.")
    assert "disagrees" in result.stdout
    assert report["validation"]["passed"] is False
    assert report["original"]["sha256"] != report["folded"]["sha256"]


def test_a_tolerance_decides(run, model, make_model) -> None:
    other = make_model("other.onnx", ["Conv", "BatchNormalization"], seed=1)
    assert run("validate", model, other, "--tolerance", "1e6", "--quiet").exit_code == 0


def test_given_data_are_used(run, model, folded, tmp_path) -> None:
    np.savez(tmp_path / "data.npz", x=np.ones((1, 3, 8, 8), np.float32))
    result = run("validate", model, folded, "--inputs", tmp_path / "data.npz")
    assert result.exit_code == 0, result.stderr
    assert "on 1 given input." in result.stdout


def test_data_that_are_missing_are_one_clear_line(run, model, folded, tmp_path) -> None:
    result = run("validate", model, folded, "--inputs", tmp_path / "none.npz")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "none.npz" in result.stderr.splitlines()[0]


def test_a_provider_that_is_absent_is_an_error(run, model, folded) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    result = run("validate", model, folded, "--provider", "cuda")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "bnfold[gpu]" in result.stderr


def test_six_kinds_of_inputs_unless_told_otherwise(run, model, folded) -> None:
    for more, kinds in (
        ((), ["normal", "uniform", "zeros", "ones", "large", "tiny"]),
        (("--samples", "2"), ["normal", "uniform"]),
    ):
        document = json.loads(run("validate", model, folded, "--json", "-", *more).stdout)
        assert [label.split()[0] for label in document["validation"]["labels"]] == kinds
        assert document["validation"]["request"]["samples"] == len(kinds)


def test_the_oracle_may_be_left_out(run, model, folded) -> None:
    result = run("validate", model, folded, "--oracle", "off")
    assert result.exit_code == 0, result.stderr
    assert "with its optimizer off (as asked for)" in " ".join(result.stdout.split())
    assert "max rel" in result.stdout
    assert "In float64" not in result.stdout


def test_every_layer_is_measured_when_asked_for(run, model, folded) -> None:
    assert "fold of" not in run("validate", model, folded).stdout
    result = run("validate", model, folded, "--per-layer")
    assert result.exit_code == 0, result.stderr
    row = next(
        line.split() for line in result.stdout.splitlines() if line.startswith("y  ") and "batch" in line
    )
    assert row[:2] == ["y", "batchnormalization_1"]
    assert len(row) == 6


def test_a_disagreement_names_the_value(run, model, make_model) -> None:
    other = make_model("other.onnx", ["Conv", "BatchNormalization"], seed=1)
    result = run("validate", model, other)
    assert "the first that differs in float64 is 'v0'" in " ".join(result.stdout.split())


# --replay


@pytest.fixture
def report(run, model, folded, tmp_path):
    path = tmp_path / "report.json"
    options = ("--samples", "2", "--seed", "4", "--per-layer", "--quiet")
    assert run("validate", model, folded, "--json", path, *options).exit_code == 0
    return path


def test_a_report_that_still_holds_exits_0(run, report, tmp_path) -> None:
    result = run("validate", "--replay", report, "--json", tmp_path / "again.json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "computes what the original computes, on 2 random inputs" in result.stdout
    assert result.stdout.startswith(f"What {report} says still holds.\n")
    document = json.loads((tmp_path / "again.json").read_text())
    assert (document["command"], document["holds"], document["changes"]) == ("replay", True, [])
    assert document["validation"] == json.loads(report.read_text())["validation"]


def test_a_report_that_does_not_hold_any_more_exits_1(run, report, folded) -> None:
    folded.write_bytes(folded.read_bytes() + b"\0")
    result = run("validate", "--replay", report)
    assert result.exit_code == 1
    assert f"What {report} says does not hold any more." in result.stdout
    assert f"{folded} is not the file that was validated" in result.stdout
    assert result.stderr == f"bnfold: What {report} says does not hold any more.\n"
    quiet = run("validate", "--replay", report, "--quiet")
    assert (quiet.exit_code, quiet.stdout) == (1, "")


def test_what_is_no_report_exits_2(run, model, tmp_path) -> None:
    inspected = tmp_path / "inspected.json"
    run("inspect", model, "--json", inspected)
    for path, words in (
        (model, "cannot be read as a report"),
        (inspected, "is a report of bnfold inspect, which contains no validation"),
        (tmp_path / "none.json", "none.json cannot be read as a report"),
    ):
        result = run("validate", "--replay", path)
        assert (result.exit_code, result.stdout) == (2, "")
        assert words in result.stderr
        assert "Traceback" not in result.stderr


def test_models_are_named_or_a_report_is(run, model, report) -> None:
    for arguments, words in (
        ((), "Name two models"),
        ((model,), "Name two models"),
        ((model, model, "--replay", report), "leave ORIGINAL and FOLDED out"),
        ((model, model, "--trust"), "--trust goes with --replay"),
    ):
        result = run("validate", *arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert words in " ".join(result.stderr.split())


def test_the_report_is_not_written_over_by_its_replay(run, report) -> None:
    before = report.read_bytes()
    assert run("validate", "--replay", report, "--json", report).exit_code == 2
    assert report.read_bytes() == before


def test_a_report_that_wants_code_to_run_is_refused(run, model, report) -> None:
    document = json.loads(report.read_text())
    document["original"]["options"] = {"allow": ["package.Layer"], "arch": "os:system"}
    report.write_text(json.dumps(document))
    result = run("validate", "--replay", report)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines() == [
        f"bnfold: {report} asks to read {model} with --allow and --arch, which may run code.",
        "  If you trust both files, add --trust.",
    ]
    # an ONNX file has no use for it
    assert "is for PyTorch files" in run("validate", "--replay", report, "--trust").stderr


# --match, --strict, --labels


@pytest.fixture
def renamed(folded, tmp_path):
    """The folded model with names of another exporter."""
    model = onnx.load(folded)
    for node in model.graph.node:
        node.input[:] = ["image" if name == "x" else name for name in node.input]
    model.graph.input[0].name = "image"
    path = tmp_path / "renamed.onnx"
    onnx.save(model, path)
    return path


def test_other_names_are_matched_by_order_on_request(run, model, renamed) -> None:
    result = run("validate", model, renamed)
    assert result.exit_code == 1
    assert "--match order pairs them by their order" in result.stdout
    result = run("validate", model, renamed, "--match", "order")
    assert result.exit_code == 0, result.stderr
    assert "The input 'x' is named 'image'." in result.stdout


def test_strict_fails_on_what_is_otherwise_noted(run, model, renamed) -> None:
    result = run("validate", model, renamed, "--match", "order", "--strict", "--json", "-")
    assert result.exit_code == 1
    assert result.stderr == f"bnfold: {renamed} is not the same as {model} for its callers.\n"
    validation = json.loads(result.stdout)["validation"]
    assert validation["differences"] == ["The input 'x' is named 'image'."]
    assert (validation["passed"], validation["problems"]) == (False, [])
    shown = run("validate", model, renamed, "--match", "order", "--strict").stdout
    assert "computes what the original computes, but its callers meet something else" in shown


@pytest.fixture
def classifier(tmp_path):
    """A classifier of three numbers in four classes, its data with labels, and the labels as text."""
    draw = np.random.default_rng(0)
    model = parser.parse_model(
        '<ir_version: 9, opset_import: ["": 18]> g (float[N, 3] x) => (float[N, 4] y) { y = MatMul(x, w) }'
    )
    weight, x = draw.normal(size=(3, 4)).astype(np.float32), draw.normal(size=(50, 3)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    onnx.save(model, tmp_path / "classifier.onnx")
    classes = (x @ weight).argmax(axis=1)
    classes[:5] = (classes[:5] + 1) % 4
    np.savez(tmp_path / "rows.npz", x=x, y=classes)
    np.savetxt(tmp_path / "labels.csv", classes, fmt="%d")
    return tmp_path / "classifier.onnx", tmp_path / "rows.npz", tmp_path / "labels.csv"


def test_labels_give_the_accuracy_of_both_models_in_the_first_line(run, classifier, tmp_path) -> None:
    path, rows, labels = classifier
    options = ("--inputs", rows, "--labels", labels, "--top", "2", "--json", tmp_path / "report.json")
    result = run("validate", path, path, *options)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("Accuracy on 50 labelled rows: top-1 90.00%, original 90.00%, difference")
    accuracy = json.loads((tmp_path / "report.json").read_text())["validation"]["accuracy"]
    assert [score["k"] for score in accuracy["scores"]] == [1, 2]
    again = run("validate", "--replay", tmp_path / "report.json")
    assert again.exit_code == 0, again.stderr
    assert "Accuracy on 50 labelled rows" in again.stdout.splitlines()[2]
    labels.write_text("0\n" * 50)
    changed = run("validate", "--replay", tmp_path / "report.json")
    assert changed.exit_code == 1
    assert f"{labels} has changed." in changed.stdout


def test_labels_without_data_are_one_clear_line(run, classifier) -> None:
    path, _, labels = classifier
    result = run("validate", path, path, "--labels", labels)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--labels is for data of your own" in result.stderr


@pytest.fixture
def embedding(tmp_path):
    """A model that looks six numbers up in a table of 400 rows, and the same with another row 311."""
    paths = [tmp_path / "table.onnx", tmp_path / "other.onnx"]
    table = np.random.default_rng(0).normal(size=(400, 4)).astype(np.float32)
    for path in paths:
        model = parser.parse_model(
            '<ir_version: 9, opset_import: ["": 18]> '
            "g (int64[6] k) => (float[6, 4] y) { [lookup] y = Gather (table, k) }"
        )
        model.graph.initializer.append(onnx.numpy_helper.from_array(table, "table"))
        onnx.save(model, path)
        table[311] += 1
    return paths


def test_what_was_not_seen_is_listed_and_cover_finds_it(run, embedding, tmp_path) -> None:
    first, second = embedding
    result = run("validate", first, second, "--json", tmp_path / "report.json")
    assert result.exit_code == 0, result.stderr
    assert "Not seen" in result.stdout
    assert "of 400 rows of 'table' (read by 'lookup') were met by no index" in " ".join(result.stdout.split())
    unseen = json.loads((tmp_path / "report.json").read_text())["validation"]["unseen"]
    assert unseen["rows"][0]["total"] == 400
    assert any(first <= 311 <= last for first, last in unseen["rows"][0]["missing"])
    covered = run("validate", first, second, "--cover", "--cover-seconds", "30")
    assert covered.exit_code == 1
    assert "--cover tried" in covered.stdout
    same = run("validate", first, first, "--cover", "--json", tmp_path / "report.json")
    assert same.exit_code == 0
    assert "ended when all that it can aim at had been seen" in " ".join(same.stdout.split())
    again = run("validate", "--replay", tmp_path / "report.json", "--json", tmp_path / "again.json")
    assert again.exit_code == 0, again.stderr
    records = [json.loads((tmp_path / name).read_text()) for name in ("report.json", "again.json")]
    assert records[0]["validation"] == records[1]["validation"]


def test_the_budget_of_cover_is_in_the_help_and_cover_takes_no_data(run, model, tmp_path) -> None:
    page = " ".join(run("validate", "--help").stdout.split())
    assert "at most 200, and for at most --cover-seconds" in page
    assert "Time for --cover. [default: 60; x>0]" in page
    np.savez(tmp_path / "data.npz", x=np.ones((1, 3, 8, 8), np.float32))
    result = run("validate", model, model, "--cover", "--inputs", tmp_path / "data.npz")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "random inputs are drawn" in result.stderr
