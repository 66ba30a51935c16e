"""`bnfold targets`, and `--target` of the other commands."""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from bnfold.targets.check import quantized_before
from bnfold.targets.profile import load, names
from bnfold.targets.view import View
from tests.gate.models import layers, save
from tests.graphs import build


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """A Conv and a BatchNorm, for any batch, at an opset that not every target reads."""
    return save(layers(x="N,3,8,8", opset=20), tmp_path / "net.onnx")


def test_the_list_names_every_target(run) -> None:
    result = run("targets")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == f"{len(names())} targets. What one demands: bnfold targets NAME"
    assert [line.split()[0] for line in lines[3:]] == list(names())


def test_other_names_are_shown_and_taken(run) -> None:
    everything = run("targets").stdout
    for known in map(load, names()):
        assert ", ".join(known.aliases) in everything
        for alias in known.aliases:
            assert load(alias.upper()) == known
    alone = run("targets", "rk3588").stdout
    assert alone.splitlines()[1].startswith("Other names that --target takes: rockchip, ")
    assert "Other names" not in run("targets", "mnn").stdout
    assert "`--target` takes: rockchip, " in run("targets", "rknn", "--markdown").stdout


def test_one_target_is_shown_with_its_sources(run) -> None:
    shown = run("targets", "rknn").stdout
    lines = shown.splitlines()
    assert lines[0] == "Rockchip RKNN-Toolkit2"
    assert "opset 12 to 19" in " ".join(shown.split())
    assert "Opsets 12 to 19 are read. [1]" in shown
    assert "bnfold export net.onnx -o out.onnx --target rknn" in shown
    assert "rknn.load_onnx(model='out.onnx')" in shown.replace("\n", "")
    (source,) = (line for line in lines if line.startswith("  [1] "))
    assert "https://github.com/airockchip/rknn-toolkit2/" in source
    assert "Not known: No limit on the IR version is documented." in " ".join(shown.split())


@pytest.mark.parametrize("name", names())
def test_no_page_shows_the_names_of_fields(run, name: str) -> None:
    shown = run("targets", name).stdout
    for field in ("allowed:", "refused:", "operators:", "open:", "reads:", "name:", "min:", "max:"):
        assert field not in shown
    assert "bnfold export net." in shown
    assert [line for line in shown.splitlines() if line.startswith("  [1] 20")]


def test_markdown_is_that_of_one_target(run) -> None:
    assert "| Opsets 12 to 19 are read. |" in run("targets", "rknn", "--markdown").stdout
    assert run("targets", "--markdown").exit_code == 2
    assert "Did you mean rknn?" in run("targets", "rknnn").stderr


def test_the_report_for_programs(run, tmp_path: Path) -> None:
    path = tmp_path / "targets.json"
    assert run("targets", "--json", path).exit_code == 0
    found = json.loads(path.read_text())
    assert [one["name"] for one in found["targets"]] == list(names())
    assert {"kind", "what", "limit", "source", "date"} == set(found["targets"][0]["rules"][0])


def test_check_lists_what_stands_in_the_way(run, net: Path) -> None:
    given = ("--no-cache", "--jobs", "1", "--select", "M3")
    result = run("check", net, "--target", "rknn", "--target", "tensorrt", *given)
    assert result.exit_code == 1
    assert "M307 for rknn, the opset is 20, and 19 is the limit" in result.stdout
    assert "M309 for rknn, 1 input has open sizes ([N, 3, 8, 8]): x" in result.stdout
    assert "tensorrt" not in result.stdout
    assert result.stderr.splitlines()[:2] == [
        "rknn: 2 things stand in the way of the model.",
        "tensorrt: nothing that bnfold knows stands in the way of the model.",
    ]


def test_the_answer_of_a_check_counts_the_models_that_were_read(run, net: Path, tmp_path: Path) -> None:
    other = save(layers(x="1,3,8,8", opset=17), tmp_path / "other.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"\x08\x09no model")
    given = ("--no-cache", "--jobs", "1", "--select", "M3")
    result = run("check", net, other, tmp_path / "broken.onnx", "--target", "rknn", *given)
    assert "rknn: 2 things stand in the way of 1 of 2 models; 1 cannot be read." in result.stderr
    quiet = run("check", net, "--target", "rknn", "-q", *given)
    assert (quiet.stdout, quiet.stderr, quiet.exit_code) == ("", "", 1)
    assert "in the way" not in run("check", tmp_path / "broken.onnx", "--target", "rknn", *given).stderr


def test_export_does_what_can_be_done(run, net: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    result = run("export", net, "-o", out, "--target", "rknn", "--no-bench", "--samples", "1")
    assert result.exit_code == 0, result.stderr
    shown = " ".join(result.stdout.split())
    assert "Nothing that bnfold knows stands in the way to rknn." in shown
    assert shown.index("stands in the way") < shown.index(" holds ") < shown.index("Next: python -c ")
    assert f"model='{out}'" in shown.replace(" ", "")
    made = onnx.load(out)
    assert made.opset_import[0].version == 19
    assert made.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
    assert [node.op_type for node in made.graph.node] == ["Conv"]


def test_export_says_what_is_left_and_exits_with_one(run, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    net = save(layers("y = MaxPool <kernel_shape = [2, 2], dilations = [2, 2]> (a)"), tmp_path / "net.onnx")
    result = run("export", net, "-o", out, "--target", "tensorrt", "--no-bench", "--no-validate")
    assert result.exit_code == 1
    assert out.exists()
    shown = " ".join(result.stdout.split())
    assert (
        "In the way to tensorrt: 1 MaxPool has dilations = [2, 2], and 1 is taken: Pools are taken" in shown
    )
    assert f"trtexec --onnx={out}" in shown


def test_what_the_user_asks_for_comes_first(run, net: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    given = ("--opset", "13", "--set-batch", "4", "--no-bench", "--no-validate")
    assert run("export", net, "-o", out, "--target", "rknn", *given).exit_code == 0
    made = onnx.load(out)
    assert made.opset_import[0].version == 13
    assert made.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 4


def test_a_target_without_onnx_says_what_to_type(run, net: Path) -> None:
    result = run("export", net, "--target", "executorch", "--no-bench")
    assert result.exit_code == 2
    assert "reads programs of torch.export, and no ONNX file" in " ".join(result.stderr.split())
    assert "bnfold export MODEL.pt --input-shape … --target executorch -o OUT.pt2" in " ".join(
        result.stderr.split()
    )
    named = run("export", net, "--target", "executorch", "-o", net.with_suffix(".pt2"))
    assert "reads programs of torch.export, and no ONNX file" in " ".join(named.stderr.split())
    assert "--to" not in named.stderr


MODELS = Path(__file__).parents[2] / "models"


def test_a_program_without_modules_says_what_to_give(run, tmp_path: Path) -> None:
    program = MODELS / "mobileone.pt2"
    result = run("export", program, "--target", "executorch", "-o", tmp_path / "out.pt2")
    said = " ".join(result.stderr.split())
    assert result.exit_code == 2
    assert "mobileone.pt2 is a program of torch.export, and bnfold folds modules" in said
    assert "--to" not in said
    assert f"torch.export.load('{program}')" in said


def test_a_program_does_not_get_the_name_of_an_onnx_file(run, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    result = run("export", MODELS / "convnet.pt", "--target", "executorch", "-o", out)
    assert result.exit_code == 2
    assert "executorch reads a program of torch.export" in " ".join(result.stderr.split())
    assert "out.pt2" in result.stderr
    assert not out.exists()


def test_the_format_that_a_target_reads_is_written(run, tmp_path: Path) -> None:
    net = save(layers(), tmp_path / "net.onnx")
    result = run("export", net, "--target", "onnxruntime-mobile", "--no-bench", "--no-validate")
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "net.folded.ort").exists()


def test_a_pytorch_model_is_written_in_the_form_that_is_read() -> None:
    from bnfold_cli import _target

    model = Path(__file__).parents[2] / "models" / "convnet.pt"
    assert _target.form_for("executorch", model, None) == "pt2"
    assert _target.form_for("rknn", model, None) is None
    assert _target.form_for(None, model, "module") == "module"
    with pytest.raises(click.UsageError, match="what rknn does not read"):
        _target.form_for("rknn", model, "pt2")


def test_a_file_of_pytorch_is_not_ready_for_a_target_that_reads_onnx(run) -> None:
    given = ("--no-cache", "--jobs", "1", "--select", "M320")
    result = run("check", MODELS / "convnet.pt", "--target", "RKNN", "--target", "executorch", *given)
    assert "M320 for rknn, the file is a PyTorch file, and the target reads ONNX files" in result.stdout
    assert "M320 for executorch, the file is a PyTorch file" in result.stdout
    assert "rknn: 1 thing stands in the way of the model." in result.stderr
    program = run("check", MODELS / "mobileone.pt2", "--target", "rk3588", "--target", "executorch", *given)
    assert "M320 for rknn, the file is a program of torch.export" in program.stdout
    assert "executorch: nothing that bnfold knows stands in the way" in program.stderr


@pytest.mark.parametrize(("target", "tool"), [("tflite-micro", "onnx2tf"), ("hailo", "Hailo's compiler")])
def test_int8_is_left_to_a_toolchain_that_makes_it_itself(run, net: Path, target: str, tool: str) -> None:
    options = ("--no-bench", "--no-validate", "--target", target)
    data = net.with_name("data.npz")
    np.savez(data, x=np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float32))
    out = net.with_name("out.onnx")
    result = run("export", net, "-o", out, "--int8", "--calibration", data, *options)
    said = " ".join(result.stdout.split())
    assert f"1 thing stands in the way to {target}" in said, result.output
    assert f"the file is quantised already, so leave --int8 out: {tool} makes int8 itself" in said
    assert result.exit_code == 1
    assert out.is_file()
    result = run("export", net, "-o", out, *options)
    assert result.exit_code == 0
    assert "quantised already" not in result.stdout


def test_int8_is_for_a_toolchain_that_reads_it() -> None:
    pairs = ir.from_proto(
        build(
            "g (float[1,3,8,8] x) => (float[1,3,8,8] y)"
            " { q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)  y = Relu(d) }",
            {"s": np.float32(0.1), "z": np.int8(0)},
        )
    )
    itself = {name for name in names() if any(quantized_before(load(name), View(pairs)))}
    assert itself == {"esp-dl", "hailo", "litert", "tflite-micro"}
