"""Nothing that a fold does may change a function: random graphs over the whole operator table."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import numpy as np
import onnx
import onnx.printer
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import bnfold
from bnfold.folding import search
from bnfold.folding.ways import Guide
from bnfold.oracle.oracle import Oracle
from tests import graphs
from tests.random_graphs import random_feeds, random_model
from tests.random_streams import stream_model

Make = Callable[[Callable[[int], int], type], onnx.ModelProto]
EXAMPLES = int(os.environ.get("BNFOLD_PROPERTY_EXAMPLES", "120"))
TOLERANCE = 2e-4  # float32, a dozen operators deep, relative to the largest element
EXACT = 1e-8  # float64
_AFFINE = ("BatchNormalization", "Mul", "Div", "Sub", "Add")
figures = {"graphs": 0, "sites": 0, "folded": 0, "second opinions": 0}


@settings(
    max_examples=EXAMPLES, derandomize=EXAMPLES == 120, deadline=None, database=None,
    phases=[Phase.generate],  # shrinking such a graph takes minutes; its text is in the message
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)  # fmt: skip
@given(data=st.data())
def test_a_fold_changes_no_function(data: st.DataObject) -> None:
    choices: list[int] = []

    def choose(n: int) -> int:
        choices.append(data.draw(st.integers(0, n - 1)) if n > 1 else 0)
        return choices[-1]

    check(random_model, choose, choices)


def check(make: Make, choose: Callable[[int], int], choices: list[int]) -> None:
    """Demand all that a fold promises of one random model; `choose` notes what it chose in `choices`."""
    model = make(choose, np.float32)
    if not model.graph.output:
        return
    result = bnfold.fold(model)
    onnx.checker.check_model(result.model, full_check=True)
    figures["graphs"] += 1
    figures["sites"] += len(result.sites)
    figures["folded"] += len(result.folded)
    assert [v.name for v in result.model.graph.output] == [v.name for v in model.graph.output]
    assert [v.name for v in result.model.graph.input] == [v.name for v in model.graph.input]
    assert result.nodes_after <= result.nodes_before
    assert affines(result.model.graph) <= affines(model.graph)
    again = bnfold.fold(result.model).model
    assert again.SerializeToString(deterministic=True) == result.model.SerializeToString(deterministic=True)
    before, after = graphs.exposing_shared(model, result.model)
    for seed in range(2):
        feeds = random_feeds(model, seed)
        error = worst(graphs.run(before, feeds), graphs.run(after, feeds))
        if error > TOLERANCE:
            # numbers may cancel; in float64, where they cannot so easily, there is no excuse
            figures["second opinions"] += 1
            text = onnx.printer.to_text(model)
            assert exact_error(make, choices, seed) < EXACT, f"relative error {error:.1e} of\n{text}"


def exact_error(make: Make, choices: list[int], seed: int) -> float:
    """The error of the same graph grown and folded in float64, evaluated by the oracle."""
    replay: Iterator[int] = iter(choices)
    model = make(lambda _: next(replay), np.float64)
    feeds = random_feeds(model, seed)
    before, after = graphs.exposing_shared(model, bnfold.fold(model).model)
    return worst(Oracle(before).run(feeds), Oracle(after).run(feeds))


def worst(expected: list[np.ndarray], actual: list[np.ndarray]) -> float:
    """The largest error of any output, relative to its largest element."""
    errors = [0.0]
    for a, b in zip(expected, actual, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        assert np.array_equal(np.isfinite(a), np.isfinite(b))
        a, b = a[np.isfinite(a)].astype(np.float64), b[np.isfinite(b)].astype(np.float64)
        if a.size:
            errors.append(float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30)))
    return max(errors)


def affines(graph: onnx.GraphProto) -> int:
    """The number of nodes, here and in subgraphs, that are an affine or could be one."""
    count = sum(node.op_type in _AFFINE for node in graph.node)
    bodies = [a.g for node in graph.node for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
    return count + sum(affines(body) for body in bodies)


@settings(
    max_examples=EXAMPLES, derandomize=EXAMPLES == 120, deadline=None, database=None, phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)  # fmt: skip
@given(data=st.data())
def test_a_stream_that_carries_shifts_changes_no_function(data: st.DataObject) -> None:
    choices: list[int] = []

    def choose(n: int) -> int:
        choices.append(data.draw(st.integers(0, n - 1)) if n > 1 else 0)
        return choices[-1]

    check(stream_model, choose, choices)


@settings(
    max_examples=EXAMPLES // 2, derandomize=EXAMPLES == 120, deadline=None, database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)  # fmt: skip
@given(data=st.data())
def test_what_searches_remember_changes_no_fold(data: st.DataObject) -> None:
    make = data.draw(st.sampled_from((random_model, stream_model)))
    model = make(lambda n: data.draw(st.integers(0, n - 1)) if n > 1 else 0, np.float32)
    with_memory = bnfold.fold(model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "holds_for_all", lambda *_: False)
        always = property(lambda _: True, lambda *_: None)
        patch.setattr(Guide, "depends_on_mode", always, raising=False)
        without = bnfold.fold(model)
    assert [site.status for site in with_memory.sites] == [site.status for site in without.sites]
    assert with_memory.model.SerializeToString(deterministic=True) == without.model.SerializeToString(
        deterministic=True
    )


def test_the_random_graphs_are_worth_it() -> None:
    """Runs behind the property: a generator whose affines mostly stay would prove nothing."""
    if figures["graphs"] < 100:
        pytest.skip("the property has not run, or stopped at its first failure")
    assert figures["folded"] >= 1.5 * figures["graphs"], figures
    print(figures)
