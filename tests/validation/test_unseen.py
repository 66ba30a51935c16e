"""What a comparison did not see is listed; a fault there agrees, and `cover` finds it where it can."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest

import bnfold
from bnfold.errors import InputError
from bnfold.report import json
from bnfold.validation.gaps import ranges
from bnfold.validation.results import Validation
from bnfold.validation.unseen import Gap, Unseen
from tests.graphs import build, statistics, weight

BRANCHES = """g (float[1,4] x, int64[3] k) => (float[1,3] y) {
    LIMIT
    [choice] y = If (rarely) <
        then_branch = t () => (float[1,3] a) { a = MatMul (x, rare) },
        else_branch = e () => (float[1,3] b) { b = MatMul (x, usual) }
    >
}"""
BELOW = """limit = Constant<value_int = -400> () low = ReduceMin <keepdims = 0> (k)
    rarely = Less (low, limit)"""
NEVER = """limit = Constant<value_int = 91> () two = Constant<value_int = 2> ()
    n = ReduceMax <keepdims = 0> (k)
    even = Mul (n, two) rarely = Equal (even, limit)"""
TABLE = "g (int64[2,3] k) => (float[2,3,2] y) { [lookup] e = Gather (table, k) y = MatMul (e, w) }"
DEAD = "g (float[N,4] x) => (float[N,3] y) { a = Gemm (x, v, b) r = Relu (a) y = MatMul (r, w) }"


def other(model: onnx.ModelProto, name: str, fault: Any) -> onnx.ModelProto:
    """The same model with other numbers in one constant."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for tensor in made.graph.initializer:
        if tensor.name == name:
            array = onnx.numpy_helper.to_array(tensor).copy()
            tensor.CopyFrom(onnx.numpy_helper.from_array(fault(array), name))
    return made


def compare(original: onnx.ModelProto, second: onnx.ModelProto, **checking: Any) -> Validation:
    return bnfold.validate(original, second, threads=1, **checking)


def left(found: Validation) -> dict[str, int]:
    """How many gaps of each kind are listed, of those of which there are any."""
    kinds: Mapping[str, Any] = json.validation_record(found)["unseen"]
    return {kind: len(gaps) for kind, gaps in kinds.items() if isinstance(gaps, list) and gaps}


def branching(condition: str) -> onnx.ModelProto:
    text = BRANCHES.replace("LIMIT", condition)
    return build(text, {"rare": weight(4, 3), "usual": weight(4, 3, seed=2)})


def test_a_branch_that_never_ran_is_listed_and_turned_by_what_its_condition_compares() -> None:
    original = branching(BELOW)
    wrong = other(original, "rare", lambda w: w * 2)
    found = compare(original, wrong)
    assert found.passed
    assert found.unseen.branches == (Gap("choice", 1, 2, "The then branch of If 'choice' never ran."),)
    assert left(found) == {"branches": 1}
    covered = compare(original, wrong, cover=True)
    assert not covered.passed
    assert left(covered) == {}
    assert covered.unseen.cover.endswith("and ended when all that it can aim at had been seen.")
    assert covered.labels[-1].startswith("turned ")


def test_what_cover_cannot_turn_stays_listed() -> None:
    original = branching(NEVER)
    covered = compare(original, original, cover=True)
    assert left(covered) == {"branches": 1}
    assert "compared the models on 0 that showed something new" in covered.unseen.cover
    assert covered.unseen.cover.endswith("after 2 rounds without anything new.")


def test_a_branch_within_a_branch_that_never_ran_is_not_listed_until_that_one_runs() -> None:
    text = """g (float[1,4] x, int64 k) => (float[1,4] y) {
        first = Constant<value_int = 700> () second = Constant<value_int = 701> ()
        low = Less (k, first) same = Equal (k, second)
        [outer] y = If (low) <
            then_branch = t () => (float[1,4] a) { a = Neg (x) },
            else_branch = e () => (float[1,4] b) {
                [inner] b = If (same) <
                    then_branch = u () => (float[1,4] c) { c = Mul (x, rare) },
                    else_branch = v () => (float[1,4] d) { d = Abs (x) }
                >
            }
        >
    }"""
    original = build(text, {"rare": weight(4)})
    given = {"x": weight(1, 4), "k": np.array(1)}
    (gap,) = compare(original, original, inputs=given).unseen.branches
    assert gap.name == "outer"
    deeper = compare(original, original, inputs=[given, given | {"k": np.array(900)}])
    assert [gap.name for gap in deeper.unseen.branches] == ["inner"]
    assert not compare(original, other(original, "rare", lambda w: w + 1), samples=1, cover=True).passed


def test_bools_go_through_their_combinations() -> None:
    text = """g (float[1,4] x, bool p, bool q) => (float[1,4] y) {
        no = Not (q) c = And (p, no)
        y = If (c) <
            then_branch = t () => (float[1,4] a) { a = Mul (x, rare) },
            else_branch = e () => (float[1,4] b) { b = Mul (x, usual) }
        >
    }"""
    original = build(text, {"rare": weight(4), "usual": weight(4, seed=2)})
    wrong = other(original, "rare", lambda w: w + 1)
    few = compare(original, wrong, samples=1, seed=1)
    assert (few.passed, left(few)) == (True, {"branches": 1})
    assert not compare(original, wrong, samples=1, seed=1, cover=True).passed


def test_a_body_that_never_ran_is_listed() -> None:
    text = """g (float[1,4] x, int64 trips) => (float[1,4] y) {
        none = Constant<value_int = 1000000> () left = Sub (trips, none)
        [again] y = Loop (left, , x) <body = b (int64 i, bool c, float[1,4] s) => (bool d, float[1,4] t) {
            d = Identity (c) t = Mul (s, w)
        }>
    }"""
    original = build(text, {"w": weight(4)})
    found = compare(original, other(original, "w", lambda w: w + 1))
    assert found.passed
    assert found.unseen.branches == (Gap("again", 0, 1, "The body of Loop 'again' never ran."),)


def test_a_branch_of_the_second_model_alone_is_listed() -> None:
    text = """g (float[1,4] x) => (float[1,4] y) {
        far = Constant<value_float = 123456789.0> () sum = ReduceMax <keepdims = 0> (x)
        hit = Greater (sum, far)
        [trap] y = If (hit) <
            then_branch = t () => (float[1,4] a) { a = Neg (x) },
            else_branch = e () => (float[1,4] b) { b = Relu (x) }
        >
    }"""
    found = compare(build("g (float[1,4] x) => (float[1,4] y) { y = Relu (x) }"), build(text))
    assert found.passed
    (gap,) = found.unseen.branches
    assert gap.sentence == "In the second model, the then branch of If 'trap' never ran."


def test_rows_that_no_index_met_are_listed_and_aimed_at() -> None:
    original = build(TABLE, {"table": weight(500, 4), "w": weight(4, 2)})

    def fault(table: np.ndarray) -> np.ndarray:
        table[311] *= 2
        return table

    wrong = other(original, "table", fault)
    found = compare(original, wrong)
    assert found.passed
    (gap,) = found.unseen.rows
    assert (gap.name, gap.total) == ("lookup", 500)
    assert any(first <= 311 <= last for first, last in gap.missing)
    assert sum(last - first + 1 for first, last in gap.missing) == 500 - gap.seen
    assert gap.sentence.startswith(f"{500 - gap.seen} of 500 rows of 'table' (read by 'lookup') were met")
    covered = compare(original, wrong, cover=True)
    assert not covered.passed
    assert left(covered) == {}
    right = compare(original, original, cover=True)
    assert right.passed
    assert left(right) == {}
    assert right.samples == len(right.labels) > 6
    assert set(right.labels[6:]) == {"rows 2×3"}


def test_a_table_that_is_met_whole_is_not_listed() -> None:
    original = build(TABLE, {"table": weight(4, 4), "w": weight(4, 2)})
    assert left(compare(original, original)) == {}


def test_channels_that_were_zero_throughout_are_listed() -> None:
    shift = np.array([0, 0, -1e7, 0, 0, -1e7], np.float32)
    original = build(DEAD, {"v": weight(4, 6), "b": shift, "w": weight(6, 3)})

    def fault(w: np.ndarray) -> np.ndarray:
        w[5] = 100
        return w

    found = compare(original, other(original, "w", fault))
    assert found.passed
    assert found.unseen.zero_channels == (
        Gap(
            "r",
            4,
            6,
            "2 of 6 channels of the value 'r' (axis 1) were zero throughout: 2, 5.",
            ((2, 2), (5, 5)),
        ),
    )
    assert found.unseen.not_known == ""


def test_cover_wakes_channels_that_other_kinds_leave_at_zero() -> None:
    """A channel that is above zero only where the numbers of all inputs are far below it."""
    v = np.array([[1, -1], [1, -1], [1, -1], [1, -1]], np.float32)
    original = build(
        DEAD.replace("float[N,3] y", "float[N,2] y"),
        {"v": v, "b": np.array([0.5, -600], np.float32), "w": weight(2, 2)},
    )

    def fault(w: np.ndarray) -> np.ndarray:
        w[1] = 5
        return w

    wrong = other(original, "w", fault)
    few = compare(original, wrong, samples=1)
    assert few.passed
    assert left(few) == {"zero_channels": 1, "sizes": 1}
    covered = compare(original, wrong, samples=1, cover=True)
    assert not covered.passed
    assert left(covered) == {}


def test_zeros_that_only_go_through_are_listed_where_they_begin() -> None:
    text = """g (float[1,3,8,8] x) => (float[1,4] y) {
        c = Conv (x, v, b) r = Relu (c) p = MaxPool <kernel_shape = [2,2]> (r) s = Mul (p, two)
        d = Conv <group = 4> (s, own) e = Relu (d) f = GlobalAveragePool (e) g = Flatten (f) y = Gemm (g, w)
    }"""
    constants = {"v": weight(4, 3, 1, 1), "b": np.array([0, -1e7, 0, 0], np.float32), "w": weight(4, 4)}
    constants |= {"own": np.abs(weight(4, 1, 1, 1)), "two": np.array(2, np.float32)}
    found = compare(build(text, constants), build(text, constants))
    assert [gap.name for gap in found.unseen.zero_channels] == ["r"]


def test_what_is_zero_by_construction_is_not_listed() -> None:
    text = """g (float[N,3] x) => (float[N,3] y) {
        n = Shape (x) zeros = ConstantOfShape (n) t = Transpose (zeros) u = Transpose (t) y = Add (x, u)
    }"""
    assert left(compare(build(text), build(text))) == {}


def test_inputs_and_outputs_count_too_with_or_without_the_oracle() -> None:
    text = "g (float[2,3] x) => (float[2,3] y, float[2,3] z) { y = Mul (x, w) z = Sub (x, x) }"
    model = build(text, {"w": np.array([1, 0, 2], np.float32)})
    given = {"x": np.array([[1, 2, 0], [3, 4, 0]], np.float32)}
    for oracle in ("auto", "off"):
        found = compare(model, model, inputs=given, oracle=oracle)
        assert [gap.sentence for gap in found.unseen.zero_channels] == [
            "1 of 3 channels of the input 'x' (axis 1) were zero throughout: 2.",
            "2 of 3 channels of the output 'y' (axis 1) were zero throughout: 1 to 2.",
            "The output 'z' was zero throughout.",
        ]
        assert ("is not known, since" in found.unseen.not_known) == (oracle == "off")


def test_sizes_that_were_not_tried_are_listed_once() -> None:
    text = "g (float[N,4,H] x) => (float[N,2,H] y) { y = Conv (x, w) }"
    model = build(text, {"w": weight(2, 4, 1)})
    one = compare(model, model, inputs={"x": np.ones((1, 4, 6), np.float32)})
    assert [gap.sentence for gap in one.unseen.sizes] == [
        "The dynamic dimension N was tried at the size 1 only.",
        "The dynamic dimension H was tried at the size 6 only.",
    ]
    assert left(compare(model, model)) == {}
    few = compare(model, model, samples=1)
    assert left(few) == {"sizes": 2}
    assert few.notes == ()
    assert left(compare(model, model, samples=1, cover=True)) == {}


def test_outputs_of_which_only_integers_were_compared() -> None:
    text = """g (float[1,5] x, int64[1] k) => (int64[1] top, int64[1] twice, int64[2] size) {
        s = MatMul (x, w) top = ArgMax <axis = 1, keepdims = 0> (s) twice = Add (k, k) size = Shape (s)
    }"""
    original = build(text, {"w": weight(5, 3)})
    found = compare(original, other(original, "w", lambda w: w * 1.5))
    assert found.passed
    (gap,) = found.unseen.integers_only
    assert (gap.name, gap.seen, gap.total) == ("top", 0, None)
    assert "holds int64 and comes from floats" in gap.sentence


def test_of_a_fold_that_was_proved_value_by_value_integers_hide_nothing() -> None:
    text = """g (float[1,3,6,6] x) => (int64[1,1,6,6] top) {
        c = Conv (x, w) n = BatchNormalization (c, scale, bias, mean, var) top = ArgMax <axis = 1> (n)
    }"""
    original = build(text, {"w": weight(4, 3, 1, 1), **statistics(4)})
    found = compare(original, bnfold.fold(original).model)
    assert found.is_fold
    assert found.layers
    assert left(found) == {}


def test_small_channels_that_decide_nothing_are_listed() -> None:
    """The difference of two large sums: nothing but rounding is left of it in float32."""
    text = """g (float[4,64] x) => (float[4,3] y) {
        a = MatMul (x, w) b = MatMul (x, v) c = Sub (a, b) y = Concat <axis = 1> (a, c)
    }"""
    w = weight(64, 2) * 1000
    v = w[:, :1] * (1 + 2e-7)
    text = text.replace("c = Sub (a, b)", "h = Slice (a, zero, one, one) c = Sub (h, b)")
    constants = {"w": w, "v": v.astype(np.float32), "zero": np.array([0]), "one": np.array([1])}
    model = build(text, constants)
    found = compare(model, model)
    (gap,) = found.unseen.undecided_channels
    assert (gap.name, gap.seen, gap.total, gap.missing) == ("y", 2, 3, ((2, 2),))
    assert "decide nothing in ONNX Runtime" in gap.sentence
    (coarse,) = compare(model, model, oracle="off").unseen.undecided_channels
    assert "without the oracle only 100 times the bound" in coarse.sentence
    assert compare(model, model, tolerance=1e-4).unseen.undecided_channels == ()


def test_where_all_was_seen_nothing_is_listed() -> None:
    text = """g (float[N,3,H,W] x) => (float[N,4] y) {
        c = Conv (x, w) n = BatchNormalization (c, scale, bias, mean, var) r = Relu (n)
        p = GlobalAveragePool (r) y = Flatten (p)
    }"""
    original = build(text, {"w": weight(4, 3, 1, 1), **statistics(4)})
    found = compare(original, bnfold.fold(original).model)
    assert found.unseen == Unseen()


def test_the_same_request_gives_the_same_report() -> None:
    original = build(TABLE, {"table": weight(300, 4), "w": weight(4, 2)})
    one, two = (json.validation_record(compare(original, original, cover=True)) for _ in range(2))
    assert one == two


def test_a_budget_that_ends_is_said() -> None:
    original = build(TABLE, {"table": weight(50_000, 4), "w": weight(4, 2)})
    found = compare(original, original, cover=True)
    assert "tried 200 more inputs" in found.unseen.cover
    assert found.unseen.cover.endswith("with its budget of 200 inputs.")
    assert left(found) == {"rows": 1}
    short = compare(original, original, cover=True, cover_seconds=1e-9)
    assert "tried 0 more inputs" in short.unseen.cover
    assert short.unseen.cover.endswith("with its budget of 1e-09 seconds.")


def test_cover_takes_no_inputs() -> None:
    model = branching(BELOW)
    with pytest.raises(InputError, match="random inputs are drawn"):
        compare(model, model, cover=True, inputs={"x": np.ones((1, 4), np.float32), "k": np.array([1, 2, 3])})


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_a_budget_is_a_time(seconds: float) -> None:
    model = branching(BELOW)
    with pytest.raises(InputError, match="is not a time"):
        compare(model, model, cover=True, cover_seconds=seconds)


def test_ranges_are_runs_of_flags() -> None:
    assert ranges(np.array([1, 1, 0, 1, 0, 0, 1], np.bool_)) == ((0, 1), (3, 3), (6, 6))
    assert ranges(np.zeros(3, np.bool_)) == ()


def test_sentences_are_cut_kind_by_kind() -> None:
    gaps = tuple(Gap(str(number), 0, 1, f"Gap {number}.") for number in range(5))
    unseen = Unseen(rows=gaps, sizes=gaps[:4], cover="It drew.")
    assert list(unseen.sentences(3)) == [
        *("It drew.", "Gap 0.", "Gap 1.", "Gap 2.", "… and 2 more like this."),
        *("Gap 0.", "Gap 1.", "Gap 2.", "Gap 3."),
    ]
    assert len(list(replace(unseen, cover="").sentences())) == 9
