"""Models that ONNX Runtime does not load: compared without what nobody can run, or in float64 alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import bnfold
from bnfold.errors import ModelError
from bnfold.folding import record
from bnfold.validation.results import Validation
from bnfold.validation.validate import validate
from tests.graphs import build, statistics, weight

TEXT = """g (float[N,4,6,6] x) => (float[N,5,6,6] y) {{
  c = Conv <pads = [1,1,1,1]> (x, w)
  b = BatchNormalization (c, scale, bias, mean, var)
  o = {operator}
  d = Conv <pads = [1,1,1,1]> (o, v)
  y = BatchNormalization (d, scale2, bias2, mean2, var2)
}}"""
WEIGHTS = {
    "w": weight(8, 4, 3, 3),
    "v": weight(5, 8, 3, 3),
    **statistics(8),
    **{f"{name}2": array for name, array in statistics(5, 1).items()},
}


def model(operator: str = "my.Own <k = 2> (b)", text: str = TEXT, recorded: Any = None) -> onnx.ModelProto:
    """A custom operator between two convolutions; `recorded` is the shape that the file gives its output."""
    made = build(text.format(operator=operator), WEIGHTS)
    made.opset_import.append(onnx.helper.make_opsetid("my", 1))
    if recorded:
        made.graph.value_info.append(onnx.helper.make_tensor_value_info("o", 1, recorded))
    return made


def folded(original: onnx.ModelProto, factor: float = 1.0, channels: int = 0) -> onnx.ModelProto:
    """The fold, in which one filter of the convolution with so many output channels is off by a factor."""
    made = ir.to_proto(bnfold.fold(ir.from_proto(original)).model)
    for tensor in made.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor).copy()
        if array.ndim == 4 and len(array) == channels:
            array[1] *= factor
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    return made


def outputs(result: Validation) -> list[str]:
    return [check.output for check in result.checks if check.optimizer == "off"]


@pytest.mark.parametrize("recorded", [None, ["N", 8, 6, 6], ["M", 8, 7, 6]])
def test_a_right_fold_around_an_unknown_operator(recorded: Any) -> None:
    original = model(recorded=recorded)
    result = validate(original, folded(original))
    assert result.passed, result.failures
    assert outputs(result) == ["y", "input 0 of o"]
    assert {layer.name for layer in result.layers} >= {"b", "y"}
    assert result.is_fold
    assert result.oracle.startswith("ONNX Runtime cannot load the model: ")
    assert (
        "So my.Own (o) was not run. What stands before it was compared up to its inputs, and what stands "
        "behind my.Own (o) from values drawn in place of outputs. The reference is the original, evaluated "
        "in float64."
    ) in result.oracle


@pytest.mark.parametrize(("channels", "blamed"), [(8, "b"), (5, "y")])
def test_a_fault_before_and_one_behind_is_found(channels: int, blamed: str) -> None:
    original = model()
    result = validate(original, folded(original, 1.01, channels))
    assert not result.passed
    assert result.blame is not None
    assert result.blame.layer.name == blamed


def test_sizes_that_the_rest_does_not_take_are_not_drawn() -> None:
    """The first input has eight channels; behind the operator there are three."""
    text = TEXT.replace("(o, v)", "(o, three)").replace(
        "float[N,5,6,6] y", "float[N,5,6,6] y, float[N,8,6,6] b"
    )
    original = model(text=text)
    original.graph.initializer.append(onnx.numpy_helper.from_array(weight(5, 3, 3, 3), "three"))
    result = validate(original, original)
    assert result.passed, result.failures
    assert outputs(result) == ["b", "input 0 of o"]
    assert "These outputs were not compared: y." in result.oracle
    original.graph.value_info.append(onnx.helper.make_tensor_value_info("o", 1, ["N", 3, "H", "W"]))
    assert outputs(validate(original, original)) == ["y", "b", "input 0 of o"]


def test_given_inputs_are_for_what_stands_before() -> None:
    original = model()
    x = np.random.default_rng(3).normal(size=(2, 4, 6, 6)).astype(np.float32)
    result = validate(original, folded(original), inputs={"x": x})
    assert result.passed, result.failures
    assert outputs(result) == ["input 0 of o"]
    assert result.samples == 1


def test_other_operators_and_other_attributes_are_wrong() -> None:
    original = model()
    other = validate(original, model("my.Own <k = 3> (b)"))
    assert other.problems == ("my.Own (o) has other attributes in the folded model.",)
    none = validate(original, model("Relu (b)"))
    assert none.problems == (
        "Of operators that nobody here can run, the folded model has none instead of my.Own (o).",
    )
    assert not other.passed
    assert not none.passed


def test_operators_are_paired_by_what_they_compute_or_by_their_place() -> None:
    text = "g (float[N,4,6,6] x) => (float[N,4,6,6] y) {{ n = Neg (x) {operator} }}"

    def of(body: str) -> onnx.ModelProto:
        return model(body, text)

    one = of("o = my.Own (x) p = my.Own (n) y = Sub (o, p)")
    assert validate(one, of("p = my.Own (n) o = my.Own (x) y = Sub (o, p)")).passed
    assert validate(one, of("q = my.Own (x) r = my.Own (n) y = Sub (q, r)")).passed
    assert not validate(one, of("o = my.Own (n) p = my.Own (x) y = Sub (o, p)")).passed
    assert not validate(one, of("o = my.Own (x) p = my.Own (n) y = Sub (p, o)")).passed


def test_an_operator_inside_a_function() -> None:
    text = (
        TEXT.format(operator="local.f (b)")
        + """
    <opset_import: ["" : 18, "my" : 1], domain: "local"> f (a) => (z) { n = Neg (a) z = my.Own (n) }"""
    )
    original = model(text=text.replace("{", "{{").replace("}", "}}"))
    result = validate(original, folded(original))
    assert result.passed, result.failures
    assert len(outputs(result)) == 2
    assert not result.is_fold  # names of what was inside say nothing
    wrong = folded(original, 1.01, 5)
    assert not validate(original, wrong).passed


def test_an_operator_inside_a_branch_is_taken_out_with_it() -> None:
    text = TEXT.replace("float[N,4,6,6] x", "float[N,4,6,6] x, bool k").format(
        operator="""If (k) <
        then_branch = t () => (float[N,8,6,6] a) { a = my.Own (b) },
        else_branch = e () => (float[N,8,6,6] z) { z = Neg (b) } >"""
    )
    original = model(text=text.replace("{", "{{").replace("}", "}}"), recorded=["N", 8, 6, 6])
    result = validate(original, folded(original))
    assert result.passed, result.failures
    assert outputs(result) == ["y", "input 0 of o", "input 1 of o"]


def test_nothing_left_is_an_error() -> None:
    text = "g (my_type x) => (float[N] y) { y = my.Own () }".replace("my_type", "float[N]")
    original = build(text.replace("my.Own ()", "my.Own <k = 1> ()"))
    original.opset_import.append(onnx.helper.make_opsetid("my", 1))
    with pytest.raises(ModelError, match=r"my:Own"):
        validate(original, original)


def test_the_models_stay_as_they_are() -> None:
    original = ir.from_proto(model())
    fold = bnfold.fold(original).model
    before = [ir.to_proto(one).SerializeToString(deterministic=True) for one in (original, fold)]
    assert record.is_fold_of(fold, original)
    assert validate(original, fold).passed
    assert [ir.to_proto(one).SerializeToString(deterministic=True) for one in (original, fold)] == before


OLD = """g (float[N,4,6,6] x) => (float[N,10] y) {{
  c = Conv <pads = [1,1,1,1]> (x, w)
  b = BatchNormalization <{old} is_test = 1> (c, scale, bias, mean, var)
  r = Add <broadcast = 1, axis = 1> (b, chan)
  p = GlobalAveragePool (r)
  f = {reshape}
  y = Gemm <broadcast = 1, transB = 1> (f, fw, fb)
}}"""


def old_model(opset: int) -> onnx.ModelProto:
    """A classifier as it was written in 2017."""
    sizes = {} if opset < 5 else {"shape": np.array([-1, 8])}
    text = OLD.format(
        old="consumed_inputs = [0, 0, 0, 1, 1]," if opset < 6 else "",
        reshape="Reshape (p, shape)" if sizes else "Reshape <shape = [-1, 8]> (p)",
    )
    constants = {**WEIGHTS, "chan": weight(8), "fw": weight(10, 8), "fb": weight(10), **sizes}
    used = {name: array for name, array in constants.items() if name in text}
    return build(text, used, opset=opset, ir_version=4)


@pytest.mark.parametrize("opset", [1, 5, 6])
def test_the_oldest_opsets_are_compared_in_float64(opset: int) -> None:
    original = old_model(opset)
    result = validate(original, folded(original))
    assert result.passed, result.failures
    assert [(check.output, check.provider) for check in result.checks] == [("y", "float64")]
    assert 0 < (result.checks[0].error or 0) < 1e-6
    assert {layer.name for layer in result.layers} >= {"b", "y"}
    assert "So both models were evaluated in float64 alone." in result.oracle
    assert not validate(original, folded(original, 1.001, 8)).passed
    with pytest.raises(ModelError, match="cannot load"):
        validate(original, original, oracle="off")


def test_per_layer_and_given_inputs_of_an_old_model() -> None:
    original = old_model(6)
    x = np.random.default_rng(3).normal(size=(2, 4, 6, 6)).astype(np.float32)
    result = validate(original, folded(original), inputs={"x": x}, per_layer=True)
    assert result.passed, result.failures
    assert all(layer.original_error is None for layer in result.layers)


def test_what_neither_can_evaluate_is_the_runtimes_error() -> None:
    original = old_model(6)
    original.graph.node[2].attribute[0].i = 0  # the shapes differ, and nothing broadcasts
    with pytest.raises(ModelError, match="ONNX Runtime cannot load"):
        validate(original, original)


@pytest.mark.parametrize(("kind", "fault"), [("bfloat16", 1.05), ("int4", 3.0), ("uint2", 3.0)])
def test_an_output_that_onnxruntime_does_not_return_is_compared_in_float64(kind: str, fault: float) -> None:
    def model(factor: float) -> onnx.ModelProto:
        number = getattr(onnx.TensorProto, kind.upper())
        text = f"g (float[N,8] x) => ({kind}[N,5] y) {{ m = MatMul (x, w) y = Cast <to = {number}> (m) }}"
        return build(text, {"w": weight(8, 5) * np.float32(factor)}, opset=25, ir_version=13)

    result = validate(model(1.0), model(1.0))
    assert result.passed, result.failures
    assert f"returns no {kind} to Python" in result.oracle
    assert {check.provider for check in result.checks} == {"float64"}
    assert not validate(model(1.0), model(fault)).passed


def test_a_model_without_outputs_cannot_be_compared() -> None:
    model = build("g (float[N,8] x) => (float[N,8] y) { y = Relu (x) }", {})
    del model.graph.output[:]
    with pytest.raises(ModelError, match="no outputs"):
        validate(model, model)
