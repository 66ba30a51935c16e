"""What integers are used for is read from the graph, and from nothing but their names without one."""

from __future__ import annotations

import numpy as np
import pytest

from bnfold.inputs import uses
from bnfold.inputs.uses import Use
from bnfold.runtime.interface import Port, as_ir, interface
from tests.graphs import build, weight


def use(text: str, constants: dict[str, np.ndarray] | None = None, name: str = "k") -> Use:
    """The use of an input of a graph."""
    model = as_ir(build(text, constants))
    return uses.of(interface(model).inputs, model)[name]


@pytest.mark.parametrize(
    ("body", "size"),
    [
        ("y = Gather(table, k)", 7),
        ("y = Gather<axis = 1>(table, k)", 5),
        ("y = Gather<axis = -1>(table, k)", 5),
        ("w = Cast<to = 7>(k) u = Unsqueeze(w, zero) y = Gather(table, u)", 7),
        ("t = Transpose(table) y = Gather(t, k)", 5),
        ("a = Gather(table, k) b = Gather<axis = 1>(table, k) y = MatMul(b, a)", 5),
        ("m = Mul(k, k) y = Gather(table, m)", None),  # another number than that of the input
        ("s = Shape(k) y = Gather(table, s)", None),
        ("f = Cast<to = 1>(k) y = MatMul(f, table)", None),
    ],
)
def test_the_smallest_table_that_is_indexed(body: str, size: int | None):
    constants = {"table": weight(7, 5), "zero": np.array([0])}
    found = use(f"g (int64[5] k) => (float[?] y) {{ {body} }}", constants)
    assert found.table == size
    assert bool(found.gathers) == (size is not None)


def test_a_table_that_a_branch_indexes():
    text = """g (bool c, int64[2] k) => (float[?,5] y) {
        y = If(c) <
            then_branch = t () => (float[?,5] a) { a = Gather(table, k) },
            else_branch = e () => (float[?,5] b) { b = Gather(other, k) }
        >
    }"""
    assert use(text, {"table": weight(7, 5), "other": weight(9, 5)}).table == 7


@pytest.mark.parametrize(
    "body",
    [
        "y = ConstantOfShape(k)",
        "d = Mul(k, two) y = ConstantOfShape(d)",
        "h = Gather(k, zero) c = Concat<axis = 0>(h, two) y = Expand(one, c)",
        "s = Squeeze(k) f = Cast<to = 1>(s) r = Ceil(f) n = Cast<to = 7>(r) y = Range(nought, n, step)",
        "y = Tile(one, k)",
    ],
)
def test_numbers_that_size_tensors(body: str):
    constants = {
        "two": np.array([2]),
        "zero": np.array([0]),
        "one": np.ones(1, np.float32),
        "nought": np.array(0),
        "step": np.array(1),
    }
    assert use(f"g (int64[1] k) => (float[?] y) {{ {body} }}", constants) == Use(sizes=True)


def test_the_beginning_and_the_step_of_a_range_are_small_numbers():
    text = "g (int64 a, int64 b, int64 c) => (int64[?] y) { y = Range(a, b, c) }"
    assert [use(text, name=name) for name in "abc"] == [
        Use(choices=(0, 1)),
        Use(sizes=True),
        Use(choices=(1, 2)),
    ]


def test_a_single_number_that_is_compared():
    body = "e = Equal(k, rate) y = Not(e)"
    assert use(f"g (int64 k) => (bool y) {{ {body} }}", {"rate": np.array(16000)}).choices == (16000,)
    # one of many that are compared, as tokens are with padding, decides nothing for the model
    assert use(f"g (int64[9] k) => (bool[9] y) {{ {body} }}", {"rate": np.array(1)}).choices == ()


def test_steps_of_a_recurrent_layer():
    text = """g (float[T,N,3] x, int32[N] k) => (float[?,?,?,?] y, float[?,?,?] h) {
        y, h = GRU<hidden_size = 4>(x, w, r, none, k)
    }""".replace("none", "")
    assert use(text, {"w": weight(1, 12, 3), "r": weight(1, 12, 4)}).steps


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("attention_mask", Use(mask=True)),
        ("mask", Use(mask=True)),
        ("mask_token_count", Use()),
        ("unmasked", Use()),
        ("input_ids", Use()),
        ("x_length", Use(steps=True)),
        ("seq_lens", Use(steps=True)),
        ("lengthy", Use()),
    ],
)
def test_names(name: str, expected: Use):
    port = Port(name, "int64", ("N", "T") if expected.mask else ("N",))
    found = uses.of([port, Port("x", "float32", ("N", "T"))])
    assert found == {name: expected}


def test_where_an_input_looks_things_up_and_what_it_is_compared_with():
    text = """g (int64[5] k) => (float[?,5] y, bool[5] p, bool q) {
        a = Gather (table, k) b = Gather (table, k) y = Add (a, b)
        n = Neg (k) p = Less (n, low) m = ReduceMin <keepdims = 0> (k) q = Equal (m, high)
    }"""
    found = use(text, {"table": weight(7, 5), "low": np.array(-40), "high": np.array(6)})
    assert found == Use(table=7, gathers=("a", "b"), compared=(-40, 6))


def test_the_size_of_a_table_that_callers_may_replace_is_not_known():
    model = build(
        "g (int64[2] k, float[R,5] table) => (float[?,5] y) { y = Gather(table, k) }",
        {"table": weight(7, 5)},
    )
    read = as_ir(model)
    assert uses.of(interface(read).inputs, read) == {"k": Use()}
