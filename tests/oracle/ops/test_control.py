"""Branches, loops and scans against ONNX Runtime, and what their bodies see."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bnfold.oracle.evaluator import NotEvaluableError
from bnfold.oracle.oracle import Oracle
from tests.graphs import build, weight
from tests.oracle.ops.nodes import agrees_on, floats

X = {"x": floats(2, 3)}
BRANCHES = """
g (float[2,3] x, bool c) => (float y) {
  seen = Relu(x)
  y = If (c) <
    then_branch = t () => (float a) { k = Constant <value_float = 0.1> ()
 a = Mul(seen, k) },
    else_branch = e () => (float b) { b = Add(seen, w) } >
}"""


@pytest.mark.parametrize("condition", [True, False])
def test_branches_see_what_is_around_them(condition: bool) -> None:
    model = build(BRANCHES, {"w": weight(2, 3)})
    agrees_on(model, {**X, "c": np.array(condition)})


LOOP = """
g (float[2,3] x, int64 n, bool c) => (float last, float steps) {
  last, steps = Loop (n, c, x) <
    body = b (int64 i, bool go, float[2,3] s) => (bool on, float[2,3] t, float[2,3] u) {
      f = Cast <to = 1> (i)
      t = Add(s, f)
      u = Mul(t, x)
      limit = Constant <value_float = 2.5> ()
      on = Less(f, limit) } >
}"""


@pytest.mark.parametrize(("trips", "condition"), [(2, True), (9, True), (1, True)])
def test_loops_stack_what_they_collect(trips: int, condition: bool) -> None:
    last, steps = agrees_on(build(LOOP), {**X, "n": np.array(trips), "c": np.array(condition)})
    assert steps.shape == (min(trips, 4), 2, 3)
    assert last.dtype == steps.dtype == np.float64


def test_a_loop_without_a_condition_ends_as_its_body_says() -> None:
    model = build(LOOP)
    model.graph.node[0].input[1] = ""
    assert agrees_on(model, {**X, "n": np.array(6), "c": np.array(False)})[1].shape == (4, 2, 3)


def test_a_loop_that_makes_no_step_is_refused_if_it_collects() -> None:
    with pytest.raises(NotEvaluableError, match="its body never runs"):
        Oracle(build(LOOP)).run({**X, "n": np.array(0), "c": np.array(True)})
    plain = (
        LOOP.replace(", float steps", "").replace("last, steps", "last").replace(", float[2,3] u) {", ") {")
    )
    assert np.array_equal(Oracle(build(plain)).run({**X, "n": np.array(0), "c": np.array(True)})[0], X["x"])


@pytest.mark.parametrize(("backwards", "axis"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_scan(backwards: int, axis: int) -> None:
    graph = f"""
    g (float[3,3] x, float[3] s) => (float[3] last, float[3,3] sums) {{
      last, sums = Scan <
        num_scan_inputs = 1, scan_input_axes = [{axis}], scan_input_directions = [{backwards}],
        scan_output_axes = [{axis}], scan_output_directions = [{1 - backwards}],
        body = b (float[3] before, float[3] row) => (float[3] after, float[3] sum) {{
          after = Add(before, row)
          sum = Identity(after) }}> (s, x)
    }}"""
    agrees_on(build(graph), {"x": floats(3, 3), "s": floats(3)})


BATCHES = """
g (%s float[2,3] s, float[2,4,3] x, float[2,4,3] z) => (float[2,3] last, float[2,4,3] sums) {
  last, sums = Scan <
    num_scan_inputs = 2, directions = [0, 1],
    body = b (float[3] before, float[3] row, float[3] other) => (float[3] after, float[3] sum) {
      half = Mul(before, other)
      after = Add(half, row)
      sum = Identity(after) }> (%s, s, x, z)
}"""


def test_scan_of_opset_8_has_a_batch() -> None:
    feeds = {"s": floats(2, 3), "x": floats(2, 4, 3), "z": floats(2, 4, 3, seed=1)}
    agrees_on(build(BATCHES % ("", ""), opset=8), feeds)
    lengths = {"n": np.array([4, 2], np.int64)}
    model = build(BATCHES % ("int64[2] n,", "n"), opset=8)
    _, sums = agrees_on(model, {**lengths, **feeds})
    assert not sums[1, 2:].any()


def test_a_map_over_sequences() -> None:
    graph = """
    g (seq(float[2]) parts, seq(float[2]) others, float[2] k) => (seq(float[2]) sums, seq(float[2]) halves) {
      sums, halves = SequenceMap <
        body = b (float[2] one, float[2] other, float[2] same) => (float[2] sum, float[2] half) {
          sum = Add(one, other)
          half = Mul(one, same) }> (parts, others, k)
    }"""
    parts, others = ([floats(2, seed=seed + 3 * k) for seed in range(3)] for k in range(2))
    feeds: dict[str, Any] = {"parts": parts, "others": others, "k": np.array([0.5, 2.0], np.float32)}
    outputs: Any = Oracle(build(graph)).run(feeds)
    for one, other, total, half in zip(parts, others, *outputs, strict=True):
        assert np.array_equal(total, one.astype(float) + other)
        assert np.array_equal(half, one * np.array([0.5, 2.0]))


def test_a_loop_in_a_branch_reads_through_both() -> None:
    graph = """
    g (float[2] x, bool c, int64 n) => (float[2] y) {
      z = Neg(x)
      y = If (c) <
        then_branch = t () => (float[2] a) {
          a = Loop (n, , x) <
            body = b (int64 i, bool go, float[2] s) => (bool on, float[2] r) {
              on = Identity(go)
              r = Add(s, z) } > },
        else_branch = e () => (float[2] d) { d = Identity(z) } >
    }"""
    x = floats(2)
    y = agrees_on(build(graph), {"x": x, "c": np.array(True), "n": np.array(3)})[0]
    assert np.allclose(y, -2.0 * x)
