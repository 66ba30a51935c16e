"""The last step of an export: half precision or eight bits, as a step with its record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from click.testing import CliRunner

import bnfold
from bnfold.edge import fidelity
from bnfold.edge.quantize import Scheme, named
from bnfold.errors import InputError
from bnfold.files.load import from_proto
from bnfold.inputs.given import Given
from bnfold.options import Checking
from bnfold.pipeline.narrow import Convert, Quantize, narrowed
from bnfold.pipeline.steps import Done, Trial
from bnfold.report.page import verdict
from bnfold.report.record import plain
from bnfold.report.terminal import headline
from bnfold_cli import _edge, _run_options, main
from tests.small_networks import Draft, residual


def folded() -> ir.Model:
    return named(bnfold.fold(from_proto(residual(0))).model)


def data(rows: int = 24, seed: int = 0) -> dict[str, Any]:
    return {"x": np.random.default_rng(seed).normal(0, 1, (rows, 3, 12, 12)).astype(np.float32)}


def test_half_precision_on_random_data_says_so() -> None:
    model, done = Convert("float16")(folded(), Trial(Checking()))
    assert (done.name, done.passed) == ("precision", True)
    assert done.sentence.startswith("Converted to float16; largest error")
    assert done.sentence.endswith("Ranges are those of random data; give real data with --inputs.")
    assert json.loads(json.dumps(done.details))["judgement"]["unit"] == "float16"
    kinds = {node.outputs[0].dtype for node in model.graph if node.op_type == "Conv"}
    assert kinds == {ir.DataType.FLOAT16}


def test_half_precision_on_given_data_with_a_node_in_float32() -> None:
    model, done = Convert("mixed", keep_io=False, leave=("fc",))(folded(), Trial(Checking(), data()))
    assert "random" not in done.sentence
    assert [(one["node"], one["why"]) for one in done.details["kept"]] == [("fc", "it was asked for")]
    assert "; 1 node stays in float32; largest error" in done.sentence
    assert " units of float16; rounding every value would cost " in done.sentence
    assert model.graph.inputs[0].dtype == ir.DataType.FLOAT16
    with pytest.raises(InputError, match="run to measure"):
        Convert("float16")(folded(), None)


def test_a_conversion_that_is_too_far_off_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bnfold.edge.rounded.NOISE_FACTOR", 0.0)
    monkeypatch.setattr("bnfold.edge.rounded.ULPS", 0.0)
    model = folded()
    made, done = Convert("float16")(model, Trial(Checking(), data()))
    assert made is model
    assert not done.passed
    assert done.sentence.startswith("The conversion was taken back.")


def test_eight_bits_with_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "data.npz", **data(40, seed=1))
    (tmp_path / "labels.txt").write_text("\n".join(["3"] * 40))
    given = Given(tmp_path / "data.npz", labels=tmp_path / "labels.txt", top=3)
    model = folded()
    step = Quantize(Scheme(per_channel=True), data(), before=model)
    monkeypatch.setattr(fidelity, "POINTS", 100.0)
    made, done = step(model, Trial(Checking(), given))
    assert (done.name, done.passed) == ("int8", True)
    assert "dB without equalisation) on 40 rows; accuracy" in done.sentence
    assert any(node.op_type == "DequantizeLinear" for node in made.graph)
    written = json.loads(json.dumps(done.details))
    assert written["quantized"]["scheme"]["per_channel"] is True
    assert [score["k"] for score in written["after"]["accuracy"]["scores"]] == [1, 3]
    monkeypatch.setattr(fidelity, "POINTS", -100.0)
    made, done = step(model, Trial(Checking(), given))
    assert made is model
    assert not done.passed


@pytest.mark.parametrize(("weight", "op", "kept"), [(127.0, "Relu", True), (0.3, "Log", False)])
def test_noise_that_is_no_number_is_said_in_words(tmp_path: Path, weight: float, op: str, kept: bool) -> None:
    """A weight of one step has no noise; where int8 makes 0, a logarithm leaves nothing of the signal."""
    d = Draft(0)
    conv = d.node("Conv", "c", "x", d.constant("w", np.full((1, 1, 1, 1), weight, np.float32)))
    onnx.save(d.model(["N", 1, 4, 4], d.node(op, "last", conv)), tmp_path / "model.onnx")
    rows = np.arange(256.0) if kept else np.linspace(1e-4, 1, 256)
    x = np.broadcast_to(rows[:, None, None, None], (256, 1, 4, 4)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x)
    paths = {name: str(tmp_path / name) for name in ("model.onnx", "o.onnx", "o.json", "o.html", "data.npz")}
    result = CliRunner().invoke(
        main,
        [
            *("export", paths["model.onnx"], "-o", paths["o.onnx"], "--no-bench", "-v"),
            *("--int8", "--calibration", paths["data.npz"]),
            *("--json", paths["o.json"], "--html", paths["o.html"]),
        ],
    )
    assert result.exit_code == (0 if kept else 1), result.output
    said = "1 layer in int8, no noise on 256 rows." if kept else "taken back. 1 layer in int8, no signal left"
    assert said in result.output
    for text in (result.output, Path(paths["o.html"]).read_text(encoding="utf-8")):
        assert "inf dB" not in text
        assert "nan dB" not in text
    step = json.loads(Path(paths["o.json"]).read_text(encoding="utf-8"))["steps"][-1]
    assert step["details"]["after"]["sqnr"] is None
    again = narrowed([Done(**step)])
    assert again is not None
    assert again.is_good == kept


def test_eight_bits_without_other_data_are_judged_on_the_calibration_data() -> None:
    _, done = Quantize(Scheme(), data())(folded(), None)
    assert done.sentence.endswith(
        "Judged on the calibration data; give other data with --inputs, and --labels."
    )
    assert len(done.details["layers"]) == 7
    gain = done.details["quantized"]["gain"]
    assert (f"; corrected biases brought {gain:.1f} dB on the calibration data" in done.sentence) == (
        gain >= 0.1
    )


# --- the options -------------------------------------------------------------------------------------------


@click.command()
@_edge.narrow_options
@_run_options.data_options
def command(narrow: Any, inputs: Any, seed: int) -> None:
    """Print what the options make."""
    click.echo(repr((narrow, inputs, seed)))


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(command, arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--precision", "float16", "--int8"], "exclude each other"),
        (["--int8"], "--int8 needs --calibration"),
        (["--pow2-scales"], "--pow2-scales needs --int8"),
        (["--per-channel"], "--per-channel needs --int8"),
        (["--no-bias-correction"], "--no-bias-correction needs --int8"),
        (["--half-io"], "--half-io needs --precision"),
        (["--leave", "fc"], "--leave needs --precision or --int8"),
        (["--precision", "float8"], "'float8' is not one of"),
    ],
)
def test_options_that_do_not_go_together(arguments: list[str], message: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_the_options_make_a_step(tmp_path: Path) -> None:
    assert invoke().output == "(None, None, 0)\n"
    found = invoke("--precision", "mixed", "--half-io", "--leave", "a", "--leave", "b")
    assert repr(Convert("mixed", keep_io=False, leave=("a", "b"))) in found.output
    np.savez(tmp_path / "data.npz", **data(2))
    path = str(tmp_path / "data.npz")
    found = invoke("--int8", "--calibration", path, "--per-channel", "--no-bias-correction", "--leave", "a")
    scheme = Scheme(per_channel=True, leave=("a",), correct_biases=False)
    assert repr(Quantize(scheme, Given(tmp_path / "data.npz"))) in found.output


# --- the whole export --------------------------------------------------------------------------------------


def test_an_export_ends_in_eight_bits_and_compares_with_what_was_not_equalised(tmp_path: Path) -> None:
    onnx.save(residual(0), tmp_path / "model.onnx")
    done = bnfold.export(
        tmp_path / "model.onnx",
        tmp_path / "out.onnx",
        equalize=True,
        narrow=Quantize(Scheme(), data()),
        bench=False,
    )
    assert [one.name for one in done.steps] == ["equalize", "int8"]
    assert done.steps[-1].details["before"] is not None
    written = onnx.load(tmp_path / "out.onnx")
    assert "QuantizeLinear" in {node.op_type for node in written.graph.node}
    assert done.validation is not None
    assert done.validation.passed
    assert (
        f". Before int8, the models compute the same, on 6 inputs. {done.steps[-1].sentence}" in done.headline
    )
    said = [line.plain for line in headline.of_export(done)]
    assert said[1:3] == ["Before int8, the models compute the same, on 6 inputs.", done.steps[-1].sentence]


def quantised(decibels: float, *, passed: bool = True) -> Done:
    return Done("int8", f"{decibels} dB signal to noise.", {"after": {"sqnr": decibels}}, passed)


@pytest.mark.parametrize(
    ("step", "state", "heading"),
    [
        (quantised(30.0), "good", "Agrees with the original before int8; 30.0 dB signal to noise after it"),
        (quantised(4.5), "warn", "Agrees with the original before int8; 4.5 dB signal to noise after it"),
        (quantised(30.0, passed=False), "warn", "Agrees with the original"),
        (
            Done("precision", "Converted.", {"precision": "mixed"}),
            "good",
            "Agrees with the original before the conversion to mixed precision",
        ),
    ],
)
def test_the_first_words_are_of_the_model_before_the_step(step: Done, state: str, heading: str) -> None:
    """A page says so in its heading, and marks what has much noise."""
    validation = {"passed": True, "seed": 0, "samples": 1, "providers": ["cpu"], "checks": []}
    view = verdict.of_export({"validation": validation, "steps": [plain(step)]})
    assert (view["state"], view["heading"], view["details"]) == (state, heading, [step.sentence])
    less = narrowed((step,))
    assert less is not None
    assert less.is_good == (state == "good")
    assert narrowed((Done("equalize", ""),)) is None


def test_a_model_in_bfloat16_is_written_though_onnx_runtime_cannot_time_it(tmp_path: Path) -> None:
    onnx.save(residual(0), tmp_path / "model.onnx")
    done = bnfold.export(
        tmp_path / "model.onnx", tmp_path / "out.onnx", narrow=Convert("bfloat16"), inputs=data(), seconds=0.1
    )
    assert not done.benchmarks
    assert done.not_timed is not None
    assert (tmp_path / "out.onnx").exists()


def test_nothing_is_written_where_the_last_step_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bnfold.edge.rounded.NOISE_FACTOR", 0.0)
    monkeypatch.setattr("bnfold.edge.rounded.ULPS", 0.0)
    onnx.save(residual(0), tmp_path / "model.onnx")
    target, report = tmp_path / "out.onnx", tmp_path / "report.json"
    options = ["--precision", "float16", "--no-bench", "--json", str(report), "-o", str(target)]
    result = CliRunner().invoke(main, ["export", str(tmp_path / "model.onnx"), *options])
    assert result.exit_code == 1
    assert "The conversion was taken back" in result.output
    assert not target.exists()
    assert json.loads(report.read_text())["steps"][0]["passed"] is False
