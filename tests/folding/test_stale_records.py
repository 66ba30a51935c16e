"""A recorded size may be wrong, and no fold believes one: random models with wrong records everywhere."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from onnx import helper

import bnfold
from bnfold.graph import shape_inference, skeleton
from bnfold.oracle.oracle import Oracle
from tests import graphs
from tests.folding.test_property import worst
from tests.graphs import build, operators, statistics, weight
from tests.random_stale import SIZES, stale_feeds, stale_model

EXAMPLES = int(os.environ.get("BNFOLD_PROPERTY_EXAMPLES", "60"))
TOLERANCE = 2e-4  # float32, a dozen operators deep, relative to the largest element
figures = {"graphs": 0, "not run": 0, "sites": 0, "folded": 0, "second opinions": 0}


@settings(
    max_examples=EXAMPLES, derandomize=EXAMPLES == 60, deadline=None, database=None, phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)  # fmt: skip
@given(data=st.data())
def test_no_fold_believes_a_record(data: st.DataObject) -> None:
    model = stale_model(lambda n: data.draw(st.integers(0, n - 1)) if n > 1 else 0)
    if not model.graph.output:
        return
    feeds = [stale_feeds(model, size, seed) for seed, size in enumerate(SIZES)]
    figures["graphs"] += 1
    try:
        expected = [graphs.run(model, one) for one in feeds]
    except Exception:  # some records contradict each other, which ONNX Runtime notices when it loads
        figures["not run"] += 1
        return
    result = bnfold.fold(model)
    figures["sites"] += len(result.sites)
    figures["folded"] += len(result.folded)
    for one, outputs in zip(feeds, expected, strict=True):
        found = graphs.run(result.model, one)
        error = worst(outputs, found)
        if error > TOLERANCE:  # numbers may cancel; then a rounding of the weights does as much
            figures["second opinions"] += 1
            truth = Oracle(model).run(one)
            moved = [worst(truth, Oracle(model, perturbed=seed).run(one)) for seed in range(3)]
            allowed = 8 * max(*moved, worst(truth, widened(outputs)))
            off = worst(truth, widened(found))
            assert off < allowed, f"relative error {off:.1e} of\n{onnx.printer.to_text(model)}"


def widened(outputs: list[np.ndarray]) -> list[np.ndarray]:
    return [array.astype(np.float64) for array in outputs]


def test_the_random_models_are_worth_it() -> None:
    """Runs after the property: models that do not run, or whose affines stay, would prove nothing."""
    if figures["graphs"] < 40:
        pytest.skip("the property has not run, or stopped at its first failure")
    assert figures["not run"] < 0.2 * figures["graphs"], figures
    assert figures["folded"] > figures["graphs"], figures
    print(figures)


def record(model: onnx.ModelProto, name: str, *dims: int) -> onnx.ModelProto:
    info = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, dims)
    model.graph.value_info.append(info)
    return model


def custom() -> onnx.ModelProto:
    """The size of what an operator of another domain gives scales a convolution."""
    model = build(
        """g (float[N,4,H,W] x) => (float[N,4,H,W] y) {
            z = com.microsoft.Gelu (x)
            size = Size (z)
            number = Cast <to = 1> (size)
            a = Conv (z, w)
            b = Mul (a, number)
            y = BatchNormalization (b, scale, bias, mean, var)
        }""",
        {"w": weight(4, 4, 1, 1), **statistics(4)},
    )
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return record(model, "z", 1, 4, 6, 6)


def function() -> onnx.ModelProto:
    """A function that is called at two sizes records one of them."""
    numbers = {"w": weight(4, 4, 1, 1), **statistics(4)}
    model = build(
        """g (float[N,4,H,W] x) => (float[N,4,H,W] y, float[N,4,h,w] z) {
            y = local.F (x)
            half = MaxPool <kernel_shape = [2,2], strides = [2,2]> (x)
            z = local.F (half)
        }
        <domain: "local", opset_import: ["": 18]> F (a) => (d) {
            s = Sigmoid (a)
            size = Size (s)
            number = Cast <to = 1> (size)
            c = Conv (s, w)
            b = Mul (c, number)
            d = BatchNormalization (b, scale, bias, mean, var)
        }""",
        ir_version=10,
    )
    body = model.functions[0]
    for name, array in numbers.items():
        constant = helper.make_node("Constant", [], [name], value=onnx.numpy_helper.from_array(array))
        body.node.insert(0, constant)
    infos = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 4, 6, 6]) for name in "scb"]
    body.value_info.extend(infos)
    return model


def loop() -> onnx.ModelProto:
    """The body of a loop declares a size for what it carries."""
    return build(
        """g (float[N,4,H,W] x) => (float[N,4,H,W] y) {
            y = Loop (two, yes, x) <body = body (int64 i, bool go, float[1,4,6,6] a)
                                           => (bool on, float[?,?,?,?] d) {
                on = Identity (go)
                size = Size (a)
                number = Cast <to = 1> (size)
                c = Conv (a, w)
                b = Div (c, number)
                d = BatchNormalization (b, scale, bias, mean, var)
            }>
        }""",
        {"two": np.array(2), "yes": np.array(True), "w": weight(4, 4, 1, 1), **statistics(4)},
    )


def believe(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault that this is about: sizes are taken from records."""
    known = shape_inference._known

    def recorded(value: ir.Value, inferred: onnx.TypeProto | None) -> Any:
        shape, dtype = known(value, inferred)
        has_sizes = value.shape is not None and value.shape.is_static()
        return (value.shape.numpy() if has_sizes else shape), dtype

    monkeypatch.setattr(shape_inference, "_known", recorded)
    monkeypatch.setattr(skeleton, "_rank_only", lambda shape: shape)


@pytest.mark.parametrize("model", [custom(), function(), loop()], ids=["custom", "function", "loop"])
def test_a_size_that_is_only_recorded_scales_nothing(
    model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    def errors() -> list[float]:
        folded = bnfold.fold(model).model
        feeds = (stale_feeds(model, size, 0) for size in SIZES)
        return [worst(graphs.run(model, one), graphs.run(folded, one)) for one in feeds]

    assert max(errors()) < TOLERANCE
    believe(monkeypatch)
    assert min(errors()) > 5 * TOLERANCE


def test_the_rank_of_a_record_is_believed() -> None:
    """Only with two axes is the channel axis the one that a MatMul contracts."""
    model = build(
        """g (float[N,4] x) => (float[N,4] y) {
            z = com.microsoft.Gelu (x)
            a = BatchNormalization (z, scale, bias, mean, var)
            y = MatMul (a, w)
        }""",
        {"w": weight(4, 4), **statistics(4)},
    )
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert operators(bnfold.fold(model).model) == ["Gelu", "BatchNormalization", "MatMul"]
    folded = bnfold.fold(record(model, "z", 9, 4)).model
    assert "BatchNormalization" not in operators(folded)
    feeds = {"x": weight(3, 4, seed=5)}
    assert worst(graphs.run(model, feeds), graphs.run(folded, feeds)) < TOLERANCE
