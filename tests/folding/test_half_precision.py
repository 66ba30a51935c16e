"""What half precision holds of the original, it holds of the folded model, evaluated in half precision."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

import bnfold
from bnfold.folding.ways import Guide
from bnfold.oracle.evaluator import NotEvaluableError
from bnfold.oracle.oracle import Oracle
from tests.graphs import build, weight
from tests.pairwise import pairwise
from tests.random_graphs import random_feeds
from tests.random_half import fits, half_model
from tests.random_streams import stream_model

EXAMPLES = int(os.environ.get("BNFOLD_PROPERTY_EXAMPLES", "40"))
UNIT = 2.0**-11
SIZES = (0.05, 1.0, 3.0)  # of the inputs, by those that the statistics are of
figures = {"graphs": 0, "runs": 0, "sites": 0, "folded": 0}

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # infinities are results


@settings(
    max_examples=EXAMPLES, derandomize=EXAMPLES == 40, deadline=None, database=None, phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)  # fmt: skip
@given(data=st.data())
def test_a_fold_stays_within_half_precision(data: st.DataObject) -> None:
    stays_within(half_model(lambda n: data.draw(st.integers(0, n - 1)) if n > 1 else 0))


@settings(
    max_examples=EXAMPLES, derandomize=EXAMPLES == 40, deadline=None, database=None, phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)  # fmt: skip
@given(data=st.data())
def test_a_stream_stays_within_half_precision(data: st.DataObject) -> None:
    stays_within(stream_model(lambda n: data.draw(st.integers(0, n - 1)) if n > 1 else 0, np.float16))


def stays_within(model: onnx.ModelProto) -> None:
    """Demand that what the original computes well in half precision, the folded model does too."""
    if not model.graph.output:
        return
    result = bnfold.fold(model)
    figures["graphs"] += 1
    figures["sites"] += len(result.sites)
    figures["folded"] += len(result.folded)
    for size in SIZES if result.folded else ():
        feeds = {
            name: array * np.float16(size) if array.dtype == np.float16 else array
            for name, array in random_feeds(model, 1).items()
        }
        problem = difference(model, result.model, feeds)
        assert problem is None, f"{problem} at {size} in\n{onnx.printer.to_text(model)}"


def difference(
    model: onnx.ModelProto, folded: onnx.ModelProto, feeds: Mapping[str, np.ndarray]
) -> str | None:
    """What is wrong with an output of the folded model; None also where the original is no measure."""
    try:
        oracle = Oracle(model)
        values = {name: np.asarray(value) for name, value in oracle.values(feeds).items()}
    except NotEvaluableError:
        return None
    if not fits(model, values):
        return None
    try:
        expected = ReferenceEvaluator(model).run(None, dict(feeds))
    except (TypeError, ValueError):  # of pools that round up
        return None
    found = ReferenceEvaluator(folded).run(None, dict(feeds))
    figures["runs"] += 1
    moved = [Oracle(model, perturbed=seed).run(feeds) for seed in range(3)]
    for index, (one, other) in enumerate(zip(expected, found, strict=True)):
        truth = values[model.graph.output[index].name]
        before, after = (np.asarray(array, np.float64) for array in (one, other))
        if before.shape != truth.shape or not np.isfinite(before).all():
            continue  # the reference's pools may give other shapes
        if not np.isfinite(after).all():
            return f"output {index} is not finite"
        errors = [np.abs(array - truth).max(initial=0) for array in (before, after)]
        rounding = max(np.abs(run[index] - truth).max(initial=0) for run in moved)
        if errors[1] > 8 * max(errors[0], rounding) + 8 * UNIT * np.abs(truth).max(initial=0):
            return f"output {index} is off by {errors[1]:.3g}, the original by {errors[0]:.3g}"
    return None


def test_the_random_models_are_worth_it() -> None:
    """Runs after the property: models that leave their range, or whose affines stay, would prove nothing."""
    if figures["graphs"] < 40:
        pytest.skip("the property has not run, or stopped at its first failure")
    assert figures["folded"] > figures["graphs"], figures
    assert figures["runs"] > figures["graphs"], figures
    print(figures)


BETWEEN = {
    "Add": "c = Add (b, o)",
    "Add of itself": "s = Add (b, o) c = Add (s, b)",
    "Sub": "c = Sub (o, b)",
    "Mul": "c = Mul (b, o)",
    "AveragePool": "c = AveragePool <kernel_shape = [3,3], pads = [1,1,1,1], count_include_pad = 1> (b)",
    "ReduceMean": "c = ReduceMean <axes = [2,3], keepdims = 1> (b)",
    "LeakyRelu": "c = LeakyRelu <alpha = 0.1> (b)",
    "Relu and Add": "r = Relu (b) c = Add (r, o)",
    "MaxPool": "c = MaxPool <kernel_shape = [2,2]> (b)",
}
BEFORE = {"Conv": "a = Conv (x, v)", "Relu": "a = Relu (x)"}
AFTER = {"BatchNorm": "d = BatchNormalization (c, qscale, qbias, qmean, qvar)", "nothing": "d = Identity (c)"}
SCALES = (5e-4, 1e-2, 1.0, 100.0, 2e3)


def sandwich(before: str, between: str, after: str, first: float, second: float) -> onnx.ModelProto:
    """An operator between two BatchNorms of any scales, whose other term is a sum of 64 positive numbers."""
    rng = np.random.default_rng(7)
    numbers = {"v": weight(4, 4, 1, 1), "w": weight(3, 4, 1, 1, seed=2), "u": 4 * np.abs(weight(4, 64, 1, 1))}
    for name, scale in (("p", first), ("q", second)):
        numbers[f"{name}scale"] = scale * rng.uniform(0.5, 1.5, 4)
        numbers[f"{name}bias"] = np.zeros(4)
        numbers |= {f"{name}mean": np.zeros(4), f"{name}var": np.ones(4)}
    model = build(
        f"""g (float16[2,4,6,6] x, float16[2,64,6,6] z) => (float16[?,3,?,?] y) {{
            g = Sigmoid (z)
            o = Conv (g, u)
            {BEFORE[before]}
            b = BatchNormalization (a, pscale, pbias, pmean, pvar)
            {BETWEEN[between]}
            {AFTER[after]}
            y = Conv (d, w)
        }}""",
        {name: array.astype(np.float16) for name, array in numbers.items()},
        opset=17,
    )
    measured = np.asarray(Oracle(model).values(inputs(model))["c"])
    for tensor in model.graph.initializer:
        if tensor.name in ("qmean", "qvar"):
            array = measured.mean((0, 2, 3)) if tensor.name == "qmean" else measured.var((0, 2, 3)) + 1e-4
            array = np.minimum(array, 60_000).astype(np.float16)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    return model


def inputs(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {
        value.name: rng.normal(0, 1, [d.dim_value for d in value.type.tensor_type.shape.dim]).astype(
            np.float16
        )
        for value in model.graph.input
    }


@pairwise(before=BEFORE, between=BETWEEN, after=AFTER, first=SCALES, second=SCALES)
def test_a_batchnorm_of_any_scale(before: str, between: str, after: str, first: float, second: float) -> None:
    model = sandwich(before, between, after, first, second)
    folded = bnfold.fold(model).model
    assert difference(model, folded, inputs(model)) is None


@pytest.mark.parametrize("between", BETWEEN)
def test_moderate_scales_fold(between: str) -> None:
    """What is refused is refused for its range alone."""
    folded = bnfold.fold(sandwich("Conv", between, "BatchNorm", 1.0, 1.0)).model
    assert sum(node.op_type == "BatchNormalization" for node in folded.graph.node) <= 1


def test_a_scale_is_not_moved_to_the_other_term(monkeypatch: pytest.MonkeyPatch) -> None:
    """`w·(s·x + o)` as `(s·w)·(x + o/s)`: o is 50 here, and s is 0.0005."""
    model = sandwich("Relu", "Add", "nothing", 5e-4, 1.0)
    assert difference(model, bnfold.fold(model).model, inputs(model)) is None
    monkeypatch.setattr(Guide, "_leaves_range", lambda *_: None)  # the planted fault
    assert "not finite" in str(difference(model, bnfold.fold(model).model, inputs(model)))


@pytest.mark.parametrize(("mean", "sigma", "folds"), [(4000.0, 200.0, False), (4.0, 0.5, True)])
def test_a_mean_does_not_add_up_large_numbers(mean: float, sigma: float, folds: bool) -> None:
    """The mean of 36 numbers of 4000 is one of them; half precision does not hold their sum."""
    numbers = {"scale": [1] * 4, "bias": [1] * 4, "mu": [mean] * 4, "var": [sigma**2] * 4}
    model = build(
        """g (float16[2,4,6,6] x) => (float16[2,3,1,1] y) {
            a = BatchNormalization (x, scale, bias, mu, var)
            c = ReduceMean <axes = [2,3], keepdims = 1> (a)
            y = Conv (c, w)
        }""",
        {name: np.array(array, np.float16) for name, array in numbers.items()}
        | {"w": weight(3, 4, 1, 1, dtype=np.float16)},
        opset=17,
    )
    folded = bnfold.fold(model).model
    assert (len(folded.graph.node) == 2) == folds
    feeds = {"x": (mean + sigma * inputs(model)["x"]).astype(np.float16)}
    assert difference(model, folded, feeds) is None


def test_a_batchnorm_that_takes_another_keeps_its_products_in_range() -> None:
    """`γ·x` before the division by σ: a γ that makes up for a σ of 245 would be infinite with x."""
    wide = np.full(4, 6e4)
    numbers = {
        **{name: np.ones(4) for name in ("g1", "v1", "g2")},
        "b1": np.full(4, 0.5),
        "m1": np.full(4, 1.75),
        "b2": np.full(4, 0.125),
        "m2": np.zeros(4),
        "v2": wide,
    }
    numbers["g1"] = np.array([300.0, -250.0, 400.0, 350.0])
    numbers["g2"] = np.array([200.0, 150.0, -120.0, 100.0])
    text = """g (float16[2,4] x) => (float16[2,4] y) {
        a = BatchNormalization (x, g1, b1, m1, v1) y = BatchNormalization (a, g2, b2, m2, v2) }"""
    model = build(text, {name: array.astype(np.float16) for name, array in numbers.items()})
    folded = bnfold.fold(model).model
    assert [node.op_type for node in folded.graph.node] == ["BatchNormalization"]
    feeds = {"x": np.array([[2.0, 1.5, 1.625, 2.25], [1.5, 2.0, 2.125, 1.25]], np.float16)}
    (before,), (after,) = (ReferenceEvaluator(one).run(None, feeds) for one in (model, folded))
    assert np.isfinite(before).all()
    assert np.isfinite(after).all()
    np.testing.assert_allclose(after.astype(float), before.astype(float), rtol=0, atol=8 * UNIT * 600)


def test_batchnorms_of_any_scale_that_take_another_stay_finite_and_as_accurate() -> None:
    rng = np.random.default_rng(2)
    text = """g (float16[4,8] x) => (float16[4,8] y) {
        a = BatchNormalization (x, g1, b1, m1, v1) y = BatchNormalization (a, g2, b2, m2, v2) }"""
    compared = 0
    for _ in range(40):
        drawn = {f"{name}{number}": rng.normal(size=8) for name in "bm" for number in "12"}
        drawn |= {f"g{number}": rng.choice([1e-3, 0.1, 1.0, -30.0, 200.0], 8) for number in "12"}
        drawn |= {f"v{number}": rng.choice([1e-3, 1.0, 100.0, 6e4], 8) for number in "12"}
        numbers = {name: array.astype(np.float16) for name, array in drawn.items()}
        model = build(text, numbers)
        feeds = {"x": rng.normal(size=(4, 8)).astype(np.float16)}
        (before,), (after,) = (
            ReferenceEvaluator(one).run(None, feeds) for one in (model, bnfold.fold(model).model)
        )
        if not np.isfinite(before).all():
            continue
        compared += 1
        truth = Oracle(model).run(feeds)[0]
        scale = np.abs(truth).max(axis=0)
        errors = [(np.abs(one.astype(float) - truth) / scale).max(axis=0) for one in (before, after)]
        assert np.all(errors[1] <= 2 * np.maximum(errors[0], 2 * UNIT))
    assert compared > 12


@pytest.mark.parametrize(
    ("operator", "scale", "folds"), [("Mul", 0.01, False), ("Div", 100.0, False), ("Mul", 2.0, True)]
)
def test_a_shift_alone_is_no_larger_than_with_its_scale(operator: str, scale: float, folds: bool) -> None:
    """`0.01·x + 400` as `0.01·(x + 40000)` in front of a padded Conv: x is 40000 here."""
    numbers = {"s": scale * np.array([1.0, 1.1]), "t": np.array([400.0, 410.0])}
    model = build(
        f"""g (float16[1,2,4,4] x) => (float16[1,3,4,4] y) {{
            m = {operator} (x, s)
            a = Add (m, t)
            y = Conv <pads = [1,1,1,1]> (a, w)
        }}""",
        {name: array.reshape(2, 1, 1).astype(np.float16) for name, array in numbers.items()}
        | {"w": 0.01 * weight(3, 2, 3, 3, dtype=np.float16)},
        opset=17,
    )
    folded = bnfold.fold(model).model
    assert (
        [node.op_type for node in folded.graph.node] == ["Add", "Conv"]
        if folds
        else [operator, "Add", "Conv"]
    )
    for size in (4.0, 20000.0 if folds else 40000.0):
        assert difference(model, folded, {"x": np.full((1, 2, 4, 4), size, np.float16)}) is None
