"""Operators that only ONNX Runtime knows: their values come from it, and everything else is in float64."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from bnfold.oracle.evaluator import NotEvaluableError
from bnfold.validation.unknown_operators import Oracles
from bnfold.validation.validate import validate
from tests.graphs import build, run, weight

NORM = """g ({kind}[N,16] x) => ({kind}[N,4] y) {{
  c = MatMul (x, w)
  s, mean, deviation, sum = com.microsoft.SkipSimplifiedLayerNormalization <epsilon = 1e-5> (c, c, gamma)
  y = MatMul (sum, v)
}}"""
WEIGHTS = {"w": weight(16, 8), "v": weight(8, 4), "gamma": weight(8)}
X = {"x": np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)}


def model(text: str, constants: dict[str, np.ndarray] | None = None, **options: int) -> ir.Model:
    made = build(text, constants, **options)
    for domain in ("com.microsoft", "my"):
        made.opset_import.append(onnx.helper.make_opsetid(domain, 1))
    return ir.from_proto(made)


def skip_norm(kind: str = "float") -> ir.Model:
    dtype = {"float": np.float32, "float16": np.float16}[kind]
    return model(NORM.format(kind=kind), {name: array.astype(dtype) for name, array in WEIGHTS.items()})


def test_what_stands_before_and_behind_is_in_float64() -> None:
    original = skip_norm()
    oracles = Oracles(original)
    assert oracles.sentence == ""
    values = oracles.of(original).values(X)
    w, v = WEIGHTS["w"].astype(float), WEIGHTS["v"].astype(float)
    assert np.abs(values["c"] - X["x"].astype(float) @ w).max() < 1e-14
    rounded = values["c"].astype(np.float32)
    assert np.array_equal(values["sum"], (rounded + rounded).astype(float))
    assert np.abs(values["y"] - values["sum"] @ v).max() < 1e-14
    assert oracles.sentence == (
        "ONNX Runtime gave the values of SkipSimplifiedLayerNormalization, which the oracle cannot evaluate: "
        "what stands before and behind it is compared in float64."
    )


def test_inputs_have_the_types_of_the_model() -> None:
    """In float16, the sum has eleven bits, and so has what follows, though its type is recorded nowhere."""
    text = NORM.format(kind="float16").replace(
        "y = MatMul (sum, v)",
        "t, m2, d2, sum2 = com.microsoft.SkipSimplifiedLayerNormalization <epsilon = 1e-5> (sum, s, gamma)"
        " y = MatMul (sum2, v)",
    )
    half = {name: array.astype(np.float16) for name, array in WEIGHTS.items()}
    original = model(text, half)
    values = Oracles(original).of(original).values({"x": X["x"].astype(np.float16)})
    for name in ("sum", "sum2"):
        assert np.array_equal(values[name], values[name].astype(np.float16).astype(float))
    assert not np.array_equal(values["c"], values["c"].astype(np.float16).astype(float))


def test_equal_nodes_get_equal_values_and_one_session(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    real = Oracles._session

    def counted(self: Oracles, made: onnx.ModelProto, *, is_random: bool) -> object:
        opened.append(made.SerializeToString(deterministic=True))
        return real(self, made, is_random=is_random)

    monkeypatch.setattr(Oracles, "_session", counted)
    original, other = skip_norm(), skip_norm()
    for number, node in enumerate(other.graph):
        node.name = f"renamed {number}"
    oracles = Oracles(original)
    first, second = (oracles.of(one).run(X)[0] for one in (original, other))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, oracles.of(original, perturbed=0).run(X)[0])
    assert len(set(opened)) == 1
    assert list(oracles._sessions) == opened[:1]


def test_what_the_original_does_not_have_is_not_taken() -> None:
    """An operator that the second model alone contains would be judged by its own rounding."""
    original = skip_norm()
    other = model(NORM.format(kind="float").replace("1e-5", "1e-3"), WEIGHTS)
    oracles = Oracles(original)
    with pytest.raises(NotEvaluableError, match="SkipSimplifiedLayerNormalization"):
        oracles.of(other).run(X)
    assert oracles.of(original).run(X)
    assert Oracles(other).of(other).run(X)


def test_what_the_runtime_does_not_know_stays_unknown() -> None:
    original = model("g (float[N,16] x) => (float[N,16] y) { y = my.Own (x) }")
    oracles = Oracles(original)
    for _ in range(2):
        with pytest.raises(NotEvaluableError, match="operators of my"):
            oracles.of(original).run(X)
    assert list(oracles._sessions.values()) == [None]
    assert oracles.sentence == ""


def test_what_is_random_is_the_same_in_both() -> None:
    text = """g (float[N,16] x) => (float[N,16] y, float[N,16] z) {
      a = RandomNormalLike (x)
      b = RandomNormalLike (x)
      y = Add (a, x)
      z = Add (b, x) }"""
    original, other = model(text), model(text)
    oracles = Oracles(original)
    y, z = oracles.of(original).run(X)
    assert np.std(y - X["x"]) > 0.5
    assert not np.array_equal(y, z)
    for again in (original, other):
        assert np.array_equal(oracles.of(again).run(X), [y, z])


def test_a_node_of_a_body_is_taken() -> None:
    text = """g (float[N,16] x, bool c) => (float[N,16] y) {
      y = If (c) <
        then_branch = t () => (float[N,16] a) { a = RandomUniformLike <seed = 3.0> (x) },
        else_branch = e () => (float[N,16] b) { b = Neg (x) } > }"""
    original = model(text)
    oracles = Oracles(original)
    y = oracles.of(original).run({**X, "c": np.array(True)})[0]
    assert 0 <= y.min() < y.max() <= 1
    assert "RandomUniformLike" in oracles.sentence


def test_an_input_that_is_left_out_stays_so() -> None:
    original = model("g (float[N,16] x) => (float[N,16] y) { y = com.microsoft.Trilu (x, ) }")
    y = Oracles(original).of(original).run(X)[0]
    assert np.array_equal(y, np.triu(X["x"]).astype(float))


def test_the_cost_counts_what_stands_behind() -> None:
    original = skip_norm()
    assert Oracles(original).cost(X) == 3 * (16 * 8 + 8 * 4)


def test_the_runtime_agrees_with_the_whole() -> None:
    original = skip_norm()
    expected = run(ir.to_proto(original), X)[0]
    assert np.allclose(Oracles(original).of(original).run(X)[0], expected, rtol=1e-5, atol=1e-5)


def test_a_fold_around_such_an_operator_is_proved() -> None:
    original = skip_norm()
    right, wrong = skip_norm(), skip_norm()
    wrong.graph.initializers["v"].const_value = ir.tensor(WEIGHTS["v"] * np.float32(1.001))
    result = validate(original, right)
    assert result.passed, result.failures
    assert result.layers[0].name == "c"
    assert result.layers[-1].name == "y"
    assert "ONNX Runtime gave the values of SkipSimplifiedLayerNormalization" in result.oracle
    bad = validate(original, wrong)
    assert not bad.passed
    assert bad.blame is not None
    assert bad.blame.layer.name == "y"


def test_a_random_operator_is_judged_by_what_stands_around_it() -> None:
    text = """g (float[N,16] x) => (float[N,4] y) {
      c = MatMul (x, w)
      r = RandomNormalLike (c)
      y = MatMul (r, v) }"""
    used = {name: WEIGHTS[name] for name in ("w", "v")}
    original = model(text, used)
    result = validate(original, model(text, used))
    assert result.passed, result.failures
    assert result.layers[-1].name == "y"
    assert not validate(original, model(text, {**used, "v": used["v"] * np.float32(1.001)})).passed
