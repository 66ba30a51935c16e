"""Inputs and outputs are paired by name or by order, and every difference for a caller is said."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import parser

from bnfold.errors import InputError, ModelError
from bnfold.runtime import sessions
from bnfold.runtime.interface import as_ir, interface
from bnfold.validation.pairing import model_differences, pair

BASE = "(float[N, 3] x) => (float[N, 3] y)"


def model(signature: str, body: str = "y = Identity(x)", opset: int = 18) -> ir.Model:
    return as_ir(
        parser.parse_model(f'<ir_version: 9, opset_import: ["": {opset}]> g {signature} {{ {body} }}')
    )


def paired(before: str, after: str, match: str = "name"):
    return pair(interface(model(before)), interface(model(after)), match)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (BASE, BASE),
        (BASE, "(float[batch, 3] x) => (float[?, 3] y)"),
        ("(float[N, 3] x) => (float[] y)", BASE),
    ],
    ids=["equal", "another symbol", "a rank that only the folded model declares"],
)
def test_no_difference(before: str, after: str):
    found = paired(before, after)
    assert (found.problems, found.notes) == ((), ())
    assert found.ports == interface(model(before)).inputs


@pytest.mark.parametrize(
    ("signature", "said"),
    [
        ("(float[1, 3] x) => (float[N, 3] y)", "input 'x' has the shape [1, 3] instead of [N, 3]"),
        ("(float[N, M] x) => (float[N, 3] y)", "input 'x' has the shape [N, M]"),
        ("(float[N, 3] x) => (float[1, 3] y)", "output 'y' has the shape [1, 3]"),
        ("(float[N, 3] x) => (float[N, 3, 1] y)", "output 'y' has the shape [N, 3, 1]"),
        ("(float[N, 3] x) => (float[N, 4] y)", "output 'y' has the shape [N, 4] instead of [N, 3]"),
        ("(float[N, 3] x) => (float[] y)", "output 'y' has the shape of unknown rank"),
        ("(float[N, 3] x) => (double[N, 3] y)", "output 'y' has the type float64 instead of float32"),
        ("(float16[N, 3] x) => (float[N, 3] y)", "input 'x' has the type float16 instead of float32"),
    ],
)
def test_what_can_be_compared_all_the_same_is_noted(signature: str, said: str):
    found = paired(BASE, signature)
    assert found.problems == ()
    (note,) = found.notes
    assert said in note
    assert note.endswith(".")


@pytest.mark.parametrize(
    ("signature", "said"),
    [
        ("(float[N, 4] x) => (float[N, 3] y)", "input 'x' has the shape [N, 4] instead of [N, 3]"),
        ("(float[N, 3] x) => (int64[N, 3] y)", "output 'y' has the type int64 instead of float32"),
        ("(bfloat16[N, 3] x) => (float[N, 3] y)", "input 'x' has the type bfloat16"),
        ("(float[N, 3] x, float z) => (float[N, 3] y)", "inputs are named 'x', 'z' instead of 'x'."),
        ("(float[N, 3] x) => (float[N, 3] x, float[N, 3] y)", "outputs are named 'x', 'y' instead of 'y'."),
    ],
)
@pytest.mark.parametrize("match", ["name", "order"])
def test_what_cannot_be_compared_is_a_problem(signature: str, said: str, match: str):
    (problem,) = paired(BASE, signature, match).problems
    assert said in problem
    assert "--match" not in problem


def test_other_names_are_paired_by_order_on_request():
    other = "(float[N, 3] input.1) => (float[N, 3] 42)".replace("input.1", "input_1").replace("42", "o")
    found = paired(BASE, other)
    assert [problem.split(" --")[0] for problem in found.problems] == [
        "The inputs are named 'input_1' instead of 'x'.",
        "The outputs are named 'o' instead of 'y'.",
    ]
    assert all(problem.endswith("--match order pairs them by their order.") for problem in found.problems)
    ordered = paired(BASE, other, "order")
    assert ordered.problems == ()
    assert ordered.notes == ("The input 'x' is named 'input_1'.", "The output 'y' is named 'o'.")


def test_the_same_names_in_another_order():
    before, after = "(float[2] a, float[3] b) => (float[2] y)", "(float[3] b, float[2] a) => (float[2] y)"
    found = paired(before, after)
    assert found.notes == ("The inputs come in another order: 'b', 'a' instead of 'a', 'b'.",)
    assert [one.folded.name for one in found.inputs] == ["a", "b"]
    assert len(paired(before, after, "order").problems) == 2  # [2] and [3] cannot be fed the same


def test_another_way_to_match_is_an_input_error():
    with pytest.raises(InputError, match="'place' is not a way"):
        paired(BASE, BASE, "place")


# --- sizes and types that both take


def test_sizes_are_those_that_both_accept():
    found = paired(
        "(float[N, 3, ?] x, float[N] k, float[7, M] z) => (float[N] y)",
        "(float[4, C, 8] x, float[N] k, float[L, M] z) => (float[4] y)",
    )
    assert [port.shape for port in found.ports] == [(4, 3, 8), (4,), (7, "M")]
    assert len(found.notes) == 3


def test_sizes_that_no_input_can_have():
    (problem,) = paired(
        "(float[N] x, float[N] k) => (float[N] y)", "(float[1] x, float[2] k) => (float[N] y)"
    ).problems
    assert problem == "No inputs suit both models: the second fixes N of the original at 1 and at 2."


def test_numbers_are_those_that_both_types_hold():
    found = paired(
        "(float[N] x, int64[N] k, double[N] w) => (float[N] y)",
        "(float16[N] x, int32[N] k, float[N] w) => (float16[N] y)",
    )
    assert [port.type for port in found.drawn] == ["float16", "int32", "float32"]
    assert [port.type for port in found.ports] == ["float32", "int64", "float64"]
    feeds = {"x": np.array([0.1], np.float16), "k": np.array([7], np.int32), "w": np.array([1], np.float32)}
    widened = found.for_original(feeds)
    assert [array.dtype for array in widened.values()] == [np.float32, np.int64, np.float64]
    again = found.for_folded(widened)
    assert all(again[name].dtype == feeds[name].dtype and again[name] == feeds[name] for name in feeds)
    with pytest.raises(ModelError, match="'k' has a number that int32 does not hold"):
        found.for_folded({**widened, "k": np.array([2**40])})


def test_outputs_are_compared_in_the_types_of_the_original():
    found = paired("(float x) => (float y, int64 k)", "(float x) => (float16 y, int32 k)")
    y, k = found.restored([np.float16([0.1]), np.int32([3])])
    assert (y.dtype, k.dtype, float(y[0]), int(k[0])) == (np.float32, np.int64, float(np.float16(0.1)), 3)
    narrow = paired("(float x) => (int32 k)", "(float x) => (int64 k)")
    assert narrow.restored([np.array([2**40])])[0].dtype == np.int64  # never cut to fit


@pytest.mark.parametrize(
    ("after", "kinds"),
    [
        ("(float x) => (float y, float z)", ["float32", None]),
        ("(float x) => (float16 y, float z)", ["float16", None]),
        ("(float16 x) => (float y, float z)", ["float16", None]),
        ("(double x) => (double y, float z)", ["float32", None]),
    ],
)
def test_the_coarser_type_bounds_the_error(after: str, kinds: list[str | None]):
    found = paired("(float x) => (float y, float z)", after)
    assert found.coarser(["float32", None]) == kinds


# --- the folded model under the original's names


@pytest.mark.parametrize(
    ("signature", "body"),
    [
        ("(float[2] p, float[2] q) => (float[2] r, float[2] s)", "r = Sub(p, q) s = Neg(q)"),
        ("(float[2] y, float[2] x) => (float[2] a, float[2] b)", "a = Sub(y, x) b = Neg(x)"),  # crossed
        ("(float[2] p, float[2] q) => (float[2] r, float[2] s)", "x = Neg(q) r = Add(p, x) s = Identity(x)"),
    ],
    ids=["plain", "names of others", "names of values inside"],
)
def test_a_model_is_renamed_and_computes_the_same(signature: str, body: str):
    before = model("(float[2] a, float[2] x) => (float[2] y, float[2] z)", "y = Sub(a, x) z = Neg(x)")
    after = model(signature, body)
    names = [value.name for value in (*after.graph.inputs, *after.graph.outputs)]
    found = pair(interface(before), interface(after), "order")
    aligned = found.aligned(after)
    assert interface(aligned) == interface(before)
    assert [value.name for value in (*after.graph.inputs, *after.graph.outputs)] == names  # a copy
    feeds = {"a": np.float32([1, 2]), "x": np.float32([5, 7])}
    for one, other in zip(*(sessions.run(session(m), feeds) for m in (before, aligned)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_outputs_that_are_inputs_or_come_twice_get_names_of_their_own():
    before = model("(float[2] x) => (float[2] y, float[2] z)", "y = Identity(x) z = Identity(x)")
    after = model("(float[2] p) => (float[2] p, float[2] p)", "q = Neg(p)")
    found = pair(interface(before), interface(after), "order")
    outputs = sessions.run(session(found.aligned(after)), {"x": np.float32([1, 2])})
    assert [array.tolist() for array in outputs] == [[1, 2], [1, 2]]


def test_outputs_in_another_order_are_brought_into_order():
    before = model("(float[2] x) => (float[2] y, float[2] z)", "y = Neg(x) z = Abs(x)")
    after = model("(float[2] x) => (float[2] z, float[2] y)", "y = Neg(x) z = Abs(x)")
    found = pair(interface(before), interface(after))
    outputs = sessions.run(session(found.aligned(after)), {"x": np.float32([1, 2])})
    assert [array.tolist() for array in outputs] == [[-1, -2], [1, 2]]


def test_a_model_with_the_same_names_stays_as_it_is():
    before, after = model(BASE), model(BASE)
    assert pair(interface(before), interface(after)).aligned(after) is after


def session(one: ir.Model):
    return sessions.session(one, optimized="off", threads=1)


# --- opsets and metadata


def test_opsets_and_lost_metadata_are_differences():
    before, after = model(BASE), model(BASE, opset=17)
    before.metadata_props.update({"names": "cat", "stride": "32", "author": "me", "bnfold.record": "1"})
    after.metadata_props.update({"stride": "16", "author": "me", "more": "new"})
    before.opset_imports["ai.onnx.ml"], after.opset_imports["ai.onnx.ml"] = 3, 4
    assert sorted(model_differences(before, after)) == [
        "Metadata of the original has changed: stride.",
        "Metadata of the original is missing: names.",
        "The opset is 17 instead of 18.",
        "The opset of the domain ai.onnx.ml is 4 instead of 3.",
    ]
    assert list(model_differences(before, before)) == []
