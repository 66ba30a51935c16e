"""The options for a model's contract, on the command line and in its reports."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import pytest

from bnfold.errors import InputError
from bnfold_cli import _contract
from tests.contract.nets import PADDED, classifier
from tests.graphs import operators

CAMERA = ("--normalize", "imagenet", "--scale", "1/255", "--bgr", "--uint8-input", "--channels-last-input")
FAST = ("--no-bench", "--samples", "1")
SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "report.schema.json").read_text())


@pytest.fixture
def net(tmp_path: Path) -> Path:
    onnx.save(classifier(PADDED), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def test_an_export_says_what_it_changed_and_what_stays(run, net, tmp_path) -> None:
    out, report = tmp_path / "out.onnx", tmp_path / "report.json"
    versions = ("--opset", "13", "--ir-version", "8", "--set-batch", "1", "--rename", "x=image")
    result = run("export", net, "-o", out, *CAMERA, *versions, *FAST, "--json", report)
    assert result.exit_code == 0, result.stderr
    words = " ".join(result.stdout.split())
    for part in (
        "Set the input 'x' to [1, 3, H, W]; open sizes stay",
        "IR version 8 instead of 9.",
        "The input x: uint8 [1, H, W, 3] takes pictures as they are with channels in the opposite order",
        "minus 0.485,0.456,0.406, over 0.229,0.224,0.225. Every output is the same bit for bit",
        "3 of 6 nodes of the preprocessing went into the layers after them; these stay: Transpose",
        "Renamed 'x' to 'image'.",
    ):
        assert part in words
    written = onnx.load(out)
    assert (written.ir_version, written.opset_import[0].version) == (8, 13)
    assert [one.name for one in written.graph.input] == ["image"]
    record = json.loads(report.read_text())
    jsonschema.validate(record, SCHEMA)
    assert record["contract"]["asked"]["preprocessing"]["scale"] == "1/255"
    assert [one["name"] for one in record["contract"]["steps"]][-1] == "preprocessing-left"


def test_a_fold_without_running_anything(run, net, tmp_path) -> None:
    out, report = tmp_path / "out.onnx", tmp_path / "report.json"
    result = run(
        *("fold", net, "-o", out, "--set-shape", "2x3x8x8", "--outputs", "r,y"),
        *("--ir-version", "9", "--json", report),
    )
    assert result.exit_code == 0, result.stderr
    assert "bit for bit" not in result.stdout
    assert "bnfold validate" not in result.stdout, "the two have other inputs"
    written = onnx.load(out)
    assert [[d.dim_value for d in one.type.tensor_type.shape.dim] for one in written.graph.output] == [
        [2, 4, 8, 8],
        [2, 5],
    ]
    record = json.loads(report.read_text())
    jsonschema.validate(record, SCHEMA)
    assert record["contract"]["asked"] == {
        "outputs": ["r", "y"],
        "shapes": {"": [2, 3, 8, 8]},
        "ir_version": 9,
    }


def test_a_fold_converts_no_operators(run, net, tmp_path) -> None:
    out = tmp_path / "out.onnx"
    result = run("fold", net, "-o", out, "--opset", "13")
    assert result.exit_code == 2
    assert "--opset is the work of a converter here" in result.stderr
    assert "bnfold export" in result.stderr
    assert not out.exists()
    assert run("fold", net, "-o", out, "--simplify").exit_code == 2


def test_the_suffix_decides_the_format(run, net, tmp_path) -> None:
    out = tmp_path / "out.ort"
    result = run("export", net, "-o", out, "--set-batch", "1", *FAST)
    assert result.exit_code == 0, result.stderr
    assert "Written in the format of ONNX Runtime" in result.stdout
    assert out.read_bytes()[4:8] == b"ORTM"
    refused = run("fold", net, "-o", tmp_path / "fold.ort")
    assert refused.exit_code == 2
    assert "Type bnfold export instead" in refused.stderr


def test_a_fold_without_a_contract_has_none_in_its_report(run, net, tmp_path) -> None:
    result = run("fold", net, "-o", tmp_path / "out.onnx", "--json", "-")
    record = json.loads(result.stdout)
    jsonschema.validate(record, SCHEMA)
    assert record["contract"] is None
    assert operators(onnx.load(tmp_path / "out.onnx"))[0] == "Conv"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--preprocess-input", "x"), "needs --normalize"),
        (("--set-shape", "1x3xlarge"), "is not a shape"),
        (("--set-shape", "x=1x3x4x4", "--set-shape", "x=1x3x4x4"), "gives a name twice"),
        (("--rename", "x"), "write it as OLD=NEW"),
        (("--rename", "x="), "write it as OLD=NEW"),
        (("--scale", "no"), "no is not a scale"),
        (("--normalize", "1"), "is not a mean and a std"),
        (("--outputs", "nothing"), "computes no 'nothing'"),
        (("--opset", "99"), "Opset 99 cannot"),
        (("--set-shape", "1x4x8x8"), "has the size 3 on axis 1, not 4"),
        (("--format", "tflite"), "tflite"),
    ],
)
def test_what_is_refused(run, net, tmp_path, options, said) -> None:
    result = run("export", net, "-o", tmp_path / "out.onnx", *options, *FAST)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
    assert not (tmp_path / "out.onnx").exists()


def test_an_operator_in_the_way_is_named(run, tmp_path) -> None:
    x = onnx.helper.make_tensor_value_info("x", 1, [1, 2, 4, 4])
    grid = onnx.helper.make_tensor_value_info("grid", 1, [1, 4, 4, 2])
    y = onnx.helper.make_tensor_value_info("y", 1, [1, 2, 4, 4])
    node = onnx.helper.make_node("GridSample", ["x", "grid"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [x, grid], [y])
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)]), tmp_path / "g.onnx"
    )
    result = run("export", tmp_path / "g.onnx", "--opset", "13", *FAST)
    assert result.exit_code == 2
    assert "GridSample" in result.stderr


def test_a_change_that_is_not_proved_is_an_answer_of_no(run, net, tmp_path, monkeypatch) -> None:
    from bnfold.pipeline import contract

    monkeypatch.setattr(contract, "_difference", lambda *_: "the output 'y' differs")
    result = run("export", net, "-o", tmp_path / "out.onnx", "--rename", "x=image", *FAST)
    assert result.exit_code == 1
    assert "Nothing was written. Renamed 'x' to 'image'. But the output 'y' differs." in " ".join(
        result.stderr.split()
    )


def test_with_a_pytorch_file_as_the_result(run, net, tmp_path) -> None:
    result = run("export", net, "--to", "pt2", "-o", tmp_path / "out.pt2", "--set-batch", "1")
    assert result.exit_code == 2
    assert "--set-batch has no meaning with --to pt2" in result.stderr


def test_options_become_a_contract() -> None:
    own = dict.fromkeys(_contract._OWN) | {
        "scale": "1/255",
        "set_shape": ["a=1x2", "b=3"],
        "rename": ["a=b"],
        "outputs": ["y,z", "q"],
        "bgr": False,
        "uint8_input": False,
        "channels_last_input": False,
        "simplify": True,
    }
    made = _contract._contract(opset=13, **own)
    assert (made.shapes, made.rename, made.outputs) == ({"a": (1, 2), "b": (3,)}, {"a": "b"}, ("y", "z", "q"))
    assert (made.opset, made.simplify, made.batch, made.format) == (13, True, None, None)
    assert made.preprocessing is not None
    with pytest.raises(InputError):
        _contract._contract(**(own | {"scale": "0"}))


def test_numbers_of_a_batch_are_those_of_numpy(run, net, tmp_path) -> None:
    out = tmp_path / "out.onnx"
    data = tmp_path / "data.npz"
    np.savez(data, x=np.random.default_rng(0).integers(0, 256, (2, 9, 8, 3)).astype(np.uint8))
    result = run("export", net, "-o", out, *CAMERA, "--inputs", data, "--no-bench")
    assert result.exit_code == 0, result.stderr
    assert "with the same done in NumPy before the model, on 1 sample." in " ".join(result.stdout.split())
