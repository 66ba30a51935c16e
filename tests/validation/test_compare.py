"""Two files of anybody's are compared as far as both can be fed the same numbers; the rest is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper, parser

from bnfold.errors import InputError
from bnfold.inputs.given import Given
from bnfold.validation.validate import validate

RNG = np.random.default_rng(3)
W, B = RNG.normal(size=(4, 3)), RNG.normal(size=4)
TABLE = RNG.normal(size=(50, 3))


def classifier(
    signature: str = "(float[N, 3] x) => (float[N, 4] y)", *, kind: type = np.float32, off: float = 0.0
) -> onnx.ModelProto:
    """Four scores for each row of three numbers, with names of its own."""
    head, _, tail = signature.partition(") => (")
    source, target = head.split()[-1], tail.rstrip(")").split()[-1]
    body = f"{target} = Gemm<transB = 1>({source}, w, b)"
    model = parser.parse_model(f'<ir_version: 9, opset_import: ["": 18]> g {signature} {{ {body} }}')
    weight = W.copy()
    weight[0, 0] *= 1 + off
    for name, value in {"w": weight, "b": B}.items():
        model.graph.initializer.append(numpy_helper.from_array(value.astype(kind), name))
    return model


def lookup(index: str, output: str = "float") -> onnx.ModelProto:
    """Rows of a table, by indices of a type."""
    model = parser.parse_model(
        f"""<ir_version: 9, opset_import: ["": 18]> g ({index}[N] k) => ({output}[N, 3] y, {index}[N] best) {{
            rows = Gather(t, k) y = Cast<to = {TensorProto.DataType.Value(output.upper())}>(rows)
            top = ArgMax<axis = 1, keepdims = 0>(rows)
            best = Cast<to = {TensorProto.DataType.Value(index.upper())}>(top) }}"""
    )
    model.graph.initializer.append(numpy_helper.from_array(TABLE.astype(np.float32), "t"))
    return model


# --- names


def test_another_exporter_s_names_are_paired_by_order():
    other = classifier("(float[batch, 3] input_1) => (float[batch, 4] scores)")
    unpaired = validate(classifier(), other)
    assert not unpaired.passed
    assert all("--match order" in failure for failure in unpaired.failures)
    result = validate(classifier(), other, match="order")
    assert result.passed, result.failures
    assert {check.output for check in result.checks} == {"y"}
    assert result.differences == ("The input 'x' is named 'input_1'.", "The output 'y' is named 'scores'.")
    assert result.request.match == "order"


def test_a_fault_behind_other_names_is_found():
    other = classifier("(float[batch, 3] input_1) => (float[batch, 4] scores)", off=0.01)
    assert not validate(classifier(), other, match="order").passed


def test_where_nothing_may_differ_every_difference_is_a_failure_and_the_rest_is_compared_all_the_same():
    other = classifier("(float[batch, 3] input_1) => (float[batch, 4] scores)")
    result = validate(classifier(), other, match="order", strict=True)
    assert not result.passed
    assert result.failures == result.differences
    assert result.differs_to_callers_only
    assert all(check.passed for check in result.checks)
    assert validate(classifier(), classifier(), strict=True).passed


def test_lost_metadata_and_another_opset_are_noted():
    before, after = classifier(), classifier()
    before.metadata_props.add(key="names", value="cat, dog")
    after.opset_import[0].version = 17
    result = validate(before, after)
    assert result.passed
    assert result.differences == (
        "The opset is 17 instead of 18.",
        "Metadata of the original is missing: names.",
    )
    assert len(validate(before, after, strict=True).failures) == 2


# --- sizes


@pytest.mark.parametrize("oracle", ["auto", "off"])
def test_a_size_that_only_one_model_fixes_is_noted_and_used(oracle: str):
    fixed = classifier("(float[2, 3] x) => (float[2, 4] y)")
    for before, after in ((classifier(), fixed), (fixed, classifier())):
        result = validate(before, after, oracle=oracle)
        assert result.passed, result.failures
        assert all(check.shapes == ((2, 4),) for check in result.checks)
        assert sum("the shape" in sentence for sentence in result.differences) == 2
        assert not validate(before, after, strict=True).passed


@pytest.mark.parametrize("declared", ["N", "N, 4, 1", "N, 5"])
def test_a_wrong_size_that_a_model_declares_for_its_output_is_noted(declared: str):
    wrong = classifier(f"(float[N, 3] x) => (float[{declared}] y)")
    for before, after in ((classifier(), wrong), (wrong, classifier())):
        result = validate(before, after)
        assert result.passed, result.failures
        assert [sentence for sentence in result.differences if "output 'y' has the shape" in sentence]
        assert not validate(before, after, strict=True).passed
    reshaped = classifier()
    reshaped.graph.node[0].output[0] = "z"
    reshaped.graph.node.append(onnx.helper.make_node("Reshape", ["z", "flat"], ["y"]))
    reshaped.graph.initializer.append(numpy_helper.from_array(np.array([-1]), "flat"))
    assert any("instead of" in failure for failure in validate(classifier(), reshaped).failures)


def test_given_rows_are_cut_into_the_batches_of_the_model_that_fixes_them(tmp_path: Path):
    np.savez(tmp_path / "data.npz", x=RNG.normal(size=(6, 3)))
    fixed = classifier("(float[2, 3] x) => (float[2, 4] y)")
    result = validate(classifier(), fixed, inputs=Given(tmp_path / "data.npz"))
    assert (result.passed, result.samples) == (True, 3)


# --- types


def test_a_model_in_float16_is_held_against_the_bound_of_float16():
    half = classifier("(float16[N, 3] x) => (float16[N, 4] y)", kind=np.float16)
    result = validate(classifier(), half)
    assert result.passed, result.failures
    assert result.differences[0] == "The input 'x' has the type float16 instead of float32."
    assert {check.type for check in result.checks} == {"float32"}
    assert all(1e-5 < check.error < check.bound < 0.02 for check in result.checks)
    assert not validate(classifier(), classifier(kind=np.float16, off=0.0), oracle="off").checks
    wrong = classifier("(float16[N, 3] x) => (float16[N, 4] y)", kind=np.float16, off=0.1)
    assert not validate(classifier(), wrong).passed
    assert validate(half, classifier()).passed  # the other way round too


def test_numbers_beyond_float16_are_not_drawn_for_a_model_that_takes_float16():
    half = classifier("(float16[N, 3] x) => (float16[N, 4] y)", kind=np.float16)
    result = validate(classifier(), half, samples=60)
    assert result.passed, result.failures
    given = validate(classifier(), half, inputs={"x": np.float32([[1e6, 0, 0]])})
    assert any("'x' has a number that float16 does not hold" in failure for failure in given.failures)


def test_indices_of_another_type():
    result = validate(lookup("int64"), lookup("int32"))
    assert result.passed, result.failures
    assert list(result.differences) == [
        "The input 'k' has the type int32 instead of int64.",
        "The output 'best' has the type int32 instead of int64.",
    ]
    assert validate(lookup("int32"), lookup("int64")).passed
    assert validate(lookup("int64"), lookup("int32"), inputs={"k": np.array([2, 49])}).passed


def test_layers_are_measured_with_inputs_of_another_type():
    result = validate(lookup("int64"), lookup("int32"), per_layer=True)
    assert result.passed, result.failures
    assert all(layer.folded_error is not None for layer in result.layers)


# --- accuracy


@pytest.fixture
def data(tmp_path: Path) -> Given:
    """A hundred rows, most of them with the class that the classifier gives them."""
    x = RNG.normal(size=(100, 3)).astype(np.float32)
    classes = (x @ W.T + B).argmax(axis=1)
    classes[:20] = (classes[:20] + 1) % 4
    np.savez(tmp_path / "data.npz", x=x, y=classes)
    np.savetxt(tmp_path / "labels.csv", classes, fmt="%d")
    return Given(tmp_path / "data.npz", labels=tmp_path / "labels.csv", top=3)


def test_both_models_are_scored_on_every_labelled_row(data: Given):
    result = validate(classifier(), classifier(off=3.0), inputs=data, tolerance=1e6)
    assert result.passed, result.failures
    assert (result.accuracy.rows, result.accuracy.output) == (100, "y")
    top1, top3 = result.accuracy.scores
    assert (top1.k, top1.original, top3.k) == (1, 0.8, 3)
    assert top1.folded == pytest.approx(0.8 + (top1.gained - top1.lost) / 100)
    assert top1.gained + top1.lost > 0
    assert "y of data.npz left out: the model takes x." in result.notes


def test_labels_do_not_depend_on_names_types_or_sizes(data: Given):
    half = classifier("(float16[10, 3] input) => (float16[10, 4] output)", kind=np.float16)
    result = validate(classifier(), half, match="order", inputs=data)
    assert result.passed, result.failures
    assert result.accuracy.rows == 100
    assert result.accuracy.scores[0].original == 0.8
    same = validate(classifier(), half, match="order", inputs=replace(data, labels=data.path))
    assert same.accuracy == result.accuracy


def test_without_labels_there_is_no_accuracy(data: Given):
    assert validate(classifier(), classifier(), inputs=replace(data, labels=None)).accuracy is None


def test_labels_for_a_model_that_is_not_a_classifier(data: Given):
    narrow = classifier("(float[N, 3] x) => (float[M, 4] y)")
    narrow.graph.node[0].output[0] = "all"
    narrow.graph.node.append(onnx.helper.make_node("ReduceMean", ["all"], ["y"], keepdims=1))
    with pytest.raises(InputError, match="No output has a score for each class"):
        validate(narrow, narrow, inputs=data)
