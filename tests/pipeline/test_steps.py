"""Steps after the fold: what equalisation does in `export` and `fold`, and its proof."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator

import bnfold
from bnfold.edge.balance import Balance, Equalized
from bnfold.edge.equalize import equalize
from bnfold.folding import record
from bnfold.options import Checking
from bnfold.pipeline import statistics as kept
from bnfold.pipeline import steps
from bnfold.pipeline.export import export
from bnfold.pipeline.fold_file import fold_file
from bnfold.report import json as report
from bnfold_cli import main
from tests.graphs import build, feeds, run, statistics, weight

SCHEMA = Path(__file__).parents[2] / "docs" / "report.schema.json"


def network() -> onnx.ModelProto:
    """Two layers with BatchNorms, whose channels are far apart."""
    factors = np.exp2(np.random.default_rng(3).integers(-5, 6, 8)).astype(np.float32)
    norms = statistics(8, prefix="a_") | statistics(5, seed=2, prefix="b_")
    norms["a_scale"] = norms["a_scale"] * factors
    norms["a_bias"] = norms["a_bias"] * factors
    return build(
        """g (float[2,3,6,6] x) => (float[2,5,6,6] y) {
            [one] c = Conv <pads = [1, 1, 1, 1]> (x, w1)
            [first] n = BatchNormalization (c, a_scale, a_bias, a_mean, a_var)
            [act] r = Relu (n)
            [two] d = Conv (r, w2)
            [second] m = BatchNormalization (d, b_scale, b_bias, b_mean, b_var)
            [last] y = Relu (m) }""",
        {"w1": weight(8, 3, 3, 3), "w2": weight(5, 8, 1, 1) / factors[None, :, None, None], **norms},
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "network.onnx"
    onnx.save(network(), path)
    return path


def test_export_equalises_and_proves_it_bit_by_bit(file: Path, tmp_path: Path) -> None:
    plain = export(file, tmp_path / "plain.onnx", bench=False)
    done = export(file, tmp_path / "out.onnx", bench=False, equalize=True)
    [step] = done.steps
    assert step.name == "equalize"
    assert step.passed
    assert "the same bit for bit, on 6 samples" in step.sentence
    assert step.details["proof"] == {"samples": 6, "optimizers": ["off", "default"], "equal": True}
    assert done.validation is not None
    assert done.validation.passed
    assert done.validation.is_fold, "the record of the fold stands for the equalised model too"
    assert plain.steps == ()
    before, after = onnx.load(tmp_path / "plain.onnx"), onnx.load(tmp_path / "out.onnx")
    inputs = feeds(before)
    assert run(before, inputs)[0].tobytes() == run(after, inputs)[0].tobytes()
    assert before.SerializeToString() != after.SerializeToString()


def test_fold_equalises_without_running_anything(file: Path, tmp_path: Path) -> None:
    done = fold_file(file, tmp_path / "out.onnx", equalize=True)
    assert "Nothing was run" in done.steps[0].sentence
    assert done.steps[0].details["proof"] is None
    fold_file(file, tmp_path / "plain.onnx")
    before, after = onnx.load(tmp_path / "plain.onnx"), onnx.load(tmp_path / "out.onnx")
    inputs = feeds(before)
    assert run(before, inputs)[0].tobytes() == run(after, inputs)[0].tobytes()
    assert bnfold.validate(file, tmp_path / "out.onnx").is_fold
    again = fold_file(file, tmp_path / "again.onnx", equalize=True)
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "out.onnx").read_bytes()
    assert again.fold.model.graph.name == done.fold.model.graph.name


def test_a_step_that_changes_a_bit_is_taken_back(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = steps.equalized

    def wrong(model: ir.Model, *, in_memory: bool = True) -> object:
        done = real(model, in_memory=in_memory)
        for value in done.model.graph.initializers.values():
            array = value.const_value.numpy().copy()
            array.reshape(-1)[0] = np.nextafter(array.reshape(-1)[0], np.float32(9))
            value.const_value = ir.Tensor(array, name=value.name)
        return done

    monkeypatch.setattr(steps, "equalized", wrong)
    done = export(file, tmp_path / "out.onnx", bench=False, equalize=True)
    [step] = done.steps
    assert not step.passed
    assert step.sentence.startswith(
        "The equalisation was taken back: the output 'y' differs on cpu, optimizer off"
    )
    plain = export(file, tmp_path / "plain.onnx", bench=False)
    assert (tmp_path / "out.onnx").read_bytes() == (tmp_path / "plain.onnx").read_bytes()
    assert plain.validation is not None


@pytest.mark.parametrize(
    ("size", "why"),
    [
        (2.0**125, "; 'one' overflows float32 there."),
        (2.0**-122, "; 'one' has values below 1.2e-38 there, where float32 loses digits."),
    ],
)
def test_values_beyond_the_normal_numbers_are_why_it_is_taken_back(
    size: float, why: str, tmp_path: Path
) -> None:
    factors = np.exp2(np.arange(-6, 6)).astype(np.float32)
    model = build(
        """g (float[2,12] x) => (float[2,12] y) {
            one = MatMul (x, w1) r = Relu (one) y = MatMul (r, w2) }""",
        {"w1": weight(12, 12) * factors, "w2": weight(12, 12, seed=2) / factors[:, None]},
    )
    onnx.save(model, tmp_path / "model.onnx")
    given = [{"x": (weight(2, 12, seed=3).astype(np.float64) * size).astype(np.float32)}]
    done = export(
        tmp_path / "model.onnx",
        tmp_path / "out.onnx",
        bench=False,
        validate=False,
        equalize=True,
        inputs=given,
    )
    [step] = done.steps
    assert not step.passed
    assert step.sentence.startswith("The equalisation was taken back: the output 'y' differs on cpu")
    assert step.sentence.endswith(why)
    within = [{"x": weight(2, 12, seed=3)}]
    again = export(
        tmp_path / "model.onnx",
        tmp_path / "out.onnx",
        bench=False,
        validate=False,
        equalize=True,
        inputs=within,
    )
    assert again.steps[0].passed


def test_what_has_nothing_to_equalise_is_said(tmp_path: Path) -> None:
    path = tmp_path / "plain.onnx"
    onnx.save(build("g (float[2,3] x) => (float[2,3] y) { y = Relu (x) }"), path)
    done = fold_file(path, tmp_path / "out.onnx", equalize=True)
    assert done.steps[0].sentence == "Nothing to equalise: no weight can be scaled."


@pytest.mark.parametrize(
    ("held", "layers", "said"),
    [(0, 2, ""), (1, 1, "1 of 1 layer is"), (1, 10, "1 of 10 layers is"), (2, 10, "2 of 10 layers are")],
)
def test_how_many_layers_are_held_is_said_with_the_first_reason(
    monkeypatch: pytest.MonkeyPatch, held: int, layers: int, said: str
) -> None:
    balances = [
        Balance(f"a{at}", "Conv", 0, 4, 1, 1, "has a reason" if at < held else "") for at in range(layers)
    ]
    monkeypatch.setattr(steps, "equalized", lambda model, **_: Equalized(model, tuple(balances)))
    first = f", and {said} held, first 'a0', because its output has a reason" if said else ""
    sentence = steps.Equalize()(ir.from_proto(network()), None)[1].sentence
    assert sentence == f"Nothing to equalise: no channel gains by it{first}."


def test_the_record_of_another_model_is_left_alone() -> None:
    folded = ir.from_proto(bnfold.fold(network()).model)
    other = equalize(folded).model
    text = folded.metadata_props[record.KEY]
    assert not record.is_fold_of(other, ir.from_proto(network()))
    steps.keep_record(folded, other)
    assert record.is_fold_of(other, ir.from_proto(network()))
    entries = json.loads(other.metadata_props[record.KEY])
    assert set(entries["new_values"]) <= record.names(other)
    for broken in ("{", "[]", json.dumps({**json.loads(text), "folded": "?"})):
        folded.metadata_props[record.KEY] = other.metadata_props[record.KEY] = broken
        steps.keep_record(folded, other)
        assert other.metadata_props[record.KEY] == broken


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        (lambda y: y, False),
        (lambda y: np.nextafter(y, np.float32(9)), True),
        (lambda y: -y, True),
        (lambda y: y.astype(np.float64), True),
        (lambda y: y.reshape(-1), True),
    ],
)
def test_bits(other: Callable[[np.ndarray], np.ndarray], differs: bool) -> None:
    output = np.array([[0.0, 1.0, np.nan]], np.float32)
    assert (steps.bits(output) != steps.bits(other(output))) == differs
    assert (steps.bits([output, {"a": output}]) != steps.bits([output, {"a": other(output)}])) == differs


def test_given_inputs_are_the_samples_of_the_proof() -> None:
    model = ir.from_proto(bnfold.fold(network()).model)
    trial = steps.Trial(Checking(), [{"x": weight(2, 3, 6, 6)}, {"x": weight(2, 3, 6, 6, seed=5)}])
    assert trial.different_bits(model, equalize(model).model) == (2, None)
    changed = model.clone()
    for value in changed.graph.initializers.values():
        value.const_value = ir.Tensor(value.const_value.numpy() * np.float32(1.001), name=value.name)
    assert trial.different_bits(model, changed)[1] == "the output 'y' differs on cpu, optimizer off"


def test_the_command_line(file: Path, tmp_path: Path) -> None:
    arguments = [
        "--json",
        str(tmp_path / "r.json"),
        "--record",
        str(tmp_path / "s.json"),
        "--record-in-model",
    ]
    for command, more in (("export", ["--no-bench"]), ("fold", [])):
        target = tmp_path / f"{command}.onnx"
        done = CliRunner().invoke(
            main, [command, str(file), "-o", str(target), "--equalize", *arguments, *more]
        )
        assert done.exit_code == 0, done.output
        assert "Equalised" in done.output
        assert "bits lost with one step" in done.output
        written = [json.loads((tmp_path / name).read_text()) for name in ("r.json", "s.json")]
        schema = Draft202012Validator(json.loads(SCHEMA.read_text()))
        for document in written:
            schema.validate(document)
        assert written[0]["steps"][0]["details"]["layers"][0]["moved"] > 0
        assert [one["site"] for one in written[1]["batchnorms"]] == ["first", "second"]
        metadata = {entry.key: entry.value for entry in onnx.load(target).metadata_props}
        assert json.loads(metadata[kept.KEY]) == written[1]["batchnorms"]


def test_the_page_shows_the_layers(file: Path, tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    from bnfold.report.page import html

    done = export(file, tmp_path / "out.onnx", bench=False, equalize=True)
    text = html.page(done, command="bnfold export", record=report.export_document("export", done))
    assert "Every output is the same bit for bit" in text
    assert "All 2 layers as a table" in text
    taken = replace(done, steps=(replace(done.steps[0], passed=False),))
    text = html.page(taken, command="bnfold export", record=report.export_document("export", taken))
    assert '<p class="warning">Equalised' in text


def test_rollback_equalises_what_is_left(file: Path, tmp_path: Path) -> None:
    done = export(file, tmp_path / "out.onnx", bench=False, equalize=True, rollback=True)
    assert done.rolled_back == ()
    assert done.steps[0].passed
