"""Conv and ConvTranspose take an affine on either side, and a shift only where no zeros are in the way."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import bnfold
from tests.graphs import (
    build,
    feeds,
    fold_and_compare,
    kept_codes,
    operators,
    positive,
    run,
    statistics,
    weight,
)
from tests.pairwise import pairwise


def no_shift(channels: int) -> dict[str, np.ndarray]:
    """Statistics of a BatchNorm that only scales, by both signs."""
    arrays = statistics(channels, 3)
    return {name: np.zeros_like(a) if name in ("bias", "mean") else a for name, a in arrays.items()}


def tensors(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def shape(channels: int, rank: int) -> str:
    return ",".join(map(str, [2, channels, *[7, 6, 5][:rank]]))


def dims(rank: int) -> str:
    return ",".join(["N", "C", "D1", "D2", "D3"][: rank + 2])


ATTRIBUTES = [
    "",
    "strides=[{s}]",
    "dilations=[{s}]",
    "auto_pad='SAME_UPPER'",
    "auto_pad='SAME_LOWER'",
    "auto_pad='VALID'",
    "pads=[{p}]",
]


def attributes(text: str, rank: int, group: int) -> str:
    text = text.format(s=",".join(["2"] * rank), p=",".join(["1"] * rank + ["2"] * rank))
    return ", ".join(part for part in (text.replace("'", '"'), f"group={group}") if part)


@pairwise(bias=[False, True], group=[1, 2, 4], attribute=ATTRIBUTES)
def test_a_conv_takes_what_follows_whatever_its_borders(attribute, group, bias):
    constants = {"w": weight(8, 4 // group, 3, 3), "b": weight(8, seed=5), **statistics(8)}
    call = f"Conv<{attributes(attribute, 2, group)}>(x, w{', b' if bias else ''})"
    model = build(
        f"g (float[{shape(4, 2)}] x) => (float[{dims(2)}] y) "
        f"{{ c = {call} y = BatchNormalization(c, scale, bias, mean, var) }}",
        constants,
    )
    result = fold_and_compare(model)
    assert operators(result.model) == ["Conv"]
    assert [site.status for site in result.sites] == ["folded"]


@pairwise(rank=[1, 3], group=[1, 4], operator=["Conv", "ConvTranspose"])
def test_in_one_and_three_dimensions(operator, group, rank):
    """Among them AIMET's ConvTranspose1d, with groups and without."""
    w = weight(*((8, 4 // group) if operator == "Conv" else (4, 8 // group)), *[2] * rank)
    model = build(
        f"g (float[{shape(4, rank)}] x) => (float[{dims(rank)}] y) "
        f"{{ c = {operator}<group={group}>(x, w) y = BatchNormalization(c, scale, bias, mean, var) }}",
        {"w": w, **statistics(8)},
    )
    assert operators(fold_and_compare(model).model) == [operator]


@pairwise(
    bias=[False, True],
    group=[1, 2, 4],
    attribute=[*ATTRIBUTES, "strides=[{s}], output_padding=[1,1]", "strides=[{s}], output_shape=[13,12]"],
)
def test_a_transposed_conv_takes_what_follows(attribute, group, bias):
    constants = {"w": weight(4, 8 // group, 3, 3), "b": weight(8, seed=5), **statistics(8)}
    call = f"ConvTranspose<{attributes(attribute, 2, group)}>(x, w{', b' if bias else ''})"
    model = build(
        f"g (float[{shape(4, 2)}] x) => (float[{dims(2)}] y) "
        f"{{ c = {call} y = BatchNormalization(c, scale, bias, mean, var) }}",
        constants,
    )
    assert operators(fold_and_compare(model).model) == ["ConvTranspose"]


@pairwise(
    activation=["", "Relu"],
    bias=[False, True],
    group=[1, 2, 4],
    rank=[1, 2, 3],
    attribute=["", "strides=[{s}]", "dilations=[{s}]", 'auto_pad="VALID"'],
)
def test_a_conv_without_padding_takes_what_precedes(attribute, rank, group, bias, activation):
    constants = {"w": weight(8, 4 // group, *[2] * rank), "b": weight(8, seed=5), **statistics(4, 2)}
    before = f"r = {activation}(x)" if activation else ""
    model = build(
        f"g (float[{shape(4, rank)}] x) => (float[{dims(rank)}] y) {{ {before} "
        f"n = BatchNormalization({'r' if before else 'x'}, scale, bias, mean, var) "
        f"y = Conv<{attributes(attribute, rank, group)}>(n, w{', b' if bias else ''}) }}",
        constants,
    )
    result = fold_and_compare(model)
    assert operators(result.model) == [op for op in (activation, "Conv") if op]


@pytest.mark.parametrize(
    "attribute", ["pads=[1,1,1,1]", "pads=[0,0,0,1]", 'auto_pad="SAME_UPPER"', 'auto_pad="SAME_LOWER"']
)
def test_a_shift_does_not_enter_a_padded_conv(attribute):
    text = (
        f"g (float[2,4,6,6] x) => (float[{dims(2)}] y) "
        f"{{ n = BatchNormalization(x, scale, bias, mean, var) y = Conv<{attribute}>(n, w) }}"
    )
    result = fold_and_compare(build(text, {"w": weight(8, 4, 3, 3), **statistics(4, 2)}))
    assert operators(result.model) == ["BatchNormalization", "Conv"]
    assert result.kept[0].reason.code == "BN304"
    assert result.kept[0].reason_after.code == "BN205"
    # the nearest positive: the same graph with a BatchNorm that shifts nothing
    assert operators(fold_and_compare(build(text, {"w": weight(8, 4, 3, 3), **no_shift(4)})).model) == [
        "Conv"
    ]


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_window_of_one_element_never_meets_zeros(mode, stride):
    model = build(
        f"g (float[2,4,6,6] x) => (float[{dims(2)}] y) "
        "{ n = BatchNormalization(x, scale, bias, mean, var) "
        f'y = Conv<auto_pad="{mode}", strides=[{stride},{stride}]>(n, w) }}',
        {"w": weight(8, 4, 1, 1), **statistics(4, 2)},
    )
    assert operators(fold_and_compare(model).model) == ["Conv"]


def test_a_window_of_one_element_with_explicit_padding_meets_zeros():
    model = build(
        f"g (float[2,4,6,6] x) => (float[{dims(2)}] y) "
        "{ n = BatchNormalization(x, scale, bias, mean, var) y = Conv<pads=[1,1,1,1]>(n, w) }",
        {"w": weight(8, 4, 1, 1), **statistics(4, 2)},
    )
    assert kept_codes(fold_and_compare(model)) == {"BN304", "BN205"}


@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize(
    ("attribute", "kernel", "absorbed"),
    [
        ("", 1, True),
        ("", 3, False),
        ("pads=[2,2,2,2]", 3, True),
        ("pads=[2,2,1,2]", 3, False),
        ("pads=[2,2,2,2], dilations=[2,2]", 2, True),
        ("pads=[1,1,1,1], dilations=[2,2]", 2, False),
        ("strides=[2,2]", 1, False),
        ("strides=[2,2]", 2, False),
        ("output_padding=[0,0]", 1, True),
        ("output_padding=[1,1], strides=[2,2]", 2, False),
        ('auto_pad="VALID"', 1, True),
        ('auto_pad="SAME_UPPER"', 1, False),
    ],
)
def test_a_shift_enters_a_transposed_conv_where_all_outputs_see_the_same_taps(
    attribute, kernel, absorbed, group
):
    constants = {"w": weight(4, 8 // group, kernel, kernel), "b": weight(8, seed=5)}
    text = (
        f"g (float[2,4,7,7] x) => (float[{dims(2)}] y) {{ n = BatchNormalization(x, scale, bias, mean, var) "
        f"y = ConvTranspose<{attributes(attribute, 2, group)}>(n, w, b) }}"
    )
    result = fold_and_compare(build(text, {**constants, **statistics(4, 2)}))
    assert operators(result.model) == ([] if absorbed else ["BatchNormalization"]) + ["ConvTranspose"]
    assert kept_codes(result) == (set() if absorbed else {"BN304", "BN210"})
    scaled = fold_and_compare(build(text, {**constants, **no_shift(4)}))
    assert operators(scaled.model) == ["ConvTranspose"]


@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose"])
def test_both_sides_at_once_are_rounded_once(operator):
    w = weight(4, 4, 3, 3)
    constants = {"w": w, **statistics(4, 0, "a"), **statistics(4, 1, "b")}
    attribute = "" if operator == "Conv" else "<pads=[2,2,2,2]>"
    model = build(
        f"g (float[2,4,6,6] x) => (float[{dims(2)}] y) "
        f"{{ n = BatchNormalization(x, ascale, abias, amean, avar) c = {operator}{attribute}(n, w) "
        "y = BatchNormalization(c, bscale, bbias, bmean, bvar) }",
        constants,
    )
    result = fold_and_compare(model)
    assert operators(result.model) == [operator]
    a, b = (
        constants[f"{prefix}scale"].astype(float)
        / np.sqrt(constants[f"{prefix}var"].astype(float) + float(np.float32(1e-5)))
        for prefix in "ab"
    )
    first, second = (b, a) if operator == "Conv" else (a, b)
    exact = w * first[:, None, None, None] * second[None, :, None, None]
    [folded] = [array for array in tensors(result.model).values() if array.ndim == 4]
    assert np.abs(folded - exact).max() <= np.abs(np.spacing(folded) / 2).max()
    # at most a rare tie differs by the order of the float64 products
    assert np.mean(folded != exact.astype(np.float32)) < 0.02


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("c = Conv(x, w) y = BatchNormalization(c, scale, bias, mean, var) z = Relu(c)", "BN301"),
        ("z = Conv(x, w) y = BatchNormalization(z, scale, bias, mean, var)", "BN302"),
    ],
)
def test_another_need_for_the_unscaled_value_keeps_the_batchnorm(body, code):
    model = build(
        f"g (float[2,4,5,5] x) => (float[2,4,3,3] y, float[2,4,3,3] z) {{ {body} }}",
        {"w": weight(4, 4, 3, 3), **statistics(4, 2)},
    )
    result = fold_and_compare(model)
    assert operators(result.model) == operators(model)
    assert result.kept[0].reason.code == code


def test_a_second_reader_that_cannot_take_it_keeps_the_batchnorm():
    model = build(
        "g (float[2,4,5,5] x) => (float[2,4,3,3] y, float[2,4,5,5] z) "
        "{ n = BatchNormalization(x, scale, bias, mean, var) y = Conv(n, w) z = Sigmoid(n) }",
        {"w": weight(4, 4, 3, 3), **statistics(4, 2)},
    )
    result = fold_and_compare(model)
    assert operators(result.model) == operators(model)
    assert result.kept[0].reason_after.code == "BN201"


def test_two_readers_that_both_take_it():
    model = build(
        "g (float[2,4,5,5] x) => (float[2,4,3,3] y, float[2,6,5,5] z) "
        "{ n = BatchNormalization(x, scale, bias, mean, var) y = Conv(n, w) z = Conv(n, v) }",
        {"w": weight(4, 4, 3, 3), "v": weight(6, 4, 1, 1), **statistics(4, 2)},
    )
    result = fold_and_compare(model)
    assert operators(result.model) == ["Conv", "Conv"]
    assert len(result.folded[0].into) == 2


@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose"])
def test_equal_sizes_on_another_axis_prove_nothing(operator):
    model = build(
        f"g (float[2,4,4,4] x) => (float[{dims(2)}] y) {{ c = {operator}(x, w) y = Mul(c, k) }}",
        {"w": weight(4, 4, 1, 1), "k": weight(4)},  # (4,) lies along the last axis
    )
    result = fold_and_compare(model)
    assert operators(result.model) == [operator, "Mul"]
    assert "BN204" in kept_codes(result)


@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose"])
def test_the_batchnorm_behind_a_transpose_is_on_another_axis(operator):
    model = build(
        f"g (float[2,4,4,4] x) => (float[2,4,4,4] y) {{ c = {operator}(x, w) "
        "t = Transpose<perm=[0,2,1,3]>(c) y = BatchNormalization(t, scale, bias, mean, var) }",
        {"w": weight(4, 4, 1, 1), **statistics(4, 2)},
    )
    result = fold_and_compare(model)
    assert operators(result.model) == [operator, "Transpose", "BatchNormalization"]
    assert result.kept[0].reason.code == "BN204"


@pytest.mark.parametrize("direction", ["output", "input"])
@pytest.mark.parametrize(
    ("inputs", "code"), [(", float[4,4,1,1] w, float[4] b", "BN202"), (", float[4] b", "BN211"), ("", None)]
)
def test_weights_and_biases_have_to_be_constant(inputs, code, direction):
    constants = {"w": weight(4, 4, 1, 1), "b": weight(4), **statistics(4, 2)}
    constants = {name: array for name, array in constants.items() if f"] {name}" not in inputs}
    body = (
        "c = Conv(x, w, b) y = BatchNormalization(c, scale, bias, mean, var)"
        if direction == "output"
        else "c = BatchNormalization(x, scale, bias, mean, var) y = Conv(c, w, b)"
    )
    model = build(f"g (float[2,4,3,3] x{inputs}) => (float[2,4,3,3] y) {{ {body} }}", constants)
    result = fold_and_compare(model)
    assert (code in kept_codes(result)) if code else operators(result.model) == ["Conv"]


@pytest.mark.parametrize("body", ["c = Relu(x) y = Conv(x, c)", "c = Conv(x, x) y = Relu(c)"])
def test_a_value_as_the_weight(body):
    model = build(
        f"g (float[3,3,4,4] v) => (float[3,3,1,1] y) {{ x = BatchNormalization(v, scale, bias, mean, var) "
        f"{body} }}",
        statistics(3),
    )
    result = fold_and_compare(model)
    assert operators(result.model)[0] == "BatchNormalization"


def test_a_conv_of_another_domain_is_not_onnx_s():
    model = build(
        "g (float[2,4,3,3] x) => (float[2,4,3,3] y) "
        "{ c = local.Conv(x, w) y = BatchNormalization(c, scale, bias, mean, var) }\n"
        '<domain: "local", opset_import: ["": 18]> Conv (x, w) => (y) { s = Relu(x) y = Add(s, x) }',
        {"w": weight(4, 4, 1, 1), **statistics(4, 2)},
    )
    result = fold_and_compare(model)
    assert operators(result.model) == ["Conv", "BatchNormalization"]
    assert result.kept[0].reason.code == "BN215"


def test_a_bias_left_out_by_an_empty_name():
    model = build(
        "g (float[2,4,3,3] x) => (float[2,4,3,3] y) "
        "{ c = Conv(x, w) y = BatchNormalization(c, scale, bias, mean, var) }",
        {"w": weight(4, 4, 1, 1), **statistics(4, 2)},
    )
    model.graph.node[0].input.append("")
    result = fold_and_compare(model)
    [conv] = result.model.graph.node
    assert len(conv.input) == 3
    assert all(conv.input)


@pytest.mark.parametrize(
    "change",
    [
        {"scale": [0.0, -0.0, 1.5, -0.5], "mean": [-0.0] * 4},
        {"var": [0, 1e-12, 1e-30, 1]},
        {"scale": [1e-30, 1e30, -1e-38, 1]},
    ],
    ids=["zeros", "tiny variance", "wide scales"],
)
def test_unusual_numbers(change):
    arrays = statistics(4, 2) | {name: np.array(a, np.float32) for name, a in change.items()}
    model = build(
        "g (float[2,4,3,3] x) => (float[2,4,3,3] y) "
        "{ c = Conv(x, w) y = BatchNormalization(c, scale, bias, mean, var) }",
        {"w": weight(4, 4, 1, 1), **arrays},
    )
    assert operators(fold_and_compare(model).model) == ["Conv"]


@pytest.mark.parametrize("direction", ["output", "input"])
@pytest.mark.parametrize("opset", [1, 6])
def test_versions_before_onnx_runtime_s(opset, direction):
    """Runs the layers in version 13, where Conv means the same, and the BatchNorm in NumPy."""
    consumed = "consumed_inputs=[0,0,0,1,1], " if opset == 1 else ""
    norm = f"BatchNormalization<{consumed}is_test=1>"
    names = "scale, bias, mean, var"
    body = (
        f"c = Conv(x, w) y = {norm}(c, {names})"
        if direction == "output"
        else f"c = {norm}(x, {names}) y = Conv(c, w)"
    )
    constants = {"w": weight(4, 4, 2, 2), **statistics(4, 2)}
    model = build(f"g (float[2,4,5,5] x) => (float[2,4,4,4] y) {{ {body} }}", constants, opset=opset)
    folded = bnfold.fold(model).model
    assert operators(folded) == ["Conv"]
    folded.opset_import[0].version = 13
    layer = build("g (float[2,4,D,E] x) => (float[2,4,F,G] y) { y = Conv(x, w) }", {"w": constants["w"]})
    x = feeds(model)["x"]
    scale, bias, mean, var = (constants[n].astype(np.float64)[:, None, None] for n in names.split(", "))

    def batchnorm(value: np.ndarray) -> np.ndarray:
        return (scale * (value - mean) / np.sqrt(var + 1e-5) + bias).astype(np.float32)

    expected = (
        batchnorm(run(layer, {"x": x})[0]) if direction == "output" else run(layer, {"x": batchnorm(x)})[0]
    )
    np.testing.assert_allclose(run(folded, {"x": x})[0], expected, atol=2e-5)


@pairwise(
    k=[(), (1,), (4, 1, 1), (1, 4, 1, 1), (1, 1, 1), (1, 1, 1, 1)],
    operator=["Mul", "Add", "Sub", "Div"],
    bias=[False, True],
)
def test_arithmetic_after_a_conv(operator, k, bias):
    """ONNX Runtime's FuseConvMul and FuseConvAdd: constants of any shape that is per channel."""
    model = build(
        f"g (float[2,4,5,5] x) => (float[2,4,3,3] y) {{ c = Conv(x, w{', b' if bias else ''}) "
        f"y = {operator}(c, k) }}",
        {"w": weight(4, 4, 3, 3), "b": weight(4, seed=9), "k": np.exp(weight(*k, seed=4), dtype=np.float32)},
    )
    assert operators(fold_and_compare(model).model) == ["Conv"]


@pytest.mark.parametrize("operator", ["Mul", "Add"])
@pytest.mark.parametrize("k", [(3,), (3, 3), (4, 3, 3), (2, 4, 3, 3), (2, 1, 1, 1)], ids=str)
def test_arithmetic_off_the_channels_is_not_fused_into_a_conv(operator, k):
    """ONNX Runtime's DontFuse cases: a constant that is not per channel."""
    model = build(
        f"g (float[2,4,5,5] x) => (float[2,4,3,3] y) {{ c = Conv(x, w) y = {operator}(c, k) }}",
        {"w": weight(4, 4, 3, 3), "k": weight(*k, seed=4)},
    )
    assert operators(fold_and_compare(model).model) == ["Conv", operator]


@pytest.mark.parametrize("axes", [(1, 2), (-1, -2), (-2, -1)])
def test_a_constant_unsqueezed_along_negative_axes(axes):
    """ONNX Runtime's fuse-conv-mul-add with Unsqueeze of negative axes."""
    model = build(
        "g (float[2,4,5,5] x) => (float[2,4,3,3] y) { c = Conv(x, w) "
        "ku = Unsqueeze(k, axes) bu = Unsqueeze(b, axes) m = Mul(c, ku) y = Add(m, bu) }",
        {"w": weight(4, 4, 3, 3), "k": weight(4, seed=4), "b": weight(4, seed=5), "axes": np.array(axes)},
    )
    result = fold_and_compare(model)
    assert operators(result.model) == ["Conv"]
    assert len(result.model.graph.initializer) == 2


def test_conv_bn_mul_add_in_a_row():
    model = build(
        "g (float[2,4,5,5] x) => (float[2,4,3,3] y) { c = Conv(x, w) "
        "n = BatchNormalization(c, scale, bias, mean, var) m = Mul(n, k) y = Add(b, m) }",
        {"w": weight(4, 4, 3, 3), "k": weight(4, 1, 1, seed=4), "b": weight(4, 1, 1), **statistics(4, 2)},
    )
    result = fold_and_compare(model)
    assert operators(result.model) == ["Conv"]
    assert len(result.folded) == 1


@pytest.mark.parametrize("activation", ["Relu", "LeakyRelu<alpha=0.3>"])
def test_a_batchnorm_between_an_activation_and_a_conv(activation):
    """AIMET's backward folding: the BatchNorm belongs to the Conv behind it."""
    model = build(
        f"g (float[2,4,6,6] x) => (float[2,5,2,2] y) {{ c = Conv(x, w) r = {activation}(c) "
        "n = BatchNormalization(r, scale, bias, mean, var) y = Conv(n, v) }",
        {"w": weight(4, 4, 3, 3), "v": weight(5, 4, 3, 3), **statistics(4, 2)},
    )
    result = fold_and_compare(model)
    assert operators(result.model) == ["Conv", activation.split("<")[0], "Conv"]


def test_a_batchnorm_between_an_activation_and_a_padded_conv():
    model = build(
        "g (float[2,4,6,6] x) => (float[2,5,4,4] y) { c = Conv(x, w) r = Relu(c) "
        "n = BatchNormalization(r, scale, bias, mean, var) y = Conv<pads=[1,1,1,1]>(n, v) }",
        {"w": weight(4, 4, 3, 3), "v": weight(5, 4, 3, 3), **positive(statistics(4, 2))},
    )
    result = fold_and_compare(model)
    assert operators(result.model) == operators(model)
    assert (result.kept[0].reason.code, result.kept[0].reason_after.code) == ("BN207", "BN205")


def test_a_negative_scale_does_not_go_over_a_relu_but_a_positive_one_does():
    text = (
        "g (float[2,4,6,6] x) => (float[2,4,4,4] y) "
        "{ c = Conv(x, w) r = Relu(c) y = BatchNormalization(r, scale, bias, mean, var) }"
    )
    kept = fold_and_compare(build(text, {"w": weight(4, 4, 3, 3), **no_shift(4)}))
    assert kept.kept[0].reason.code == "BN206"
    folded = fold_and_compare(build(text, {"w": weight(4, 4, 3, 3), **positive(no_shift(4))}))
    assert operators(folded.model) == ["Conv", "Relu"]
