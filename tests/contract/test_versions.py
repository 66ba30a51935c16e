"""Other versions: converted by onnx, with weights where they are, or refused with the operator's name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from bnfold.contract import versions
from bnfold.contract.converter import through_onnx
from bnfold.contract.opsets import opset_of
from bnfold.contract.versions import with_ir_version, with_opset
from bnfold.errors import InputError, ModelError
from bnfold.files.load import from_proto, load_onnx
from tests.contract.nets import classifier, model
from tests.graphs import build, operators, run, weight

X = np.random.default_rng(0).normal(0, 2, (2, 3, 4, 4)).astype(np.float32)


@pytest.mark.parametrize("target", [11, 13, 17, 21, 23])
def test_a_classifier_in_other_opsets(target: int) -> None:
    changed = with_opset(model(), target)
    made = ir.to_proto(changed.model)
    onnx.checker.check_model(made, full_check=True)
    assert opset_of(changed.model) == target
    assert np.array_equal(run(made, {"x": X})[0], run(classifier(), {"x": X})[0])
    assert operators(made)[1] == "BatchNormalization"


@pytest.mark.parametrize(
    ("body", "constants", "gone"),
    [
        ("y = HardSwish(x)", {}, "HardSwish"),
        ("y = Gelu(x)", {}, "Gelu"),
        ("y = Mish(x)", {}, "Mish"),
        ("y = Reshape<allowzero=1>(x, s)", {"s": np.array([2, 48])}, ""),
        ("y = ReduceMean<keepdims=0>(x, a)", {"a": np.array([2, 3])}, ""),
        ("s = Shape(x) y = Reshape(x, s)", {}, ""),
        ("s = Shape<start=1, end=3>(x) y = Expand(b, s)", {"b": np.ones((1, 1), np.float32)}, ""),
        ("s = Shape<start=-2>(x) y = Expand(b, s)", {"b": np.ones((1, 1), np.float32)}, ""),
        ("z = Constant<value_float=2.0>() y = Mul(x, z)", {}, ""),
    ],
)
def test_what_older_opsets_write_otherwise(body: str, constants: dict[str, np.ndarray], gone: str) -> None:
    original = build(f"g (float[2,3,4,4] x) => (float[A,B] y) {{ {body} }}", constants, opset=20)
    del original.graph.output[0].type.tensor_type.shape.dim[:]
    original.graph.output[0].type.tensor_type.ClearField("shape")
    changed = with_opset(from_proto(original), 13)
    made = ir.to_proto(changed.model)
    assert gone not in operators(made)
    assert bool(gone) == ("written out in older operators" in changed.sentence)
    np.testing.assert_allclose(run(made, {"x": X})[0], run(original, {"x": X})[0], rtol=1e-5, atol=1e-6)


def test_from_an_old_opset_to_a_new_one() -> None:
    text = """g (float[2,3] x) => (float[2,3] y) {
        a, b = Split<axis=1, split=[1,2]>(x) c = Concat<axis=1>(b, a) y = Softmax<axis=1>(c)
    }"""
    original = build(text, opset=9, ir_version=4)
    changed = with_opset(from_proto(original), 17)
    made = ir.to_proto(changed.model)
    assert (made.ir_version, opset_of(changed.model)) == (8, 17)
    feeds = {"x": X[:, :, 0, 0]}
    np.testing.assert_allclose(run(made, feeds)[0], run(original, feeds)[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("body", "operator", "target"),
    [
        ("g = GridSample(x, c) y = Relu(g)", "GridSample 'g' came with opset 16", 13),
        ('y = ScatterElements<reduction="add">(x, i, x)', "ScatterElements", 13),
        ("f = Round(x) y = Relu(f)", "Round 'f' came with opset 11", 9),
    ],
)
def test_what_stands_in_the_way_is_named(body: str, operator: str, target: int) -> None:
    text = f"g (float[1,2,4,4] x, float[1,4,4,2] c, int64[1,2,4,4] i) => (float[1,2,4,4] y) {{ {body} }}"
    with pytest.raises(ModelError, match=rf"opset {target}: .*{operator}") as caught:
        with_opset(from_proto(build(text, opset=20)), target)
    assert "\n" not in caught.value.problem


def test_no_operator_differs() -> None:
    original = model(opset=16)
    changed = with_opset(original, 17)
    assert changed.sentence == "Opset 17 instead of 16: none of its operators differs between them."
    assert not changed.may_round
    assert with_opset(original, 16).model is original


def test_functions_are_inlined_first() -> None:
    text = """g (float[2,3,4,4] x) => (float[2,3,4,4] y) { h = local.act(x) y = Relu(h) }
    <domain: "local", opset_import: ["" : 20]> act (a) => (b) { b = HardSwish(a) }"""
    original = build(text, opset=20)
    changed = with_opset(from_proto(original), 13)
    assert changed.details["inlined"] is True
    assert not changed.model.functions
    np.testing.assert_allclose(
        run(ir.to_proto(changed.model), {"x": X})[0], run(original, {"x": X})[0], rtol=1e-6, atol=1e-6
    )


def test_weights_stay_in_their_files_and_do_not_go_through_the_converter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = build(
        "g (float[2,64] x) => (float[2,64] y) { a = MatMul(x, w) b = HardSwish(a) y = MatMul(b, w) }",
        {"w": weight(64, 64)},
        opset=20,
    )
    onnx.save(
        onnx.ModelProto.FromString(original.SerializeToString()),
        tmp_path / "m.onnx",
        save_as_external_data=True,
        size_threshold=0,
    )
    loaded = load_onnx(tmp_path / "m.onnx")
    loaded.graph[0].metadata_props["where"] = "there"
    loaded.metadata_props["author"] = "somebody"
    seen: list[int] = []
    real = onnx.version_converter.convert_version

    def watched(proto: onnx.ModelProto, version: int) -> Any:
        seen.append(proto.ByteSize())
        return real(proto, version)

    monkeypatch.setattr(onnx.version_converter, "convert_version", watched)
    changed = with_opset(loaded, 13)
    assert max(seen) < weight(64, 64).nbytes
    (tensor,) = (one.const_value for one in changed.model.graph.initializers.values() if one.name == "w")
    assert tensor is loaded.graph.initializers["w"].const_value
    assert changed.model.metadata_props["author"] == "somebody"
    assert changed.model.graph[0].metadata_props["where"] == "there"
    feeds = {"x": np.random.default_rng(0).random((2, 64), np.float32)}
    np.testing.assert_allclose(run(ir.to_proto(changed.model), feeds)[0], run(original, feeds)[0], rtol=1e-5)


def test_another_domain_stays() -> None:
    original = build("g (float[2,3,4,4] x) => (float[2,3,4,4] y) { h = HardSwish(x) y = Relu(h) }", opset=20)
    original.opset_import.append(onnx.helper.make_opsetid("com.example", 3))
    original.graph.node.append(onnx.helper.make_node("Own", ["y"], ["z"], name="own", domain="com.example"))
    original.graph.output.append(onnx.helper.make_tensor_value_info("z", 1, [2, 3, 4, 4]))
    made, written_out, _ = through_onnx(from_proto(original), 13)
    assert written_out == ("HardSwish",)
    assert dict(made.graph.opset_imports) == {"": 13, "com.example": 3, "local": 1}
    assert made.graph[-1].domain == "com.example"


@pytest.mark.parametrize(
    ("opset", "version", "problem"), [(6, None, "Opset 6 cannot"), (None, 3, "IR version 3 cannot")]
)
def test_versions_that_do_not_exist(opset: int | None, version: int | None, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        versions.check(opset, version)
    assert "Take one from" in caught.value.fix


def test_ir_versions() -> None:
    changed = with_ir_version(model(opset=13), 8)
    assert (changed.model.ir_version, changed.reference.ir_version) == (8, 9)
    assert changed.sentence == "IR version 8 instead of 9."
    assert with_ir_version(model(), 9).sentence == "The IR version was 9 already."
    with pytest.raises(InputError, match="Opset 18 needs IR version 8") as caught:
        with_ir_version(model(), 7)
    assert "--opset 14" in caught.value.fix


def test_what_an_ir_version_does_not_have() -> None:
    text = """g (float[2] x) => (float[2] y) { y = local.act(x) }
    <domain: "local", opset_import: ["" : 13]> act (a) => (b) { b = Relu(a) }"""
    with pytest.raises(InputError, match="functions of its own, which need IR version 8"):
        with_ir_version(from_proto(build(text, opset=13)), 7)
    cast = build(
        "g (float[2] x) => (float[2] y) { h = Cast<to=22>(x) y = Cast<to=1>(h) }", opset=21, ir_version=10
    )
    typed = from_proto(cast)
    typed.graph[0].outputs[0].type = ir.TensorType(ir.DataType.INT4)
    typed.graph.opset_imports[""] = 13
    with pytest.raises(InputError, match="'h' is of type int4, which needs IR version 10"):
        with_ir_version(typed, 9)


def test_two_nodes_that_share_what_an_adapter_removes() -> None:
    text = """g (float[2,3,4,4] x) => (float[2,3] y) {
        a = ReduceMean<keepdims=0>(x, i) b = ReduceMax<keepdims=0>(x, i) y = Add(a, b)
    }"""
    original = build(text, {"i": np.array([2, 3])}, opset=18)
    made = ir.to_proto(with_opset(from_proto(original), 13).model)
    assert np.array_equal(run(made, {"x": X})[0], run(original, {"x": X})[0])


def test_a_model_whose_weights_are_inputs() -> None:
    text = "g (float[2,3] x, float[3] w) => (float[2,3] y) { a = Add(x, w) y = Softmax<axis=1>(a) }"
    original = build(text, {"w": weight(3)}, opset=9, ir_version=3)
    made = ir.to_proto(with_opset(from_proto(original), 13).model)
    feeds = {"x": X[:, :, 0, 0]}
    np.testing.assert_allclose(run(made, feeds)[0], run(original, feeds)[0], rtol=1e-6)


def test_the_graphs_within_a_node() -> None:
    text = """g (float[2,3,4,4] x, bool flag) => (float[2,3,4,4] y) {
        y = If (flag) <
            then_branch = t () => (float[2,3,4,4] a) { a = Add(x, x) },
            else_branch = e () => (float[2,3,4,4] b) { s = Shape<start=0>(x) b = Expand(x, s) }
        >
    }"""
    original = build(text, opset=18)
    made = ir.to_proto(with_opset(from_proto(original), 13).model)
    for flag in (True, False):
        feeds = {"x": X, "flag": np.array(flag)}
        assert np.array_equal(run(made, feeds)[0], run(original, feeds)[0])


def test_a_reshape_to_computed_sizes_says_what_it_no_longer_takes() -> None:
    text = """g (float[N,3,4,4] x) => (float[N,48] y) {
        s = Shape<start=0, end=1>(x) t = Concat<axis=0>(s, r) y = Reshape<allowzero=1>(x, t)
    }"""
    original = build(text, {"r": np.array([48])}, opset=18)
    changed = with_opset(from_proto(original), 13)
    assert changed.sentence.endswith(
        "; 1 Reshape to computed sizes may no longer take tensors without elements."
    )
    assert np.array_equal(run(ir.to_proto(changed.model), {"x": X})[0], run(original, {"x": X})[0])
    with pytest.raises(ModelError, match="allowzero"):
        with_opset(from_proto(build(text, {"r": np.array([0])}, opset=18)), 13)


@pytest.mark.parametrize("scales", [[1, 1, 2.3, 1.5], [1, 1, 0.6, 0.5]])
@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_a_resize_of_opset_10_takes_the_elements_that_it_took(mode: str, scales: list[float]) -> None:
    """From opset 11 on the default is another; the converter leaves it to that."""
    body = f'g (float[2,3,4,4] x) => (float[2,3,A,B] y) {{ y = Resize<mode="{mode}">(x, s) }}'
    original = build(body, {"s": np.array(scales, np.float32)}, opset=10)
    made = ir.to_proto(with_opset(from_proto(original), 13).model)
    np.testing.assert_allclose(run(made, {"x": X})[0], run(original, {"x": X})[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "before", "after", "said"),
    [
        ("g (int8[2] a, int8[2] b) => (int8[2] y) { y = Add(a, b) }", 14, 13, "int8"),
        ("g (int32[2] a) => (int32[2] y) { y = Relu(a) }", 14, 13, "int32"),
        ("g (float[2,6] a, int64[1] k) => (float[1,2,6] y) <int64[1] k = {0}> { y = Unsqueeze(a, k) }",
         17, 11, "its input 'k', which callers may override"),
    ],
)  # fmt: skip
def test_what_cannot_be_converted_is_refused(text: str, before: int, after: int, said: str) -> None:
    original = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {before}]> {text}')
    with pytest.raises(ModelError) as caught:
        with_opset(from_proto(original), after)
    assert said in caught.value.problem


def test_a_conversion_is_one_of_others_and_a_new_number_is_not() -> None:
    assert with_opset(model(), 13).by_others
    alike = from_proto(build("g (float[2] x) => (float[2] y) { y = Sin(x) }", opset=18))
    assert not with_opset(alike, 17).by_others


def test_a_split_without_sizes_says_into_how_many_parts() -> None:
    original = build("g (float[4] a) => (float[2] y, float[2] z) { y, z = Split(a) }", opset=13)
    made = ir.to_proto(with_opset(from_proto(original), 18).model)
    feeds = {"a": np.arange(4, dtype=np.float32)}
    for found, expected in zip(run(made, feeds), run(original, feeds), strict=True):
        np.testing.assert_array_equal(found, expected)
