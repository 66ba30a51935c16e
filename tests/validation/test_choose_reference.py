"""The oracle is taken where it can be had, within a budget, and what was taken instead is said."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from bnfold.errors import InputError
from bnfold.oracle.evaluator import NotEvaluableError
from bnfold.oracle.multiply_adds import multiply_adds
from bnfold.validation import choose_reference, unknown_operators
from tests.graphs import build, weight

MODEL = ir.from_proto(
    build("g (float[N,4] x) => (float[N,8] y) { m = MatMul (x, w) y = Relu (m) }", {"w": weight(4, 8)})
)
UNKNOWN = ir.from_proto(build("g (float[N,4] x) => (float[N,4] y) { y = local.Mystery (x) }"))


def samples(*batches: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [{"x": rng.normal(size=(batch, 4)).astype(np.float32)} for batch in batches]


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_the_original_in_float64_is_the_reference(mode: choose_reference.OracleMode) -> None:
    given = samples(1, 3)
    found = choose_reference.find(MODEL, given, mode)
    assert (found.chosen, found.sentence) == (
        (0, 1),
        "The reference is the original, evaluated in float64.",
    )
    (y,) = found.outputs(1, 1)
    assert y.dtype == np.float64
    np.testing.assert_allclose(y, np.maximum(given[1]["x"].astype(float) @ weight(4, 8), 0), rtol=1e-14)


def test_without_it_the_original_in_float32_is() -> None:
    found = choose_reference.find(MODEL, samples(1, 3), "off")
    assert (found.oracle, found.chosen) == (None, (0, 1))
    assert (found.decides, found.outputs(0, 2)) == (False, [None, None])
    assert "ONNX Runtime on the CPU with its optimizer off (as asked for)" in found.sentence


def test_what_it_cannot_evaluate_falls_back_and_says_why() -> None:
    found = choose_reference.find(UNKNOWN, samples(1), "auto")
    assert (found.oracle, found.chosen) == (None, (0,))
    assert "Mystery" in found.sentence
    assert found.sentence.endswith(").")
    with pytest.raises(NotEvaluableError, match="Mystery"):
        choose_reference.find(UNKNOWN, samples(1), "on")


def test_an_operator_that_refuses_when_it_sees_its_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_oracle: object, _feeds: object) -> list[object]:
        raise NotEvaluableError("The oracle cannot evaluate Relu: its input is odd.")

    monkeypatch.setattr(choose_reference.Oracle, "run", refuse)
    assert (
        "(The oracle cannot evaluate Relu: its input is odd)"
        in choose_reference.find(MODEL, samples(1), "auto").sentence
    )
    with pytest.raises(NotEvaluableError):
        choose_reference.find(MODEL, samples(1), "on")


def test_the_budget_takes_the_samples_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    given = samples(1, 50, 2, 50)
    small, large = (multiply_adds(MODEL, feeds) for feeds in given[:2])
    assert (small, large) == (32, 1600)
    monkeypatch.setattr(choose_reference, "BUDGET", choose_reference.PROOF_EVALUATIONS * small + 3 * small)
    found = choose_reference.find(MODEL, given, "auto")
    assert found.chosen == (0, 2)
    assert found.sentence.endswith("To save time, 2 of 4 inputs were compared.")
    assert choose_reference.find(MODEL, given, "on").chosen == (0, 1, 2, 3)


def test_small_samples_alone_are_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose_reference, "BUDGET", choose_reference.PROOF_EVALUATIONS * 32 + 200)
    assert choose_reference.find(MODEL, samples(1, 2, 50), "auto").chosen == (0, 1)
    monkeypatch.setattr(choose_reference, "LONGEST_PROOF", 1000)
    found = choose_reference.find(MODEL, samples(50, 1, 2), "auto")
    assert (found.oracle, found.chosen) == (None, (0, 1, 2))


def test_an_expensive_first_sample_is_evaluated_and_others_only_where_they_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choose_reference, "BUDGET", choose_reference.PROOF_EVALUATIONS * 32 + 200)
    found = choose_reference.find(MODEL, samples(50, 1, 60), "auto")
    assert found.chosen == (0, 1, 2)
    assert list(found.refused) == [2]
    assert [found.outputs(number, 1)[0] is None for number in range(3)] == [False, False, True]
    assert "1 of 3 inputs were compared with the original in ONNX Runtime" in found.sentence
    assert found.provable([2, 0, 1])[0] == 0


@pytest.mark.parametrize("refused", [1, 3])
def test_it_falls_back_sample_by_sample(monkeypatch: pytest.MonkeyPatch, refused: int) -> None:
    real = choose_reference.Oracle.run

    def run(oracle: choose_reference.Oracle, feeds: dict[str, np.ndarray]) -> list[object]:
        if len(next(iter(feeds.values()))) == refused:
            raise NotEvaluableError("The oracle cannot evaluate Relu: it is empty.")
        return real(oracle, feeds)

    monkeypatch.setattr(choose_reference.Oracle, "run", run)
    found = choose_reference.find(MODEL, samples(3, 1, 4, 1), "auto")
    assert found.chosen == (0, 1, 2, 3)
    batches = [None if y is None else len(y) for n in found.chosen for y in found.outputs(n, 1)]
    assert batches == [None if batch == refused else batch for batch in (3, 1, 4, 1)]
    count = batches.count(None)
    assert found.decides
    assert found.sentence.endswith(
        f"It cannot evaluate {count} of the inputs, which were compared with the original in ONNX Runtime on "
        "the CPU with its optimizer off: The oracle cannot evaluate Relu: it is empty."
    )
    assert found.provable((3, 2, 1, 0)) == tuple(n for n in (3, 2, 1, 0) if batches[n] is not None)
    demanded = choose_reference.find(MODEL, samples(4, refused), "on")
    with pytest.raises(NotEvaluableError):
        demanded.outputs(1, 1)


def test_a_sample_whose_cost_cannot_be_found_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def count(_model: object, feeds: dict[str, np.ndarray], _unknown: object) -> int:
        if len(feeds["x"]) == 1:
            raise NotEvaluableError("The oracle cannot evaluate Relu: it is empty.")
        return 1

    monkeypatch.setattr(unknown_operators, "multiply_adds", count)
    found = choose_reference.find(MODEL, samples(3, 1), "auto")
    assert (found.chosen, list(found.refused), found.outputs(1, 1)) == ((0, 1), [1], [None])


def test_a_budget_for_nothing_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose_reference, "BUDGET", choose_reference.PROOF_EVALUATIONS * 32)
    monkeypatch.setattr(choose_reference, "LONGEST_PROOF", choose_reference.PROOF_EVALUATIONS * 32)
    found = choose_reference.find(MODEL, samples(1, 3), "auto")
    assert (found.oracle, found.chosen) == (None, (0, 1))
    assert "takes too long; `--oracle on` uses it in any case" in found.sentence
    assert choose_reference.find(MODEL, samples(1, 3), "on").oracle is not None


def test_each_size_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []

    def count(_model: object, feeds: dict[str, np.ndarray], _unknown: object) -> int:
        counted.append(len(feeds["x"]))
        return 1

    monkeypatch.setattr(unknown_operators, "multiply_adds", count)
    choose_reference.find(MODEL, samples(1, 3, 1, 3, 1), "auto")
    assert counted == [1, 3]


def test_conditioning_is_what_a_rounding_of_the_weights_moves() -> None:
    """The sum of these products cancels to a thousandth, so that roundings show a thousandfold."""
    w = np.array([[1.0], [-1.0], [1.0], [-0.999]], np.float32)
    model = ir.from_proto(build("g (float[1,4] x) => (float[1,1] y) { y = MatMul (x, w) }", {"w": w}))
    feeds = {"x": np.ones((1, 4), np.float32)}
    (moved,) = choose_reference.find(model, [feeds], "on").conditioning(model, feeds, 2.0**-24)
    assert 100 * 2.0**-24 < moved.largest < 4010 * 2.0**-24
    (calm,) = choose_reference.find(MODEL, samples(1), "on").conditioning(MODEL, samples(1)[0], 2.0**-24)
    assert 0 < calm.largest < 10 * 2.0**-24


def test_conditioning_sees_what_rounding_can_tip_over() -> None:
    """A step is tipped over by a rounding of the value before it, though no weight is there to be rounded."""
    text = (
        "g (float[1,64] x) => (float[1,64] y, int64[1] k) "
        "{ d = Mul (x, x) y = Floor (d) k = ArgMax <axis = 1, keepdims = 0> (d) }"
    )
    model = ir.from_proto(build(text))
    feeds = {"x": np.full((1, 64), np.sqrt(np.float32(2)), np.float32)}
    floor, index = choose_reference.find(model, [feeds], "on").conditioning(model, feeds, 2.0**-24)
    assert floor.largest == pytest.approx(1.0, abs=1e-5)  # d is a rounding away from 2
    assert index.largest == 1.0  # all are as good as equal
    calm = {"x": np.linspace(1.1, 1.3, 64, dtype=np.float32)[None]}
    floor, index = choose_reference.find(model, [calm], "on").conditioning(model, calm, 2.0**-24)
    assert (floor.largest < 1e-5, index.largest) == (True, 0.0)


def test_conditioning_leaves_sizes_as_they_are() -> None:
    """A size that was rounded in float could not be evaluated, or would be another size."""
    text = """g (float[N,4] x) => (float[M] y) {
      n = Shape <start = 0, end = 1> (x)
      f = Cast <to = 1> (n)
      half = Mul (f, factor)
      m = Floor (half)
      k = Cast <to = 7> (m)
      p = MatMul (x, w)
      column = Reshape (p, minus)
      y = Slice (column, zero, k)
    }"""
    constants = {"factor": np.array([0.5], np.float32), "w": weight(4, 1), "minus": np.array([-1])}
    model = ir.from_proto(build(text, {**constants, "zero": np.array([0])}))
    feeds = {"x": np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)}
    (moved,) = choose_reference.find(model, [feeds], "on").conditioning(model, feeds, 2.0**-24)
    assert moved.count == 4, "half of the rows"
    assert 0 < moved.largest < 20 * 2.0**-24


def test_the_proof_takes_as_many_samples_as_the_budget_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    cost = choose_reference.PROOF_EVALUATIONS * multiply_adds(MODEL, samples(1)[0])
    found = choose_reference.find(MODEL, samples(*[1] * 5), "on")
    monkeypatch.setattr(choose_reference, "PROOF_BUDGET", 3 * cost)
    assert found.provable((4, 0, 1, 2, 3)) == (4, 0, 1)
    monkeypatch.setattr(choose_reference, "PROOF_BUDGET", 0)
    assert found.provable(range(5)) == (0,)


def test_an_unknown_mode() -> None:
    with pytest.raises(InputError, match="'maybe' is not a way to use the oracle") as caught:
        choose_reference.find(MODEL, samples(1), "maybe")  # type: ignore[arg-type]
    assert "auto, on, off" in caught.value.fix
