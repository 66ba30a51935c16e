"""Classifiers that end in a ZipMap: what precedes it is folded, its type survives, its numbers count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper

import bnfold
from bnfold.errors import InputError
from bnfold.files.load import load_onnx
from bnfold.files.other_types import KEY, to_proto
from bnfold.files.save import save_onnx
from bnfold.runtime.interface import interface
from bnfold_cli import main
from tests.graphs import build, operators, statistics, weight

KEYS = {
    TensorProto.INT64: {"classlabels_int64s": [7, 8, 9, 10]},
    TensorProto.STRING: {"classlabels_strings": ["a", "b", "c", "d"]},
}


def classifier(key: int = TensorProto.INT64, *, inferred: bool = False) -> onnx.ModelProto:
    """A Gemm and its BatchNorm, then probabilities by class.

    Args:
        key: Type of the classes.
        inferred: Whether value_info has the type of the maps too.
    """
    model = build(
        "g (float[N,3] x) => (float[N,4] p) { c = Gemm(x, w, b) "
        "[bn] n = BatchNormalization(c, scale, bias, mean, var) p = Softmax <axis = 1> (n) }",
        {"w": weight(3, 4), "b": weight(4, seed=2), **statistics(4)},
    )
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    model.graph.node.append(helper.make_node("ZipMap", ["p"], ["z"], domain="ai.onnx.ml", **KEYS[key]))
    kind = helper.make_sequence_type_proto(
        helper.make_map_type_proto(key, helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    )
    kind.denotation = "classes"
    model.graph.output.append(helper.make_value_info("z", kind))
    if inferred:
        model.graph.value_info.append(helper.make_value_info("y", kind))
        model.graph.node.append(helper.make_node("Identity", ["z"], ["y"]))
    return model


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("inferred", [False, True])
def test_the_types_of_maps_survive_byte_for_byte(tmp_path: Path, key: int, inferred: bool) -> None:
    model = classifier(key, inferred=inferred)
    before = model.SerializeToString(deterministic=True)
    folded = bnfold.fold(model)
    assert model.SerializeToString(deterministic=True) == before, "the argument was modified"
    assert operators(folded.model)[:3] == ["Gemm", "Softmax", "ZipMap"]
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    save_onnx(load_onnx(path), tmp_path / "again.onnx")
    for other in (folded.model, onnx.load(tmp_path / "again.onnx"), to_proto(load_onnx(path).clone())):
        assert [info.SerializeToString() for info in other.graph.output] == [
            info.SerializeToString() for info in model.graph.output
        ]
        kinds = {info.name: info for info in other.graph.value_info}
        assert ("y" in kinds) == inferred
        assert not inferred or kinds["y"] == model.graph.value_info[0]


def test_the_interface_names_maps(tmp_path: Path) -> None:
    onnx.save(classifier(TensorProto.STRING), tmp_path / "model.onnx")
    ports = interface(load_onnx(tmp_path / "model.onnx")).outputs
    assert [str(port) for port in ports] == [
        "p: float32 [N, 4]",
        "z: sequence(map(string, float32))",
    ]
    shown = CliRunner().invoke(main, ["inspect", str(tmp_path / "model.onnx")])
    assert shown.exit_code == 0, shown.output
    assert "z: sequence(map(string, float32))" in shown.output


@pytest.mark.parametrize("key", KEYS)
def test_export_compares_maps_by_their_numbers(tmp_path: Path, key: int) -> None:
    model, out = classifier(key), tmp_path / "out.onnx"
    del model.graph.output[0]  # only the maps are seen
    onnx.save(model, tmp_path / "model.onnx")
    done = bnfold.export(tmp_path / "model.onnx", out, bench=False)
    assert [site.status for site in done.fold.sites] == ["folded"]
    assert done.validation is not None
    assert {check.output for check in done.validation.checks if check.compared} == {"z"}
    assert done.validation.passed
    wrong = onnx.load(out)
    changed = next(tensor for tensor in wrong.graph.initializer if list(tensor.dims) == [3, 4])
    array = onnx.numpy_helper.to_array(changed).copy()
    array[0, 0] += 0.1
    changed.CopyFrom(onnx.numpy_helper.from_array(array, changed.name))
    onnx.save(wrong, tmp_path / "wrong.onnx")
    assert not bnfold.validate(tmp_path / "model.onnx", tmp_path / "wrong.onnx").passed


def test_other_classes_are_another_function(tmp_path: Path) -> None:
    first, second = classifier(), classifier()
    second.graph.node[-1].attribute[0].ints[0] = 6
    for name, model in (("a", first), ("b", second)):
        onnx.save(model, tmp_path / f"{name}.onnx")
    ran = CliRunner().invoke(main, ["validate", str(tmp_path / "a.onnx"), str(tmp_path / "b.onnx")])
    assert ran.exit_code == 1, ran.output
    assert "another structure" in " ".join(ran.output.split())


def test_onnx_ir_alone_writes_a_file_that_runs_and_that_bnfold_reads(tmp_path: Path) -> None:
    onnx.save(classifier(), tmp_path / "model.onnx")
    ir.save(bnfold.fold(tmp_path / "model.onnx").model, tmp_path / "out.onnx")
    assert bnfold.validate(tmp_path / "model.onnx", tmp_path / "out.onnx").passed
    assert to_proto(load_onnx(tmp_path / "out.onnx")).graph.output[1] == classifier().graph.output[1]


def test_maps_as_inputs_are_folded_and_cannot_be_drawn(tmp_path: Path) -> None:
    model = build(
        "g (float[1,2] v) => (float[1,4] y) { c = Gemm(v, w) "
        "y = BatchNormalization(c, scale, bias, mean, var) }",
        {"w": weight(2, 4), **statistics(4)},
    )
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    words = {"domain": "ai.onnx.ml", "string_vocabulary": ["a", "b"]}
    model.graph.node.insert(0, helper.make_node("DictVectorizer", ["x"], ["v"], **words))
    kind = helper.make_map_type_proto(
        TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    )
    model.graph.input[0].CopyFrom(helper.make_value_info("x", kind))
    path, out = tmp_path / "model.onnx", tmp_path / "out.onnx"
    onnx.save(model, path)
    shown = CliRunner().invoke(main, ["inspect", str(path)])
    assert "x: map(string, float32)" in shown.output
    ran = CliRunner().invoke(main, ["fold", str(path), "-o", str(out)])
    assert ran.exit_code == 0, ran.output
    folded = onnx.load(out)
    assert operators(folded) == ["DictVectorizer", "Gemm"]
    assert folded.graph.input[0] == model.graph.input[0]
    ran = CliRunner().invoke(main, ["export", str(path), "-o", str(tmp_path / "no.onnx"), "--no-bench"])
    assert ran.exit_code == 2
    assert "x" in ran.output
    assert "--no-validate" in ran.output
    ran = CliRunner().invoke(main, ["export", str(path), "-o", str(out), "--no-bench", "--no-validate"])
    assert ran.exit_code == 0, ran.output
    with pytest.raises(InputError):
        bnfold.validate(path, out)


def test_foreign_metadata_under_the_same_name_stays(tmp_path: Path) -> None:
    model = classifier()
    for text in ("no base 64", "////", ""):
        model.graph.output[0].metadata_props.add(key=KEY, value=text)
        onnx.save(model, tmp_path / "model.onnx")
        written = to_proto(load_onnx(tmp_path / "model.onnx"))
        assert written.graph.output[0] == model.graph.output[0]
        assert written.graph.output[1] == model.graph.output[1]
        del model.graph.output[0].metadata_props[:]


def test_probabilities_of_nan_are_not_compared(tmp_path: Path) -> None:
    model = classifier()
    del model.graph.output[0]
    for tensor in model.graph.initializer:
        if tensor.name == "w":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full((3, 4), np.nan, np.float32), "w"))
    onnx.save(model, tmp_path / "model.onnx")
    path = str(tmp_path / "model.onnx")
    ran = CliRunner().invoke(main, ["validate", path, path])
    assert ran.exit_code == 2, ran.output
