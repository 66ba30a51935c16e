"""`bnfold inspect` shows every site, and writes nothing."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

from tests.graphs import build, weight


def test_it_says_where_a_batchnorm_would_go(run, model) -> None:
    result = run("inspect", model)
    assert result.exit_code == 0
    assert "BatchNormalization" in result.stdout
    assert "conv_0" in result.stdout
    assert "1 of 1 site can be folded; none stays." in result.stdout
    assert result.stderr == ""


def test_it_says_why_a_batchnorm_stays(run, stubborn) -> None:
    result = run("inspect", stubborn, "--json", "-")
    report = json.loads(result.stdout)
    (site,) = report["fold"]["sites"]
    shown = run("inspect", stubborn).stdout
    assert site["status"] == "kept"
    assert site["reason"]["code"] in shown
    assert f"bnfold explain {site['reason']['code']}" in shown
    assert "0 of 1 site can be folded; 1 stays." in shown


def test_standard_output_holds_only_the_json(run, model) -> None:
    result = run("inspect", model, "--json", "-")
    assert json.loads(result.stdout)["command"] == "inspect"
    assert result.stderr == ""


def test_quiet_prints_nothing(run, model) -> None:
    result = run("inspect", model, "--quiet")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_it_writes_nothing(run, model, tmp_path) -> None:
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    run("inspect", model)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.pt", b"a text file, not a model\n"),
        ("text.onnx", b"a text file, not a model\n"),
        ("empty.onnx", b""),
        ("half.pt", b"PK\x03\x04 and nothing more"),
    ],
)
def test_what_is_no_model_is_one_clear_line(run, tmp_path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    result = run("inspect", path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("bnfold: ")
    assert str(path) in result.stderr.splitlines()[0]
    assert "Traceback" not in result.stderr


def test_an_option_for_pytorch_is_refused_on_an_onnx_model(run, model) -> None:
    result = run("inspect", model, "--input-shape", "1x3x8x8")
    assert result.exit_code == 2
    assert "--input-shape is for PyTorch files" in result.stderr


def test_it_begins_with_the_answer_and_what_the_model_is(run, model) -> None:
    answer, gap, *lines = run("inspect", model).stdout.splitlines()
    assert (answer, gap) == (f"{model}: 1 of 1 site can be folded; none stays. 2 nodes before, 1 after.", "")
    assert [line.split()[0] for line in lines[1:6]] == ["inputs", "outputs", "format", "size", "operators"]
    assert "BatchNormalization 1" in lines[5]


def test_several_models_are_shown_one_after_the_other(run, model, stubborn) -> None:
    result = run("inspect", model, stubborn)
    assert result.exit_code == 0
    assert result.stdout.index(f"{model} holds") < result.stdout.index(f"{stubborn} holds")
    documents = json.loads(run("inspect", model, stubborn, "--json", "-").stdout)
    assert [document["source"]["path"] for document in documents] == [str(model), str(stubborn)]


@pytest.mark.parametrize(("fatal", "codes"), [("foldable", (1, 0)), ("kept", (0, 1))])
def test_it_fails_where_that_is_asked_for(run, model, stubborn, fatal: str, codes: tuple[int, int]) -> None:
    found = [run("inspect", path, "--fail-on", fatal).exit_code for path in (model, stubborn)]
    assert tuple(found) == codes
    assert run("inspect", model, stubborn, "--fail-on", fatal).exit_code == 1


def test_it_names_the_layers_that_eight_bits_hurt(run, tmp_path) -> None:
    weights = {f"w{at}": weight(8, 8, 1, 1, seed=at) for at in range(6)}
    for array in weights.values():
        array[0] *= 100
    nodes = " ".join(f"[l{at}] c{at} = Conv (v{at}, w{at}) v{at + 1} = Relu (c{at})" for at in range(6))
    path = tmp_path / "uneven.onnx"
    onnx.save(build(f"g (float[1,8,4,4] v0) => (float[1,8,4,4] v6) {{ {nodes} }}", weights), path)
    lines = run("inspect", path).stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("With one step of 8 bits"))
    assert "6 layers would lose a bit or more" in lines[at]
    assert len(lines) - at == 6
    assert lines[-1].strip() == "… and 2 more (-v shows them)"
    assert "more" not in run("inspect", path, "--verbose").stdout.splitlines()[-1]
    document = json.loads(run("inspect", path, "--json", "-").stdout)
    assert len(document["int8"]) == 6
    assert document["int8"][0]["bits"] > 4
    path, level = tmp_path / "even.onnx", weight(8, 8, 1, 1)
    level /= np.abs(level).max(axis=1, keepdims=True)
    onnx.save(build("g (float[1,8,4,4] x) => (float[1,8,4,4] y) { y = Conv (x, w) }", {"w": level}), path)
    assert "8 bits" not in run("inspect", path).stdout
