"""`bnfold export --to`."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from tests.cli.test_documents import SCHEMA, closed  # noqa: E402

CONVNET = Path(__file__).parents[2] / "models" / "convnet.pt"
SHAPE = ("--input-shape", "1x1x32x32")


@pytest.mark.parametrize(("form", "says"), [("pt2", "a program"), ("state_dict", "the weights alone")])
def test_a_file_and_a_report(run, tmp_path, form, says):
    path, report = tmp_path / "out", tmp_path / "report.json"
    done = run("export", CONVNET, *SHAPE, "--to", form, "-o", path)
    assert done.exit_code == 0, done.output
    assert "4 of 4 sites folded" in done.output
    assert "In eager mode and float64 the largest relative error is" in done.output
    assert f"It holds {says}" in done.output
    assert path.is_file()
    if form == "pt2":
        return
    assert run("export", CONVNET, *SHAPE, "--to", form, "-o", path, "--json", report, "-q").output == ""
    document = json.loads(report.read_text())
    schema = {**closed(SCHEMA), "$ref": "#/$defs/export_module"}
    del schema["oneOf"]
    jsonschema.Draft202012Validator(schema).validate(document)
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    assert set(document) == set(SCHEMA["$defs"]["export_module"]["properties"])
    assert set(document["module"]["parameters"]) == set(torch.load(path))
    assert document["module"]["parameters"]["conv1.weight"][:2] == ["conv1.weight", "bn1.weight"]


def test_the_file_is_written_next_to_the_model_where_none_is_named(run, tmp_path):
    (model := tmp_path / "net.pt").write_bytes(CONVNET.read_bytes())
    assert run("export", model, *SHAPE, "--to", "module", "-q").exit_code == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["net.folded.pt", "net.pt"]


def test_options_of_onnx_are_refused_by_name(run, tmp_path):
    options = ("--opset", "13", "--html", tmp_path / "x.html", "--samples", "2")
    done = run("export", CONVNET, *SHAPE, "--to", "module", "-o", tmp_path / "out", *options)
    assert done.exit_code == 2
    refused = done.output.partition(" has no meaning with --to module")[0].partition("bnfold: ")[2]
    assert set(refused.split(", ")) == {"--opset", "--html", "--samples"}
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "problem", "fix"),
    [
        (["-o", "f.pt"], "f.pt is the name of a PyTorch file", "add --to module or --to state_dict"),
        (["-o", "f.PT2"], "f.PT2 is the name of a PyTorch file", "add --to pt2"),
        (["-o", "f.safetensors"], "f.safetensors is the name of a PyTorch file", "call it f.onnx"),
        (["-o", "f.rknn"], "f.rknn is what RKNN-Toolkit2 writes afterwards", "Call it f.onnx."),
        (["-o", "f.v2"], "f.v2 is not the name of an ONNX file", "Call it f.v2.onnx."),
        (["-o", "f.html"], "f.html is not the name of an ONNX file", "Call it f.onnx."),
        (["-o", "f.pt2", "--target", "rknn"], "f.pt2 is the name of a PyTorch file", "Call it f.onnx."),
        (["--to", "pt2", "-o", "f.bin"], "f.bin is not a name", "Call it f.bin.pt2."),
        (["-o", "f.pte", "--target", "executorch"], "f.pte is what ExecuTorch writes", "Call it f.pt2."),
        (
            ["-o", "f.bin", "--target", "executorch"],
            "f.bin is not a name for what is written for",
            "f.bin.pt2",
        ),
        (
            ["-o", "f.pt2", "--target", "executorch", "--set-batch", "1"],
            "--set-batch has no meaning with --target executorch.",
            "it is for ONNX files",
        ),
        (["--to", "module", "-o", "f.onnx"], "f.onnx is not a name", "Call it f.pt, or leave --to out"),
        (["--to", "pt2", "-o", "f.ort"], "f.ort is not a name", "Call it f.pt2."),
        (["--to", "state_dict", "-o", "f.safetensors"], "f.safetensors is not a name", "Call it f.pt."),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "",
)
def test_a_name_that_says_another_kind_of_file_is_refused(run, tmp_path, monkeypatch, words, problem, fix):
    monkeypatch.chdir(tmp_path)
    done = run("export", CONVNET, *SHAPE, *words)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"bnfold: {problem}")
    assert fix in done.stderr.splitlines()[1]
    assert not list(tmp_path.iterdir())
