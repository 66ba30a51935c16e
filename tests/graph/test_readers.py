"""For which readers the numbers of a value matter."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from bnfold.graph.readers import Readers
from tests.graphs import build, weight

HEAD = "g (float[2,4,3,3] x, bool k) => (float[2,4,3,3] y{out})"
HELD = {
    "w": weight(4, 4, 1, 1),
    "zero": np.int64(0),
    "flat": np.array([2, 36]),
    "one": np.float32(1),
    "trips": np.int64(2),
}
IF = (
    "If(k) <then_branch = t () => (float[2,4,3,3] p) {{ {then} }},"
    " else_branch = e () => (float[2,4,3,3] q) {{ q = Neg(x) }}>"
)
LOOP = (
    "Loop(trips, k, x) <body = b (int64 i, bool go, float[2,4,3,3] v)"
    " => (bool on, float[2,4,3,3] u) { on = Identity(go)\n u = Add(v, c) }>"
)
ALIVE = "y = Relu(x)"


def readers_of(lines: str, out: str = "") -> tuple[list[str], list[str]]:
    """What reads `c` and has to be asked, by operator; and the values that then change unseen."""
    body = f"{HEAD.format(out=out)} {{ c = Conv(x, w)\n {lines} }}"
    named = {name: held for name, held in HELD.items() if name in body}
    local = '<domain: "local", opset_import: ["": 18]> Twice (a) => (b) { b = Add(a, a) }'
    model = ir.from_proto(build(f"{body}\n{local}", named))
    value = next(node for node in model.graph if node.op_type == "Conv").outputs[0]
    readers = Readers(model)
    asked = [node.op_type for node, _ in readers.of(value)]
    return asked, [one.name or "" for one in readers.unheeded_after(value)]


@pytest.mark.parametrize(
    "lines",
    [
        "s = Shape(c)\n y = Expand(x, s)",
        "n = Size(c)\n f = Cast<to=1>(n)\n y = Mul(x, f)",
        "t = CastLike(one, c)\n y = Mul(x, t)",
        "r = RandomNormalLike(c)\n y = Mul(x, r)",
        "r = RandomUniformLike(c)\n y = Mul(x, r)",
        "y = " + IF.format(then="s = Shape(c)\n p = Expand(x, s)"),
    ],
)
def test_a_reader_of_a_type_or_a_shape_is_not_asked(lines: str) -> None:
    assert readers_of(lines) == ([], [])


@pytest.mark.parametrize(
    ("lines", "changed"),
    [
        (f"d = Relu(c)\n {ALIVE}", "d"),
        (f"d = Relu(c)\n e = Softmax(d)\n f = Add(e, c)\n {ALIVE}", "d e f"),
        ("d = Relu(c)\n s = Shape(d)\n y = Expand(x, s)", "d"),
        ("d = Transpose(c)\n e = Reshape(d, flat)\n n = Size(e)\n f = Cast<to=1>(n)\n y = Mul(x, f)", "d e"),
        ("y = " + IF.format(then="d = Relu(c)\n p = Relu(x)"), "d"),
        (f"d = {IF.format(then='p = Relu(c)')}\n e = Neg(d)\n {ALIVE}", "p d e"),
    ],
)
def test_a_reader_that_reaches_no_output_by_its_numbers_is_not_asked(lines: str, changed: str) -> None:
    asked, unseen = readers_of(lines)
    assert asked == []
    assert set(unseen) == set(changed.split())


@pytest.mark.parametrize(
    ("lines", "asked"),
    [
        ("y = Relu(c)", ["Relu"]),
        ("y = CastLike(c, x)", ["CastLike"]),
        ("y = " + IF.format(then="p = Relu(c)"), ["Relu"]),
        (f"y = {LOOP}", ["Add"]),
        (f"d = {LOOP}\n {ALIVE}", ["Add"]),
        # the shape of what is found depends on the numbers
        ("d = NonZero(c)\n n = Size(d)\n f = Cast<to=1>(n)\n y = Mul(x, f)", ["NonZero"]),
        # runtimes run dead nodes too, and fail where an index is out of range
        (f"i = Cast<to=7>(c)\n d = Gather(x, i)\n {ALIVE}", ["Cast"]),
        (f"i = Cast<to=7>(c)\n d = Div(zero, i)\n {ALIVE}", ["Cast"]),
        # nobody knows what these do
        (f"d = local.Unknown(c)\n {ALIVE}", ["Unknown"]),
        (f"s = local.Shape(c)\n {ALIVE}", ["Shape"]),
        (f"d = local.Twice(c)\n {ALIVE}", ["Twice"]),
        (f"d = Relu(c)\n e = local.Unknown(d)\n {ALIVE}", ["Relu"]),
    ],
)
def test_any_other_reader_is_asked(lines: str, asked: list[str]) -> None:
    assert readers_of(lines) == (asked, [])


def test_an_output_of_a_subgraph_matters_and_so_does_one_of_the_model() -> None:
    assert readers_of(f"d = Relu(c)\n {ALIVE}", out=", float[2,4,3,3] d") == (["Relu"], [])
    assert readers_of(f"d = Split<num_outputs=2>(c)\n {ALIVE}") == ([], ["d"])


def test_what_was_inserted_since_matters() -> None:
    model = ir.from_proto(build(f"{HEAD.format(out='')} {{ c = Conv(x, w)\n {ALIVE} }}", {"w": HELD["w"]}))
    node = next(iter(model.graph))
    readers = Readers(model)
    assert readers.of(node.outputs[0]) == []
    model.graph.insert_after(node, ir.Node("", "Relu", [node.outputs[0]], num_outputs=1))
    assert [reader.op_type for reader, _ in readers.of(node.outputs[0])] == ["Relu"]
