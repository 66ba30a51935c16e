"""Half precision: what leaves its range is named, repaired or kept, and the result judged by its types."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from bnfold.edge import half
from bnfold.edge.precision import convert
from bnfold.edge.rounded import Rounded, judge
from bnfold.errors import InputError, ModelError
from bnfold.files.load import from_proto
from bnfold.files.other_types import to_proto
from bnfold.oracle.oracle import Oracle
from bnfold.report.record import record
from tests.small_networks import Draft, residual

F16, BF16 = ir.DataType.FLOAT16, ir.DataType.BFLOAT16
LOUD = 3  # the channel with the planted overflow


def data(count: int = 3, seed: int = 1) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.normal(0, 1, (2, 3, 8, 8)).astype(np.float32)} for _ in range(count)]


def planted(loud: float, *, between: Sequence[str] = ("Relu",), opset: int = 22) -> ir.Model:
    """Two Convs, and one channel between them that is `loud` times as large as the others."""
    d = Draft(0)
    first, second = d.rng.normal(0, 1, (8, 3, 3, 3)), d.rng.normal(0, 0.1, (8, 8, 3, 3))
    first[LOUD] *= loud
    second[:, LOUD] /= loud
    x = d.node(
        "Conv", "a", "x", d.constant("a.weight", first), d.constant("a.bias", np.ones(8)), pads=[1] * 4
    )
    for number, op in enumerate(between):
        x = d.node(op, f"between{number}", *[x] * (2 if op == "Mul" else 1))
    x = d.node("Conv", "b", x, d.constant("b.weight", second), pads=[1] * 4)
    x = d.node("Flatten", "flat", d.node("GlobalAveragePool", "pool", d.node("Relu", "b.relu", x)))
    made = d.model(["N", 3, 8, 8], d.gemm("fc", x, 8, 5))
    made.opset_import[0].version, made.ir_version = opset, 10
    return from_proto(made)


def dtypes(model: ir.Model) -> dict[str, ir.DataType | None]:
    return {str(node.name): node.outputs[0].dtype for node in model.graph}


def test_a_planted_overflow_is_named_repaired_and_judged() -> None:
    done = convert(planted(1e4), "float16", data())
    assert done.first is not None
    assert (done.first.value, done.first.node, done.first.side) == ("a_out", "a", "above")
    assert "'a_out', computed by Conv a, reaches" in done.first.sentence
    assert "beyond float16's 65504." in done.first.sentence
    assert set(done.repaired) == {"a_out", "between0_out"}
    assert (done.scaled, done.kept, done.passed) == (1, (), True)
    assert {kind for name, kind in dtypes(done.model).items() if "output_cast" not in name} == {F16}
    [output] = done.judgement.outputs
    assert output.lost == 0
    assert output.runtime is not None
    assert "'a_out'" in done.sentence


def test_classes_without_scores_are_judged_as_classes() -> None:
    """Where scores overflow, the best class is another one."""
    proto = to_proto(planted(1e4))
    proto.graph.node.append(helper.make_node("ArgMax", ["y"], ["best"], "best", axis=1, keepdims=0))
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("best", 7, ["N"]))
    model, samples = from_proto(proto), data(12)
    done = convert(model, "float16", samples)
    [best] = done.judgement.others
    assert (best.output, best.elements, done.judgement.outputs) == ("best", 24, ())
    assert done.passed
    assert f"; {best.differing} of 24 elements of 'best' differ" in done.sentence
    ready = half.prepared(model)
    naive = half.to_half(ready, F16, (), (), keep_io=True)
    [spoilt] = judge(ready, naive, F16, samples).others
    assert spoilt.differing > 6
    assert not spoilt.passed


def test_onnx_reference_computes_the_repaired_model_in_float16() -> None:
    """It rounds every result of an operator to float16, as hardware does, and finds no infinity."""
    model, feeds = planted(1e4), data(1)[0]
    done = convert(model, "float16", [feeds])
    [found] = ReferenceEvaluator(to_proto(done.model)).run(None, feeds)
    [truth] = Oracle(model).run(feeds)
    assert np.all(np.isfinite(found))
    assert np.abs(found - truth).max() <= 20 * 2.0**-11 * np.abs(truth).max()


def test_without_repair_the_same_model_is_judged_wrong_by_both() -> None:
    """The judge can say no; ONNX Runtime's CPU provider, which casts to float32, does not notice."""
    model, samples = half.prepared(planted(1e4)), data(1)
    naive = half.to_half(model, F16, (), (), keep_io=True)
    with np.errstate(all="ignore"):
        [reference] = ReferenceEvaluator(to_proto(naive)).run(None, samples[0])
    assert not np.all(np.isfinite(reference))
    verdict = judge(model, naive, F16, samples)
    assert not verdict.passed
    assert verdict.outputs[0].lost == np.sum(~np.isfinite(reference))


def test_what_cannot_be_repaired_stays_in_float32_and_is_listed() -> None:
    done = convert(planted(1e4, between=("Mul", "Sigmoid")), "float16", data())
    assert not done.repaired
    assert {one.node for one in done.kept} == {"a", "between0", "between1"}
    assert "; 2 tensors were out of range, 0 repaired by powers of two, first: 'a_out'" in done.sentence
    assert "; 3 nodes stay in float32;" in done.sentence
    assert (
        "'between0_out', computed by Mul between0, reaches"
        in {one.node: one.why for one in done.kept}["between1"]
    )
    assert done.passed
    kinds = dtypes(done.model)
    assert (kinds["between1"], kinds["b"]) == (ir.DataType.FLOAT, F16)
    nodes = {str(node.name): node for node in done.model.graph}
    # nothing between them goes through float16, where it would overflow
    assert nodes["between0"].inputs[0] is nodes["a"].outputs[0]
    assert nodes["between0"].inputs[1] is nodes["a"].outputs[0]
    assert nodes["a"].inputs[0] is done.model.graph.inputs[0]
    weight = nodes["a"].inputs[1]
    assert weight is not None
    assert weight.dtype == ir.DataType.FLOAT


def test_without_repair_what_is_out_of_range_stays_in_float32() -> None:
    done = convert(planted(1e4), "float16", data(), repair=False)
    assert ({one.node for one in done.kept}, done.scaled, done.passed) == ({"a", "between0", "b"}, 0, True)


def test_a_weight_beyond_float16_is_named_and_repaired() -> None:
    """The converter alone would silently write 65504 in its place."""
    done = convert(planted(1e5), "float16", data())
    assert done.first is not None
    assert (done.first.value, done.first.is_constant) == ("a.weight", True)
    assert "'a.weight', read by Conv a, reaches" in done.first.sentence
    assert "a.weight" in done.repaired
    assert done.passed


def test_values_that_are_too_small_are_scaled_up() -> None:
    d = Draft(0)
    x = d.node("Conv", "a", "x", d.constant("a.weight", d.rng.normal(0, 1e-7, (8, 3, 1, 1))))
    x = d.node(
        "Conv", "b", d.node("Relu", "r", x), d.constant("b.weight", d.rng.normal(0, 1e4, (5, 8, 1, 1)))
    )
    model = from_proto(d.model(["N", 3, 8, 8], x))
    done = convert(model, "float16", data())
    assert done.first is not None
    assert (done.first.value, done.first.side) == ("a_out", "below")
    assert {"a_out", "r_out"} <= set(done.repaired)
    assert done.passed
    plain = convert(model, "float16", data(), repair=False)
    assert not plain.repaired
    assert {"a", "r", "b"} <= {one.node for one in plain.kept}, "the judge is not content with float16"
    assert plain.passed


@pytest.mark.parametrize("between", [("Relu",), ("Abs", "Sigmoid")])
def test_bfloat16_overflows_are_named_and_repaired_or_kept(between: tuple[str, ...]) -> None:
    done = convert(planted(1.3e37, between=between), "bfloat16", data())
    assert done.first is not None
    assert (done.first.value, done.first.dtype) == ("a_out", "bfloat16")
    assert bool(done.repaired) == (between == ("Relu",))
    assert bool(done.kept) == (between != ("Relu",))
    assert done.passed
    assert dtypes(done.model)["b"] == BF16
    assert done.judgement.unit == "bfloat16"
    assert done.judgement.not_run, "ONNX Runtime's CPU provider has no Conv in bfloat16"
    onnx.checker.check_model(to_proto(done.model), full_check=True)


def test_operators_without_bfloat16_at_an_opset_stay_in_float32() -> None:
    done = convert(planted(1.0, opset=18), "bfloat16", data())
    why = {one.node: one.why for one in done.kept}
    assert why["a"] == why["b"] == "Conv has no bfloat16 in opset 18, but from opset 22 on"
    assert dtypes(done.model)["fc"] == BF16
    assert done.passed


def test_mixed_leaves_what_autocast_leaves_in_float32() -> None:
    d = Draft(0)
    x = d.node("Softmax", "s", d.gemm("fc", "x", 6, 7), axis=-1)
    model = from_proto(d.model(["N", 6], d.gemm("fc2", x, 7, 3)))
    feeds = [{"x": np.random.default_rng(0).normal(0, 1, (4, 6)).astype(np.float32)}]
    done = convert(model, "mixed", feeds)
    assert [(one.node, one.operator) for one in done.kept] == [("s", "Softmax")]
    kinds = dtypes(done.model)
    assert (kinds["s"], kinds["fc"], kinds["fc2"]) == (ir.DataType.FLOAT, F16, F16)
    assert dtypes(convert(model, "float16", feeds).model)["s"] == F16


@pytest.mark.parametrize("keep_io", [True, False])
def test_the_interface_is_float32_unless_asked_otherwise(keep_io: bool) -> None:
    done = convert(planted(1.0), "float16", data(), keep_io=keep_io)
    kind = ir.DataType.FLOAT if keep_io else F16
    assert [value.dtype for value in (*done.model.graph.inputs, *done.model.graph.outputs)] == [kind, kind]
    assert [value.name for value in (*done.model.graph.inputs, *done.model.graph.outputs)] == ["x", "y"]
    assert done.passed


def test_two_nodes_in_float32_read_one_value_and_the_last_may_be_the_output() -> None:
    """The converter writes one Cast for each, of the same name, which no runtime loads."""
    d = Draft(0)
    x = d.conv("a", "x", (4, 3, 1, 1))
    x = d.node("Add", "sum", d.node("Tanh", "t", x), d.node("Sigmoid", "s", x))
    model = from_proto(d.model(["N", 3, 8, 8], x))
    done = convert(model, "float16", data(), keep=("t", "s", "sum", "out"))
    ort.InferenceSession(to_proto(done.model).SerializeToString(), providers=["CPUExecutionProvider"])
    casts = [node.outputs[0].name for node in done.model.graph if node.op_type == "Cast"]
    assert len(casts) == len(set(casts))
    assert len(casts) in (2, 3)  # from ONNX Runtime 1.25 on the converter writes one for both readers
    assert [value.name for value in done.model.graph.outputs] == ["y"]
    assert done.passed


def test_a_weight_of_two_nodes_keeps_its_digits_for_the_one_in_float32() -> None:
    d = Draft(0)
    weight = d.weight("shared", 3, 3, 1, 1, fan=3)
    x = d.node("Conv", "b", d.node("Conv", "a", "x", weight), weight)
    done = convert(from_proto(d.model(["N", 3, 8, 8], x)), "float16", data(), keep=("a",))
    read = {str(node.name): node.inputs[1] for node in done.model.graph if node.op_type == "Conv"}
    stored = {name: value.const_value for name, value in read.items() if value is not None}
    assert stored["a"] is not None
    assert np.array_equal(stored["a"].numpy(), onnx.numpy_helper.to_array(d.tensors[0]))
    assert stored["b"] is not None
    assert stored["b"].dtype == F16


def test_the_rounded_run_is_that_of_onnx_reference() -> None:
    done = convert(from_proto(residual(0)), "float16", [{"x": np.ones((1, 3, 12, 12), np.float32)}])
    feeds = {"x": np.random.default_rng(0).normal(0, 1, (2, 3, 12, 12)).astype(np.float32)}
    [ours] = Rounded(done.model).run(feeds)
    [reference] = ReferenceEvaluator(to_proto(done.model)).run(None, feeds)
    assert np.abs(ours - reference).max() <= 8 * 2.0**-11 * np.abs(reference).max()
    assert np.array_equal(ours, ours.astype(np.float16)), "the output is what float16 holds"


def test_what_cannot_be_converted_is_refused() -> None:
    with pytest.raises(ModelError, match="half precision already"):
        convert(from_proto(residual(0, np.float16)), "float16", data())
    with pytest.raises(InputError, match="'nowhere' is not a node"):
        convert(planted(1.0), "float16", data(), keep=("nowhere",))
    branch = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["z"])], "b", [], [helper.make_tensor_value_info("z", 1, None)]
    )
    graph = helper.make_graph(
        [helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)],
        "g",
        [helper.make_tensor_value_info("c", 9, []), helper.make_tensor_value_info("x", 1, [2])],
        [helper.make_tensor_value_info("y", 1, [2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    with pytest.raises(ModelError, match="a graph of its own"):
        convert(from_proto(model), "float16", [{"c": np.array(True), "x": np.ones(2, np.float32)}])


def test_the_given_model_is_not_changed_and_the_record_is_json() -> None:
    model = planted(1e4)
    before = to_proto(model).SerializeToString(deterministic=True)
    done = convert(model, "float16", data())
    assert to_proto(model).SerializeToString(deterministic=True) == before
    written = json.loads(json.dumps(record(done, "sentence", "passed", without=("model",))))
    assert written["out_of_range"][0]["value"] == "a_out"
    assert written["judgement"]["judge"].startswith("every operator in float64")
