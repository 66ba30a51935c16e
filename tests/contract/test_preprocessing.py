"""Preprocessing in the graph computes what it does before the model, and the fold takes of it what it can."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import bnfold
from bnfold.contract.contract import Preprocessing
from bnfold.contract.preprocessing import preprocessed
from bnfold.errors import InputError
from bnfold.files.load import from_proto
from tests.contract.nets import BARE, PADDED, classifier, model, pictures
from tests.graphs import build, operators, run, weight

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def by_hand(picture: np.ndarray, *, bgr: bool, channels_last: bool, numbers: Mapping[str, Any]) -> np.ndarray:
    """The same in float64, written without a look at the program."""
    values = picture.astype(np.float64) / 255
    if channels_last:
        values = np.moveaxis(values, 3, 1)
    if bgr:
        values = values[:, [2, 1, 0]]
    for channel, (mean, std) in enumerate(zip(numbers["mean"], numbers["std"], strict=True)):
        values[:, channel] = (values[:, channel] - mean) / std
    return np.ascontiguousarray(values.astype(np.float32))


@pytest.mark.parametrize("conv", [BARE, PADDED])
@pytest.mark.parametrize("bgr", [False, True])
@pytest.mark.parametrize(("uint8", "channels_last"), [(False, False), (True, True), (True, False)])
def test_the_outputs_are_those_of_prepared_pictures(
    conv: str, bgr: bool, uint8: bool, channels_last: bool
) -> None:
    asked = Preprocessing(scale="1/255", bgr=bgr, uint8=uint8, channels_last=channels_last, **IMAGENET)
    original = classifier(conv)
    changed = preprocessed(from_proto(original), asked)
    picture = pictures(2, 3, 6, 7)
    if channels_last:
        picture = np.ascontiguousarray(np.moveaxis(picture, 1, 3))
    prepared = by_hand(picture, bgr=bgr, channels_last=channels_last, numbers=IMAGENET)
    given = {"x": picture if uint8 else picture.astype(np.float32)}
    (expected,) = run(original, {"x": prepared})
    (unfolded,) = run(ir.to_proto(changed.model), given)
    np.testing.assert_allclose(unfolded, expected, rtol=1e-5, atol=1e-5)
    result = bnfold.fold(changed.model)
    (folded,) = run(ir.to_proto(result.model), given)
    np.testing.assert_allclose(folded, expected, rtol=1e-4, atol=1e-4)
    back = changed.back(given)["x"]
    assert np.abs(back - prepared).max() <= 2e-6
    assert changed.rounding is not None
    assert 0 <= changed.rounding(given) < 4
    moved = ["Transpose"] * channels_last + ["Cast"] * uint8
    shift = ["Sub"] if conv == PADDED else []  # which the zeros of the border do not have
    rest = ["Conv", "Relu", "GlobalAveragePool", "Flatten", "Gemm"]
    assert operators(ir.to_proto(result.model)) == [*moved, *shift, *rest]


def test_the_input_keeps_its_name_and_its_open_sizes() -> None:
    changed = preprocessed(model(), Preprocessing(uint8=True, channels_last=True))
    (port,) = changed.model.graph.inputs
    assert (port.name, port.dtype) == ("x", ir.DataType.UINT8)
    assert str(port.shape) == "[N,H,W,3]"
    assert changed.nodes == ("x.channels_first", "x.as_float")
    assert changed.details["shape"] == ["N", "H", "W", 3]


def test_one_number_for_all_channels_and_a_scale_that_is_no_fraction_of_one() -> None:
    asked = Preprocessing(mean=(0.5,), std=(0.25,), scale=0.3)
    changed = preprocessed(model(), asked)
    assert [node.op_type for node in changed.model.graph][:3] == ["Mul", "Sub", "Div"]
    values = np.random.default_rng(0).normal(0, 1, (1, 3, 5, 5)).astype(np.float32)
    expected = (values.astype(np.float64) * 0.3 - 0.5) / 0.25
    np.testing.assert_allclose(changed.back({"x": values})["x"], expected, rtol=1e-5, atol=1e-6)
    (one,) = run(ir.to_proto(changed.model), {"x": values})
    (two,) = run(classifier(), {"x": expected.astype(np.float32)})
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)


def test_a_network_with_its_channels_last() -> None:
    text = "g (float[1,4,4,3] x) => (float[1,4,4,2] y) { y = MatMul(x, m) }"
    original = build(text, {"m": weight(3, 2)})
    asked = Preprocessing(scale="1/255", bgr=True, uint8=True, **IMAGENET)
    changed = preprocessed(from_proto(original), asked)
    picture = pictures(1, 4, 4, 3)
    prepared = by_hand(np.moveaxis(picture, 3, 1), bgr=True, channels_last=False, numbers=IMAGENET)
    (expected,) = run(original, {"x": np.ascontiguousarray(np.moveaxis(prepared, 1, 3))})
    (found,) = run(ir.to_proto(bnfold.fold(changed.model).model), {"x": picture})
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="channels last already"):
        preprocessed(from_proto(original), Preprocessing(channels_last=True))


TWO = "g (float[1,3,4,4] a, float[1,3,4,4] b) => (float[1,3,4,4] y) { y = Add(a, b) }"


def test_which_input_takes_the_picture() -> None:
    two = from_proto(build(TWO))
    with pytest.raises(InputError, match="Several inputs have four dimensions") as caught:
        preprocessed(two, Preprocessing(uint8=True))
    assert "--preprocess-input" in caught.value.fix
    assert "a: float32 [1, 3, 4, 4]; b:" in caught.value.fix
    changed = preprocessed(two, Preprocessing(uint8=True, input="b"))
    assert [value.dtype for value in changed.model.graph.inputs] == [ir.DataType.FLOAT, ir.DataType.UINT8]
    with pytest.raises(InputError, match="no input 'c'"):
        preprocessed(two, Preprocessing(uint8=True, input="c"))
    flat = from_proto(build("g (float[2,3] x) => (float[2,3] y) { y = Relu(x) }"))
    with pytest.raises(InputError, match="No input has four dimensions"):
        preprocessed(flat, Preprocessing(uint8=True))
    with pytest.raises(InputError, match="not a picture of floats: x: float32 \\[2, 3\\]"):
        preprocessed(flat, Preprocessing(uint8=True, input="x"))


@pytest.mark.parametrize(
    ("text", "asked", "problem"),
    [
        ("uint8[1,3,4,4] x", {"uint8": True}, "takes bytes already"),
        ("float[1,1,4,4] x", {"bgr": True}, "turns three channels around"),
        ("float[1,C,4,4] x", {"bgr": True}, "turns three channels around"),
        ("float[1,3,4,4] x", {"mean": (1.0, 2.0)}, "numbers for 2 channels"),
        ("float[1,C,4,4] x", {"mean": (1.0, 2.0), "std": (1.0, 2.0, 3.0)}, "not as many means"),
    ],
)
def test_what_does_not_suit_the_input(text: str, asked: dict[str, Any], problem: str) -> None:
    kind = text.split("[")[0]
    graph = build(f"g ({text}) => ({kind}[A,B,D,E] y) {{ y = Identity(x) }}")
    with pytest.raises(InputError, match=problem):
        preprocessed(from_proto(graph), Preprocessing(**asked))


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"mean": (float("nan"),)},
        {"std": (0.0,)},
        {"scale": "1/0"},
        {"scale": 0},
        {"scale": "one"},
        {"scale": float("inf")},
        {"scale": -1},
    ],
)
def test_numbers_that_are_not_valid(asked: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Preprocessing(**asked)


@pytest.mark.parametrize(
    ("text", "mean", "std"),
    [
        ("0.5,0.25", (0.5,), (0.25,)),
        ("0.1,0.2,0.3,0.4,0.5,0.6", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)),
        ("0.5:0.2,0.3,0.4", (0.5,), (0.2, 0.3, 0.4)),
        ("imagenet", IMAGENET["mean"], IMAGENET["std"]),
    ],
)
def test_the_syntax_of_normalize(text: str, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    asked = Preprocessing.parse(normalize=text)
    assert (asked.mean, asked.std) == (mean, std)


@pytest.mark.parametrize("text", ["0.5", "1,2,3", "a,b", "1:2:3", "coco"])
def test_what_is_not_a_normalisation(text: str) -> None:
    with pytest.raises(InputError, match="not a mean and a std"):
        Preprocessing.parse(normalize=text)


def test_an_input_that_is_an_output_and_names_that_are_taken() -> None:
    passed = from_proto(build("g (float[1,3,4,4] x) => (float[1,3,4,4] x, float[1,3,4,4] y) { y = Relu(x) }"))
    with pytest.raises(InputError, match="is an output, too"):
        preprocessed(passed, Preprocessing(uint8=True))
    taken = from_proto(build("g (float[1,3,4,4] x) => (float[1,3,4,4] y) { t = Relu(x) y = Relu(t) }"))
    next(iter(taken.graph)).outputs[0].name = "x.as_float"
    changed = preprocessed(taken, Preprocessing(uint8=True))
    assert changed.nodes == ("x.as_float_2",)


def test_a_subgraph_reads_the_prepared_picture() -> None:
    text = """g (float[1,3,2,2] x, bool flag) => (float[1,3,2,2] y) {
        y = If (flag) <
            then_branch = t () => (float[1,3,2,2] a) { a = Relu(x) },
            else_branch = e () => (float[1,3,2,2] b) { b = Neg(x) }
        >
    }"""
    original = build(text)
    changed = preprocessed(from_proto(original), Preprocessing(scale="1/255", uint8=True))
    picture = pictures(1, 3, 2, 2)
    for flag in (True, False):
        (expected,) = run(
            original, {"x": picture.astype(np.float32) / np.float32(255), "flag": np.array(flag)}
        )
        (found,) = run(ir.to_proto(changed.model), {"x": picture, "flag": np.array(flag)})
        assert np.array_equal(found, expected)


def test_what_measures_the_input_measures_the_picture() -> None:
    text = """g (float[N,3,H,W] x) => (float[N,4,A,B] y, int64[4] s) {
        s = Shape(x) y = Conv(x, w)
    }"""
    original = build(text, {"w": weight(4, 3, 3, 3)})
    changed = preprocessed(from_proto(original), Preprocessing(bgr=True, uint8=True, channels_last=True))
    made = ir.to_proto(bnfold.fold(changed.model).model)
    assert operators(made) == ["Transpose", "Cast", "Shape", "Conv"]
    _, sizes = run(made, {"x": pictures(2, 5, 6, 3)})
    assert list(sizes) == [2, 3, 5, 6]


@pytest.mark.parametrize("channels", [6, 5])
def test_a_picture_three_elements_wide_has_its_channels_first(channels: int) -> None:
    """Its first layer says so; the sizes alone would not."""
    text = f"g (float[1,{channels},8,3] x) => (float[1,2,8,3] y) {{ y = Conv<kernel_shape=[1,1]>(x, w) }}"
    original = from_proto(build(text, {"w": weight(2, channels, 1, 1)}))
    with pytest.raises(InputError, match="turns three channels around"):
        preprocessed(original, Preprocessing(bgr=True))
    with pytest.raises(
        InputError, match=f"numbers for 3 channels, and the input is x: float32 .1, {channels}"
    ):
        preprocessed(original, Preprocessing(**IMAGENET))


def test_a_network_that_turns_its_channels_to_the_front_takes_them_last() -> None:
    text = """g (float[1,3,5,3] x) => (float[1,2,3,5] y) {
        h = Mul(x, two) t = Transpose<perm=[0,3,1,2]>(h) y = Conv<kernel_shape=[1,1]>(t, w) }"""
    original = build(text, {"w": weight(2, 3, 1, 1), "two": np.array(2, np.float32)})
    changed = preprocessed(from_proto(original), Preprocessing(bgr=True))
    picture = pictures(1, 3, 5, 3).astype(np.float32)
    (expected,) = run(original, {"x": np.ascontiguousarray(picture[..., ::-1])})
    np.testing.assert_array_equal(run(ir.to_proto(changed.model), {"x": picture})[0], expected)


@pytest.mark.parametrize(
    "numbers",
    [{"scale": "1/100000"}, {"mean": (0.0,), "std": (1e-9,)}, {"mean": (100000.0,), "std": (1.0,)}],
)
def test_numbers_that_half_precision_does_not_hold_are_refused(numbers: dict[str, Any]) -> None:
    original = from_proto(build("g (float16[1,3,4,4] x) => (float16[1,3,4,4] y) { y = Relu(x) }"))
    with pytest.raises(InputError, match="out of the range of float16"):
        preprocessed(original, Preprocessing(**numbers))
