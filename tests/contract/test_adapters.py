"""Operators that onnx's converter refuses, or leaves to be wrong, and that older opsets can say exactly."""

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

X = np.random.default_rng(0).normal(0, 2, (2, 4, 6, 5)).astype(np.float32)
PICTURE = "float[2,4,6,5] x"


def parsed(body: str, opset: int, given: str = PICTURE, kind: str = "float") -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": {opset}]> g ({given}) => ({kind} y) {{ {body} }}'
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return model


def converted(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    return ir.to_proto(with_opset(from_proto(model), opset).model)


def ints(name: str, *numbers: int) -> str:
    return f"{name} = Constant <value = int64[{len(numbers)}] {{{', '.join(map(str, numbers))}}}> () "


def floats(name: str, *numbers: float) -> str:
    return f"{name} = Constant <value = float[{len(numbers)}] {{{', '.join(map(str, numbers))}}}> () "


def scalar(name: str, number: float) -> str:
    return f"{name} = Constant <value = float {{{number}}}> () "


NO_AXES = "a = Constant <value = int64[0] {}> () "

CLASSES = ints("d", 5) + floats("v", 0, 1)

PADS = ints("p", 1, 0, 2, 3) + ints("a", -1, 1) + scalar("v", 0.25)


@pytest.mark.parametrize(
    ("body", "before", "after", "has"),
    [
        ("y = ReduceMean <noop_with_empty_axes = 1> (x)", 18, 13, ["Identity"]),
        ("y = ReduceSum <noop_with_empty_axes = 1> (x, )", 13, 11, ["Identity"]),
        (NO_AXES + "y = ReduceMax <noop_with_empty_axes = 1> (x, a)", 18, 11, ["Identity"]),
        (NO_AXES + "y = ReduceL2 <keepdims = 0> (x, a)", 18, 11, ["ReduceL2"]),
        (ints("a", -1, 1) + "y = ReduceSum <noop_with_empty_axes = 1> (x, a)", 20, 10, ["ReduceSum"]),
        ("y = ReduceL1 <keepdims = 0> (x, )", 18, 17, ["ReduceL1"]),
        ("s = Shape(x) r = Size(s) o = Constant <value = int64 {1}> () a = Range(o, r, o)"
         " y = ReduceSum(x, a)", 13, 11, ["ReduceSum"]),
        ("u = ReduceMin <keepdims = 1> (x, ) y = Squeeze(u, )", 18, 11, ["ReduceMin", "Squeeze"]),
        (ints("a", -1, 1) + "y = Unsqueeze(x, a)", 13, 10, ["Unsqueeze"]),
        (ints("a", -3) + "u = Unsqueeze(x, a) y = Squeeze(u, a)", 21, 9, ["Unsqueeze", "Squeeze"]),
        ("b, c = Split <axis = 1> (x, ) y = Concat <axis = -1> (c, b)", 13, 11, ["Split", "Concat"]),
        ("b, c = Split <axis = -1, num_outputs = 2> (x) y = Concat <axis = -1> (c, b)", 18, 9,
         ["Split", "Concat"]),
        ("b, c = Split <axis = 1, num_outputs = 2> (x) y = Concat <axis = 1> (c, b)", 18, 13,
         ["Split", "Concat"]),
        (scalar("l", -0.5) + "y = Clip(x, l)", 13, 7, ["Clip"]),
        (scalar("h", 0.5) + "y = Clip(x, , h)", 21, 10, ["Clip"]),
        (PADS + "y = Pad(x, p, v, a)", 19, 13, ["Pad"]),
        (PADS + "y = Pad(x, p, v, a)", 19, 7, ["Pad"]),
        (ints("p", 0, 1, 0, 2) + ints("a", 0, 2) + 'y = Pad <mode = "edge"> (x, p, , a)', 18, 11, ["Pad"]),
        (ints("b", 1, -3) + ints("e", 9, -1) + ints("a", -2, 3) + "y = Slice(x, b, e, a)", 13, 9, ["Slice"]),
        (ints("i", 0, -1) + "y = Gather <axis = -1> (x, i)", 13, 9, ["Gather"]),
        (CLASSES + ints("i", 0, 2) + "y = OneHot(i, d, v)", 11, 10, ["OneHot"]),
        ("f = Flatten(x) y = Gemm <transB = 1> (f, f)", 13, 7, ["Flatten", "Gemm"]),
        (scalar("r", 0.3) + "y = Dropout(x, r)", 13, 7, ["Dropout"]),
        (floats("s", 1, 1, 2, 1.5) + 'y = Resize <mode = "linear"> (x, , s)', 13, 11, ["Resize"]),
        (ints("n", 2, 4, 3, 7) + "y = Resize(x, , , n)", 18, 11, ["Resize"]),
        (floats("s", 1.5, 2) + 'y = Resize <axes = [3, -2], mode = "cubic"> (x, , s)', 18, 13, ["Resize"]),
        (ints("n", 9) + "y = Resize <axes = [2]> (x, , , n)", 18, 11, ["Resize"]),
        ("y = MaxPool <kernel_shape = [2, 3], dilations = [1, 1]> (x)", 12, 8, ["MaxPool"]),
        ("y = LpPool <kernel_shape = [2, 2]> (x)", 18, 11, ["LpPool"]),
        (ints("k", 2) + "v, i = TopK <axis = -2> (x, k) y = Relu(v)", 13, 7, ["TopK", "Relu"]),
        ("i = ArgMax <axis = -1> (x) y = Cast <to = 1> (i)", 13, 7, ["ArgMax", "Cast"]),
    ],
)  # fmt: skip
def test_an_older_opset_computes_the_same(body: str, before: int, after: int, has: list[str]) -> None:
    model = parsed(body, before)
    made = converted(model, after)
    assert [name for name in operators(made) if name != "Constant"] == has
    np.testing.assert_array_equal(run(made, {"x": X})[0], run(model, {"x": X})[0])


@pytest.mark.parametrize(
    ("body", "before", "after"),
    [
        ("y = Cast <to = 1, saturate = 0> (x)", 19, 18),  # ONNX Runtime takes this for no other type
        ("y = CastLike <saturate = 0> (x, x)", 19, 15),
        ("y = AveragePool <kernel_shape = [3, 2], dilations = [1, 1]> (x)", 19, 7),  # adds in another order
    ],
)
def test_an_older_opset_computes_the_same_by_the_reference(body: str, before: int, after: int) -> None:
    model = parsed(body, before)
    made = converted(model, after)
    assert operators(made) == operators(model)
    expected = onnx.reference.ReferenceEvaluator(model).run(None, {"x": X})[0]
    found = onnx.reference.ReferenceEvaluator(made).run(None, {"x": X})[0]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(("before", "after"), [(21, 18), (21, 17), (21, 11), (18, 21), (18, 13), (20, 24)])
def test_group_normalization_scales_groups_or_channels(before: int, after: int) -> None:
    count = 4 if before >= 21 else 2
    body = floats("s", *range(1, count + 1)) + floats("b", *range(count))
    model = parsed(body + "y = GroupNormalization <num_groups = 2> (x, s, b)", before)
    made = converted(model, after)
    assert "GroupNormalization" not in operators(made)
    np.testing.assert_allclose(run(made, {"x": X})[0], run(model, {"x": X})[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("after", [22, 17, 13, 9, 7])
@pytest.mark.parametrize("axis", [-1, 2])
def test_rms_normalization_is_written_out(axis: int, after: int) -> None:
    size = int(np.prod(X.shape[axis:]))
    shape = ",".join(map(str, X.shape[axis:]))
    scale = f"s = Constant <value = float[{shape}] {{{', '.join(str(n / 8) for n in range(size))}}}> () "
    model = parsed(f"{scale} y = RMSNormalization <axis = {axis}> (x, s)", 23)
    made = converted(model, after)
    np.testing.assert_allclose(run(made, {"x": X})[0], run(model, {"x": X})[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("after", [18, 16])
@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
def test_a_grid_of_pictures_is_sampled_alike(mode: str, after: int) -> None:
    model = parsed(f'y = GridSample <mode = "{mode}"> (x, c)', 20, f"{PICTURE}, float[2,3,3,2] c")
    given = {"x": X, "c": np.random.default_rng(1).uniform(-1.2, 1.2, (2, 3, 3, 2)).astype(np.float32)}
    np.testing.assert_array_equal(run(converted(model, after), given)[0], run(model, given)[0])


@pytest.mark.parametrize("shape", ["", "[1]"])
def test_one_scale_of_a_quantised_tensor(shape: str) -> None:
    scale = f"s = Constant <value = float{shape} {{0.05}}> () z = Constant <value = uint8{shape} {{7}}> () "
    model = parsed(scale + "q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)", 13)
    made = converted(model, 10)
    np.testing.assert_array_equal(run(made, {"x": X})[0], run(model, {"x": X})[0])


@pytest.mark.parametrize(
    ("body", "before", "after", "said"),
    [
        ("y = ReduceL2 <noop_with_empty_axes = 1> (x)", 18, 17, "ReduceL2 'y' reduces no axis"),
        ("y = ReduceMean(x, k)", 18, 17, "ReduceMean 'y' reads its axes from 'k', which is not constant"),
        ("r = Reshape(x, k) b, d = Split <axis = 1, num_outputs = 2> (r) y = Relu(d)", 18, 17,
         "2 parts of an axis of unknown size"),
        (ints("p", 1, 1) + ints("a", 1) + "r = Reshape(x, k) y = Pad(r, p, , a)", 18, 17,
         "Pad 'y' has axes, and the number of its input's dimensions is not known"),
        (ints("b", 0) + ints("e", 4) + ints("a", 1) + ints("s", 2) + "y = Slice(x, b, e, a, s)", 10, 9,
         "Slice 'y' has steps"),
        ("y = Gather(x, k)", 11, 10, "Gather 'y' reads its indices from 'k', which may count from the end"),
        ("r = Reshape(x, k) " + ints("i", -1) + "y = Gather(r, i)", 11, 10, "counts from the end of an axis"),
        (CLASSES + "y = OneHot(k, d, v)", 11, 10, "OneHot 'y' reads its indices from 'k'"),
        (CLASSES + ints("i", 0, -1) + "y = OneHot(i, d, v)", 11, 10, "OneHot 'y' has indices that count"),
        ("r = Reshape(x, k) y = Concat <axis = -1> (r, r)", 11, 10, "Concat 'y' has axis -1"),
        ("d, m = Dropout(x) y = Where(m, d, d)", 12, 10, "Dropout 'd' drops elements or gives its mask"),
        ('y = RoiAlign(x, rois, k)', 16, 15, 'coordinate_transformation_mode="half_pixel"'),
        ("y = DequantizeLinear(q, c)", 13, 12, "a scale for each channel"),
        ("y = MaxPool <kernel_shape = [2, 2], dilations = [2, 1]> (x)", 12, 9, "MaxPool 'y' has dilations"),
        ("i = Min(k, k) y = Cast <to = 1> (i)", 12, 11, "Min 'i' takes int64, which opset 11 does not"),
        ("y = AffineGrid(rois, k)", 20, 12, "onnx cannot write AffineGrid out in the operators of opset 12"),
        ("y = Round(x)", 11, 10, "Round 'y' came with opset 11"),
        (floats("s", 1, 1, 2, 2) + "y = Resize(x, s, s)", 11, 10, "Resize 'y' changed in opset 11"),
    ],
)  # fmt: skip
def test_what_an_older_opset_cannot_say_is_refused_by_name(
    body: str, before: int, after: int, said: str
) -> None:
    given = f"{PICTURE}, int64[K] k, float[3,4] rois, uint8[2,4,6,5] q, float[4] c"
    with pytest.raises(ModelError) as caught:
        with_opset(from_proto(parsed(body, before, given)), after)
    assert said in caught.value.problem
    assert "a newer one" in caught.value.fix


def test_a_number_that_a_float_attribute_cannot_hold() -> None:
    body = "h = Constant <value = double {0.1}> () y = Clip(x, , h)"
    with pytest.raises(ModelError, match=r"max=0\.1, which no float32 attribute holds exactly"):
        with_opset(from_proto(parsed(body, 11, "double[2] x", "double")), 7)


@pytest.mark.parametrize(("before", "after"), [(8, 9), (9, 8)])
def test_a_scan_has_a_batch_before_opset_9(before: int, after: int) -> None:
    scan = (
        "s, y = Scan <num_scan_inputs = 1, body = b (float[2] p, float[2] n) => (float[2] o, float[2] e)"
        " { o = Add(p, n) e = Identity(o) }> "
    )
    given, start = (
        ("float[1,2] i, float[1,3,2] x", "(, i, x)")
        if before == 8
        else ("float[2] i, float[3,2] x", "(i, x)")
    )
    with pytest.raises(ModelError, match="Scan 's' has a batch before opset 9"):
        with_opset(from_proto(parsed(scan + start, before, given)), after)


def test_open_sizes_that_are_written_as_negative_ones() -> None:
    body = (
        ints("b", 0)
        + ints("e", 2)
        + ints("n", -1)
        + ("s = Shape(x) f = Slice(s, b, e) t = Concat <axis = 0> (f, n) y = Reshape(x, t)")
    )
    model = parsed(body, 12, "float[A,4,6,5] x")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    np.testing.assert_array_equal(run(converted(model, 17), {"x": X})[0], run(model, {"x": X})[0])
