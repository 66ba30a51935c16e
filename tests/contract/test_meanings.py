"""What means something else in another opset is converted to the same, or refused by name before a run."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
import pytest

from bnfold.contract.versions import with_opset
from bnfold.errors import ModelError
from bnfold.files.load import from_proto
from tests.graphs import operators, run

X = np.random.default_rng(0).normal(0, 2, (2, 3, 4, 5)).astype(np.float32)
ACROSS = {"Softmax", "LogSoftmax", "Hardmax"}


def parsed(text: str, opset: int) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}, "local": 1]> {text}')


def converted(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    return ir.to_proto(with_opset(from_proto(model), opset).model)


@pytest.mark.parametrize(
    ("body", "inputs", "before", "after"),
    [
        ("y = MeanVarianceNormalization(x)", {"x": X}, 13, 8),
        ("y = MeanVarianceNormalization <axes = [1, 2]> (x)", {"x": X}, 20, 8),
        ("y = Swish(x)", {"x": X}, 24, 21),
        ("y = Swish <alpha = 0.5> (x)", {"x": X}, 24, 21),
        ("y = AffineGrid(x, s)", {"x": X[0, :2, :2, :3], "s": np.array([2, 4, 4, 2])}, 20, 18),
        ("y = HammingWindow(s)", {"s": np.array(10)}, 17, 16),
        ("y = Celu(x)", {"x": X}, 13, 11),
    ],
)
def test_attributes_that_are_left_out_keep_their_defaults(
    body: str, inputs: dict[str, np.ndarray], before: int, after: int
) -> None:
    """The inliner of onnx drops those: a Constant without its value, or another mean, would remain."""
    kinds = {"f": "float", "i": "int64"}
    given = ", ".join(
        f"{kinds[one.dtype.kind]}[{','.join(map(str, one.shape))}] {name}"
        if one.shape
        else f"{kinds[one.dtype.kind]} {name}"
        for name, one in inputs.items()
    )
    model = parsed(f"g ({given}) => (float y) {{ {body} }}", before)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    made = converted(model, after)
    assert body.split()[2].partition("(")[0] not in operators(made)
    expected = onnx.reference.ReferenceEvaluator(model).run(None, inputs)
    found = onnx.reference.ReferenceEvaluator(made).run(None, inputs)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5, atol=1e-6)


def test_a_function_of_the_model_keeps_the_defaults_of_its_attributes() -> None:
    text = """g (float[2,3,4,5] x) => (float[2,3,4,5] y) { h = local.act(x) y = Relu(h) }
    <domain: "local", opset_import: ["" : 20]>
    act <slope: float = 0.3> (a) => (b) { c = LeakyRelu <alpha: float = @slope> (a) b = HardSwish(c) }"""
    original = parsed(text, 20)
    np.testing.assert_allclose(
        run(converted(original, 13), {"x": X})[0],
        run(original, {"x": X})[0],
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize("operator", sorted(ACROSS))
@pytest.mark.parametrize("axis", [None, 1, 3, -2])
@pytest.mark.parametrize(("before", "after"), [(9, 13), (12, 18), (13, 12), (18, 9)])
def test_an_axis_that_is_not_the_last(operator: str, axis: int | None, before: int, after: int) -> None:
    """Before opset 13 all axes from this one on are one, and from there on it is the only one."""
    given = "" if axis is None else f"<axis = {axis}>"
    model = parsed(
        f"g (float[N,3,H,W] x) => (float[N,3,H,W] y) {{ z = Relu(x)  y = {operator} {given} (z) }}", before
    )
    made = converted(model, after)
    onnx.checker.check_model(made, full_check=True)
    np.testing.assert_allclose(run(made, {"x": X})[0], run(model, {"x": X})[0], rtol=1e-5, atol=1e-6)
    last = axis == 3 or (axis is None and before >= 13)
    around = {"Transpose"} if before >= 13 else {"Shape", "Flatten", "Reshape"}
    assert {*operators(made)} - {"Relu", operator} == (set() if last else around)


@pytest.mark.parametrize(("sizes", "is_said"), [("2,3,4,5", False), ("2,3,0,5", True), ("N,3,4,5", True)])
def test_it_is_said_where_tensors_without_elements_no_longer_pass(sizes: str, is_said: bool) -> None:
    """The Reshape takes a size of 0 for that of its input, which is a matrix."""
    model = parsed(f"g (float[{sizes}] x) => (float[{sizes}] y) {{ y = Softmax <axis = 1> (x) }}", 9)
    done = with_opset(from_proto(model), 13)
    assert ("may no longer take tensors without elements" in done.sentence) == is_said


def test_sizes_of_one_after_the_axis_change_nothing() -> None:
    model = parsed("g (float[2,5,1,1] x) => (float[2,5,1,1] y) { y = Softmax <axis = 1> (x) }", 13)
    made = converted(model, 11)
    assert operators(made) == ["Softmax"]
    x = X[0, :2, 0, :, None, None]
    np.testing.assert_allclose(run(made, {"x": x})[0], run(model, {"x": x})[0], rtol=1e-6)


UNKNOWN = "g (float[2,3,4,5] x, int64[K] k) => (float y) { z = Reshape(x, k)  y = Softmax <axis = %d> (z) }"


@pytest.mark.parametrize(("axis", "before", "after"), [(1, 9, 13), (-2, 11, 13), (-1, 13, 11)])
def test_an_unknown_number_of_dimensions_where_it_does_not_matter(axis: int, before: int, after: int) -> None:
    model = parsed(UNKNOWN % axis, before)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    given = {"x": X, "k": np.array([2, 3, 4, 5])}
    np.testing.assert_allclose(
        run(converted(model, after), given)[0], run(model, given)[0], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("text", "before", "after", "said"),
    [
        (UNKNOWN % 1, 13, 12, "Softmax 'y' has axis=1, which means something else before opset 13"),
        (UNKNOWN % -1, 9, 13, "Softmax 'y' has axis=-1"),
        (
            'g (float[2,3,4,5] x, int64[8] p) => (float[A,B,C,D] y) { y = Pad <mode = "wrap"> (x, p) }',
            *(19, 18),
            "Pad 'y' has mode=\"wrap\", which came with opset 19",
        ),
        (
            "g (float[2,3,4,5] x, float[4] s) => (float[A,B,C,D] y)"
            ' { y = Resize <coordinate_transformation_mode = "half_pixel_symmetric"> (x, , s) }',
            *(19, 18),
            "half_pixel_symmetric",
        ),
        (
            "g (float[2,3,4,5] x, float[4] s) => (float[A,B,C,D] y)"
            ' { y = Resize <coordinate_transformation_mode = "tf_half_pixel_for_nn"> (x, s, s) }',
            *(11, 13),
            "which opset 13 dropped",
        ),
        (
            "g (float[1,1,4,10] x) => (float[A,B,C,D] y)"
            " { s = Constant <value = float[4] {1, 1, 2, 0.6}> () y = Resize (x, s) }",
            *(10, 13),
            "Resize 'y' has a size that grows and one that shrinks",
        ),
        (
            "g (float[1,1,4,10] x, float[4] s) => (float[A,B,C,D] y) { y = Resize (x, s) }",
            *(10, 11),
            "Resize 'y' has scales that are computed",
        ),
    ],
)
def test_what_another_opset_cannot_say_is_refused_by_name(
    text: str, before: int, after: int, said: str
) -> None:
    with pytest.raises(ModelError) as caught:
        with_opset(from_proto(parsed(text, before)), after)
    assert said in caught.value.problem
    assert ("a newer one" if after < before else "an older one") in caught.value.fix
