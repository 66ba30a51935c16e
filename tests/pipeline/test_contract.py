"""The contract in an export: each change proved by running it, or nothing is written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import bnfold
from bnfold.contract import apply
from bnfold.contract.changed import Changed
from bnfold.contract.contract import Contract, Preprocessing
from bnfold.errors import InputError, UndecidedError
from bnfold.files.load import from_proto
from bnfold.inputs.given import Given
from bnfold.options import Checking
from bnfold.pipeline import contract as step
from bnfold.pipeline.contract import ContractNotMetError, as_given, contracted
from bnfold.pipeline.fold_file import fold_file
from bnfold.pipeline.replay import replay
from bnfold.pipeline.steps import Trial
from bnfold.report import json as documents
from tests.contract.nets import PADDED, classifier, model, pictures
from tests.graphs import build, operators, run

CAMERA = Preprocessing((0.5,), (0.25,), "1/255", bgr=True, uint8=True, channels_last=True)
ALL = Contract(
    outputs=("r", "y"),
    shapes={"x": (2, 3, 6, 6)},
    simplify=True,
    opset=13,
    preprocessing=CAMERA,
    rename={"x": "image", "y": "classes"},
    ir_version=8,
)


@pytest.fixture
def net(tmp_path: Path) -> Path:
    onnx.save(classifier(PADDED), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def test_everything_at_once_proved_and_validated(net: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    done = bnfold.export(net, out, contract=ALL, bench=False, samples=2)
    names = [one.name for one in done.contract]
    assert names == [
        *("outputs", "set-shape", "simplify", "opset", "preprocessing", "rename", "ir-version"),
        "preprocessing-left",
    ]
    for one in done.contract[:-1]:
        assert one.passed
        assert one.details["proof"]["equal"] is True, one.sentence
    assert done.contract[-1].details["left"] == [
        *("Transpose 'x.channels_first'", "Cast 'x.as_float'"),
        "Sub 'x.centred'",
    ]
    assert done.validation is not None
    assert done.validation.passed
    written = onnx.load(out)
    onnx.checker.check_model(written, full_check=True)
    assert (written.ir_version, written.opset_import[0].version) == (8, 13)
    assert [one.name for one in written.graph.input] == ["image"]
    assert [one.name for one in written.graph.output] == ["r", "classes"]
    picture = pictures(2, 6, 6, 3)
    prepared = (np.moveaxis(picture[..., ::-1], 3, 1) / 255 - 0.5) / 0.25
    (expected,) = run(classifier(PADDED), {"x": prepared.astype(np.float32)})
    np.testing.assert_allclose(run(written, {"image": picture})[1], expected, rtol=1e-4, atol=1e-5)
    record = documents.export_document("export", done)
    assert Contract.from_record(json.loads(json.dumps(record["contract"]["asked"]))) == replace(
        ALL, outputs=["r", "y"], shapes={"x": [2, 3, 6, 6]}
    )
    (tmp_path / "report.json").write_text(json.dumps(record))
    again = replay(tmp_path / "report.json")
    assert again.holds, again.changes


def test_a_fold_runs_nothing(net: Path, tmp_path: Path) -> None:
    done = fold_file(net, tmp_path / "out.onnx", contract=Contract(preprocessing=CAMERA, batch=1))
    assert [one.details["proof"] for one in done.contract[:-1]] == [None, None]
    assert done.contract[0].sentence == (
        "Set the input 'x' to [1, 3, H, W]; open sizes stay in x: float32 [1, 3, H, W]."
    )
    assert operators(onnx.load(tmp_path / "out.onnx"))[:4] == ["Transpose", "Cast", "Sub", "Conv"]
    with pytest.raises(InputError, match="a fold runs nothing"):
        fold_file(net, tmp_path / "out.ort")


def test_all_preprocessing_goes_into_a_layer_without_a_border(tmp_path: Path) -> None:
    onnx.save(classifier(), tmp_path / "bare.onnx")
    only = Contract(preprocessing=Preprocessing((0.5,), (0.25,), "1/255", bgr=True))
    done = fold_file(tmp_path / "bare.onnx", tmp_path / "out.onnx", contract=only)
    assert done.contract[-1].sentence == "All 4 nodes of the preprocessing went into the layers after them."
    assert operators(onnx.load(tmp_path / "out.onnx"))[0] == "Conv"


@pytest.mark.parametrize("may_round", [False, True])
def test_a_change_that_computes_something_else_is_not_written(
    net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, may_round: bool
) -> None:
    def wrong(before: ir.Model, _: Contract) -> list[Changed]:
        other = before.clone()
        bias = other.graph.initializers["bias"]
        assert bias.const_value is not None
        bias.const_value = ir.Tensor(bias.const_value.numpy() + np.float32(0.1))
        return [Changed("simplify", "Simplified.", other, before, may_round=may_round)]

    monkeypatch.setattr(apply, "changes", wrong)
    with pytest.raises(ContractNotMetError, match=r"Nothing was written. Simplified. But") as caught:
        bnfold.export(net, tmp_path / "out.onnx", contract=Contract(simplify=True), bench=False, samples=1)
    assert caught.value.exit_code == 1
    assert not (tmp_path / "out.onnx").exists()
    assert caught.value.done[-1].passed is False


def test_preprocessing_that_is_not_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from bnfold.contract import preprocessing

    real = preprocessing._insert

    def without_a_turn(other: ir.Model, plan: preprocessing.Plan) -> tuple[str, ...]:
        return real(other, replace(plan, asked=replace(plan.asked, bgr=False)))

    monkeypatch.setattr(preprocessing, "_insert", without_a_turn)
    with pytest.raises(ContractNotMetError, match="the output 'y' differs in its bits on sample 1"):
        contracted(model(), Contract(preprocessing=CAMERA), Trial(Checking(samples=1)))


def test_digits_that_differ_are_judged_in_float64() -> None:
    text = "g (float[2,3,4,4] x) => (float[2,3,4,4] y) { y = Gelu(x) }"
    done = contracted(from_proto(build(text, opset=20)), Contract(opset=17), Trial(Checking(samples=2)))
    (one,) = done.done
    assert one.passed
    assert one.sentence.endswith("It agrees with the float64 reference, on 2 samples; last digits differ.")
    assert one.details["written_out"] == ["Gelu"]


def test_a_type_that_is_too_coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "_MOST_UNITS", 0.0)
    with pytest.raises(ContractNotMetError, match="Its type is too coarse"):
        contracted(model(), Contract(preprocessing=CAMERA), Trial(Checking(samples=1)))


def test_what_nothing_can_run_is_not_proved() -> None:
    text = "g (float[2,3] x) => (float[2,3] y) { h = local.unknown(x) y = Relu(h) }"
    with pytest.raises(UndecidedError, match="--rename cannot be proved") as caught:
        contracted(
            from_proto(build(text)),
            Contract(rename={"x": "z"}),
            Trial(Checking(samples=1), {"z": np.ones((2, 3), np.float32)}),
        )
    assert "--no-validate" in caught.value.fix


def test_without_a_trial_or_a_change() -> None:
    original = model()
    assert contracted(original, Contract(format="ort"), None).model is original
    assert Contract(format="ort").changes_nothing
    assert not ALL.changes_nothing


def test_data_is_that_of_the_new_inputs(net: Path, tmp_path: Path) -> None:
    given = {"image": pictures(1, 5, 7, 3)}
    asked = Contract(preprocessing=CAMERA, rename={"x": "image"})
    done = bnfold.export(net, tmp_path / "out.onnx", contract=asked, inputs=given, bench=False)
    assert done.contract[0].details["proof"]["samples"] == 1
    with pytest.raises(InputError, match="named x"):
        bnfold.export(net, tmp_path / "o.onnx", contract=asked, inputs={"x": given["image"]}, bench=False)


def test_pictures_are_given_as_the_new_input_takes_them(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path / "pictures"
    folder.mkdir()
    pixels = pictures(6, 6, 3, seed=1)
    image.fromarray(pixels).save(folder / "a.png")
    asked = Contract(batch=1, shapes={"x": (1, 3, 6, 6)}, preprocessing=replace(CAMERA, channels_last=False))
    given = as_given(Given(folder), asked)
    changed = contracted(model(), asked, Trial(Checking(), given))
    from bnfold.inputs.given import as_samples
    from bnfold.runtime.interface import interface

    assert given is not None
    (feeds,) = as_samples(given, interface(changed.model).inputs).feeds
    assert np.array_equal(feeds["x"][0], np.moveaxis(pixels[..., ::-1], 2, 0))
    raw = as_given(Given(folder), Contract(preprocessing=Preprocessing(scale="1/255")))
    (floats,) = as_samples(raw, interface(fixed_model()).inputs).feeds
    assert np.array_equal(floats["x"][0], np.moveaxis(pixels, 2, 0).astype(np.float32))
    with pytest.raises(InputError, match="prepares them itself"):
        as_given(Given(folder, mean=(0.5,)), asked)
    assert as_given(None, asked) is None


def fixed_model() -> ir.Model:
    return model(shape="1,3,6,6")


@pytest.mark.parametrize("name", ["out.ort", "out.bin"])
def test_the_format_of_onnx_runtime(net: Path, tmp_path: Path, name: str) -> None:
    import onnxruntime as ort

    asked = Contract(batch=2, format=None if name.endswith(".ort") else "ort")
    out = tmp_path / name
    done = bnfold.export(net, out, contract=asked, bench=False, samples=2)
    (last,) = done.steps
    assert last.details["proof"]["equal"] is True
    assert "the same bit for bit as the model's, on 2 samples" in last.sentence
    options = ort.SessionOptions()
    options.add_session_config_entry("session.load_model_format", "ORT")
    session = ort.InferenceSession(str(out), options, providers=["CPUExecutionProvider"])
    feeds = {"x": np.random.default_rng(0).normal(0, 1, (2, 3, 6, 6)).astype(np.float32)}
    (expected,) = run(classifier(PADDED), feeds)
    np.testing.assert_allclose(session.run(None, feeds)[0], expected, rtol=1e-4, atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["net.onnx", name])


def test_a_file_in_that_format_that_computes_something_else(
    net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bnfold.pipeline import ort_format

    real = ort_format.write_ort

    def wrong(source: Any, path: Path) -> None:
        other = onnx.load_from_string(source)
        (m,) = (one for one in other.graph.initializer if one.name == "m")
        m.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(m) * np.float32(1.1), "m"))
        real(other, path)

    monkeypatch.setattr(ort_format, "write_ort", wrong)
    out = tmp_path / "out.ort"
    out.write_bytes(b"before")
    with pytest.raises(ort_format.OrtDiffersError, match="the output 'y' of the file"):
        bnfold.export(net, out, bench=False, samples=1)
    assert out.read_bytes() == b"before"
