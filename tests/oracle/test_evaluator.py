"""How long values live, what is shown on the way, and which node an error names."""

from __future__ import annotations

import tracemalloc
import weakref
from typing import Any

import numpy as np
import onnx
import pytest

from bnfold.oracle.evaluator import Evaluator, NotEvaluableError
from bnfold.oracle.ops import operator
from bnfold.oracle.ops.call import Call, Operator
from bnfold.oracle.oracle import Oracle
from tests.graphs import build, weight
from tests.oracle.ops.nodes import floats


def test_a_value_lives_no_longer_than_its_last_reader() -> None:
    chain = "\n".join(f"v{n + 1} = Relu(v{n})" for n in range(8))
    model = build(f"g (float[4] v0) => (float y) {{ {chain}\n w = Mul(v8, v0)\n y = Add(w, v8) }}")
    made: list[weakref.ref[np.ndarray]] = []
    most = 0

    def choose(_: Call) -> Operator:
        def watched(call: Call, *inputs: Any) -> Any:
            nonlocal most
            most = max(most, sum(reference() is not None for reference in made))
            result = np.array(operator(call)(call, *inputs)[0])
            made.append(weakref.ref(result))
            return result

        return watched

    Oracle(model, choose=choose).run({"v0": floats(4)})
    assert len(made) == 10
    assert most == 2


def test_weights_are_read_when_needed_and_not_kept() -> None:
    model = build(
        "g (float[2,64] x) => (float y) { a = MatMul(x, w)\n b = MatMul(a, w)\n y = Add(b, x) }",
        {"w": weight(64, 64)},
    )
    oracle = Oracle(model)
    x = floats(2, 64)
    w = model.graph.initializer[0]
    expected = x.astype(float) @ np.linalg.matrix_power(
        np.frombuffer(w.raw_data, "<f4").reshape(64, 64).astype(float), 2
    )
    assert np.allclose(oracle.run({"x": x})[0], expected + x, rtol=1e-13)
    assert set(oracle.values({"x": x})) == {"x", "a", "b", "y"}


def constants_alive(model: onnx.ModelProto, feeds: dict[str, Any]) -> list[int]:
    """While each node is evaluated: how many arrays of 64 × 64 of the nodes before it are still there."""
    inputs: list[weakref.ref[np.ndarray]] = []
    alive = []

    def choose(_: Call) -> Operator:
        def watched(call: Call, *values: Any, **bodies: Any) -> Any:
            alive.append(sum(reference() is not None for reference in inputs))
            inputs.extend(weakref.ref(value) for value in values if np.shape(value) == (64, 64))
            return operator(call)(call, *values, **bodies)

        return watched

    Oracle(model, choose=choose).run(feeds)
    assert len(inputs) > 1
    return alive


def test_a_weight_is_in_double_only_while_its_node_is_evaluated() -> None:
    chain = (
        "g (float[2,64] x) => (float y) { a = MatMul(x, w)\n b = Relu(a)\n c = Neg(b)\n y = MatMul(c, w) }"
    )
    assert constants_alive(build(chain, {"w": weight(64, 64)}), {"x": floats(2, 64)}) == [0, 0, 0, 0]


def test_so_is_one_of_a_constant_node_and_of_a_body() -> None:
    held = onnx.numpy_helper.from_array(weight(64, 64), "w")
    model = build("g (float[2,64] x) => (float y) { a = MatMul(x, k)\n b = Relu(a)\n y = MatMul(b, k) }")
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["k"], value=held))
    feeds = {"x": floats(2, 64)}
    assert constants_alive(model, feeds) == [0, 0, 0, 0]
    assert "k" in Oracle(model).values(feeds)
    branches = """g (float[2,64] x, bool c) => (float y) {
      y = If (c) <
        then_branch = t () => (float b) { a = MatMul(x, w)\n r = Relu(a)\n b = MatMul(r, w) },
        else_branch = e () => (float d) { d = Identity(x) } > }"""
    inner = build(branches)
    inner.graph.node[0].attribute[0].g.initializer.append(held)
    assert constants_alive(inner, {**feeds, "c": np.array(True)}) == [0, 0, 0, 0]


def test_one_weight_under_many_names_takes_no_more_memory() -> None:
    size, names = 512, range(12)
    copies = "\n".join(f"w{n} = Identity({f'w{n - 1}' if n else 'w'})" for n in names)
    products = "\n".join(f"x{n + 1} = MatMul(x{n}, w{n})" for n in names)
    text = f"g (float[1, {size}] x0) => (float[1, {size}] x{len(names)}) {{ {copies}\n {products} }}"
    shared, given = weight(size, size) / 16, floats(1, size)
    model = build(text, {"w": shared.astype(np.float32)})
    expected = given.astype(np.float64)
    for _ in names:
        expected = expected @ shared.astype(np.float64)
    tracemalloc.start()
    [found] = Oracle(model).run({"x0": given})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert peak < len(names) / 3 * 8 * size * size


def test_a_copy_of_a_weight_that_is_fed_is_a_copy_of_what_is_fed() -> None:
    stored, fed, given = weight(64, 64), weight(64, 64, seed=2), floats(2, 64)
    copies = "{ c = Identity(w)\n d = Identity(c)\n y = MatMul(x, d) }"
    model = build(f"g (float[2,64] x, float[64,64] w) => (float y) {copies}", {"w": stored})
    expected = given.astype(np.float64) @ fed.astype(np.float64)
    [found] = Oracle(model).run({"x": given, "w": fed})
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    [found] = Oracle(model).run({"x": given})
    np.testing.assert_allclose(found, given.astype(np.float64) @ stored.astype(np.float64), rtol=1e-12)


def test_a_copy_of_a_weight_that_is_replaced_stays_replaced() -> None:
    model = build(
        "g (float[2,64] x) => (float y) { c = Identity(w)\n d = Identity(c)\n y = MatMul(x, d) }",
        {"w": weight(64, 64)},
    )
    zeros = np.zeros((64, 64))
    evaluator = Evaluator(model.graph, {"": 18})
    [found] = evaluator.run(
        {"x": floats(2, 64).astype(np.float64)}, see=lambda name, _: zeros if name == "c" else None
    )
    assert not np.any(found)


def test_a_constant_that_is_replaced_stays_replaced() -> None:
    held = onnx.numpy_helper.from_array(weight(2, 200), "w")
    model = build("g (float[2,200] x) => (float y) { a = Mul(x, k)\n y = Add(a, k) }")
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["k"], value=held))
    seen: dict[str, Any] = {}

    def see(name: str, value: Any) -> Any:
        seen[name] = value
        return np.ones((2, 200)) if name == "k" else None

    Oracle(model).walk({"x": floats(2, 200)}, see)
    assert np.array_equal(seen["y"], floats(2, 200).astype(float) + 1)


def test_an_output_that_is_an_input_or_a_constant() -> None:
    text = "g (float[2] x) => (float[2] x, float[2] small, float[400] w) { y = Relu(x) }"
    constants = {"small": weight(2), "w": weight(400)}
    x = floats(2)
    outputs = Oracle(build(text, constants)).run({"x": x})
    for expected, actual in zip((x, *constants.values()), outputs, strict=True):
        assert actual.dtype == np.float64
        assert np.array_equal(actual, expected)


def test_the_node_that_cannot_be_evaluated_is_named() -> None:
    model = build("g (float[2] x) => (float y) { y = Reshape(x, s) }", {"s": np.array([3])})
    model.graph.node[0].name = "/head/reshape"
    with pytest.raises(NotEvaluableError, match=r"Reshape \(/head/reshape\): .*reshape") as caught:
        Oracle(model).run({"x": floats(2)})
    assert '"--oracle off"' in caught.value.fix


def test_a_value_that_nothing_computes_is_named() -> None:
    model = build("g (float[2] x) => (float y) { y = Relu(x) }")
    model.graph.node[0].input[0] = "lost"
    with pytest.raises(NotEvaluableError, match="lost"):
        Evaluator(model.graph, {"": 18}).run({"x": floats(2)})


def test_results_in_fewer_bits_are_refused_rather_than_believed() -> None:
    model = build("g (float[2] x) => (float y) { y = Relu(x) }")
    oracle = Oracle(model, choose=lambda _: lambda _, x: [x.astype(np.float32)])
    with pytest.raises(NotEvaluableError, match="computes in float32"):
        oracle.run({"x": floats(2)})


def test_what_is_shown_can_be_replaced() -> None:
    model = build("g (float[2] x) => (float y) { a = Neg(x)\n b = Relu(a)\n y = Neg(b) }")
    seen: dict[str, Any] = {}

    def see(name: str, value: Any) -> Any:
        seen[name] = value
        return np.array([5.0, 6.0]) if name == "a" else None

    Oracle(model).walk({"x": floats(2)}, see)
    assert list(seen) == ["a", "b", "y"]
    assert np.array_equal(seen["a"], -floats(2).astype(float))
    assert seen["y"].tolist() == [-5, -6]
