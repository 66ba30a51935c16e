"""A report is repeated: it holds while nothing has changed, and what has changed is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bnfold.errors import InputError
from bnfold.folding.fold import fold
from bnfold.inputs.given import Given
from bnfold.options import PLAIN, Reading
from bnfold.pipeline import replay as module
from bnfold.pipeline.export import export
from bnfold.pipeline.read import Source, read_onnx
from bnfold.pipeline.replay import replay
from bnfold.report import json as report
from bnfold.validation.validate import validate
from tests.graphs import build, statistics, weight

Edit = Callable[[dict[str, Any]], None]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `model.onnx`, `folded.onnx` and `data.npz`, and the process in it."""
    monkeypatch.chdir(tmp_path)
    model = build(
        "g (float[1,3,8,8] x) => (float[1,4,6,6] y) "
        "{ c = Conv(x, w) y = BatchNormalization(c, scale, bias, mean, var) }",
        {"w": weight(4, 3, 3, 3), **statistics(4)},
    )
    onnx.save(model, "model.onnx")
    onnx.save(fold(model).model, "folded.onnx")
    np.savez("data.npz", x=np.random.default_rng(3).normal(size=(2, 3, 8, 8)).astype(np.float32))
    return tmp_path


def validated(folded: str = "folded.onnx", **options: Any) -> Path:
    """The report of a validation of `model.onnx`."""
    before, after = read_onnx("model.onnx"), read_onnx(folded)
    result = validate(before.model, after.model, **{"threads": 1, "samples": 2, **options})
    report.write(report.validate_document(before, after, result), "report.json")
    return Path("report.json")


def exported(source: str, **options: Any) -> Path:
    """The report of an export."""
    done = export(source, "out.onnx", bench=False, samples=2, **options)
    report.write(report.export_document("export", done), "report.json")
    return Path("report.json")


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def edited(path: Path, edit: Edit) -> Path:
    """The report with something changed by hand."""
    document = read(path)
    edit(document)
    path.write_text(json.dumps(document))
    return path


def spoil(path: str) -> None:
    """Scale one channel of the first weight by 1 %."""
    model = onnx.load(path)
    tensor = next(one for one in model.graph.initializer if len(one.dims) > 1)
    array = numpy_helper.to_array(tensor).copy()
    array[0] *= 1.01
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    onnx.save(model, path)


# It holds


def test_a_validation_is_repeated_with_its_settings_to_the_last_digit() -> None:
    path = validated(seed=7, samples=4, per_layer=True)
    result = replay(path)
    assert (result.report, result.holds, result.changes) == (path, True, ())
    assert result.validation is not None
    assert report.validation_record(result.validation) == read(path)["validation"]


@pytest.mark.parametrize(
    "options", [{"tolerance": 1e-3}, {"oracle": "off"}, {"match": "order"}, {"strict": True}]
)
def test_what_decided_decides_again(options: dict[str, Any]) -> None:
    path = validated(**options)
    result = replay(path)
    assert result.holds
    assert report.validation_record(result.validation)["request"] == read(path)["validation"]["request"]


def test_an_export_of_an_onnx_file_is_repeated() -> None:
    result = replay(exported("model.onnx", keep=(), seed=5))
    assert (result.holds, result.changes) == (True, ())
    assert result.validation.seed == 5


def test_an_export_of_a_pytorch_file_is_read_as_it_was() -> None:
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)), "net.pt")
    path = exported("net.pt", input_shape=(1, 3, 8, 8), dynamic="batch", opset=18)
    assert read(path)["source"]["options"] == {
        "input_shape": ["1x3x8x8"], "opset": 18, "dynamic": ["batch"]
    }  # fmt: skip
    stages: list[str] = []
    result = replay(path, progress=lambda stage, *_: stages.append(stage))
    assert (result.holds, result.changes) == (True, ())
    assert [*dict.fromkeys(stages)] == ["load", "export", "validate"]
    assert {label.split()[-1] for label in result.validation.labels} >= {"1×3×8×8"}


def test_given_inputs_are_read_again() -> None:
    result = replay(validated(inputs=Given(Path("data.npz"))))
    assert (result.holds, result.changes) == (True, ())
    assert (result.validation.samples, result.validation.seed) == (2, None)


def test_pictures_are_read_again_and_a_new_one_is_noticed() -> None:
    image = pytest.importorskip("PIL.Image")
    Path("pictures").mkdir()
    image.effect_noise((8, 8), 50).save("pictures/a.png")
    path = validated(inputs=Given.parse(Path("pictures"), mean="imagenet", size="8x8"))
    assert replay(path).holds
    image.effect_noise((8, 8), 90).save("pictures/b.png")
    result = replay(path)
    assert not result.holds
    assert result.changes == ("b.png among the inputs of pictures is new.",)


def test_a_path_is_as_it_was_given(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = validated(inputs=Given(Path("data.npz"))).absolute()
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    result = replay(path)
    assert not result.holds
    assert "model.onnx does not exist any more." in result.changes
    monkeypatch.chdir(folder)
    assert replay(path).holds


def test_a_disagreement_that_still_disagrees_holds() -> None:
    spoil("folded.onnx")
    result = replay(validated())
    assert not result.validation.passed
    assert (result.holds, result.changes) == (True, ())


# It does not


@pytest.mark.parametrize("name", ["model.onnx", "folded.onnx"])
def test_a_model_that_was_tampered_with(name: str) -> None:
    path = validated()
    spoil(name)
    result = replay(path)
    assert (result.holds, result.validation) == (False, None)
    assert result.changes == (f"{name} is not the file that was validated: its SHA-256 has changed.",)


def test_a_file_that_is_gone() -> None:
    path = validated()
    Path("folded.onnx").unlink()
    assert replay(path).changes == ("folded.onnx does not exist any more.",)


def test_external_data_are_part_of_a_model(folder: Path) -> None:
    model = onnx.load("model.onnx")
    onnx.save(model, "model.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    path = validated()
    assert replay(path).holds
    with Path("w.bin").open("ab") as data:
        data.write(b"\0")
    (change,) = replay(path).changes
    assert change.startswith(str(folder / "w.bin"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda path: np.savez(path, x=np.ones((1, 3, 8, 8), np.float32)), "has changed, or is gone."),
        (lambda path: path.write_text("no arrays"), "data.npz is a text file."),
        (lambda path: path.unlink(), "data.npz is not there."),
    ],
)
def test_inputs_that_changed(change: Callable[[Path], None], sentence: str) -> None:
    path = validated(inputs=Given(Path("data.npz")))
    change(Path("data.npz"))
    result = replay(path)
    assert (result.holds, result.validation) == (False, None)
    assert len(result.changes) == 1
    assert result.changes[0].endswith(sentence)


def test_another_outcome_with_the_same_files() -> None:
    """As an ONNX Runtime would bring about that computes otherwise than the one before."""

    def deny(document: dict[str, Any]) -> None:
        document["validation"]["passed"] = False

    result = replay(edited(validated(), deny))
    assert not result.holds
    assert result.changes == ("The folded model disagreed then, and agrees now.",)
    spoil("folded.onnx")

    def claim(document: dict[str, Any]) -> None:
        document["validation"]["passed"] = True

    result = replay(edited(validated(), claim))
    assert not result.holds
    assert result.changes == ("The folded model agreed then, and disagrees now.",)


def test_other_versions_are_told_and_decide_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    path = validated()
    then = read(path)["versions"]
    now = {name: version for name, version in then.items() if name != "onnx"}
    monkeypatch.setattr(module, "versions", lambda: now | {"numpy": "0.1", "new": "2"})
    result = replay(path)
    assert result.holds
    assert result.changes == (
        "new was not installed and is 2.",
        f"numpy was {then['numpy']} and is 0.1.",
        f"onnx was {then['onnx']} and is not installed.",
    )
    Path("folded.onnx").unlink()
    assert len(replay(path).changes) == 4


# It cannot be repeated


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cannot be read as a report: No such file or directory"),
        ("not json", "cannot be read as a report"),
        (b"\xff\xfe\x00", "cannot be read as a report"),
        ("[1]", "is not a report of bnfold"),
        ("{}", "is not a report of bnfold"),
        ('{"schema": "bnfold.report/10", "command": "validate"}', "is not a report of bnfold"),
        ('{"schema": "bnfold.report/1", "command": "bench"}', "bench, which contains no validation"),
        ('{"schema": "bnfold.report/1", "command": "validate"}', "contains no validation"),
    ],
)
def test_what_is_no_report_of_a_comparison(content: str | bytes | None, sentence: str) -> None:
    if content is not None:
        Path("r.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=sentence) as caught:
        replay("r.json")
    assert "bnfold validate" in caught.value.fix


def test_an_export_that_was_not_validated() -> None:
    with pytest.raises(InputError, match="contains no validation"):
        replay(exported("model.onnx", validate=False))


def test_a_validation_that_was_written_before_settings_were() -> None:
    def forget(document: dict[str, Any]) -> None:
        del document["validation"]["request"]

    with pytest.raises(InputError, match="with its settings"):
        replay(edited(validated(), forget))


def test_arrays_that_were_given_from_python() -> None:
    path = validated(inputs={"x": np.ones((1, 3, 8, 8), np.float32)})
    with pytest.raises(InputError, match="given in Python") as caught:
        replay(path)
    assert "numpy.savez" in caught.value.fix


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("allow", ["torch.nn.modules.container.Sequential"]),
        ("arch", "tests.hostile:build"),
        ("trust", True),
    ],
)
def test_a_report_alone_lets_no_code_run(option: str, value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Reading] = []

    def read_model(path: str, reading: Reading = PLAIN, **_: Any) -> Source:
        asked.append(reading)
        return read_onnx(path)

    def want(document: dict[str, Any]) -> None:
        document["original"]["options"] = {option: value}

    monkeypatch.setattr(module, "read_model", read_model)
    path = edited(validated(), want)
    with pytest.raises(InputError, match=f"with --{option}, which may run code") as caught:
        replay(path)
    assert "add --trust" in caught.value.fix
    assert asked == []
    assert replay(path, trust=True).holds
    assert getattr(asked[0], option) == value
