"""Readers for whom numbers do not matter stand in no fold's way, and see what they saw before."""

from __future__ import annotations

import numpy as np
import pytest

import bnfold
from bnfold.result import FoldResult
from tests.graphs import build, fold_and_compare, kept_codes, operators, statistics, weight
from tests.graphs import run as in_runtime

X = "float[N,4,H,W] x"
NORM = "BatchNormalization({0}, scale, bias, mean, var)"
HELD = {
    "w": weight(4, 4, 3, 3),
    "v": weight(4, 4, 1, 1, seed=2),
    "k": weight(4, 1, 1, seed=3),
    "one": np.float32(1.5),
    "zero": np.int64(0),
    "table": weight(5, 2),
    **statistics(4),
    **statistics(4, 1, "o"),
}
OTHER = "BatchNormalization({0}, oscale, obias, omean, ovar)"


def folded(lines: str, outputs: str = "float[a,b,c,d] y", inputs: str = X) -> FoldResult:
    body = f"g ({inputs}) => ({outputs}) {{ {lines} }}"
    words = set("".join(c if c.isalnum() else " " for c in lines).split())
    model = build(body, {name: array for name, array in HELD.items() if name in words})
    result = fold_and_compare(model)
    x = np.random.default_rng(5).normal(size=(3, 4, 7, 6)).astype(np.float32)
    inputs_of = {"x": x, **({"p": np.array(True)} if " p" in inputs else {})}
    for before, after in zip(in_runtime(model, inputs_of), in_runtime(result.model, inputs_of), strict=True):
        np.testing.assert_allclose(before, after, rtol=1e-4, atol=1e-4 * np.abs(before).max())
    return result


def gone(lines: str, left: str, **options: str) -> FoldResult:
    result = folded(lines, **options)
    assert sorted(operators(result.model)) == sorted(left.split())
    assert not result.kept
    return result


def branch(lines: str) -> str:
    return (
        f"If(p) <then_branch = t () => (float[a,b,c,d] q) {{ {lines} }},"
        " else_branch = e () => (float[a,b,c,d] r) { r = Neg(x) }>"
    )


SEEN = {
    "Shape": "s = Shape(c)\n e = Expand(one, s)",
    "Size": "s = Size(c)\n e = Cast<to=1>(s)",
    "CastLike": "e = CastLike(one, c)",
    "dead": "d = Relu(c)\n f = Softmax(d)\n e = Identity(one)",
    "shape of a shape-preserving value": "d = Sigmoid(c)\n s = Shape(d)\n e = Expand(one, s)",
}


@pytest.mark.parametrize("seen", SEEN.values(), ids=SEEN)
def test_towards_producers(seen: str) -> None:
    result = folded(f"c = Conv(x, w)\n {seen}\n n = {NORM.format('c')}\n y = Mul(n, e)")
    assert "BatchNormalization" not in operators(result.model)
    assert not result.kept


@pytest.mark.parametrize("seen", SEEN.values(), ids=SEEN)
def test_towards_consumers(seen: str) -> None:
    lines = f"a = Sigmoid(x)\n c = {NORM.format('a')}\n {seen}\n v1 = Conv(c, v)\n y = Mul(v1, e)"
    result = folded(lines.replace("d = Sigmoid(c)", "d = Tanh(c)"))
    assert "BatchNormalization" not in operators(result.model)
    assert not result.kept


@pytest.mark.parametrize("seen", SEEN.values(), ids=SEEN)
@pytest.mark.parametrize("chain", ["c = Mul(a, k)\n n = {norm}", "c = {norm_a}\n n = Add(c, k)"])
def test_within_a_chain(seen: str, chain: str) -> None:
    """The value in the middle goes; what reads its shape reads another of the same shape."""
    chain = chain.format(norm=NORM.format("c"), norm_a=NORM.format("a"))
    result = folded(f"a = Conv(x, w)\n {chain}\n {seen}\n y = Mul(n, e)")
    assert "BatchNormalization" not in operators(result.model)
    assert not {"k", "k.folded"} & {tensor.name for tensor in result.model.graph.initializer}


@pytest.mark.parametrize("seen", SEEN.values(), ids=SEEN)
def test_within_a_chain_that_stays_and_is_made_shorter(seen: str) -> None:
    tail = f"n = {NORM.format('c')}\n r = Sigmoid(n)\n y = Mul(r, e)"
    result = folded(f"a = Sigmoid(x)\n c = Mul(a, k)\n {seen}\n {tail}")
    assert operators(result.model).count("BatchNormalization") == 1
    assert operators(result.model).count("Mul") == 1


def test_a_branch_that_takes_the_shape_of_a_value_in_the_middle() -> None:
    inner = "s = Shape(m)\n q = Expand(one, s)"
    lines = f"c = Conv(x, w)\n m = Mul(c, k)\n n = {NORM.format('m')}\n i = {branch(inner)}\n y = Mul(n, i)"
    gone(lines, "Conv If Mul", inputs=f"{X}, bool p")


def test_the_shape_itself_may_be_an_output() -> None:
    gone(
        f"c = Conv(x, w)\n n = Shape(c)\n y = {NORM.format('c')}", "Conv Shape",
        outputs="float[a,b,c,d] y, int64[4] n",
    )  # fmt: skip


def test_a_batchnorm_whose_shape_alone_is_read() -> None:
    lines = f"c = Sigmoid(x)\n n = {NORM.format('c')}\n s = Shape(n)\n e = Expand(one, s)\n y = Add(x, e)"
    gone(lines, "Sigmoid Shape Expand Add")


def test_a_dead_batchnorm_beside_a_living_one() -> None:
    result = folded(f"c = Conv(x, w)\n d = {OTHER.format('c')}\n f = Relu(d)\n y = {NORM.format('c')}")
    assert "BatchNormalization" not in operators(result.model)


def test_a_dead_node_reads_other_numbers_under_other_names() -> None:
    result = folded(f"c = Conv(x, w)\n d = Relu(c)\n f = Neg(d)\n y = {NORM.format('c')}")
    [dead, deader] = [n.output[0] for n in result.model.graph.node if n.op_type in ("Relu", "Neg")]
    assert dead != "d"
    assert deader != "f"


@pytest.mark.parametrize(
    ("lines", "codes"),
    [
        ("c = Conv(x, w)\n r = Relu(c)\n n = {norm}\n y = Concat<axis=1>(n, r)", {"BN301"}),
        ("c = Conv(x, w)\n r = Relu(c)\n s = Shape(c)\n e = Expand(one, s)\n f = Mul(r, e)\n n = {norm}\n "
         "m = Sigmoid(n)\n y = Mul(m, f)", {"BN301"}),
        # dead, but the runtime would have it fail where an index is out of range
        ("c = Conv(x, w)\n i = Cast<to=7>(c)\n j = Clip(i, zero, zero)\n d = Gather(table, j)\n n = {norm}\n "
         "y = Sigmoid(n)", {"BN301"}),
    ],
)  # fmt: skip
def test_a_reader_of_numbers_is_one(lines: str, codes: set[str]) -> None:
    result = folded(lines.format(norm=NORM.format("c")))
    assert operators(result.model).count("BatchNormalization") == 1
    assert codes <= kept_codes(result)


def test_a_branch_that_reads_numbers_is_a_reader() -> None:
    lines = f"c = Conv(x, w)\n n = {NORM.format('c')}\n i = {branch('q = Relu(c)')}\n y = Mul(n, i)"
    result = folded(lines, inputs=f"{X}, bool p")
    assert "BN301" in kept_codes(result)


P1 = "pads=[1,1,1,1]"


@pytest.mark.parametrize("seen", ["c", "d", "dn", "i"])
@pytest.mark.parametrize(
    "reads", ["s = Shape({0})\n e = Expand(one, s)", "f = Relu({0})\n e = Identity(one)"]
)
def test_branches_merge_whatever_takes_their_shape(seen: str, reads: str) -> None:
    """The reader stands before the sum, and so does what it reads afterwards."""
    result = folded(
        f"c = Conv<{P1}>(x, w)\n d = Conv(x, v)\n dn = {NORM.format('d')}\n i = {OTHER.format('x')}\n "
        f"{reads.format(seen)}\n z = Mul(x, e)\n p = Add(c, dn)\n q = Add(p, i)\n y = Add(q, z)"
    )
    assert operators(result.model).count("Conv") == 1
    assert "BatchNormalization" not in operators(result.model)
    assert len(result.merges) == 1


def test_a_sum_whose_shape_is_read_stays_a_sum() -> None:
    """It may be larger than its terms, so no other value certainly has its shape."""
    result = folded(
        f"c = Conv<{P1}>(x, w)\n d = Conv(x, v)\n b = Relu(x)\n p = Add(c, b)\n s = Shape(p)\n "
        "e = Expand(one, s)\n q = Add(p, d)\n y = Mul(q, e)"
    )
    assert not result.merges


@pytest.mark.parametrize("reader", ["q = Shape(m)", "q = CastLike(one, m)"])
def test_what_looks_at_no_number_leaves_the_bias_of_a_matmul_its_place(reader: str) -> None:
    """So the Add that is there takes the shift, and a second fold finds nothing more to do."""
    model = build(
        f"""g (float[2,4] x) => (float[2,3] y, {"int64" if "Shape" in reader else "float"}[?] q) {{
            s = Mul(x, scale) t = Add(s, shift) m = MatMul(t, w) {reader} y = Add(bias, m)
        }}""",
        {
            "scale": weight(4, seed=3), "shift": weight(4, seed=4), "w": weight(4, 3), "bias": weight(1),
            "one": np.ones(1, np.float32),
        },
    )  # fmt: skip
    result = fold_and_compare(model)
    assert operators(result.model)[:1] == ["MatMul"]
    assert operators(result.model).count("Add") == 1
    again = bnfold.fold(result.model).model
    assert again.SerializeToString(deterministic=True) == result.model.SerializeToString(deterministic=True)
